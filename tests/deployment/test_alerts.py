"""Alerts and dashboard: valid, about metrics that exist, each alert with what to do, and tried out."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from serving.metrics import Metrics
from tests.deployment.conftest import ROOT, Manifests

pytestmark = pytest.mark.manifests

ELSEWHERES = {
    "up",
    # NVIDIA's DCGM exporter
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_FB_FREE",
    "DCGM_FI_DEV_GPU_UTIL",
    # TensorFlow Serving
    ":tensorflow:serving:request_count",
}
"""Metrics that are not ours."""
NAME = re.compile(r"\b(?:sightread_\w+|DCGM_\w+|up(?=\{))|:tensorflow:[\w:]+")
GROUPED = re.compile(r"\b(?:by|on|group_left) \(([^)]*)\)")
MATCHED = re.compile(r"[{,](\w+)(?:=~|!~|!=|=)\"")
PLACEHOLDERS = {"$__rate_interval": "5m", "$namespace": ".*"}


@pytest.fixture
def groups(render: Callable[[str], Manifests]) -> list[dict[str, Any]]:
    (rule,) = (manifest for manifest in render("k8s/overlays/gpu") if manifest["kind"] == "PrometheusRule")
    found: list[dict[str, Any]] = rule["spec"]["groups"]
    return found


@pytest.fixture
def alerts(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def dashboard_expressions() -> Iterator[str]:
    board = json.loads((ROOT / "k8s/components/monitoring/dashboard.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for placeholder, value in PLACEHOLDERS.items():
                expression = expression.replace(placeholder, value)
            yield expression


def metrics() -> dict[str, set[str]]:
    """Every series of the gateway's page, and its labels."""
    found: dict[str, set[str]] = {}
    # what has not been counted yet is on no page
    for metric in Metrics()._registry._collector_to_names:  # noqa: SLF001  # nothing public tells them
        assert isinstance(metric, MetricWrapperBase)
        (family,) = metric.describe()
        labels = set(metric._labelnames)  # noqa: SLF001  # nothing public tells them
        names = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        for ending in names:
            found[family.name + ending] = labels | ({"le"} if ending == "_bucket" else set())
    return found


def promtool(*arguments: str, folder: Path) -> None:
    assert shutil.which("promtool"), "promtool is needed: apt-get install prometheus brings it"
    done = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alerts_are_what_prometheus_takes(groups: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump({"groups": groups}))
    promtool("check", "rules", "alerts.yaml", folder=tmp_path)


def test_the_alerts_come_when_they_should_and_not_otherwise(groups: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump({"groups": groups}))
    shutil.copy(Path(__file__).with_name("alerts_test.yaml"), tmp_path)
    promtool("test", "rules", "alerts_test.yaml", folder=tmp_path)


def test_every_alert_was_tried_out_when_it_comes_and_when_it_stays_away(alerts: list[dict[str, Any]]) -> None:
    tests = yaml.safe_load(Path(__file__).with_name("alerts_test.yaml").read_text())["tests"]
    tried = [(case["alertname"], bool(case["exp_alerts"])) for test in tests for case in test["alert_rule_test"]]
    assert {(alert["alert"], comes) for alert in alerts for comes in (True, False)} == set(tried)


def test_the_dashboard_asks_what_prometheus_can_answer(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": e} for number, e in enumerate(dashboard_expressions())]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", "panels.yaml", folder=tmp_path)


def test_alerts_and_dashboard_speak_of_metrics_that_exist(groups: list[dict[str, Any]]) -> None:
    expressions = [rule["expr"] for group in groups for rule in group["rules"]] + list(dashboard_expressions())
    named = {name for expression in expressions for name in NAME.findall(expression)}
    assert named - ELSEWHERES <= metrics().keys()
    # one that nobody looks at has no use
    seen = {re.sub("_(bucket|sum|count)$", "", name) for name in named}
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in metrics()} <= seen


def test_alerts_and_dashboard_speak_of_labels_that_exist(groups: list[dict[str, Any]]) -> None:
    known = set().union(*metrics().values()) | {"namespace", "pod", "job", "gpu", "model_name", "status", "__name__"}
    for expression in [rule["expr"] for group in groups for rule in group["rules"]] + list(dashboard_expressions()):
        grouped = {label.strip() for labels in GROUPED.findall(expression) for label in labels.split(",")}
        assert grouped | set(MATCHED.findall(expression)) <= known


def test_the_autoscaler_s_metric_exists_and_the_adapter_gives_it(render: Callable[[str], Manifests]) -> None:
    (autoscaler,) = (m for m in render("k8s/overlays/gpu") if m["kind"] == "HorizontalPodAutoscaler")
    wanted = {m["pods"]["metric"]["name"] for m in autoscaler["spec"]["metrics"] if m["type"] == "Pods"}
    adapter = yaml.safe_load((ROOT / "k8s/components/autoscaling/prometheus-adapter.yaml").read_text())
    given = {rule["name"]["as"]: rule["seriesQuery"].partition("{")[0] for rule in adapter["rules"]["custom"]}
    assert wanted == given.keys()
    assert set(given.values()) <= metrics().keys()


def test_every_alert_says_what_is_seen_and_where_stands_what_to_do(alerts: list[dict[str, Any]]) -> None:
    headings = re.findall(r"^#+ (\w+)$", (ROOT / "k8s/README.md").read_text(), re.MULTILINE)
    for alert in alerts:
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert alert["annotations"]["summary"].endswith(".")
        assert alert["annotations"]["runbook"] == f"k8s/README.md#{alert['alert'].lower()}"
        assert alert["alert"] in headings
    assert len({alert["alert"] for alert in alerts}) == len(alerts)


def test_jobs_are_named_as_the_monitors_name_them(
    alerts: list[dict[str, Any]], render: Callable[[str], Manifests]
) -> None:
    named = {job for alert in alerts for job in re.findall(r'job="([^"]+)"', alert["expr"])}
    manifests = render("k8s/overlays/gpu")
    # without a jobLabel a job is called as the Service that the monitor selects
    monitored = [m["spec"]["selector"]["matchLabels"].items() for m in manifests if m["kind"] == "ServiceMonitor"]
    services = {
        m["metadata"]["name"]
        for m in manifests
        if m["kind"] == "Service" and any(labels <= m["metadata"]["labels"].items() for labels in monitored)
    }
    jobs = yaml.safe_load((ROOT / "compose/prometheus.yaml").read_text())["scrape_configs"]
    assert named == services == {job["job_name"] for job in jobs}
