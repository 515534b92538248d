"""Explanations: which pixels or words an answer rests on, computed in the graph by integrated gradients.

On the straight way from an empty input to the given one, the gradient of the score says at every point what each
number adds to it; the mean gradient times the way is what the number adds altogether (Sundararajan et al.: Axiomatic
Attribution for Deep Networks, 2017). So the attributions, which have a sign, add up to the score: how much the log-odds
of the most probable label grow from the empty input to the given one.

Examples are explained one after the other, a text without its padding: neither the batch nor the memory that it takes
changes the answer.
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from serving.contract import ATTRIBUTION, LABEL, SCORE

STEPS = 64
"""Points on the way, all of one weight. A network of ReLUs bends all along it, and an LSTM can change its mind within a
twentieth of it, so that more points help more than a cleverer rule: the sum is off by 1% of the score on average."""
PIXELS_AT_ONCE = 2**16
"""Of all points computed together: larger pictures take more rounds, not more memory."""

Explain = Callable[[tf.Tensor], dict[str, tf.Tensor]]
"""What `serving_default` takes → ATTRIBUTION, LABEL and SCORE, see `serving.contract`."""
Logits = Callable[[Sequence[tf.Tensor]], tf.Tensor]
"""Batches, float32 [n, …] each → logits, float32 [n, labels]."""


def explain_image(network: keras.Model, *, temperature: float, empty: Sequence[float]) -> Explain:
    """What each pixel adds.

    Args:
        network: pixels, uint8 [n, height, width, channels] → logits, float32 [n, labels]. Its first layer makes floats
            of the pixels, of each by itself.
        temperature: that the logits are divided by.
        empty: colour of the empty picture, [channels] of 0 to 255: the mean of the training pictures. Black or white
            would hide what is black or white.
    """
    first, rest = after_first_layer(network)
    height, width = network.input_shape[1:3]

    def logits(parts: Sequence[tf.Tensor]) -> tf.Tensor:
        return rest(parts[0], training=False) / temperature

    def explained(picture: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        given = first(picture[None])[0]
        nothing = tf.broadcast_to(first(tf.constant([[[empty]]], tf.float32))[0], tf.shape(given))
        label, score, (attribution,) = explain(logits, [given], [nothing], at_once=PIXELS_AT_ONCE // (height * width))
        return tf.reduce_sum(attribution, axis=-1), label, score

    return lambda pixels: _each(explained, pixels, [height, width])


def after_first_layer(network: keras.Model) -> tuple[keras.layers.Layer, keras.Model]:
    """A network's first layer, and the network of all that follows it."""
    first = next(layer for layer in network.layers if not isinstance(layer, keras.layers.InputLayer))
    return first, keras.Model(first.output, network.outputs[0])


def explain_text(reader: keras.Model, judge: keras.Model, *, temperature: float) -> Explain:
    """What each word adds, compared with nothing having been read of any.

    Args:
        reader: ids, int32 [n, words] → what is read of each word, float32 [n, words, …] each, and last the mask, bool
            [n, words], false where padding stands; padding stands at the end.
        judge: what the reader answers → logits, float32 [n, labels].
        temperature: that the logits are divided by.
    """

    def explained(ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        length = tf.reduce_sum(tf.cast(reader(ids[None])[-1], tf.int32))
        *given, mask = (part[0] for part in reader(ids[None, : tf.maximum(length, 1)]))

        def logits(parts: Sequence[tf.Tensor]) -> tf.Tensor:
            masks = tf.repeat(mask[None], tf.shape(parts[0])[0], axis=0)
            return judge([*parts, masks], training=False) / temperature

        label, score, parts = explain(logits, given, [tf.zeros_like(part) for part in given])
        words = tf.add_n([tf.reduce_sum(part, axis=list(range(1, len(part.shape)))) for part in parts])
        padding = tf.zeros([tf.shape(ids)[0] - tf.shape(words)[0]])
        return tf.concat([tf.where(mask, words, 0.0), padding], axis=0), label, score

    return lambda ids: _each(explained, ids, [None])


def explain(
    logits: Logits, given: Sequence[tf.Tensor], empty: Sequence[tf.Tensor], *, at_once: int = STEPS
) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
    """One example's most probable label, its score, and what each number adds to that.

    Args:
        logits: of batches of the example's parts.
        given: the parts, float32 […] each.
        empty: what they are compared with, of the same shapes.
        at_once: points on the way in one batch.

    Returns:
        label, int64 []; score, float32 []; attributions, float32, of the parts' shapes.
    """
    both = logits([tf.stack(ends) for ends in zip(empty, given, strict=True)])
    label = tf.argmax(both[1])
    before, after = tf.unstack(log_odds(both, label), num=2)
    attributions = integrated_gradients(lambda parts: log_odds(logits(parts), label), given, empty, at_once=at_once)
    return label, after - before, attributions


def integrated_gradients(
    score: Callable[[Sequence[tf.Tensor]], tf.Tensor],
    given: Sequence[tf.Tensor],
    empty: Sequence[tf.Tensor],
    *,
    steps: int = STEPS,
    at_once: int = STEPS,
) -> list[tf.Tensor]:
    """What each number of one example adds to a score.

    Args:
        score: batches of the example's parts, float32 [n, …] each → float32 [n], each row by itself.
        given: the parts, float32 […] each.
        empty: where the way begins, of the same shapes.
        steps: points on the way, a power of two.
        at_once: of them in one batch, at most.

    Returns:
        attributions, of the parts' shapes; they add up to the score of `given` less that of `empty`.
    """
    size = min(steps, 2 ** max(0, at_once.bit_length() - 1))
    middles = (tf.range(steps, dtype=tf.float32) + 0.5) / steps

    def gradients(shares: tf.Tensor) -> list[tf.Tensor]:
        points = [
            start + tf.reshape(shares, [size] + [1] * len(end.shape)) * (end - start)
            for start, end in zip(empty, given, strict=True)
        ]
        with tf.GradientTape() as tape:
            tape.watch(points)
            scores = score(points)
        found = tape.gradient(scores, points, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [tf.reduce_sum(gradient, axis=0) for gradient in found]

    if size == steps:
        sums = gradients(middles)
    else:
        shapes = [tf.TensorSpec(part.shape, tf.float32) for part in given]
        rounds = tf.map_fn(
            gradients, tf.reshape(middles, [-1, size]), fn_output_signature=shapes, parallel_iterations=1
        )
        sums = [tf.reduce_sum(found, axis=0) for found in rounds]
    return [total / steps * (end - start) for total, start, end in zip(sums, empty, given, strict=True)]


def log_odds(logits: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
    """Logarithm of p / (1 - p) of a label, float32 [n, labels] → [n]. A number added to all logits changes nothing."""
    this = tf.one_hot(label, tf.shape(logits)[-1], on_value=True, off_value=False)
    others = tf.where(this, logits.dtype.min, logits)
    return tf.gather(logits, label, axis=-1) - tf.reduce_logsumexp(others, axis=-1)


def _each(
    explained: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]], batch: tf.Tensor, shape: list[int | None]
) -> dict[str, tf.Tensor]:
    attribution, label, score = tf.map_fn(
        explained,
        batch,
        fn_output_signature=(
            tf.TensorSpec(shape, tf.float32),
            tf.TensorSpec([], tf.int64),
            tf.TensorSpec([], tf.float32),
        ),
        parallel_iterations=1,
    )
    return {ATTRIBUTION: attribution, LABEL: label, SCORE: score}
