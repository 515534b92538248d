import keras
import numpy as np
import pytest

from training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (6, 6)])
def test_singular_values_are_brought_near_one(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(0).normal(size=shape).astype(np.float32) * 30
    out = keras.ops.convert_to_numpy(orthogonal(keras.ops.convert_to_tensor(matrix)))
    assert out.shape == shape
    values = np.linalg.svd(out, compute_uv=False)
    assert values.min() > 0.6
    assert values.max() < 1.3
    # the directions stay: what comes out correlates with U Vᵀ
    u, _, v = np.linalg.svd(matrix, full_matrices=False)
    assert (out * (u @ v)).sum() / np.linalg.norm(out) / np.linalg.norm(u @ v) > 0.95


def _step(variable: keras.Variable, gradient: np.ndarray, **options: float) -> np.ndarray:
    optimizer = Muon(0.1, **options)
    optimizer.apply([keras.ops.convert_to_tensor(gradient.astype(np.float32))], [variable])
    return variable.numpy()  # type: ignore[no-any-return]


def test_a_kernel_keeps_its_norm_and_moves_by_an_orthogonal_step() -> None:
    chance = np.random.default_rng(0)
    before = chance.normal(size=(3, 3, 2, 4)).astype(np.float32)
    gradient = chance.normal(size=before.shape)
    after = _step(keras.Variable(before), gradient)
    step = (before * (2 / np.linalg.norm(before)) - after).reshape(18, 4) / 0.1
    values = np.linalg.svd(step, compute_uv=False)
    assert 0.6 < values.min() < values.max() < 1.3
    assert (step * gradient.reshape(18, 4)).sum() > 0


def test_what_is_no_kernel_moves_as_adam_moves_it() -> None:
    gradient = np.array([1e-3, -5.0])
    after = _step(keras.Variable(np.zeros(2, np.float32)), gradient, adam_share=0.5)
    # Adam's first step is the rate, whatever the gradient's size
    assert after == pytest.approx([-0.05, 0.05], rel=1e-3)


@pytest.mark.slow
def test_muon_finds_the_minimum_of_a_convolution() -> None:
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
    teacher = keras.models.clone_model(network)
    pictures = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)
    # a kernel of Muon's has the norm √outputs
    kernel = np.random.default_rng(1).normal(size=(3, 3, 3, 4))
    teacher.set_weights([2 * kernel / np.linalg.norm(kernel), np.zeros(4)])
    rate = keras.optimizers.schedules.PolynomialDecay(0.2, 100, 0.0)
    network.compile(optimizer=Muon(rate), loss="mse", jit_compile=False)
    first, *_, last = network.fit(
        pictures, teacher.predict(pictures, verbose=0), epochs=100, batch_size=64, verbose=0
    ).history["loss"]
    assert last < first / 20
