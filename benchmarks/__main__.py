"""`make bench`: Sightread, its peers and its ceiling under the same load, taking turns in one run on one machine."""

import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict
from tqdm import tqdm

from benchmarks import bare_call, overload
from benchmarks.inputs import Input, inputs
from benchmarks.load import LoadProblem, Measurement, closed_loop, open_loop, settle
from benchmarks.servers import Compared, Server, servers

DONE, FAILED, WRONG_FLAGS, INTERRUPTED = 0, 1, 2, 130
FIRST = "Sightread"

Cell = tuple[str, str]
"""Input and load, by their names."""
Results = dict[Cell, dict[str, list[Measurement]]]
"""Cell → server → a measurement a round."""


class Benchmark(BaseSettings):
    """Measure requests a second and latency against other servers. Leave the machine alone meanwhile."""

    model_config = SettingsConfigDict(
        frozen=True,
        cli_prog_name="make bench FLAGS=…",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        use_attribute_docstrings=True,
    )

    seconds: PositiveInt = 3
    """Of each measurement."""
    rounds: PositiveInt = 3
    """Measurements of each cell; the servers take turns."""
    connections: list[PositiveInt] = [1, 8, 32, 128]
    """Of the closed loop: each asks again as soon as it was answered."""
    rate: PositiveFloat = 100.0
    """Of the open loop: requests a second, come what may."""
    workers: PositiveInt = os.cpu_count() or 1
    """Processes of the gateway; one a core when not given."""
    overload: NonNegativeFloat = 3.0
    """How many times its best rate a server that refuses is asked for at the end; 0 leaves that out."""
    only: str = ""
    """Inputs whose name holds this; all when not given."""
    mosec: Path | None = None
    """Python of an environment with mosec, TensorFlow, Pillow and tokenizers in it; without one mosec is left out."""


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; the exit code: 0 done, 1 it failed, 2 wrong flags, 130 interrupted."""
    try:
        config = CliApp.run(Benchmark, cli_args=list(arguments))
    except ValidationError as error:
        for fault in error.errors():
            _complain(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}")
        return WRONG_FLAGS
    try:
        print("\n\n".join(measure(config)))  # noqa: T201
    except LoadProblem as problem:
        _complain(str(problem))
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def measure(config: Benchmark) -> Iterator[str]:
    """All cells, round after round, then the bare calls, then the overloads; each as a table when it is done.

    Raises:
        LoadProblem: a server does not come up, or the load cannot be made.
    """
    everything = inputs()
    chosen = [one for one in everything if config.only in one.name]
    if not chosen:
        raise LoadProblem(f"--only {config.only} names none of {', '.join(one.name for one in everything)}.")
    probes = {one.kind: one for one in reversed(everything)}
    logs = Path(tempfile.mkdtemp(prefix="sightread-bench-"))
    with servers(probes, workers=config.workers, mosec=config.mosec, logs=logs) as compared:
        results = _compare(config, chosen, compared)
        yield table(results)
        if 1 in config.connections:
            yield bare_call.table(
                {one.name: bare_call.one_connection(compared, one, config.rounds, config.seconds) for one in chosen}
            )
        if config.overload:
            yield overload.table(list(_overloads(config, chosen, compared)))


def _overloads(config: Benchmark, chosen: Sequence[Input], compared: Compared) -> Iterator[overload.Overload]:
    for newest in (False, True):
        for one in chosen:
            for server in compared.servers:
                if server.refuses and (server.name == FIRST or not newest):
                    yield overload.overload(server, one, times=config.overload, seconds=config.seconds, newest=newest)


def _compare(config: Benchmark, chosen: Sequence[Input], compared: Compared) -> Results:
    results: Results = defaultdict(lambda: defaultdict(list))
    turns = [(one, load, server) for one in chosen for load in _loads(config) for server in compared.servers]
    with tqdm(total=config.rounds * len(turns), unit=" measurements", disable=not sys.stderr.isatty()) as progress:
        for _ in range(config.rounds):
            for one, connections, server in turns:
                measurement = _measured(config, one, connections, server)
                results[one.name, _load_name(config, connections)][server.name].append(measurement)
                progress.update()
    return results


def table(results: Results) -> str:
    """Requests a second, median and range of the rounds, and latency (half and 99 %), in Markdown."""
    names = list(next(iter(results.values())))
    lines = [f"| what | load | {' | '.join(names)} | {FIRST} against the next |", "|---" * (len(names) + 3) + "|"]
    for (what, load), by_server in results.items():
        cells = [_told(by_server[name]) for name in names]
        lines.append(f"| {what} | {load} | {' | '.join(cells)} | {_ahead(by_server)} |")
    return "\n".join(lines)


def _loads(config: Benchmark) -> list[int | None]:
    """Connections of the closed loops, then None for the open one."""
    return [*config.connections, None]


def _load_name(config: Benchmark, connections: int | None) -> str:
    if connections is None:
        return f"{config.rate:g} a second"
    return f"{connections} connection{'s' if connections > 1 else ''}"


def _measured(config: Benchmark, one: Input, connections: int | None, server: Server) -> Measurement:
    url = server.urls[one.kind]
    settle(url, one)
    if connections is None:
        return open_loop(url, one, rate=config.rate, seconds=config.seconds)
    return closed_loop(url, one, connections=connections, seconds=config.seconds)


def _told(measurements: Sequence[Measurement]) -> str:
    rates = sorted(one.rate for one in measurements)
    failed = sum(one.failed for one in measurements)
    p50, p99 = (median(values) for values in zip(*((one.p50, one.p99) for one in measurements), strict=True))
    told = f"{median(rates):,.0f} ({rates[0]:,.0f} – {rates[-1]:,.0f}), {p50:.1f} / {p99:.1f} ms"
    return f"{told}, {failed:,} failed" if failed else told


def _ahead(by_server: dict[str, list[Measurement]]) -> str:
    """Sightread's rate over the best peer's; the ceiling is no peer."""
    rates = {name: median(one.rate for one in measurements) for name, measurements in by_server.items()}
    peers = [rate for name, rate in rates.items() if name not in {FIRST, "constant answer"}]
    return f"{rates[FIRST] / max(peers):.2f} ×"


def _complain(what: str) -> None:
    print(f"make bench: {what}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
