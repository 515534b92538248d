"""`sightread models` beside a running service: traffic goes where `stable` points, and no request is lost."""

import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import Start
from tests.e2e.processes import Service
from tests.e2e.test_versions import QUICK, ask, traffic
from tests.e2e.tiny_models import put


def sightread_models(repository: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "sightread", "models", *arguments, "--models", str(repository)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def proven(service: Service, *numbers: int) -> bool:
    return all(service.versions().get(number, {}).get("state") == "proven" for number in numbers)


def test_traffic_follows_promotions_and_rollbacks_without_a_failed_request(
    repository: Path, versions: Path, start_model_server: Start, start_gateway: Start
) -> None:
    sightread_models(repository, "promote", "cnn", "1")
    service = start_gateway("--model-server", start_model_server(repository).url, *QUICK)
    service.wait_for(service.is_ready)
    with traffic(service) as seen, traffic(service, "?version_label=stable") as labelled:

        def goes_to(number: int) -> bool:
            return min(seen[200, number] - before, labelled[200, number]) > 30

        before = 0
        service.wait_for(lambda: goes_to(1))
        put(versions / "cnn" / "2", repository / "cnn" / "2")
        sightread_models(repository, "promote", "cnn")  # in the same breath: nobody has loaded it yet
        service.wait_for(lambda: goes_to(2))

        put(versions / "cnn" / "3", repository / "cnn" / "3")
        service.wait_for(lambda: proven(service, 1, 2, 3))
        before = seen[200, 2]
        service.wait_for(lambda: goes_to(2))
        assert (200, 3) not in seen  # what is new takes no traffic before it is promoted
        before = 0
        sightread_models(repository, "promote", "cnn", "3")
        service.wait_for(lambda: goes_to(3))

        for number in (2, 1):
            sightread_models(repository, "rollback", "cnn")
            before = seen[200, number]
            service.wait_for(lambda number=number: goes_to(number))  # type: ignore[misc]
        sightread_models(repository, "prune", "cnn", "--keep", "1", "--yes")
        service.wait_for(lambda: set(service.versions()) >= {1, 3} and not proven(service, 2))
    assert set(seen) == set(labelled) == {(200, 1), (200, 2), (200, 3)}

    (repository / "models.config").unlink()
    service.wait_for(lambda: ask(service).json()["model"]["version"] == 3)  # without the label it is the latest again


def test_bad_versions_neither_push_the_stable_one_out_nor_take_its_traffic(
    repository: Path, versions: Path, start_model_server: Start, start_gateway: Start
) -> None:
    sightread_models(repository, "promote", "cnn", "1")
    put(versions / "cnn" / "3", repository / "cnn" / "3")
    bad = (2, 4, 5)
    for number in bad:
        put(versions / "cnn" / "broken", repository / "cnn" / str(number))
    service = start_gateway("--model-server", start_model_server(repository).url, *QUICK)
    service.wait_for(lambda: {service.versions().get(number, {}).get("state") for number in bad} == {"refused"})
    service.wait_for(lambda: proven(service, 1, 3))
    with traffic(service) as seen:
        sightread_models(repository, "promote", "cnn", "2")
        service.wait_for(lambda: ask(service, "?version_label=stable").status_code == 404)
        before = seen[200, 1]
        service.wait_for(lambda: seen[200, 1] > before + 30)
    assert set(seen) == {(200, 1)}


def test_from_its_first_answer_on_a_gateway_answers_with_the_stable_version(
    repository: Path, versions: Path, start_gateway: Start
) -> None:
    for number in (2, 3):
        put(versions / "cnn" / str(number), repository / "cnn" / str(number))
    sightread_models(repository, "promote", "cnn", "1")
    # the model server starts with it: its versions become available one by one
    service = start_gateway("--models", str(repository), "--text-model", "", "--poll-seconds", "0.1")
    with traffic(service) as seen:
        service.wait_for(lambda: seen[200, 1] > 30 and proven(service, 1, 2, 3))
    assert set(seen) <= {(503, 0), (200, 1)}
