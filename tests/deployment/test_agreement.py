"""Images, manifests and compose agree with the code and with each other: ports, paths, settings, limits, tags."""

import json
import re
import tomllib
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import text_format
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic_settings import CliApp
from starlette.testclient import TestClient
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.app import create_app
from serving.batching import MAX_IN_FLIGHT
from serving.local_model_server.config import parse
from serving.settings import Settings
from tests.deployment.conftest import ROOT, Manifest, Manifests
from training.config import CnnConfig, Config, LstmConfig
from training.repository import BASE_PATH

pytestmark = pytest.mark.manifests

GPU, INGRESS = "k8s/overlays/gpu", "k8s/components/ingress"
CONFIG = ROOT / "k8s/base/model-server"
IDLE_BYTES = 256 * 2**20
"""A gateway that does nothing, with room to spare."""
BYTES_A_PIXEL = 16
"""The most that decoding takes: see SECURITY.md."""
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())


@pytest.fixture
def manifests(render: Callable[[str], Manifests]) -> dict[tuple[str, str], Manifest]:
    found = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in render(GPU)}
    return {(kind, "gateway" if name.startswith("gateway-") else name): m for (kind, name), m in found.items()}


@pytest.fixture
def gateway(manifests: dict[tuple[str, str], Manifest]) -> Manifest:
    pod: Manifest = manifests["Deployment", "gateway"]["spec"]["template"]["spec"]
    return pod


@pytest.fixture
def model_server(manifests: dict[tuple[str, str], Manifest]) -> Manifest:
    pod: Manifest = manifests["Deployment", "model-server"]["spec"]["template"]["spec"]
    return pod


@pytest.fixture
def settings(manifests: dict[tuple[str, str], Manifest], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The gateway's, as its pod and its image give them."""
    return settings_of(manifests["ConfigMap", "gateway"]["data"] | image_environment("gateway"), monkeypatch)


def settings_of(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ours = {name.removeprefix("SIGHTREAD_").lower() for name in environment if name.startswith("SIGHTREAD_")}
    assert ours <= Settings.model_fields.keys()
    return Settings()


def stage(name: str) -> str:
    """The last lines of a stage of the Dockerfile, from its FROM on."""
    (found,) = re.findall(rf"^FROM \S+ AS {name}$.*?(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    return str(found)


def image_environment(name: str) -> dict[str, str]:
    return dict(re.findall(r"(SIGHTREAD_\w+)=(\S+)", stage(name)))


def exec_form(instruction: str, text: str) -> list[str]:
    (found,) = re.findall(rf"^\s*{instruction} (\[.*?\])$", text, re.MULTILINE | re.DOTALL)
    words: list[str] = json.loads(found.replace("\\\n", ""))
    return words


def flags() -> dict[str, str]:
    """TensorFlow Serving's."""
    return dict(flag.removeprefix("--").split("=", 1) for flag in exec_form("CMD", stage("model-server")))


def ports(pod: Manifest) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for container in pod["containers"] for port in container["ports"]}


def pre_stop(pod: Manifest) -> int:
    return int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])


def quantity(text: str) -> int:
    return int(text[:-2]) * UNITS[text[-2:]]


def parameter(file: str, name: str) -> int:
    (value,) = re.findall(rf"^{name} {{ value: (\d+) }}$", (CONFIG / file).read_text(), re.MULTILINE)
    return int(value)


def test_the_gateway_listens_where_it_is_asked(settings: Settings, gateway: Manifest) -> None:
    assert ports(gateway) == {"http": settings.port}
    assert settings.host == "0.0.0.0"  # noqa: S104  # a container's own network
    assert f"EXPOSE {settings.port}\n" in stage("gateway")
    assert COMPOSE["services"]["gateway"]["ports"] == [f"127.0.0.1:{settings.port}:{settings.port}"]


