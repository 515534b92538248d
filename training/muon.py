"""Muon, an optimizer that gives every direction of a convolution's update the same length."""

from typing import Any

import keras
from keras import ops

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of Jordan's quintic: five rounds bring every singular value near 1."""
ROUNDS = 5
KERNEL_RANK = 4


class Muon(keras.optimizers.Optimizer):  # type: ignore[misc] # Keras ships no types
    """Muon for the kernels of convolutions, Adam for all else (biases, the last layer).

    Jordan et al.: Muon: An optimizer for hidden layers in neural networks, 2024. A kernel is taken as a matrix
    [height · width · inputs, outputs], as in Jordan's CIFAR-10 speedruns; `keras.optimizers.Muon` leaves kernels to
    Adam. Each kernel is kept at the norm √outputs, so that the learning rate means the same for all of them.

    Args:
        learning_rate: of the kernels, a number or a schedule.
        momentum: of the kernels' gradients (Nesterov's).
        adam_share: Adam's learning rate, as a share of the kernels'.
    """

    def __init__(self, learning_rate: Any, *, momentum: float = 0.6, adam_share: float = 0.05, **options: Any) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        self.momentum = momentum
        self.adam_share = adam_share
        self.beta_1, self.beta_2, self.epsilon = 0.85, 0.95, 1e-8

    def build(self, variables: list[Any]) -> None:
        if self.built:
            return
        super().build(variables)
        self._momenta = self.add_optimizer_variables(variables, "momentum")
        self._velocities = [
            None if _is_kernel(variable) else self.add_variable_from_reference(variable, "velocity")
            for variable in variables
        ]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        if _is_kernel(variable):
            self._muon_step(gradient, variable, rate, self._momenta[index])
        else:
            self._adam_step(gradient, variable, rate * self.adam_share, self._momenta[index], self._velocities[index])

    def _muon_step(self, gradient: Any, variable: Any, rate: Any, momentum: Any) -> None:
        self.assign(momentum, self.momentum * momentum + gradient)
        direction = gradient + self.momentum * momentum
        outputs = variable.shape[-1]
        update = ops.reshape(orthogonal(ops.reshape(direction, (-1, outputs))), variable.shape)
        norm = ops.sqrt(ops.sum(ops.square(variable))) + self.epsilon
        self.assign(variable, variable * (outputs**0.5 / norm) - rate * update)

    def _adam_step(self, gradient: Any, variable: Any, rate: Any, momentum: Any, velocity: Any) -> None:
        step = ops.cast(self.iterations + 1, variable.dtype)
        self.assign(momentum, self.beta_1 * momentum + (1 - self.beta_1) * gradient)
        self.assign(velocity, self.beta_2 * velocity + (1 - self.beta_2) * ops.square(gradient))
        mean = momentum / (1 - self.beta_1**step)
        spread = ops.sqrt(velocity / (1 - self.beta_2**step))
        self.assign_sub(variable, rate * mean / (spread + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "adam_share": self.adam_share}


def orthogonal(matrix: Any) -> Any:
    """The matrix with its singular values brought near 1 (from 0.7 to 1.2), [m, n] → [m, n], by Newton and Schulz."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = ops.transpose(matrix) if tall else matrix
    x /= ops.sqrt(ops.sum(ops.square(x))) + 1e-7
    for _ in range(ROUNDS):
        square = x @ ops.transpose(x)
        x = a * x + (b * square + c * square @ square) @ x
    return ops.transpose(x) if tall else x


def _is_kernel(variable: Any) -> bool:
    return len(variable.shape) == KERNEL_RANK
