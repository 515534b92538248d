"""`sightread evaluate`: a test set through a running service, over HTTP, as its users ask it."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationError
from pydantic_settings import BaseSettings, CliApp, CliPositionalArg, SettingsConfigDict
from tqdm import tqdm

from sightread_client import AsyncClient, BadInput, ImageAnswer, Options, SightreadError, TextAnswer, Unreachable
from training.data import Examples
from training.evaluation import wilson_interval
from training.problems import TrainingProblem

DONE, FAILED, WRONG_FLAGS, INTERRUPTED = 0, 1, 2, 130
PATIENCE_SECONDS = 300.0
"""For one answer: a service that is full, or that limits the rate, is asked again and again …"""
RETRIES = 1000
"""… so that the time decides."""
SHOWN = 10
"""Examples without an answer that are named."""
SHORT = 60
"""Characters of a text that it is named by."""


class EvaluateConfig(BaseSettings):
    """Send a test set to a running service, one request an example, and tell how many answers are right."""

    model_config = SettingsConfigDict(
        env_prefix="SIGHTREAD_",
        frozen=True,
        cli_prog_name="sightread evaluate",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        use_attribute_docstrings=True,
    )

    what: CliPositionalArg[Literal["image", "text"]]
    """`image` for pictures, `text` for texts."""
    data: Path | None = None
    """What `sightread train` learned from: CIFAR-10's or IMDB's own folder, a folder with a folder of pictures for each
    label, or a table of texts and labels. Only its test examples are sent, those that were held out where it has none
    of its own. [default: CIFAR-10, or IMDB, which is downloaded]"""
    text_column: str = "text"
    """Column of a table that holds the texts."""
    label_column: str = "label"
    """Column of a table that holds the labels."""
    seed: int = Field(default=1, ge=0, lt=2**32)
    """What the version was trained with: chooses which examples were held out."""
    url: str = "http://127.0.0.1:8080"
    """Where the service is."""
    version: PositiveInt | None = None
    """The model version to ask. [default: the one in service]"""
    api_key: str = ""
    """The key that opens the service, where it wants one."""
    connections: PositiveInt = 32
    """Requests at once."""


@dataclass(frozen=True)
class Unanswered:
    """An example that has no answer, as people recognize it, and why."""

    example: str
    why: str


class NoAnswers(TrainingProblem):
    """The service does not answer, or what answers is no such service."""


Outcome = ImageAnswer | TextAnswer | Unanswered


def main(arguments: Sequence[str]) -> int:
    """Evaluate a running service; the exit code: 0 done, 1 it failed, 2 wrong flags, 130 interrupted."""
    try:
        config = CliApp.run(EvaluateConfig, cli_args=list(arguments))
    except ValidationError as error:
        for fault in error.errors():
            _complain(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}")
        return WRONG_FLAGS
    try:
        examples, labels = _test_set(config)
        outcomes = asyncio.run(ask_all(config, examples))
        report(outcomes, [labels[label] for label in examples.labels])
    except TrainingProblem as problem:
        _complain(str(problem))
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def report(outcomes: Sequence[Outcome], truth: Sequence[str]) -> None:
    """Print the accuracy, its 95 % interval (Wilson, 1927) and each label's recall, and what has no answer.

    That is left out of the figures: no answer is not a wrong one.

    Raises:
        NoAnswers: there is no answer at all.
    """
    unanswered = [outcome for outcome in outcomes if isinstance(outcome, Unanswered)]
    answered = [
        (answer, true) for answer, true in zip(outcomes, truth, strict=True) if not isinstance(answer, Unanswered)
    ]
    if not answered:
        raise NoAnswers(
            f"none of {len(outcomes):,} examples was answered, as {unanswered[0].example}: {unanswered[0].why}"
        )
    right = [answer.label == true for answer, true in answered]
    low, high = wilson_interval(sum(right), len(right))
    versions = Counter(answer.model.version for answer, _ in answered)
    print(f"answered by version {', '.join(f'{version} ({count:,})' for version, count in versions.items())}")  # noqa: T201
    print(f"accuracy {sum(right) / len(right):.2%} of {len(right):,} (95 % interval {low:.2%} – {high:.2%})")  # noqa: T201
    for label, count in sorted(Counter(true for _, true in answered).items()):
        hits = sum(answer.label == true == label for answer, true in answered)
        print(f"  {label:12} recall {hits / count:.2%} of {count:,}")  # noqa: T201
    if unanswered:
        print(f"not answered, and left out of these figures: {len(unanswered):,} of {len(outcomes):,}")  # noqa: T201
        for one in unanswered[:SHOWN]:
            print(f"  {one.example}: {one.why}")  # noqa: T201
        if len(unanswered) > SHOWN:
            print(f"  and {len(unanswered) - SHOWN:,} more")  # noqa: T201


async def ask_all(config: EvaluateConfig, examples: Examples) -> list[Outcome]:
    """Every example's outcome, in their order.

    Raises:
        NoAnswers: the service cannot be reached, is no such service, or refuses whatever it is asked.
    """
    try:
        async with AsyncClient(config.url, api_key=config.api_key or None, retries=0) as client:
            await client.models()  # no progress bar for a service that is not there
        async with AsyncClient(
            config.url, api_key=config.api_key or None, timeout=PATIENCE_SECONDS, retries=RETRIES
        ) as client:
            return await _ask_each(client, config, examples)
    except Unreachable as error:
        raise NoAnswers(f"{error.detail} Start the service (make serve), or name another one with --url.") from error
    except (SightreadError, ValueError) as error:
        raise NoAnswers(str(error)) from error


async def _ask_each(client: AsyncClient, config: EvaluateConfig, examples: Examples) -> list[Outcome]:
    gate = asyncio.Semaphore(config.connections)
    progress = tqdm(total=len(examples), unit=" requests", disable=not sys.stderr.isatty())

    async def ask(position: int) -> Outcome:
        async with gate:
            outcome = await _ask(client, config, examples.raw(position), position)
        progress.update()
        return outcome

    with progress:
        return await asyncio.gather(*map(ask, range(len(examples))))


async def _ask(client: AsyncClient, config: EvaluateConfig, raw: Path | bytes | str, position: int) -> Outcome:
    options = Options(top_k=1, version=config.version)
    try:
        if isinstance(raw, str):
            return await client.classify_text(raw, **options)
        return await client.classify_image(raw, **options)
    except BadInput as error:
        return Unanswered(_named(raw, position), error.detail)
    except OSError as error:
        return Unanswered(_named(raw, position), f"it cannot be read any more ({error.strerror})")


def _named(raw: Path | bytes | str, position: int) -> str:
    if isinstance(raw, bytes):
        return f"test picture {position + 1:,}"
    return repr(raw[:SHORT]) if isinstance(raw, str) else str(raw)


def _test_set(config: EvaluateConfig) -> tuple[Examples, list[str]]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # only those who evaluate wait for what reads data
    from training.data import cifar10, imdb, pictures, table  # noqa: PLC0415

    data = config.data
    cut: Any = {"name": "the test set", "validation": 0.05, "seed": config.seed}
    bad: Sequence[Any] = ()
    if config.what == "image":
        if data is None or cifar10.is_here(data):
            dataset = cifar10.read(data, **cut)
        else:
            dataset, bad = pictures.read(data, height=None, width=None, **cut)
    elif data is None or data.is_dir():
        dataset = imdb.read(data, **cut)
    else:
        dataset, bad = table.read(data, text_column=config.text_column, label_column=config.label_column, **cut)
    if bad:
        _complain(f"{len(bad):,} of {data}'s examples cannot be used; sightread train lists them")
    if dataset.seen:
        _complain(f"too few to hold any out: whatever learned from {data} learned from these same {len(dataset.test)}")
    return dataset.test, dataset.labels


def _complain(what: str) -> None:
    print(f"sightread evaluate: {what}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