def test_the_gateway_finds_the_model_server(
    settings: Settings, manifests: dict[tuple[str, str], Manifest], model_server: Manifest
) -> None:
    service = manifests["Service", "model-server"]
    grpc = {port["name"]: port for port in service["spec"]["ports"]}["grpc"]
    assert settings.model_server == f"dns:///{service['metadata']['name']}:{grpc['port']}"
    assert ports(model_server) == {"grpc": int(flags()["port"]), "rest": int(flags()["rest_api_port"])}
    assert f"EXPOSE {flags()['port']} {flags()['rest_api_port']}\n" in stage("model-server")
    assert COMPOSE["services"]["gateway"]["environment"]["SIGHTREAD_MODEL_SERVER"] == settings.model_server


def test_what_is_asked_of_the_gateway_exists(
    settings: Settings, gateway: Manifest, render: Callable[[str], Manifests]
) -> None:
    client = TestClient(create_app(settings))
    container = gateway["containers"][0]
    asked = {container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "readiness", "liveness")}
    asked |= {
        m["spec"]["endpoints"][0]["path"]
        for m in render(GPU)
        if m["kind"] == "ServiceMonitor" and m["metadata"]["name"] == "gateway"
    }
    asked |= set(re.findall(r"http://127\.0\.0\.1:8080(/\w+)", DOCKERFILE))
    # 405: it takes another method
    assert all(client.get(path).status_code in {200, 405, 503} for path in asked)


def test_the_ingress_lets_through_what_clients_ask_and_nothing_else(
    settings: Settings, render_with: Callable[..., Manifests]
) -> None:
    (ingress,) = (m for m in render_with("ingress") if m["kind"] == "Ingress")
    routes = [(route["path"], route["pathType"]) for route in ingress["spec"]["rules"][0]["http"]["paths"]]

    def is_let_through(path: str) -> bool:
        return any(path == route or (kind == "Prefix" and path.startswith(f"{route}/")) for route, kind in routes)

    for_the_cluster = {"/livez", "/healthz", "/readyz", "/metrics"}
    client = TestClient(create_app(settings))
    answered = {*client.get("/openapi.json").json()["paths"], "/", "/page/page.js", "/docs", "/openapi.json"}
    assert {path for path in answered if not is_let_through(path)} == for_the_cluster
    # and no route is left over
    assert all(any(path == route or path.startswith(f"{route}/") for path in answered) for route, _ in routes)


def test_an_accepted_request_is_answered_before_the_pod_ends(settings: Settings, gateway: Manifest) -> None:
    assert settings.drain_seconds > settings.deadline_seconds
    ending = settings.not_ready_seconds + settings.drain_seconds + 5
    assert gateway["terminationGracePeriodSeconds"] >= pre_stop(gateway) + ending
    grace = int(COMPOSE["services"]["gateway"]["stop_grace_period"].removesuffix("s"))
    assert grace > Settings.model_fields["drain_seconds"].default + Settings.model_fields["not_ready_seconds"].default


def test_no_gateway_calls_a_model_server_that_is_gone(settings: Settings, model_server: Manifest) -> None:
    channel = dict(argument.split("=") for argument in flags()["grpc_channel_arguments"].split(","))
    age, grace = (int(channel[f"grpc.max_connection_age{name}_ms"]) / 1000 for name in ("", "_grace"))
    assert grace > settings.deadline_seconds
    # gRPC moves the age by a tenth, and a connection may be made anew once from what DNS said before
    assert pre_stop(model_server) >= 2 * 1.1 * age + settings.deadline_seconds
    assert model_server["terminationGracePeriodSeconds"] >= pre_stop(model_server) + 5


def bytes_needed(settings: Settings) -> int:
    """The most that a gateway takes. So many pictures are decoded at once, not as many as some machine has cores."""
    assert settings.decoders > 0
    decoding = settings.workers * settings.decoders * settings.max_pixels * BYTES_A_PIXEL
    return settings.workers * (IDLE_BYTES + settings.max_held_bytes) + decoding


