# ruff: noqa: E501, S108
# a row is a line, wrapped no list could be read; /tmp is a mount
"""What each object that is applied to a cluster must say, and the failure that it prevents.

The rows are checked against the GPU overlay, the whole service. That a row would notice is checked too: every line of
the manifests is taken out once, and a row has to fail.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pytest

pytestmark = pytest.mark.manifests

Manifest = dict[str, Any]
GPU = "k8s/overlays/gpu"
MISSING = object()


@dataclass(frozen=True)
class Row:
    """A line of a manifest.

    Attributes:
        manifest: kind and name.
        path: keys, and the names of those list items that have one, else their numbers.
        wanted: its value, or whether a value will do.
        prevents: what happens without it.
    """

    manifest: str
    path: str
    wanted: Any
    prevents: str

    def holds(self, manifest: Manifest) -> bool:
        found = at(manifest, self.path.split())
        if found is MISSING:
            return self.wanted is MISSING
        return bool(self.wanted(found)) if callable(self.wanted) else found == self.wanted


def rows(*manifests: str) -> Callable[..., list[Row]]:
    """Rows that several manifests share, each (path, wanted, prevents)."""
    return lambda *lines: [Row(manifest, *line) for manifest in manifests for line in lines]


def item(value: Any, key: str) -> Any:
    """What is under a key of a mapping, or the item of a list by its name or number."""
    if isinstance(value, list):
        named = [entry for entry in value if isinstance(entry, dict) and entry.get("name") == key]
        if named:
            return named[0]
        return value[int(key)] if key.isdecimal() and int(key) < len(value) else MISSING
    return value.get(key, MISSING) if isinstance(value, dict) else MISSING


def at(value: Any, path: list[str]) -> Any:
    for key in path:
        value = item(value, key)
    return value


def at_least(number: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and value >= number


def sleeps(seconds: int) -> Callable[[Any], bool]:
    return lambda command: len(command) == 2 and command[0] == "sleep" and int(command[1]) >= seconds


RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
USER = {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
GROUP = {"fsGroup": 10001, "fsGroupChangePolicy": "OnRootMismatch"}
GPU_TOLERATION = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
DISRUPTED = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def probe(path: str, port: str) -> Callable[[Any], bool]:
    return lambda found: found == {"path": path, "port": port}


def spread(name: str, key: str) -> Manifest:
    return {
        "topologyKey": key,
        "maxSkew": 1,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app.kubernetes.io/name": name}},
    }


def selects(name: str) -> Manifest:
    return {"app.kubernetes.io/name": name}


POD = "spec template spec"
GATEWAY = f"{POD} containers gateway"
SERVER = f"{POD} containers model-server"
JOB = "spec jobTemplate spec"
JOB_POD = f"{JOB} template spec"
TRAIN = f"{JOB_POD} containers train"
LABELS = "app.kubernetes.io/part-of"

CHECKLIST = [
    Row(
        "Namespace sightread",
        "metadata labels",
        lambda labels: {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}.items()
        <= labels.items(),
        "a pod with privileges is let in",
    ),
    *rows("ServiceAccount gateway", "ServiceAccount model-server")(
        ("automountServiceAccountToken", False, "who breaks in finds a key to the cluster's API"),
    ),
    *[
        row
        for name in ("gateway", "model-server")
        for row in rows(f"Deployment {name}")(
            ("metadata labels app.kubernetes.io/name", name, "nobody finds it by its name"),
            ("spec revisionHistoryLimit", at_least(1), "nothing to undo a rollout to"),
            ("spec progressDeadlineSeconds", at_least(300), "a rollout that hangs never says so, or says so at once"),
            ("spec selector matchLabels", selects(name), "it owns the other one's pods"),
            ("spec template metadata labels app.kubernetes.io/name", name, "its Service and selectors find no pod"),
            (f"{POD} serviceAccountName", name, "it acts as the namespace's default account"),
            (f"{POD} automountServiceAccountToken", False, "who breaks in finds a key to the cluster's API"),
            (f"{POD} enableServiceLinks", False, "a Service's address arrives as one of our settings"),
            (f"{POD} securityContext", USER, "it runs as root, or Pod Security refuses it"),
            (f"{POD} containers {name} securityContext", RESTRICTED, "it can gain privileges or change its program"),
            (f"{POD} containers {name} startupProbe periodSeconds", at_least(1), "the start takes as long as a default"),
            (f"{POD} containers {name} livenessProbe failureThreshold", at_least(3), "one slow answer restarts it"),
            (f"{POD} containers {name} livenessProbe timeoutSeconds", at_least(5), "a busy one is restarted"),
            (f"{POD} containers {name} livenessProbe periodSeconds", at_least(10), "a busy one is asked too often"),
            (f"{POD} containers {name} readinessProbe periodSeconds", at_least(1), "traffic comes late"),
            (f"{POD} containers {name} readinessProbe timeoutSeconds", at_least(2), "a busy one loses its traffic"),
            (f"{POD} containers {name} readinessProbe failureThreshold", at_least(2), "one lost packet, no traffic"),
            (f"{POD} containers {name} resources requests cpu", lambda cpu: cpu, "it is put where no core is free"),
            (f"{POD} containers {name} resources requests memory", lambda m: m, "it is the first that is evicted"),
            (f"{POD} containers {name} resources requests ephemeral-storage", lambda s: s, "as above, for disks"),
            (f"{POD} containers {name} resources limits cpu", lambda cpu: cpu, "it starves its neighbours"),
            (f"{POD} containers {name} resources limits memory", lambda m: m, "it takes the whole node along"),
            (f"{POD} containers {name} resources limits ephemeral-storage", lambda s: s, "it fills the node's disk"),
            (f"{POD} containers {name} volumeMounts tmp mountPath", "/tmp", "nothing can be written under a read-only root"),
            (f"{POD} volumes tmp emptyDir sizeLimit", lambda size: size, "its temporary files fill the node's disk"),
        )
    ],
    *rows("Deployment gateway")(
        ("spec replicas", MISSING, "each apply undoes what the autoscaler did"),
        ("spec strategy rollingUpdate", {"maxSurge": 1, "maxUnavailable": 0}, "a rollout takes capacity away first"),
        (f"{POD} terminationGracePeriodSeconds", at_least(40), "accepted requests are cut off"),
        (
            f"{POD} topologySpreadConstraints",
            [spread("gateway", "kubernetes.io/hostname"), spread("gateway", "topology.kubernetes.io/zone")],
            "all replicas stand on the node that fails",
        ),
        (f"{GATEWAY} image", lambda image: image.count(":") == 1, "whatever is newest is run"),
        (f"{GATEWAY} envFrom 0 configMapRef name", lambda name: name.startswith("gateway-"), "no setting arrives, or no change rolls out"),
        (f"{GATEWAY} ports http containerPort", at_least(1), "the port has no name"),
        (f"{GATEWAY} startupProbe httpGet", probe("/livez", "http"), "a slow start is taken for a hang"),
        (f"{GATEWAY} startupProbe failureThreshold", at_least(30), "a slow start is taken for a hang"),
        (f"{GATEWAY} readinessProbe httpGet", probe("/readyz", "http"), "traffic before a version is proven"),
        (f"{GATEWAY} livenessProbe httpGet", probe("/livez", "http"), "a model server's failure restarts every gateway"),
        (f"{GATEWAY} lifecycle preStop exec command", sleeps(5), "new connections are refused while load balancers still send them"),
    ),
    *rows("Deployment model-server")(
        ("spec replicas", at_least(1), "the number is a default"),
        ("spec strategy rollingUpdate", {"maxSurge": 0, "maxUnavailable": 1}, "a rollout waits for ever for a GPU that the old one holds"),
        (f"{POD} terminationGracePeriodSeconds", at_least(60), "calls in flight are cut off"),
        (f"{POD} topologySpreadConstraints", [spread("model-server", "kubernetes.io/hostname")], "all replicas stand on the node that fails"),
        (f"{POD} nodeSelector", {"nvidia.com/gpu.present": "true"}, "it waits on a node without a GPU"),
        (f"{POD} tolerations", GPU_TOLERATION, "the GPU's node turns it away"),
        (f"{SERVER} image", lambda image: image.endswith("-gpu"), "it computes on the CPU beside a GPU"),
        (f"{SERVER} env TF_FORCE_GPU_ALLOW_GROWTH value", "true", "all the GPU's memory is taken at once"),
        (f"{SERVER} env CUDA_CACHE_PATH value", "/tmp/cuda", "kernels are compiled anew for every version"),
        (f"{SERVER} ports grpc containerPort", 8500, "the port has no name"),
        (f"{SERVER} ports rest containerPort", 8501, "the port has no name"),
        (f"{SERVER} startupProbe httpGet", probe("/v1/models/lstm/metadata", "rest"), "ready with half of the models"),
        (f"{SERVER} startupProbe timeoutSeconds", at_least(5), "a loading server is taken for a dead one"),
        (f"{SERVER} startupProbe failureThreshold", at_least(120), "a cold GPU's first load is killed, again and again"),
        (f"{SERVER} readinessProbe httpGet", probe("/v1/models/cnn/metadata", "rest"), "ready without an AVAILABLE version"),
        (f"{SERVER} livenessProbe httpGet", probe("/v1/models/cnn", "rest"), "a failed model restarts the other one's server"),
        (f"{SERVER} lifecycle preStop exec command", sleeps(60), "gateways still call it when it is gone"),
        (f"{SERVER} resources limits nvidia.com/gpu", "1", "no GPU, or everybody's"),
        (f"{SERVER} volumeMounts models-config mountPath", "/etc/model-server/models", "the ConfigMap changes nothing"),
        (f"{SERVER} volumeMounts models-config readOnly", True, "the server may write its own orders"),
        (f"{SERVER} volumeMounts models-config subPath", MISSING, "a changed ConfigMap never arrives"),
        (f"{POD} volumes models-config configMap name", "models", "the ConfigMap changes nothing"),
        (f"{SERVER} volumeMounts models mountPath", "/models", "what trainings publish is never seen"),
        (f"{SERVER} volumeMounts models readOnly", True, "who takes the server over takes the models over"),
        (f"{POD} volumes models persistentVolumeClaim", {"claimName": "models", "readOnly": True}, "as above"),
    ),
    *rows("Service gateway")(
        ("metadata labels app.kubernetes.io/name", "gateway", "its monitor does not find it"),
        ("spec selector", lambda labels: selects("gateway").items() <= labels.items(), "it sends requests to any pod"),
        ("spec ports http", {"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http"}, "nobody reaches the gateway"),
    ),
    *rows("Service model-server")(
        ("metadata labels app.kubernetes.io/name", "model-server", "its monitor does not find it"),
        ("spec selector", lambda labels: selects("model-server").items() <= labels.items(), "it names any pod's address"),
        ("spec clusterIP", "None", "every gateway sticks to one server"),
        ("spec ports grpc", {"name": "grpc", "port": 8500, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"}, "no prediction"),
        ("spec ports rest", {"name": "rest", "port": 8501, "targetPort": "rest", "appProtocol": "http"}, "no metrics"),
    ),
    *[
        row
        for name in ("gateway", "model-server")
        for row in rows(f"PodDisruptionBudget {name}")(
            ("spec maxUnavailable", 1, "draining nodes takes all replicas at once"),
            ("spec unhealthyPodEvictionPolicy", "AlwaysAllow", "a broken pod holds a node's drain up for ever"),
            ("spec selector matchLabels", selects(name), "it guards nothing"),
        )
    ],
    *rows("HorizontalPodAutoscaler gateway")(
        ("spec scaleTargetRef", {"apiVersion": "apps/v1", "kind": "Deployment", "name": "gateway"}, "it scales nothing"),
        ("spec minReplicas", at_least(2), "one that goes is all of them"),
        ("spec maxReplicas", at_least(4), "load is shed that could be answered"),
        ("spec metrics 0", {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}, "decoding waits for a core"),
        ("spec metrics 1", {"type": "Pods", "pods": {"metric": {"name": "sightread_requests_in_flight"}, "target": {"type": "AverageValue", "averageValue": "64"}}}, "waiting costs no CPU: it never scales"),
        ("spec behavior scaleUp", {"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 30}]}, "it grows slower than the load"),
        ("spec behavior scaleDown", {"stabilizationWindowSeconds": 300, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}, "it shrinks between two waves"),
    ),
    *rows("PersistentVolumeClaim models", "PersistentVolumeClaim training")(
        ("spec accessModes", ["ReadWriteMany"], "a training's pod and a server's cannot be on different nodes"),
        ("spec resources requests storage", lambda size: size, "no volume"),
    ),
    *rows("Job seed-models")(
        ("spec backoffLimit", at_least(1), "one failure leaves the volume empty"),
        ("spec activeDeadlineSeconds", at_least(60), "one that hangs stays"),
        ("spec ttlSecondsAfterFinished", at_least(60), "the next release cannot be applied: a Job cannot be changed"),
        ("spec template metadata labels app.kubernetes.io/name", "seed-models", "nobody finds it by its name"),
        (f"{POD} restartPolicy", "Never", "a failed try's log is lost"),
        (f"{POD} automountServiceAccountToken", False, "who breaks in finds a key to the cluster's API"),
        (f"{POD} enableServiceLinks", False, "a Service's address arrives as a variable"),
        (f"{POD} securityContext", USER | GROUP, "Pod Security refuses it, or the volume cannot be written"),
        (f"{POD} containers seed image", lambda image: image.endswith("-gpu"), "it waits for an image that is not there"),
        (f"{POD} containers seed command", lambda command: command[:2] == ["bash", "-euc"] and " mv " in command[-1], "a server loads half a version"),
        (f"{POD} containers seed resources requests", lambda r: {"cpu", "memory"} <= r.keys(), "it is the first that is evicted"),
        (f"{POD} containers seed resources limits memory", lambda m: m, "it takes the whole node along"),
        (f"{POD} containers seed securityContext", RESTRICTED, "Pod Security refuses it"),
        (f"{POD} containers seed volumeMounts models mountPath", "/repository", "it copies to nowhere"),
        (f"{POD} volumes models persistentVolumeClaim claimName", "models", "it copies to nowhere"),
    ),
    *chain.from_iterable(
        rows(f"CronJob train-{model}")(
            ("spec suspend", True, "it retrains on the same data, every month"),
            ("spec schedule", lambda schedule: len(schedule.split()) == 5, "never"),
            ("spec timeZone", "Etc/UTC", "some node's idea of three o'clock"),
            ("spec concurrencyPolicy", "Forbid", "two runs write one checkpoint"),
            ("spec startingDeadlineSeconds", at_least(600), "after a hundred missed starts it never starts again"),
            ("spec successfulJobsHistoryLimit", at_least(1), "nothing to look back at"),
            ("spec failedJobsHistoryLimit", at_least(1), "nothing to look back at"),
            (f"{JOB} activeDeadlineSeconds", at_least(3600), "one that hangs keeps its GPU"),
            (f"{JOB} ttlSecondsAfterFinished", at_least(3600), "finished ones pile up, or go before anybody looked"),
            (f"{JOB} backoffLimit", at_least(3), "a killed one does not go on"),
            (f"{JOB} podFailurePolicy rules 0", DISRUPTED, "drained nodes use up its tries"),
            (f"{JOB} podFailurePolicy rules 1", {"action": "FailJob", "onExitCodes": {"containerName": "train", "operator": "In", "values": [1, 2]}}, "what the gate refused is trained again, five times"),
            (f"{JOB} template metadata labels app.kubernetes.io/name", "training", "no policy lets its workers talk"),
            (f"{JOB_POD} restartPolicy", "Never", "a failed try's log is lost, and no failure policy counts"),
            (f"{JOB_POD} automountServiceAccountToken", False, "who breaks in finds a key to the cluster's API"),
            (f"{JOB_POD} enableServiceLinks", False, "a Service's address arrives as a variable"),
            (f"{JOB_POD} terminationGracePeriodSeconds", at_least(30), "it is killed while it writes"),
            (f"{JOB_POD} securityContext", USER | GROUP, "Pod Security refuses it, or the volumes cannot be written"),
            (f"{JOB_POD} nodeSelector", {"nvidia.com/gpu.present": "true"}, "it waits on a node without a GPU"),
            (f"{JOB_POD} tolerations", GPU_TOLERATION, "the GPU's node turns it away"),
            (f"{TRAIN} image", lambda image: image.endswith("-gpu"), "it learns on the CPU beside a GPU"),
            (f"{TRAIN} args", ["train", model, "--models=/models", f"--output=/training/runs/{model}"], "no checkpoint survives, or nothing is published"),
            (f"{TRAIN} env KERAS_HOME value", "/training/keras", "every run downloads its data anew"),
            (f"{TRAIN} env CUDA_CACHE_PATH value", "/tmp/cuda", "nowhere to keep compiled kernels"),
            (f"{TRAIN} resources requests", lambda r: {"cpu", "memory", "ephemeral-storage"} <= r.keys(), "it is put where nothing is free"),
            (f"{TRAIN} resources limits memory", lambda m: m, "it takes the whole node along"),
            (f"{TRAIN} resources limits ephemeral-storage", lambda s: s, "it fills the node's disk"),
            (f"{TRAIN} resources limits nvidia.com/gpu", "1", "no GPU, or everybody's"),
            (f"{TRAIN} securityContext", RESTRICTED, "Pod Security refuses it"),
            (f"{TRAIN} volumeMounts models mountPath", "/models", "nothing is published"),
            (f"{TRAIN} volumeMounts training mountPath", "/training", "no checkpoint survives"),
            (f"{TRAIN} volumeMounts tmp mountPath", "/tmp", "nothing can be written under a read-only root"),
            (f"{TRAIN} volumeMounts shared-memory mountPath", "/dev/shm", "several GPUs have 64 MB to talk through"),
            (f"{JOB_POD} volumes models persistentVolumeClaim claimName", "models", "nothing is published"),
            (f"{JOB_POD} volumes training persistentVolumeClaim claimName", "training", "no checkpoint survives"),
            (f"{JOB_POD} volumes tmp emptyDir sizeLimit", lambda size: size, "temporary files fill the node's disk"),
            (f"{JOB_POD} volumes shared-memory emptyDir", {"medium": "Memory", "sizeLimit": "1Gi"}, "several GPUs talk through a disk"),
        )
        for model in ("cnn", "lstm")
    ),
    *rows("NetworkPolicy deny-all")(
        ("spec podSelector", {}, "some pod may reach everything"),
        ("spec policyTypes", ["Ingress", "Egress"], "one direction stays open"),
    ),
    *rows("NetworkPolicy dns")(
        ("spec podSelector", {}, "some pod finds nobody"),
        ("spec policyTypes", ["Egress"], "it says nothing of answers"),
        ("spec egress", [{"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}], "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}], "names do not resolve, or data leave by port 53"),
    ),
    *rows("NetworkPolicy gateway")(
        ("spec podSelector matchLabels", selects("gateway"), "it opens other pods"),
        ("spec policyTypes", ["Ingress", "Egress"], "one direction stays open"),
        ("spec ingress", [{"ports": [{"protocol": "TCP", "port": "http"}]}], "nobody may ask"),
        ("spec egress", [{"to": [{"podSelector": {"matchLabels": selects("model-server")}}], "ports": [{"protocol": "TCP", "port": "grpc"}]}], "no predictions, or a way out for who breaks in"),
    ),
    *rows("NetworkPolicy model-server")(
        ("spec podSelector matchLabels", selects("model-server"), "it opens other pods"),
        ("spec policyTypes", ["Ingress"], "it may call out"),
        ("spec ingress 0", {"from": [{"podSelector": {"matchLabels": selects("gateway")}}], "ports": [{"protocol": "TCP", "port": "grpc"}]}, "anybody predicts around the gateway's checks"),
        ("spec ingress 1", {"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}, "podSelector": {"matchLabels": selects("prometheus")}}], "ports": [{"protocol": "TCP", "port": "rest"}]}, "no metrics, or anybody predicts over REST"),
    ),
    *rows("NetworkPolicy training")(
        ("spec podSelector matchLabels", selects("training"), "it opens other pods"),
        ("spec policyTypes", ["Ingress", "Egress"], "one direction stays open"),
        ("spec ingress", [{"from": [{"podSelector": {"matchLabels": selects("training")}}]}], "workers wait for each other for ever"),
        ("spec egress", [{"to": [{"podSelector": {"matchLabels": selects("training")}}]}], "workers wait for each other for ever"),
    ),
    *rows("ServiceMonitor gateway")(
        ("spec selector matchLabels", selects("gateway"), "nothing is scraped"),
        ("spec endpoints", [{"port": "http", "path": "/metrics", "interval": "15s"}], "nothing is scraped"),
    ),
    *rows("ServiceMonitor model-server")(
        ("spec selector matchLabels", selects("model-server"), "nothing is scraped"),
        ("spec endpoints", [{"port": "rest", "path": "/monitoring/prometheus/metrics", "interval": "15s"}], "nothing is scraped"),
    ),
    *rows("ConfigMap dashboard")(
        ("metadata labels grafana_dashboard", "1", "Grafana never sees it"),
        ("data sightread.json", lambda text: text, "Grafana shows nothing"),
    ),
    Row("ConfigMap models", "data models.config", lambda text: "latest { num_versions: 2 }" in text, "no models"),
]  # fmt: skip

ELSEWHERE = {
    "ConfigMap gateway": "test_agreement.py: settings",
    "PrometheusRule sightread": "test_alerts.py",
}
IDENTITY = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")}


def name_of(manifest: Manifest) -> str:
    name = manifest["metadata"]["name"]
    # without the hash of a ConfigMap's contents
    return f"{manifest['kind']} {name.rpartition('-')[0] if name.startswith('gateway-') else name}"


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of all lines that hold a value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = False
    for key, child in children:
        found = True
        yield from leaves(child, (*path, key))
    if not found:
        yield path


def without(manifest: Manifest, path: tuple[str | int, ...]) -> Manifest:
    less = copy.deepcopy(manifest)
    holder: Any = less
    for key in path[:-1]:
        holder = holder[key]
    del holder[path[-1]]
    return less


@pytest.fixture(scope="module")
def manifests(render: Callable[[str], list[Manifest]]) -> dict[str, Manifest]:
    return {name_of(manifest): manifest for manifest in render(GPU)}


@pytest.mark.parametrize("row", CHECKLIST, ids=lambda row: f"{row.manifest}: {row.path}")
def test_a_line_prevents_a_failure(row: Row, manifests: dict[str, Manifest]) -> None:
    found = at(manifests[row.manifest], row.path.split())
    assert row.holds(manifests[row.manifest]), f"{row.path} is {found!r}; without what is wanted: {row.prevents}"


def test_no_object_is_without_a_checklist(manifests: dict[str, Manifest]) -> None:
    assert manifests.keys() == {row.manifest for row in CHECKLIST} | ELSEWHERE.keys()


def test_a_row_fails_for_every_line_that_is_taken_out(manifests: dict[str, Manifest]) -> None:
    unnoticed = []
    for name, manifest in manifests.items():
        asked = [row for row in CHECKLIST if row.manifest == name]
        for path in leaves(manifest) if name not in ELSEWHERE else ():
            if path not in IDENTITY and LABELS not in path:
                less = without(manifest, path)
                if all(row.holds(less) for row in asked):
                    unnoticed.append(f"{name}: {' '.join(map(str, path))}")
    assert not unnoticed
