"""`sightread train cnn` and `sightread train lstm`: from a data set to a version in the model repository."""

import importlib
import logging
import os
import signal
import sys
from types import FrameType

from pydantic import ValidationError
from pydantic_settings import CliApp

from training.config import CnnConfig, Config, LstmConfig
from training.problems import TrainingProblem

JOBS: dict[str, type[Config]] = {"cnn": CnnConfig, "lstm": LstmConfig}
DONE, FAILED, WRONG_FLAGS, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
AGAIN_SECONDS = 5.0

USAGE = """\
usage: sightread train {cnn,lstm} [flags]

Train a model and put it, as a version that describes and proves itself, into the model repository.

  cnn     on pictures: CIFAR-10 (downloaded), or a folder with a folder for each label (--data)
  lstm    on texts: IMDB (downloaded), or a CSV, JSONL or Parquet file with text and label (--data)

A job that was killed goes on after its last whole epoch when the same command is given again.
sightread train cnn --help and sightread train lstm --help list the flags.
"""


def main(argv: list[str]) -> int:
    """Run one job.

    Args:
        argv: the arguments after `sightread train`.

    Returns:
        the exit code: 0 done, 1 the job failed, 2 wrong flags, 130 interrupted, 143 terminated.
    """
    job, *flags = argv or [""]
    if job in {"-h", "--help"}:
        sys.stdout.write(USAGE)
        return DONE
    if job not in JOBS:
        wrong = f"there is no job {job!r}" if job else "name a job"
        sys.stderr.write(f"{USAGE}\nsightread train: {wrong}: cnn or lstm\n")
        return WRONG_FLAGS
    try:
        config = CliApp.run(JOBS[job], flags)
    except ValidationError as error:
        for wrong_flag in error.errors():
            if wrong_flag["type"] == "default_factory_not_called":  # the recipe is wrong, and named already
                continue
            flag = "--" + ".".join(map(str, wrong_flag["loc"])).replace("_", "-")
            sys.stderr.write(f"sightread train {job}: {flag} {wrong_flag['input']}: {wrong_flag['msg']}\n")
        return WRONG_FLAGS
    except SystemExit as asked:  # argparse has printed the help, or what is wrong
        return DONE if not asked.code else WRONG_FLAGS
    return _run(job, config)


def _run(job: str, config: Config) -> int:
    # every failure that matters comes as an exception too; what TensorFlow logs besides is noise on a terminal
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # TensorFlow's own choice leaves it off on CPUs without AVX-512, where convolutions then take twice the time
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    previously = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        # only now: TensorFlow takes seconds to import, and --help needs none of it
        importlib.import_module(f"training.{job}").run(config)
    except TrainingProblem as problem:
        sys.stderr.write(f"sightread train {job}: {' '.join([str(problem), *_notes(problem)])}\n")
        return FAILED
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"sightread train {job}: {error.name} is not installed: make brings it; "
            "or, in the project's folder: pip install '.[training]'\n"
        )
        return FAILED
    except OSError as error:
        outcome = " ".join(_notes(error)) or "Nothing was published."
        sys.stderr.write(f"sightread train {job}: {error}: make room there and start again. {outcome}\n")
        return FAILED
    except _Stopped as stopped:
        told = " ".join(_notes(stopped))
        outcome = (
            f". {told}" if told else "; nothing was published. The same command goes on after the last whole epoch."
        )
        sys.stderr.write(f"\nsightread train {job}: {stopped}{outcome}\n")
        return INTERRUPTED if stopped.number == signal.SIGINT else TERMINATED
    finally:
        if signal.getsignal(signal.SIGALRM) is _stop:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for number, handler in previously.items():
            signal.signal(number, handler)
    return DONE


def _notes(error: BaseException) -> list[str]:
    """What is to be told besides why it ended, such as what was published all the same."""
    return getattr(error, "__notes__", [])


class _Stopped(KeyboardInterrupt):
    """Somebody wants the job to end. Raised for SIGTERM too, so that what is half-written gets cleaned up."""

    number = signal.SIGINT

    def __str__(self) -> str:
        return "interrupted" if self.number == signal.SIGINT else "terminated"


def _stop(number: int, _frame: FrameType | None) -> None:
    # what is raised while Python runs a destructor gets lost: ask again until it has arrived
    signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
    if number != signal.SIGALRM:
        _Stopped.number = signal.Signals(number)
    raise _Stopped


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
