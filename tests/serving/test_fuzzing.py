"""Coverage-guided fuzzing, a few seconds of it: `python -m fuzz.images` and `python -m fuzz.texts` go on for longer."""

import re
import subprocess
import sys

import pytest

pytest.importorskip("atheris", reason="it is there for Linux only")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_seconds_of_fuzzing_find_nothing(kind: str) -> None:
    command = [sys.executable, "-m", f"fuzz.{kind}", "6", "--fresh", "--seed", "5"]
    run = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    executed = re.search(r"number_of_executed_units: (\d+)", run.stderr)
    assert executed is not None
    assert int(executed[1]) > 500
