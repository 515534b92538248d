"""What k8s/README.md says to type can be typed."""

import re
from collections.abc import Callable

import pytest

from tests.deployment.conftest import REGISTRY, ROOT, Manifests

pytestmark = pytest.mark.manifests

README = (ROOT / "k8s/README.md").read_text()
DIRECTORIES = sorted(set(re.findall(r"-k (k8s/\S+?)[`\s,]", README)))


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_what_is_applied_renders(directory: str, render: Callable[[str], Manifests]) -> None:
    assert render(directory)


def test_what_is_named_to_kubectl_is_there(
    render: Callable[[str], Manifests], render_offered: Callable[[str], Manifests]
) -> None:
    there = {
        f"{manifest['kind'].lower()}/{manifest['metadata']['name']}"
        for manifests in (*map(render, DIRECTORIES), render_offered("gpu"))
        for manifest in manifests
    }
    named = set(re.findall(r"\b((?:deployment|service|cronjob|job)/[\w-]+)", README))
    started = {f"job/{name}" for name in re.findall(r"create job (\S+)", README)}
    assert named <= there | started


def test_files_and_folders_that_are_named_are_there() -> None:
    folders = ["k8s", "k8s/base", "k8s/base/model-server", "k8s/components/autoscaling", "k8s/components/model-volume"]
    for path in re.findall(r"`([\w/.-]+\.(?:yaml|config))`", README):
        assert any((ROOT / folder / path).is_file() for folder in ["", *folders, "k8s/components/ingress"])


def test_images_are_built_under_the_names_that_are_applied(render: Callable[[str], Manifests]) -> None:
    built = set(re.findall(r"-t (?:\$REGISTRY/)?(\S+)", README))
    for overlay in ("local", "gpu"):
        for manifest in render(f"k8s/overlays/{overlay}"):
            assert set(re.findall(r"'image': '([^']+)'", str(manifest))) <= built


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_model_servers_are_as_many_as_an_overlay_is_told(
    overlay: str, render_offered: Callable[[str], Manifests]
) -> None:
    deployments = {m["metadata"]["name"]: m["spec"] for m in render_offered(overlay) if m["kind"] == "Deployment"}
    assert deployments["model-server"]["replicas"] == 2
    # the autoscaler's
    assert "replicas" not in deployments["gateway"]


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_workers_are_what_an_overlay_makes_of_any_training(
    overlay: str, render_offered: Callable[[str], Manifests]
) -> None:
    jobs = {m["metadata"]["name"]: m["spec"]["jobTemplate"] for m in render_offered(overlay) if m["kind"] == "CronJob"}
    alone, together = (jobs[name]["spec"]["template"]["spec"] for name in ("train-cnn", "train-cnn-workers"))
    for added in ("subdomain", "topologySpreadConstraints"):
        del together[added]
    (train,) = together["containers"]
    assert train["image"].startswith(f"{REGISTRY}/sightread-training:")
    assert train["image"].endswith("-gpu") == ("nvidia.com/gpu" in train["resources"]["limits"]) == (overlay == "gpu")
    train["env"] = [variable for variable in train["env"] if variable["name"] not in {"JOB", "NUMBER", "TF_CONFIG"}]
    assert together == alone


def test_prometheus_can_be_given_an_api_key(render_offered: Callable[[str], Manifests]) -> None:
    monitors = {m["metadata"]["name"]: m["spec"] for m in render_offered("gpu") if m["kind"] == "ServiceMonitor"}
    (gateway,) = monitors["gateway"]["endpoints"]
    assert gateway["path"] == "/metrics"
    # sent as "Authorization: Bearer …" unless it says another type
    assert gateway["authorization"] == {"credentials": {"name": "prometheus-api-key", "key": "key"}}
    (model_server,) = monitors["model-server"]["endpoints"]
    assert "authorization" not in model_server


def test_every_link_leads_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([\w-]+)\)", README)) <= anchors
