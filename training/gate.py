"""The gate: whether a candidate may become a version, asked of the written copy before it gets its number.

Five checks, all of them made, so that one answer names everything that is wrong:

- **accuracy**: not worse than the version in service by more than a margin. Where both were judged on the same data
  their contracts' figures are compared; else the version in service answers the candidate's test set, raw, through its
  own preprocessing, and so does the candidate. Where that is not possible (other labels), there is nothing to compare.
- **parity**: the graph as TensorFlow Serving runs it answers as Keras does.
- **golden**: the golden examples come out as the contract says, see `training.export.prove`.
- **size**: megabytes of files.
- **latency**: milliseconds of one example on one thread of this machine, see `training.cost`.

`--force` publishes all the same, and the reasons go into the contract's provenance; but for the golden examples: every
gateway would refuse such a version, and it would only be in the way.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.contract import Contract
from serving.preprocessing import Preprocessor, preprocessor_for
from serving.problems import Problem
from training.cost import CostProblem, measure
from training.data import Examples
from training.export import SAME_MACHINE, SERVING, Session, prove
from training.problems import DataProblem, GoldenDisagreement, RepositoryProblem, TrainingProblem
from training.repository import contract as contract_of
from training.repository import megabytes

BATCH = 64
PREPARED_AT_ONCE = 16 * BATCH
"""Examples that lie in memory as the version wants them: its pictures may be large."""
MOST_COMPARED = 10_000
"""Test examples that two versions are compared on, at most."""
ROUNDING = 1e-9

Array = NDArray[Any]
Check = Literal["accuracy", "parity", "golden", "size", "latency"]


@dataclass(frozen=True)
class Budget:
    """What a candidate may be worse by, and cost.

    Attributes:
        margin: accuracy that it may lack, as a share: 0.005 is half a point.
        megabytes: that its files may take, 10⁶ bytes; None: any.
        milliseconds: that one example may take on one thread; None: any, and it is not measured.
    """

    margin: float = 0.005
    megabytes: float | None = None
    milliseconds: float | None = None


@dataclass(frozen=True)
class Refusal:
    """A reason against publishing, with its figures."""

    check: Check
    reason: str

    @property
    def forcible(self) -> bool:
        """Whether `--force` may overrule it."""
        return self.check != "golden"

    def __str__(self) -> str:
        return f"{self.check}: {self.reason}"


@dataclass(frozen=True)
class Judgement:
    """What was found, a sentence a check, and what speaks against the candidate."""

    findings: list[str]
    refusals: list[Refusal]


class Refused(TrainingProblem):
    """The gate stays shut. The text lists every reason."""


def judge(
    copy: Path,
    session: Session,
    contract: Contract,
    *,
    parity: tuple[Array, Array],
    test: Examples,
    incumbent: Path | None,
    budget: Budget,
) -> Judgement:
    """Look at a written copy from all sides.

    Args:
        copy: its folder.
        session: it, loaded.
        contract: what it says of itself.
        parity: held-out inputs as they stand on the wire (uint8 [n, height, width, channels] or int32 [n, length]),
            and the probabilities that Keras has for them, [n, labels].
        test: the examples that the candidate was judged on.
        incumbent: the folder of the version in service, see `training.repository.in_service`; None: there is none.
        budget: what is allowed.
    """
    checks = (
        _accuracy(session, contract, test, incumbent, budget.margin),
        _parity(session, contract, *parity),
        _golden(session, contract),
        _size(copy, budget.megabytes),
        _latency(copy, budget.milliseconds),
    )
    results = [result for result in checks if result is not None]
    return Judgement(
        findings=[str(result) for result in results],
        refusals=[result for result in results if isinstance(result, Refusal)],
    )


def enforce(judgement: Judgement, *, force: bool) -> list[str]:
    """Let a candidate through, or not.

    Args:
        judgement: what speaks against it.
        force: publish all the same.

    Returns:
        the reasons that were overruled, for the provenance; empty where there were none.

    Raises:
        Refused: it may not be published.
    """
    refusals = judgement.refusals
    if not refusals or (force and all(refusal.forcible for refusal in refusals)):
        return [str(refusal) for refusal in refusals]
    reasons = "\n".join(f"  {refusal}" for refusal in refusals)
    way_out = (
        "--force publishes it all the same, and says so in its provenance."
        if all(refusal.forcible for refusal in refusals)
        else "Not even --force publishes what fails its golden examples: every gateway would refuse it."
    )
    raise Refused(f"not published, for\n{reasons}\n{way_out}")


def answers(session: Session, contract: Contract, raws: Sequence[Path | bytes | str]) -> NDArray[np.float32]:
    """Pictures or texts through a version, prepared as its contract asks → probabilities [n, labels].

    Args:
        session: the version, loaded.
        contract: what it says of itself.
        raws: encoded pictures, or files that hold some, or texts.

    Raises:
        DataProblem: a file cannot be read any more, or is no picture any more.
    """
    preprocessor = preprocessor_for(contract.input)
    probabilities = np.zeros((len(raws), len(contract.labels)), dtype=np.float32)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for first in range(0, len(raws), PREPARED_AT_ONCE):
            part = raws[first : first + PREPARED_AT_ONCE]
            rows = list(threads.map(partial(_prepared, preprocessor), part))
            # like lengths together: a short text need not wait for a long one's padding
            order = np.argsort([len(row) for row in rows], kind="stable")
            for start in range(0, len(order), BATCH):
                positions = order[start : start + BATCH]
                batch = preprocessor.collate([rows[position] for position in positions])
                probabilities[first + positions] = session.call(SERVING, {contract.input.name: batch})[
                    contract.output.name
                ]
    return probabilities


def _prepared(preprocessor: Preprocessor, raw: Path | bytes | str) -> Any:
    if not isinstance(raw, Path):
        return preprocessor.prepare(raw)
    try:
        return preprocessor.prepare(raw.read_bytes())
    except OSError as error:
        raise DataProblem(f"{raw} cannot be read any more ({error.strerror})") from error
    except Problem as problem:
        raise DataProblem(f"{raw} is not the picture any more that it was ({problem.detail})") from problem


def _accuracy(
    session: Session, contract: Contract, test: Examples, incumbent: Path | None, margin: float
) -> Refusal | str | None:
    if incumbent is None:
        return "accuracy: no version is in service, nothing to compare with"
    name = f"version {incumbent.name}"
    try:
        other = contract_of(incumbent)
    except RepositoryProblem as problem:
        return f"accuracy: nothing to compare with: {problem}"
    if other.kind != contract.kind or sorted(other.labels) != sorted(contract.labels):
        return f"accuracy: nothing to compare: {name} in service knows other labels ({', '.join(other.labels)})"
    if (other.provenance.data_sha256, other.evaluation.dataset) == (
        contract.provenance.data_sha256,
        contract.evaluation.dataset,
    ):
        ours, theirs, examples = contract.evaluation.accuracy, other.evaluation.accuracy, contract.evaluation.examples
        how = "by the contracts, on the same data"
    else:
        chosen = np.arange(len(test))
        if len(test) > MOST_COMPARED:
            chosen = np.random.default_rng(0).choice(chosen, MOST_COMPARED, replace=False)
        compared = test.take(chosen)
        raws = [compared.raw(position) for position in range(len(compared))]
        try:
            ours, examples = _share_right(session, contract, contract.labels, raws, compared.labels), len(compared)
            with Session(incumbent) as theirs_session:
                theirs = _share_right(theirs_session, other, contract.labels, raws, compared.labels)
        except DataProblem as problem:
            return Refusal(
                "accuracy",
                f"{problem}, so that {name} cannot be compared with: put it back, and give the same command again",
            )
        except (OSError, RuntimeError, ValueError, Problem, tf.errors.OpError) as error:
            return f"accuracy: nothing to compare: {name} in service cannot be run ({error})"
        how = (
            f"both asked on the candidate's test set; {name} learned from other data ({other.provenance.data}), "
            "and its figure flatters if some of these examples were in it"
        )
    chance = 1.96 * sqrt(ours * (1 - ours) / examples)
    figures = (
        f"{ours:.2%} against {name}'s {theirs:.2%} ({how}; on {examples:,} examples chance alone moves such a figure "
        f"by ±{100 * chance:.2f} points)"
    )
    refusal = Refusal(
        "accuracy",
        f"{figures}: {100 * (theirs - ours):.2f} points worse, and --margin {margin:g} allows {100 * margin:.2f}",
    )
    # written so that a NaN fails
    return f"accuracy: {figures}" if ours >= theirs - margin - ROUNDING else refusal


def _share_right(
    session: Session,
    contract: Contract,
    labels: Sequence[str],
    raws: Sequence[Path | bytes | str],
    truth: NDArray[np.int64],
) -> float:
    """The accuracy of a version that may have the labels in another order."""
    order = [labels.index(label) for label in contract.labels]
    called = np.array(order)[answers(session, contract, raws).argmax(axis=1)]
    return float((called == truth).mean())


def _parity(session: Session, contract: Contract, inputs: Array, expected: Array) -> Refusal | str:
    answered = session.call(SERVING, {contract.input.name: inputs})[contract.output.name]
    tolerance = contract.golden.tolerance / SAME_MACHINE
    if answered.shape != expected.shape:
        return Refusal(
            "parity", f"the exported graph answers {list(answered.shape)} where Keras answers {list(expected.shape)}"
        )
    worst = float(np.abs(answered - expected).max())
    figures = f"{worst:.2g} at most between Keras and the exported graph on {len(inputs):,} held-out inputs"
    if worst <= tolerance:
        return f"parity: {figures}"
    return Refusal("parity", f"{figures}, {tolerance:g} is allowed")


def _golden(session: Session, contract: Contract) -> Refusal | str:
    try:
        prove(session)
    except GoldenDisagreement as disagreement:
        return Refusal("golden", str(disagreement).removeprefix("Not published: "))
    return f"golden: all {len(contract.golden.examples)} examples came out right from the written copy"


def _size(copy: Path, most: float | None) -> Refusal | str:
    size = megabytes(copy)
    return _within("size", size, most, f"{size:.2f} MB", "--max-megabytes")


def _latency(copy: Path, most: float | None) -> Refusal | str | None:
    if most is None:
        return None
    try:
        (cost,) = measure([copy])
    except CostProblem as problem:
        return Refusal("latency", str(problem))
    figures = f"{cost.milliseconds:.2f} ms for one example on one thread ({cost.fast:.2f} – {cost.slow:.2f})"
    return _within("latency", cost.milliseconds, most, figures, "--max-milliseconds")


def _within(check: Check, value: float, most: float | None, figures: str, flag: str) -> Refusal | str:
    if most is None or value <= most:
        return f"{check}: {figures}"
    return Refusal(check, f"{figures}, and {flag} allows {most:g}")
