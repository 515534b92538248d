"""What a version costs to serve: the size of its files, its multiply-adds, and the time of one example on one thread.

Time and multiply-adds are measured in a process of their own (`python -m training.cost VERSION …`): the number of a
process's threads is fixed by whoever computes first in it, and a job that has just trained has long chosen all. The
time is the processor's, not the clock's: what else runs on the machine is not the version's fault.
"""

import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from serving.contract import Contract, TextInput
from serving.preprocessing import preprocessor_for
from training.problems import TrainingProblem
from training.repository import megabytes

if TYPE_CHECKING:
    from training.export import Session

ROOT = Path(__file__).resolve().parent.parent
TOKENS = 200
"""Length of the text that is timed, unless the model reads less."""
WARM_UP, RUNS = 20, 200
PRODUCT = re.compile(r"(MatMul|MatMulV[23]|Conv2D|DepthwiseConv2dNative|BlockLSTM)$")
"""The kernels whose multiplications count, alone or fused with what follows them (`_FusedConv2D`)."""
UNKNOWN = re.compile(
    r"PartitionedCall|While|Xla|Einsum|Conv3D|CudnnRNN|BlockLSTMV2|GRUBlock|SparseTensorDense|Quantized"
)
"""Kernels that multiply, too, or hold some that do, and that nobody has taught us to count."""


class CostProblem(TrainingProblem):
    """A version cannot be measured."""


@dataclass(frozen=True)
class Cost:
    """What one example costs.

    Attributes:
        megabytes: of the version's files, 10⁶ bytes.
        multiply_adds: of matrix products and convolutions, as the graph executes them; None where they cannot be told.
        milliseconds: the median of 200 runs, of processor time.
        fast, slow: a tenth of the runs were quicker than the one, and a tenth slower than the other, in milliseconds.
    """

    megabytes: float
    multiply_adds: int | None
    milliseconds: float
    fast: float
    slow: float


def measure(versions: Sequence[Path]) -> list[Cost]:
    """Measure versions, one after the other, on one thread of a CPU.

    Args:
        versions: folders of SavedModels with contracts.

    Returns:
        the cost of each, in that order.

    Raises:
        CostProblem: one cannot be run.
    """
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "training.cost", *(str(version.absolute()) for version in versions)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise CostProblem(f"{', '.join(map(str, versions))} cannot be measured: {last}")
    return [Cost(**json.loads(line)) for line in done.stdout.splitlines()]


def example(contract: Contract) -> NDArray[Any]:
    """One example as it stands on the wire: a golden picture, or golden texts joined up to 200 tokens."""
    preprocessor = preprocessor_for(contract.input)
    if not isinstance(contract.input, TextInput):
        picture: NDArray[Any] = preprocessor.collate([preprocessor.prepare(contract.golden.examples[0].raw)])
        return picture
    tokens = np.concatenate([preprocessor.prepare(golden.raw) for golden in contract.golden.examples])
    length = min(TOKENS, contract.input.max_length)
    return np.resize(tokens, (1, length)).astype(np.int32)


def multiply_adds(session: "Session", signature: str, inputs: Mapping[str, NDArray[Any]]) -> int | None:
    """Count the multiplications of matrix products and convolutions while the graph answers once.

    What is executed counts: the body of a loop as often as it ran.

    Returns:
        how many; None where the graph holds kernels that multiply in ways unknown here.
    """
    import tensorflow as tf  # noqa: PLC0415  # takes seconds, and `measure` needs none of it

    traced = tf.compat.v1.RunMetadata()
    options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE, output_partition_graphs=True)
    feeds, fetches = session.signatures[signature]
    named = {feeds[name]: value for name, value in inputs.items()}
    session._session.run(fetches, named, options=options, run_metadata=traced)  # noqa: SLF001  # only here with options
    nodes = {node.name: node for graph in traced.partition_graphs for node in graph.node}
    if any(UNKNOWN.search(node.op) for node in nodes.values()):
        return None
    executed = [stats for device in traced.step_stats.dev_stats for stats in device.node_stats]
    shapes = {
        (stats.node_name, output.slot): [side.size for side in output.tensor_description.shape.dim]
        for stats in executed
        for output in stats.output
    }
    products = [nodes[stats.node_name] for stats in executed if stats.node_name in nodes]
    return sum(_products(node, shapes) for node in products if PRODUCT.search(node.op))


def _products(node: Any, shapes: Mapping[tuple[str, int], Sequence[int]]) -> int:
    """Multiplications of one run of a kernel: each number of the output is a sum of as many products."""
    is_lstm = node.op == "BlockLSTM"
    result, (name, _, slot) = shapes[node.name, 0], node.input[4 if is_lstm else 1].partition(":")
    factor = shapes[name, int(slot or 0)]
    if is_lstm:
        summed = math.prod(factor) // result[-1]  # each number of a state comes from four gates
    elif node.op.endswith("DepthwiseConv2dNative"):
        summed = math.prod(factor[:2])
    elif node.op.endswith("Conv2D"):
        summed = math.prod(factor[:3])
    else:
        summed = math.prod(factor[-2:]) // result[-1]  # whichever way it is transposed
    return math.prod(result) * summed


def _timed(session: "Session", signature: str, inputs: Mapping[str, NDArray[Any]]) -> Iterable[float]:
    """Milliseconds of each run."""
    for run in range(WARM_UP + RUNS):
        start = time.process_time()
        session.call(signature, inputs)
        if run >= WARM_UP:
            yield 1000 * (time.process_time() - start)


def main(arguments: Sequence[str]) -> int:
    """Measure the versions named, in this process; a line of JSON for each."""
    import tensorflow as tf  # noqa: PLC0415

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from training.export import SERVING, Session  # noqa: PLC0415  # sessions take on what was set

    for version in map(Path, arguments):
        with Session(version) as session:
            contract = session.contract()
            inputs = {contract.input.name: example(contract)}
            fast, median, slow = np.percentile(list(_timed(session, SERVING, inputs)), [10, 50, 90])
            counted = multiply_adds(session, SERVING, inputs)
        cost = Cost(megabytes(version), counted, float(median), float(fast), float(slow))
        sys.stdout.write(json.dumps(asdict(cost)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
