import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from training import repository
from training.export import Session
from training.models_command import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Three versions of cnn, of which 1 is a real one, and a version of lstm."""
    folder = tmp_path / "models"
    shutil.copytree(ROOT / "models" / "cnn" / "1", folder / "cnn" / "1")
    for version in ("cnn/2", "cnn/3", "lstm/1", "empty", ".hidden/1"):
        (folder / version).mkdir(parents=True)
    return folder


def entry(models: Path, name: str = "cnn") -> Any:
    config = text_format.Parse((models / "models.config").read_text(), ModelServerConfig())
    (found,) = [entry for entry in config.model_config_list.config if entry.name == name]
    return found


def labels(models: Path, name: str = "cnn") -> dict[str, int]:
    return dict(entry(models, name).version_labels)


def run(models: Path, *arguments: str) -> int:
    verb, *rest = arguments
    return main([verb, "--models", str(models), *rest])


# list


def test_the_list_shows_labels_and_what_each_version_says_of_itself(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(models, "promote", "cnn", "1")
    run(models, "promote", "cnn", "3", "--label", "canary")
    capsys.readouterr()
    assert run(models, "list", "--json") == 0
    cnn, lstm = json.loads(capsys.readouterr().out)["models"]
    assert (cnn["name"], cnn["policy"], lstm["name"], lstm["policy"]) == ("cnn", "all", "lstm", "the latest 2")
    assert [(v["version"], v["labels"], v["traffic"]) for v in cnn["versions"]] == [
        (3, ["canary", "previous"], False),
        (2, [], False),
        (1, ["stable"], True),
    ]
    with Session(models / "cnn" / "1") as session:
        contract = session.contract()
    shown = cnn["versions"][-1]
    assert shown["accuracy"] == contract.evaluation.accuracy
    assert shown["expected_calibration_error"] == contract.calibration.expected_calibration_error_after
    assert shown["megabytes"] == pytest.approx(0.587, abs=0.01)
    assert "holds no SavedModel" in cnn["versions"][0]["problem"]
    assert run(models, "list") == 0
    table = capsys.readouterr().out
    assert f"{contract.evaluation.accuracy:.2%}" in table
    assert "canary, previous" in table


def test_the_list_starts_without_tensorflow(models: Path) -> None:
    script = (
        "import sys; from training.models_command import main; code = main(sys.argv[1:]);"
        "assert not {'tensorflow', 'keras'} & set(sys.modules); sys.exit(code)"
    )
    command = [sys.executable, "-c", script, "list", "--models", str(models)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cnn" in done.stdout


# promote


def test_the_first_promotion_writes_a_config_that_leaves_no_model_out(models: Path) -> None:
    assert run(models, "promote", "cnn") == 0
    assert labels(models) == {"stable": 3}
    assert entry(models).model_version_policy.WhichOneof("policy_choice") == "all"
    assert entry(models).base_path == "/models/cnn"
    assert entry(models, "lstm").model_version_policy.latest.num_versions == 2
    assert (models / "models.config").read_text().count("config {") == 2


def test_what_was_stable_becomes_previous_and_other_labels_stay(models: Path) -> None:
    run(models, "promote", "cnn", "1")
    run(models, "promote", "cnn", "3", "--label", "canary")
    run(models, "promote", "cnn", "2")
    assert labels(models) == {"stable": 2, "previous": 1, "canary": 3}
    run(models, "promote", "cnn", "2")
    assert labels(models) == {"stable": 2, "previous": 1, "canary": 3}


def test_the_same_commands_write_the_same_file(models: Path) -> None:
    texts = []
    for _ in range(2):
        for arguments in (("cnn", "1"), ("cnn", "3", "--label", "canary"), ("cnn", "2")):
            run(models, "promote", *arguments)
        texts.append((models / "models.config").read_bytes())
        (models / "models.config").unlink()
    assert texts[0] == texts[1]


def test_what_somebody_wrote_by_hand_stays(models: Path) -> None:
    (models / "models.config").write_text(
        """model_config_list {
          config { name: "cnn" base_path: "/data/cnn" version_labels { key: "mine" value: 1 }
                   logging_config { sampling_config { sampling_rate: 0.5 } } }
          config { name: "other" base_path: "/elsewhere/other" model_version_policy { specific { versions: 7 } } }
        }"""
    )
    assert run(models, "promote", "cnn", "2") == 0
    assert labels(models) == {"mine": 1, "stable": 2, "previous": 3}
    assert entry(models).base_path == "/data/cnn"
    assert entry(models).logging_config.sampling_config.sampling_rate == 0.5
    assert list(entry(models, "other").model_version_policy.specific.versions) == [7]
    repository.announce(models, "lstm")
    assert entry(models, "lstm").base_path == "/data/lstm"


def test_a_label_never_moves_in_the_step_that_makes_its_version_be_served(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # TensorFlow Serving would refuse the whole config, at every poll
    (models / "models.config").write_text(
        """model_config_list { config { name: "cnn" base_path: "cnn" version_labels { key: "stable" value: 1 }
           model_version_policy { specific { versions: 1 } } } }"""
    )
    assert run(models, "promote", "cnn", "2") == 1
    assert "say it again: sightread models promote cnn 2" in capsys.readouterr().err
    assert labels(models) == {"stable": 1}
    assert run(models, "promote", "cnn", "2") == 0
    assert labels(models) == {"stable": 2, "previous": 1}


def test_commands_at_once_lose_no_update(models: Path) -> None:
    names = [f"model-{number}" for number in range(12)]
    for name in names:
        (models / name / "1").mkdir(parents=True)
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: repository.promote(models, name), names))
    assert [labels(models, name) for name in names] == [{"stable": 1}] * len(names)


def test_a_published_model_gets_an_entry_only_where_there_is_a_config(models: Path) -> None:
    repository.announce(models, "cnn")
    assert not (models / "models.config").exists()
    run(models, "promote", "cnn", "1")
    (models / "toy" / "1").mkdir(parents=True)
    repository.announce(models, "toy")
    repository.announce(models, "cnn")
    assert entry(models, "toy").base_path == "/models/toy"
    assert labels(models) == {"stable": 1, "previous": 3}


# rollback


def test_a_rollback_goes_to_what_was_stable_before_and_never_forward(models: Path) -> None:
    run(models, "promote", "cnn", "2")
    run(models, "promote", "cnn", "3")
    assert run(models, "rollback", "cnn") == 0
    assert labels(models) == {"stable": 2}
    assert run(models, "rollback", "cnn") == 0
    assert labels(models) == {"stable": 1}
    assert run(models, "rollback", "cnn") == 1
    assert labels(models) == {"stable": 1}


def test_an_older_version_that_was_promoted_is_undone_by_a_rollback(models: Path) -> None:
    run(models, "promote", "cnn", "1")
    run(models, "rollback", "cnn")
    assert labels(models) == {"stable": 3}


def test_without_any_label_a_rollback_leaves_the_latest_version(models: Path) -> None:
    assert run(models, "rollback", "cnn") == 0
    assert labels(models) == {"stable": 2}
    assert repository.in_service(models, "cnn") == models / "cnn" / "2"


def test_a_rollback_tells_that_the_canary_stayed(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(models, "promote", "cnn", "--label", "canary")
    run(models, "rollback", "cnn")
    assert "stable of cnn is version 2 again, it was 3.\ncanary is still version 3." in capsys.readouterr().out


# prune


def test_pruning_keeps_the_labelled_and_the_newest(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for version in range(4, 8):
        (models / "cnn" / str(version)).mkdir()
    run(models, "promote", "cnn", "2")
    run(models, "promote", "cnn", "4")
    run(models, "promote", "cnn", "1", "--label", "canary")
    assert run(models, "prune", "cnn", "--keep", "2", "--yes") == 0
    assert repository.versions(models, "cnn") == [1, 2, 4, 6, 7]
    assert sorted(path.name for path in (models / "cnn").iterdir()) == ["1", "2", "4", "6", "7"]
    out = capsys.readouterr().out
    assert str(models / "cnn" / "3") in out
    assert str(models / "cnn" / "6") not in out
    assert run(models, "prune", "cnn", "--keep", "2", "--yes") == 0
    assert "Nothing to delete" in capsys.readouterr().out


def test_pruning_spares_what_a_hand_written_policy_serves(models: Path) -> None:
    (models / "models.config").write_text(
        """model_config_list { config { name: "cnn" base_path: "cnn"
           model_version_policy { specific { versions: 1 } } } }"""
    )
    run(models, "prune", "cnn", "--keep", "1", "--yes")
    assert repository.versions(models, "cnn") == [1, 3]


def test_pruning_asks_and_where_nobody_can_answer_deletes_nothing(models: Path) -> None:
    command = [sys.executable, "-m", "sightread", "models", "prune", "cnn", "--keep", "1", "--models", str(models)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "--yes" in done.stderr
    assert repository.versions(models, "cnn") == [1, 2, 3]
    for answer, code, left in (("n\n", 1, [1, 2, 3]), ("y\n", 0, [3])):
        ours, theirs = os.openpty()
        with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            os.write(ours, answer.encode())
            assert process.wait(60) == code
        os.close(ours)
        os.close(theirs)
        assert repository.versions(models, "cnn") == left


# what goes wrong


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["promote", "rnn"], 1, "has no model 'rnn': it has cnn, lstm"),
        (["promote", "cnn", "9"], 1, "cnn has no version 9: it has 1, 2, 3"),
        (["rollback", "lstm"], 1, "lstm has nothing to go back to from version 1"),
        (["prune", "rnn", "--yes"], 1, "has no model 'rnn'"),
        (["prune", "cnn", "--keep", "0"], 2, "at least one version stays"),
        (["promote", "cnn", "last"], 2, "invalid int value: 'last'"),
        (["promote", "cnn", "--label", "latest"], 2, "invalid choice: 'latest'"),
        (["promote"], 2, "the following arguments are required: NAME"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_an_exit_code(
    arguments: list[str], code: int, says: str, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(models, *arguments) == code
    assert says in capsys.readouterr().err
    assert not (models / "models.config").exists()


@pytest.mark.parametrize("verb", [["list"], ["promote", "cnn"], ["rollback", "cnn"], ["prune", "cnn", "--yes"]])
def test_a_config_that_cannot_be_read_stops_every_verb_and_stays(
    verb: list[str], models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (models / "models.config").write_text("model_config_list { nonsense }")
    assert run(models, *verb) == 1
    assert "is no ModelServerConfig" in capsys.readouterr().err
    assert (models / "models.config").read_text() == "model_config_list { nonsense }"


@pytest.mark.parametrize("verb", [["list"], ["promote", "cnn"], ["table"]])
def test_a_repository_that_is_not_there_is_named(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "nowhere", *verb) == 1
    assert "nowhere is no model repository" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [[], ["list"], ["promote"], ["rollback"], ["prune"], ["table"]])
def test_every_verb_has_help(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*verb, "--help"]) == 0
    assert "usage: sightread models" in capsys.readouterr().out


def test_no_verb_is_wrong() -> None:
    assert main([]) == 2
    assert main(["demote", "cnn"]) == 2


# contracts


def test_a_contract_read_from_the_graph_is_the_one_that_the_signature_answers() -> None:
    for name in ("cnn", "lstm"):
        version = ROOT / "models" / name / "1"
        with Session(version) as session:
            assert repository.contract(version) == session.contract()
