import numpy as np
import pytest

from training.augmentation import cut_out, mirrored, moved

PICTURES = np.random.default_rng(0).integers(0, 256, (40, 8, 6, 3), dtype=np.uint8)


def test_only_the_chosen_pictures_are_mirrored() -> None:
    which = np.arange(40) % 3 == 0
    out = mirrored(PICTURES, which)
    assert (out[~which] == PICTURES[~which]).all()
    assert (out[which] == PICTURES[which][:, :, ::-1]).all()


def test_a_moved_picture_is_itself_somewhere_else_and_its_edge_a_mirror_image() -> None:
    out = moved(PICTURES, 2, np.random.default_rng(1))
    wide = np.pad(PICTURES, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    corners = {
        next((y, x) for y in range(5) for x in range(5) if (out[number] == wide[number, y : y + 8, x : x + 6]).all())
        for number in range(40)
    }
    assert {y for y, _ in corners} == {x for _, x in corners} == set(range(5))


def test_pictures_that_are_not_to_move_stay() -> None:
    assert moved(PICTURES, 0, np.random.default_rng(1)) is PICTURES


def test_the_same_chance_moves_alike() -> None:
    again = [moved(PICTURES, 2, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert (again[0] == again[1]).all()
    assert (again[0] != again[2]).any()


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_coloured_pictures_keep_their_shape(channels: int) -> None:
    pictures = PICTURES[..., :channels]
    assert moved(pictures, 1, np.random.default_rng(0)).shape == pictures.shape


def test_a_square_of_each_picture_is_hidden_and_nothing_else() -> None:
    pictures = np.zeros((200, 8, 6, 3), np.uint8)
    pictures[0] = 200
    out = cut_out(pictures, 3, np.random.default_rng(1))
    hidden = (out != pictures).all(axis=-1)
    assert not hidden[0].all()
    assert (out[hidden] == 1).all()
    assert (out[~hidden] == pictures[~hidden]).all()
    rows, columns = hidden.any(axis=2).sum(axis=1), hidden.any(axis=1).sum(axis=1)
    assert (hidden.sum(axis=(1, 2)) == rows * columns).all()
    # whole ones, and ones that reach beyond the edge
    assert {*rows} == {*columns} == {2, 3}
    assert hidden.any(axis=0).all()


def test_nothing_is_hidden_where_the_square_has_no_side() -> None:
    assert cut_out(PICTURES, 0, np.random.default_rng(1)) is PICTURES


def test_the_same_chance_hides_alike() -> None:
    again = [cut_out(PICTURES, 3, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert (again[0] == again[1]).all()
    assert (again[0] != again[2]).any()
