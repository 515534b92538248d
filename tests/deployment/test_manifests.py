"""Every directory that can be applied renders, is what the API server takes, and passes the `restricted` standard."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import kubernetes_validate
import pytest

from tests.deployment.conftest import Manifest, Manifests

pytestmark = pytest.mark.manifests

KUBERNETES = "1.32"
OVERLAYS = ["k8s/overlays/local", "k8s/overlays/cpu", "k8s/overlays/gpu"]
APPLIED = [*OVERLAYS, "k8s/base", "k8s/jobs", "k8s/jobs/workers"]
COMPONENTS = ["autoscaling", "monitoring", "network-policy", "ingress", "model-volume", "api-keys"]
OPERATORS = {"ServiceMonitor", "PrometheusRule"}
"""The Prometheus operator's, whose schemas are not Kubernetes' own."""


@pytest.fixture(params=[*APPLIED, *COMPONENTS])
def manifests(
    request: pytest.FixtureRequest, render: Callable[[str], Manifests], render_with: Callable[..., Manifests]
) -> Manifests:
    return render_with(request.param) if request.param in COMPONENTS else render(request.param)


def pods(manifests: Manifests) -> Iterator[Manifest]:
    """The pod templates."""
    for manifest in manifests:
        spec = manifest.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            yield spec["template"]


def test_it_is_what_the_api_server_takes(manifests: Manifests) -> None:
    assert manifests
    for manifest in manifests:
        if manifest["kind"] not in OPERATORS:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_a_field_that_does_not_exist_is_refused(render: Callable[[str], Manifests]) -> None:
    gateway = next(manifest for manifest in render("k8s/base") if manifest["kind"] == "Deployment")
    misspelt: Any = copy.deepcopy(gateway)
    misspelt["spec"]["template"]["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, KUBERNETES, strict=True)


def test_every_object_lies_in_our_namespace(manifests: Manifests) -> None:
    for manifest in manifests:
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == "sightread"


def test_every_pod_passes_the_restricted_standard(manifests: Manifests) -> None:
    for pod in pods(manifests):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert all(not {"hostPath"} & volume.keys() for volume in spec["volumes"])
        for container in spec["containers"] + spec.get("initContainers", []):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert not {"privileged", "procMount"} & context.keys()
            assert all("hostPort" not in port for port in container.get("ports", []))


def test_every_mount_has_its_volume(manifests: Manifests) -> None:
    for pod in pods(manifests):
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        mounts = {m["name"] for container in pod["spec"]["containers"] for m in container["volumeMounts"]}
        assert mounts == volumes


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_has_what_its_pods_ask_for(overlay: str, render: Callable[[str], Manifests]) -> None:
    manifests = render(overlay)
    names = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    labels = [pod["metadata"]["labels"] for pod in pods(manifests)]
    for pod in pods(manifests):
        for volume in pod["spec"]["volumes"]:
            if claim := volume.get("persistentVolumeClaim"):
                assert ("PersistentVolumeClaim", claim["claimName"]) in names
            if config := volume.get("configMap"):
                assert ("ConfigMap", config["name"]) in names
        for container in pod["spec"]["containers"]:
            for source in container.get("envFrom", []):
                assert ("ConfigMap", source["configMapRef"]["name"]) in names
        if account := pod["spec"].get("serviceAccountName"):
            assert ("ServiceAccount", account) in names
    for manifest in manifests:
        if manifest["kind"] == "Service":
            assert any(manifest["spec"]["selector"].items() <= pod.items() for pod in labels)


def test_the_base_survives_the_loss_of_a_gateway(render: Callable[[str], Manifests]) -> None:
    deployments = {m["metadata"]["name"]: m["spec"] for m in render("k8s/base") if m["kind"] == "Deployment"}
    assert deployments["gateway"]["replicas"] >= 2
    # where no GPU is short a new model server may start beside the old one
    assert deployments["model-server"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_only_the_gpu_overlay_asks_for_a_gpu(render: Callable[[str], Manifests]) -> None:
    for overlay in OVERLAYS:
        limits = [
            container["resources"]["limits"] for pod in pods(render(overlay)) for container in pod["spec"]["containers"]
        ]
        assert any("nvidia.com/gpu" in limit for limit in limits) == overlay.endswith("gpu")


def test_api_keys_come_as_a_folder_that_only_the_gateway_reads(render_with: Callable[..., Manifests]) -> None:
    manifests = render_with("api-keys")
    for pod in pods(manifests):
        secrets = [volume for volume in pod["spec"]["volumes"] if "secret" in volume]
        if pod["metadata"]["labels"]["app.kubernetes.io/name"] != "gateway":
            assert not secrets
            continue
        assert secrets == [{"name": "api-keys", "secret": {"secretName": "gateway-api-keys", "defaultMode": 0o444}}]
        (mount,) = (m for m in pod["spec"]["containers"][0]["volumeMounts"] if m["name"] == "api-keys")
        # with a subPath, keys that are taken back would stay good until a restart
        assert mount == {"name": "api-keys", "mountPath": "/etc/sightread/api-keys", "readOnly": True}
        (settings,) = (m["data"] for m in manifests if m["metadata"]["name"].startswith("gateway-"))
        assert settings["SIGHTREAD_API_KEYS_FILE"] == f"{mount['mountPath']}/keys"


def test_workers_find_each_other(render: Callable[[str], Manifests]) -> None:
    manifests = {manifest["kind"]: manifest for manifest in render("k8s/jobs/workers")}
    service = manifests["Service"]
    job = manifests["CronJob"]["spec"]["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"] > 1
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    # they wait for each other before anything else, so none is ready first
    assert service["spec"]["publishNotReadyAddresses"]
    # whoever is left ends with 1 when another is gone: that is no reason to give up
    assert [rule["action"] for rule in job["podFailurePolicy"]["rules"]] == ["Ignore", "FailJob"]
    assert job["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"] == [2]
