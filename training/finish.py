"""How both jobs end: the gate looks at the written copy, the version is published or not, and either way reported."""

from contextlib import suppress
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from serving.contract import Contract
from training import gate, report, repository
from training.checkpoint import Checkpoint
from training.config import Config
from training.data import Dataset
from training.explanation import Explain
from training.export import Session, publish
from training.problems import RepositoryProblem
from training.terminal import say, summary


def finish(
    model: keras.Model,
    contract: Contract,
    *,
    explain: Explain,
    data: Dataset,
    probabilities: NDArray[np.floating],
    parity: NDArray[np.generic],
    config: Config,
    checkpoint: Checkpoint,
) -> None:
    """Publish what was trained, if the gate lets it through, and write the report.

    Args:
        model: the wire's tensor → calibrated probabilities, [n, labels].
        contract: of the version.
        explain: answers its `explain` signature.
        data: that it learned from and was judged on.
        probabilities: of the test examples, calibrated, [n, labels].
        parity: held-out examples as they stand on the wire, to compare the exported graph with `model` by.
        config: of the job.
        checkpoint: of the run; it stays until nothing is left to do, so that the same command, or where nothing was
            published the one with `--force` or with a larger budget, does the rest without learning again.

    Raises:
        Refused: the gate stays shut; the report says why.
        RepositoryProblem: the repository cannot be written.
        OSError: the report cannot be written.

    What is raised after the version was published has a note that says so, and what is left to do.
    """
    mistakes = report.mistakes(data.test, probabilities, data.labels)
    expected = keras.ops.convert_to_numpy(model(parity, training=False))
    judgements: list[gate.Judgement] = []

    def inspect(copy: Path, session: Session) -> list[str]:
        judgement = gate.judge(
            copy,
            session,
            contract,
            parity=(parity, expected),
            test=data.test,
            incumbent=repository.in_service(config.models, config.name),
            budget=gate.Budget(config.margin, config.max_megabytes, config.max_milliseconds),
        )
        judgements.append(judgement)
        for finding in judgement.findings:
            say(finding)
        return gate.enforce(judgement, force=config.force)

    def reported(version: Path | None, refusals: list[str]) -> None:
        checks = [finding for judgement in judgements for finding in judgement.findings]
        report.write(
            config.results,
            published or contract,
            data,
            name=config.name,
            version=version,
            mistakes=mistakes,
            checks=checks,
            refusals=refusals,
        )

    published: Contract | None = None
    left = "its entry in models.config, its report"
    try:
        version = _published(config, contract)
        if version is None:
            version = publish(
                model, contract, repository=config.models, name=config.name, explain=explain, inspect=inspect
            )
        else:
            say(f"version {version.name} was published by this run before it was stopped")
        repository.announce(config.models, config.name)
        left = "its report"
        published = repository.contract(version)
        reported(version, [])
        left = "its checkpoint"
        summary(published, version, config.results)
        checkpoint.remove()
    except gate.Refused:
        reported(None, [str(refusal) for judgement in judgements for refusal in judgement.refusals])
        raise
    except (KeyboardInterrupt, OSError, RepositoryProblem) as error:
        if (there := _published(config, contract)) is not None:
            error.add_note(
                f"Version {there.name} was published, as {there}. Left to do: {left}. "
                "The same command does it, and neither learns nor publishes again."
            )
        raise


def _published(config: Config, contract: Contract) -> Path | None:
    """The version that this very run has published, now or before it was stopped.

    Asked of the repository, which knows it even of a run that was killed.
    """
    run = contract.provenance
    for number in repository.versions(config.models, config.name):
        version = config.models / config.name / str(number)
        with suppress(RepositoryProblem):
            other = repository.contract(version).provenance
            # no two runs take the same time to the last digit
            if (other.training_seconds, other.history, other.data_sha256) == (
                run.training_seconds,
                run.history,
                run.data_sha256,
            ):
                return version
    return None
