"""`sightread evaluate`: a test set through a running service, over HTTP, as its users ask it."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import httpx
from pydantic import Field, PositiveInt, ValidationError
from pydantic_settings import BaseSettings, CliApp, CliPositionalArg, SettingsConfigDict
from tqdm import tqdm

from training.data import Examples
from training.evaluation import wilson_interval
from training.problems import TrainingProblem

DONE, FAILED, WRONG_FLAGS, INTERRUPTED = 0, 1, 2, 130


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


class Unanswered(TrainingProblem):
    """The service did not answer, or not with a label."""


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
        answered = asyncio.run(ask_all(config, examples))
    except TrainingProblem as problem:
        _complain(str(problem))
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    report(answered, [labels[label] for label in examples.labels])
    return DONE


def report(answered: Sequence[tuple[str, int]], truth: Sequence[str]) -> None:
    """Print the accuracy, its 95 % interval (Wilson, 1927) and each label's recall."""
    right = [label == true for (label, _), true in zip(answered, truth, strict=True)]
    low, high = wilson_interval(sum(right), len(right))
    versions = Counter(version for _, version in answered)
    print(f"answered by version {', '.join(f'{version} ({count:,})' for version, count in versions.items())}")  # noqa: T201
    print(f"accuracy {sum(right) / len(right):.2%} of {len(right):,} (95 % interval {low:.2%} – {high:.2%})")  # noqa: T201
    for label, count in sorted(Counter(truth).items()):
        hits = sum(hit for hit, true in zip(right, truth, strict=True) if true == label)
        print(f"  {label:12} recall {hits / count:.2%} of {count:,}")  # noqa: T201


async def ask_all(config: EvaluateConfig, examples: Examples) -> list[tuple[str, int]]:
    """Every example's answer: its best label, and the version that gave it.

    Raises:
        Unanswered: the service cannot be reached, or it refuses.
    """
    limits = httpx.Limits(max_connections=config.connections)
    headers = {"X-API-Key": config.api_key} if config.api_key else {}
    async with httpx.AsyncClient(base_url=config.url, limits=limits, timeout=60, headers=headers) as client:
        await _ask(client, config, examples.inputs[0])  # no progress bar for a service that is not there
        gate = asyncio.Semaphore(config.connections)
        progress = tqdm(total=len(examples), unit=" requests", disable=not sys.stderr.isatty())

        async def ask(example: Any) -> tuple[str, int]:
            async with gate:
                answer = await _ask(client, config, example)
            progress.update()
            return answer

        with progress:
            return await asyncio.gather(*map(ask, examples.inputs))


async def _ask(client: httpx.AsyncClient, config: EvaluateConfig, example: Any) -> tuple[str, int]:
    query: dict[str, int] = {"top_k": 1} | ({"version": config.version} if config.version else {})
    try:
        if config.what == "image":
            from training.golden import png  # noqa: PLC0415  # needs Keras

            headers = {"Content-Type": "image/png"}
            response = await client.post("/classify-image", params=query, content=png(example), headers=headers)
        else:
            response = await client.post("/classify-text", params=query, json={"text": example})
    except httpx.HTTPError as error:
        raise Unanswered(
            f"nobody answers at {config.url} ({error or type(error).__name__}): start the service (make serve) or "
            "name another one with --url"
        ) from error
    if response.status_code != httpx.codes.OK:
        raise Unanswered(f"the service answered {response.status_code}: {response.json().get('detail')}")
    answer = response.json()
    return answer["label"], answer["model"]["version"]


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
