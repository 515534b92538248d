"""Coverage-guided fuzzing with atheris: inputs that reach new code are kept and mutated further."""

import argparse
import resource
import sys
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import atheris


class Finding(Exception):
    """The target answered, and wrongly."""


HERE = Path(__file__).parent
LONGEST_INPUT = 4096


def fuzz(name: str, seeds: Sequence[bytes], target: Callable[[bytes], None], words: Sequence[bytes] = ()) -> None:
    """Run the command of one target; it ends the process: 0, or another code after a finding.

    A finding is an exception of the target, or an input that takes too long or too much memory. `words` are bytes to
    put into inputs where no coverage tells that they matter.
    """
    parser = argparse.ArgumentParser(prog=f"python -m fuzz.{name}", description=f"Fuzz the preprocessing of {name}.")
    option = parser.add_argument
    option("what", nargs="?", default="60", help="for how many seconds, or a file to run once (%(default)s)")
    option("--input-seconds", type=int, default=5, help="an input that takes longer is a finding (%(default)s)")
    option(
        "--megabytes",
        type=int,
        default=1024,
        help="more memory than at the start by so much is a finding (%(default)s)",
    )
    option("--seed", type=int, default=0, help="where the luck starts; 0: anywhere (%(default)s)")
    option("--fresh", action="store_true", help="start from the seeds alone, and keep nothing")
    arguments = parser.parse_args()

    if not arguments.what.isdecimal():
        started = time.perf_counter()
        target(Path(arguments.what).read_bytes())
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"answered in {time.perf_counter() - started:.2f} s; the process had {megabytes} MB")  # noqa: T201
        sys.exit()

    findings = HERE / "findings" / name
    corpus = HERE / "corpus" / name
    start = HERE / "corpus" / f"{name}-seeds"
    for folder in (findings, corpus, start):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (start / sha256(seed).hexdigest()[:16]).write_bytes(seed)
    dictionary = HERE / "corpus" / f"{name}.dict"
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in words))
    # the system hands the parent's peak on to a process that it starts, and libFuzzer looks at the peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    flags = [
        f"-max_total_time={arguments.what}",
        f"-timeout={arguments.input_seconds}",
        f"-rss_limit_mb={peak + arguments.megabytes}",
        f"-seed={arguments.seed}",
        f"-max_len={LONGEST_INPUT}",
        f"-artifact_prefix={findings}/",
        "-keep_seed=1",
        "-print_final_stats=1",
    ]
    if words:
        flags.append(f"-dict={dictionary}")
    folders = [start] if arguments.fresh else [corpus, start]
    atheris.Setup([sys.argv[0], *flags, *map(str, folders)], target)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)
