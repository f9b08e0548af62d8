"""Dashboards, rules and the observers' configuration: what they name exists, and the rules do what they say.

That every query finds data is tried on a running mesh (tests/e2e/test_dashboards.py).
"""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from lablet_common.bus import consumer  # noqa: F401 - registers its metrics
from lablet_common.telemetry import metrics
from lablet_common.telemetry.metrics import REGISTRY
from lablet_gateway import graveyard  # noqa: F401 - registers its metric

PARTS = (
    "lablet-mesh",
    "lablet-scheduling",
    "lablet-workers",
    "lablet-events",
    "lablet-etcd-nats",
    "lablet-reservation",
)
SUFFIXES = ("_bucket", "_count", "_sum", "_total")
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this machine")


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    return root / "deploy/observability"


def dashboards(folder: Path) -> dict[str, Any]:
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (folder / "grafana/dashboards").iterdir()
    }


def rules(folder: Path) -> list[dict[str, Any]]:
    document = yaml.safe_load((folder / "prometheus/rules/alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def known_metrics() -> set[str]:
    return {metric.name for metric in REGISTRY.collect()}


def metrics_of(expression: str) -> set[str]:
    """Lablet's own metrics in a query, as they are registered."""
    found = set()
    for name in re.findall(r"\blablet_[a-z_]+", expression):
        suffix = next((one for one in SUFFIXES if name.endswith(one)), "")
        found.add(name.removesuffix(suffix))
    return found


def test_there_is_a_dashboard_for_each_part(folder: Path) -> None:
    found = dashboards(folder)
    assert set(found) == set(PARTS)
    for name, board in found.items():
        assert board["uid"] == name
        assert board["editable"] is False
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_panels_do_not_overlap_and_stay_within_the_grid(folder: Path) -> None:
    for name, board in dashboards(folder).items():
        cells = [
            (x, y)
            for place in (panel["gridPos"] for panel in board["panels"])
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
        assert len(set(cells)) == len(cells), name
        assert max(x for x, _ in cells) < 24, name


def test_every_panel_asks_a_source_that_is_provisioned(folder: Path) -> None:
    document = yaml.safe_load((folder / "grafana/provisioning/datasources/lablet.yaml").read_text(encoding="utf-8"))
    sources = {(source["type"], source["uid"]) for source in document["datasources"]}
    for board in dashboards(folder).values():
        for panel in board["panels"]:
            for target in panel["targets"]:
                assert (target["datasource"]["type"], target["datasource"]["uid"]) in sources


def test_queries_and_rules_name_metrics_that_services_export(folder: Path) -> None:
    queries = [
        target["expr"]
        for board in dashboards(folder).values()
        for panel in board["panels"]
        for target in panel["targets"]
        if "expr" in target
    ]
    queries += [rule["expr"] for rule in rules(folder)]
    for query in queries:
        assert metrics_of(query) <= known_metrics(), query


def test_every_metric_of_the_contract_stands_on_a_dashboard(folder: Path) -> None:
    text = " ".join(json.dumps(board) for board in dashboards(folder).values())
    ours = [metric._name for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]
    assert len(ours) > 20
    assert sorted(name for name in ours if name not in text) == []


def test_every_alert_has_its_runbook_and_every_runbook_its_alert(folder: Path, root: Path) -> None:
    named = {rule["annotations"]["runbook"] for rule in rules(folder)}
    pages = {str(path.relative_to(root)) for path in (root / "docs/runbooks").glob("*.md") if path.name != "README.md"}
    assert named == pages
    index = (root / "docs/runbooks/README.md").read_text(encoding="utf-8")
    for rule in rules(folder):
        page = root / rule["annotations"]["runbook"]
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# {rule['alert']}\n")
        assert rule["expr"] in text, f"{page.name} shows another query than the rule"
        assert f"]({page.name})" in index
        for target in re.findall(r"\]\(([\w./-]+\.md)\)", text):
            assert (page.parent / target).is_file(), f"{page.name} → {target}"


def test_every_alert_is_shown_to_fire_and_to_keep_quiet(folder: Path) -> None:
    cases = yaml.safe_load((folder / "prometheus/rules/tests.yml").read_text(encoding="utf-8"))["tests"]
    told = [(test["alertname"], bool(test["exp_alerts"])) for case in cases for test in case["alert_rule_test"]]
    for rule in rules(folder):
        assert (rule["alert"], True) in told, rule["alert"]
        assert (rule["alert"], False) in told, rule["alert"]


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "rules", "rules/alerts.yml"],
        ["test", "rules", "rules/tests.yml"],
        ["check", "config", "--syntax-only", "prometheus.yml"],
    ],
)
def test_prometheus_accepts_the_rules_and_they_do_what_their_tests_say(folder: Path, arguments: list[str]) -> None:
    told = subprocess.run(
        ["promtool", *arguments], cwd=folder / "prometheus", capture_output=True, text=True, timeout=60, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr


def test_prometheus_looks_for_services_of_the_compose_file_where_they_answer(
    folder: Path, compose: dict[str, Any], root: Path
) -> None:
    many = yaml.safe_load((root / "deploy/ha/compose.yml").read_text(encoding="utf-8"))["services"]
    config = yaml.safe_load((folder / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
    ports = {"etcd": 2379, "etcd-2": 2379, "etcd-3": 2379, "nats-metrics": 9102, "proxy": 8404}
    seen = set()
    for job in config["scrape_configs"]:
        for search in job.get("dns_sd_configs", []):
            (name,) = search["names"]
            assert search["port"] == ports.get(name, 9101), name
            seen.add(name)
        for static in job.get("static_configs", []):
            for target in static["targets"]:
                name, _, port = target.partition(":")
                assert int(port) == ports[name]
                seen.add(name)
    assert seen <= {*compose["services"], *many}
    assert {name for name in many if name.startswith("etcd")} <= seen
    assert {"api-gateway", "scheduler", "worker-controller", "artifact-service"} <= seen


def test_traces_go_from_the_services_through_the_collector_to_tempo(folder: Path) -> None:
    collector = yaml.safe_load((folder / "collector/collector.yaml").read_text(encoding="utf-8"))
    tempo = yaml.safe_load((folder / "tempo/tempo.yaml").read_text(encoding="utf-8"))
    pipeline = collector["service"]["pipelines"]["traces"]
    for part in ("receivers", "processors", "exporters"):
        assert set(pipeline[part]) <= set(collector[part])
    assert collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(":4318")
    listening = tempo["distributor"]["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    assert collector["exporters"]["otlp"]["endpoint"].rpartition(":")[2] == listening.rpartition(":")[2]