def test_the_memory_limit_holds_the_largest_pictures(settings: Settings, gateway: Manifest) -> None:
    limits = gateway["containers"][0]["resources"]["limits"]
    assert settings.decoders == int(limits["cpu"])
    assert quantity(limits["memory"]) >= bytes_needed(settings)


def test_compose_s_memory_limit_holds_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = COMPOSE["services"]["gateway"]
    settings = settings_of(gateway["environment"] | image_environment("gateway"), monkeypatch)
    assert int(gateway["mem_limit"].removesuffix("g")) * 2**30 >= bytes_needed(settings)


def test_no_call_waits_in_the_model_server(settings: Settings, manifests: dict[tuple[str, str], Manifest]) -> None:
    gateways = manifests["HorizontalPodAutoscaler", "gateway"]["spec"]["maxReplicas"]
    in_flight = gateways * settings.workers * MAX_IN_FLIGHT * len({settings.image_model, settings.text_model})
    assert parameter("batching.config", "num_batch_threads") >= in_flight
    assert parameter("batching.config", "max_batch_size") >= settings.max_batch_size
    assert parameter("batching.config", "batch_timeout_micros") == 0
    assert parameter("batching.config", "max_enqueued_batches") >= 1
    # gateways also ask for versions, labels and contracts
    assert int(flags()["grpc_max_threads"]) >= 2 * in_flight


def test_the_model_server_does_what_a_proof_needs() -> None:
    wanted = {
        # a broken version would stay LOADING and hold newer ones up
        "max_num_load_retries": "0",
        # a first config with labels is refused otherwise
        "allow_version_labels_for_unavailable_models": "true",
        "enable_batching": "true",
        "model_config_file": "/etc/model-server/models/models.config",
        "batching_parameters_file": "/etc/model-server/batching.config",
        # without it there is no Prometheus page
        "monitoring_config_file": "/etc/model-server/monitoring.config",
    }
    assert wanted.items() <= flags().items()
    # otherwise a label moves at a restart only
    assert 0 < int(flags()["model_config_file_poll_wait_seconds"]) <= 60
    # whatever is named is copied there
    for path in wanted.values():
        if path.startswith("/"):
            assert (CONFIG / Path(path).name).is_file()
            assert f"k8s/base/model-server/{Path(path).name} " in stage("model-server")


def test_the_prometheus_page_is_where_it_is_scraped(render: Callable[[str], Manifests]) -> None:
    (path,) = re.findall(r'path: "(.+)"', (CONFIG / "monitoring.config").read_text())
    assert "enable: true" in (CONFIG / "monitoring.config").read_text()
    (monitor,) = (m for m in render(GPU) if m["kind"] == "ServiceMonitor" and m["metadata"]["name"] == "model-server")
    assert monitor["spec"]["endpoints"][0]["path"] == path
    jobs = {
        job["job_name"]: job for job in yaml.safe_load((ROOT / "compose/prometheus.yaml").read_text())["scrape_configs"]
    }
    assert jobs["model-server"]["metrics_path"] == path
    assert jobs["model-server"]["static_configs"][0]["targets"] == [f"model-server:{flags()['rest_api_port']}"]
    assert jobs["gateway"]["static_configs"][0]["targets"] == [f"gateway:{Settings.model_fields['port'].default}"]


def test_the_models_that_the_gateway_wants_are_served(settings: Settings, model_server: Manifest) -> None:
    text = (CONFIG / "models.config").read_text()
    configured = {model.name: model for model in parse(text, ROOT / "models")}
    assert configured.keys() == {settings.image_model, settings.text_model}
    for name, model in configured.items():
        # the old one answers until the new one is proven
        assert isinstance(model.keep, int)
        assert model.keep >= 2
        assert model.folder == ROOT / "models" / name
    for entry in text_format.Parse(text, ModelServerConfig()).model_config_list.config:
        assert entry.base_path == str(BASE_PATH / entry.name)
    probed = {model_server["containers"][0][f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "readiness")}
    assert probed == {f"/v1/models/{name}/metadata" for name in configured}


