"""Pictures seen anew in every epoch: mirrored, moved, partly hidden. What varies comes from the given generator."""

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.uint8]


def mirrored(pictures: Pictures, which: NDArray[np.bool_]) -> Pictures:
    """Left and right changed where `which`, bool [n], says so; [n, height, width, channels]."""
    out = pictures.copy()
    out[which] = pictures[which, :, ::-1]
    return out


def moved(pictures: Pictures, by: int, chance: np.random.Generator) -> Pictures:
    """Each picture moved by up to so many pixels, up or down and left or right; its own mirror image fills the edge.

    Args:
        pictures: [n, height, width, channels].
        by: pixels, fewer than a side has.
        chance: draws the moves.
    """
    if by == 0:
        return pictures
    _, height, width, _ = pictures.shape
    wide = np.pad(pictures, ((0, 0), (by, by), (by, by), (0, 0)), mode="reflect")
    corners = chance.integers(0, 2 * by + 1, (len(pictures), 2))
    # all windows as a view: [n, 2 by + 1, 2 by + 1, channels, height, width]
    windows = np.lib.stride_tricks.sliding_window_view(wide, (height, width), axis=(1, 2))
    picked = windows[np.arange(len(pictures)), corners[:, 0], corners[:, 1]]
    return np.ascontiguousarray(picked.transpose(0, 2, 3, 1))


def cut_out(pictures: Pictures, side: int, chance: np.random.Generator) -> Pictures:
    """A square of each picture hidden behind the pictures' mean colour, so that no part decides alone.

    After DeVries and Taylor: Improved Regularization of Convolutional Neural Networks with Cutout, 2017. A square whose
    middle lies near the edge reaches beyond it.

    Args:
        pictures: [n, height, width, channels].
        side: pixels of the square's.
        chance: draws the squares' middles.
    """
    if side == 0:
        return pictures
    inside = []
    for length in pictures.shape[1:3]:
        first = chance.integers(0, length, (len(pictures), 1)) - side // 2
        inside.append((first <= np.arange(length)) & (np.arange(length) < first + side))
    hidden = inside[0][:, :, None] & inside[1][:, None, :]
    mean_colour = pictures.mean(axis=(0, 1, 2)).astype(np.uint8)
    return np.where(hidden[..., None], mean_colour, pictures)