def test_jobs_are_called_as_the_command_wants(manifests: dict[tuple[str, str], Manifest]) -> None:
    configs: dict[str, type[Config]] = {"cnn": CnnConfig, "lstm": LstmConfig}
    for model, config in configs.items():
        pod = manifests["CronJob", f"train-{model}"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        command, job, *arguments = pod["containers"][0]["args"]
        assert (command, job) == ("train", model)
        parsed = CliApp.run(config, arguments)
        mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert str(parsed.models) == str(BASE_PATH)
        assert {str(parsed.models), f"/{parsed.results.parts[1]}"} <= mounts
        # nothing is published that the gate refuses
        assert not parsed.force


def test_workers_are_told_of_each_other_as_training_wants(render_offered: Callable[[str], Manifests]) -> None:
    named = {m["metadata"]["name"]: m["spec"] for m in render_offered("gpu") if m["kind"] == "CronJob"}
    job = named["train-cnn-workers"]["jobTemplate"]["spec"]
    environment = job["template"]["spec"]["containers"][0]["env"]
    names = [variable["name"] for variable in environment]
    # $(NAME) stands for variables that come before
    assert names.index("TF_CONFIG") > max(names.index("JOB"), names.index("NUMBER"))
    text = next(variable["value"] for variable in environment if variable["name"] == "TF_CONFIG")
    told = json.loads(text.replace("$(JOB)", "job").replace("$(NUMBER)", "1"))
    service = job["template"]["spec"]["subdomain"]
    workers = [f"job-{number}.{service}:2222" for number in range(job["completions"])]
    assert told == {"cluster": {"worker": workers}, "task": {"type": "worker", "index": 1}}


def test_the_ingress_takes_what_the_gateway_takes(
    render_with: Callable[..., Manifests], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = render_with("ingress")
    (ingress,) = (m for m in manifests if m["kind"] == "Ingress")
    annotations = {key.rpartition("/")[2]: value for key, value in ingress["metadata"]["annotations"].items()}
    assert int(annotations["proxy-body-size"].removesuffix("m")) * 2**20 == settings.max_body_bytes
    # the gateway's own 504 says more
    assert int(annotations["proxy-read-timeout"]) > settings.deadline_seconds
    assert ingress["spec"]["tls"][0]["hosts"] == [ingress["spec"]["rules"][0]["host"]]
    (data,) = (m["data"] for m in manifests if m["metadata"]["name"].startswith("gateway-"))
    assert settings_of(data, monkeypatch).trusted_proxies


def test_every_image_is_one_that_the_dockerfile_makes(render: Callable[[str], Manifests]) -> None:
    version = PROJECT["version"]
    for overlay in ("local", "cpu", "gpu"):
        text = json.dumps(render(f"k8s/overlays/{overlay}"))
        images = set(re.findall(r'"image": "([^"]+)"', text))
        device = "-gpu" if overlay == "gpu" else ""
        assert {f"sightread-gateway:{version}", f"sightread-model-server:{version}{device}"} <= images
        for image in images:
            name, _, tag = image.partition(":")
            assert stage(name.removeprefix("sightread-"))
            assert tag.removesuffix("-gpu") == version
    for name, service in COMPOSE["services"].items():
        image, _, tag = service["image"].partition(":")
        assert tag
        if image.startswith("sightread-"):
            assert tag.removesuffix("-gpu") == version
            assert service["build"]["target"] == image.removeprefix("sightread-")
            assert (service["build"].get("args") == {"DEVICE": "gpu"}) == name.endswith("-gpu") == tag.endswith("-gpu")


def test_every_image_says_its_version() -> None:
    assert re.findall(r'image\.version="(.+?)"', DOCKERFILE) == [PROJECT["version"]] * 3


def test_every_base_is_pinned() -> None:
    stages = set(re.findall(r" AS ([\w-]+)$", DOCKERFILE, re.MULTILINE))
    bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) - stages - {"tensorflow-serving-${DEVICE}"}
    assert bases == {"python:3.11-slim-bookworm", "tensorflow/serving:2.20.0", "tensorflow/serving:2.20.0-gpu"}
    # what is exported loads
    (tensorflow,) = re.findall(r"^tensorflow==(\S+)", (ROOT / "requirements/all.lock").read_text(), re.MULTILINE)
    assert f"tensorflow/serving:{tensorflow} " in DOCKERFILE


@pytest.mark.parametrize("name", ["gateway", "training", "model-server"])
def test_an_image_is_nobody_s_root_and_has_no_shell_before_its_program(name: str) -> None:
    text = stage(name)
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == ["10001:10001"]
    assert exec_form("ENTRYPOINT", text)[0] in {"sightread", "/usr/bin/tensorflow_model_server"}


def test_the_gateway_s_image_knows_whether_it_is_alive() -> None:
    assert exec_form("CMD", stage("gateway").partition("HEALTHCHECK")[2].partition("# no shell")[0])[0] == "python"


def pins(lock: str) -> dict[str, Any]:
    text = (ROOT / f"requirements/{lock}.lock").read_text()
    return dict(re.findall(r"^([\w.-]+==\S+)( ;.*)? \\$", text, re.MULTILINE))


@pytest.mark.parametrize("lock", ["gateway", "tracing", "training-cpu", "training-gpu"])
def test_what_is_installed_is_what_was_tested(lock: str) -> None:
    only_gpu = {pin for pin in pins(lock) if pin.startswith("nvidia-")}
    assert bool(only_gpu) == (lock == "training-gpu")
    assert pins(lock).keys() - only_gpu <= pins("all").keys()


def test_the_two_locks_of_the_image_with_tracing_have_all_that_tracing_needs() -> None:
    gateway, tracing = ({pin.partition("==")[0] for pin in pins(lock)} for lock in ("gateway", "tracing"))
    assert not gateway & tracing
    wanted = [Requirement(needed) for needed in PROJECT["optional-dependencies"]["tracing"]]
    found = set()
    while wanted:
        requirement = wanted.pop()
        if requirement.name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found.add(requirement.name)
            wanted += [Requirement(needed) for needed in requires(requirement.name) or []]
    assert tracing <= {canonicalize_name(name) for name in found} <= gateway | tracing


def test_what_is_copied_is_let_through() -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    for path in {path for line in copied for path in line.split()}:
        assert any(path == entry or Path(path).match(entry) or path.startswith(f"{entry}/") for entry in let_through)
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


@pytest.mark.parametrize(("name", "project"), [("gateway", "project"), ("training", "training-project")])
def test_a_release_that_changes_no_package_installs_and_moves_none(name: str, project: str) -> None:
    packages = stage(f"{name}-packages")
    # whatever else they came from would have them made anew
    assert re.findall(r"^COPY (.+) \./$", packages, re.MULTILINE) == re.findall(r"requirements/\S+", packages)
    assert "from=" not in packages
    # nor are the layers below one that changes kept
    *_, below, last = re.findall(r"^COPY --from=(\S+)", stage(name), re.MULTILINE)
    assert (below, last) == (f"{name}-packages", project)
    assert "LABEL" not in stage(name).partition(f"COPY --from={project}")[0]


def test_compose_lets_nobody_in_from_outside() -> None:
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_compose_mounts_what_is_there() -> None:
    mounts = [volume.split(":")[0] for service in COMPOSE["services"].values() for volume in service.get("volumes", [])]
    for source in mounts:
        assert (ROOT / source).is_file() if source.startswith("./") else source in COMPOSE["volumes"]
