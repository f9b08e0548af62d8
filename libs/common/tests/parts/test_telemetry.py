"""Health that tests its dependencies, logs that are lines of JSON, traces that link phases."""

import asyncio
import json
import logging
import time
from datetime import UTC, datetime

import httpx
import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.metrics import MetricWrapperBase

from lablet_common import service
from lablet_common.resources.worker import Worker
from lablet_common.telemetry import metrics
from lablet_common.telemetry.census import count
from lablet_common.telemetry.health import Health
from lablet_common.telemetry.logs import ConsoleFormatter, JsonFormatter
from lablet_common.telemetry.traces import context_of, links_to


@pytest.fixture
def health():
    return Health()


async def ask(health, path):
    transport = httpx.ASGITransport(app=health.app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        return await http.get(path)


async def fine():
    return None


async def broken():
    raise ConnectionError("refused")


async def test_nothing_is_ready_before_start_up_is_done(health):
    health.add("etcd", fine)
    assert (await ask(health, "/livez")).status_code == 200
    answer = await ask(health, "/readyz")
    assert (answer.status_code, answer.json()["checks"]["start"]) == (503, "failed: still starting")
    health.started = True
    assert (await ask(health, "/readyz")).status_code == 200


async def test_a_required_dependency_that_is_down_makes_it_unready_and_is_named(health):
    health.started = True
    health.add("etcd", broken)
    answer = await ask(health, "/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["etcd"] == "failed: ConnectionError: refused"


async def test_one_without_which_work_goes_on_only_degrades_it(health):
    health.started = True
    health.add("nats", broken, required=False)
    answer = await ask(health, "/readyz")
    assert answer.status_code == 200
    assert answer.json()["checks"]["nats"].startswith("degraded")


async def test_a_check_that_hangs_has_failed(health, monkeypatch):
    monkeypatch.setattr("lablet_common.telemetry.health.CHECK_SECONDS", 0.02)
    health.started = True
    health.add("slow", asyncio.Event().wait)
    assert "no answer" in (await ask(health, "/readyz")).json()["checks"]["slow"]


async def test_metrics_have_the_names_of_the_contract(health):
    text = (await ask(health, "/metrics")).text
    for name in (
        "lablet_bridge_lag_revisions",
        "lablet_store_conflicts_total",
        "lablet_event_loop_lag_seconds",
        "lablet_tasks",
    ):
        assert name in text


async def test_a_stall_is_told_for_a_while_so_that_a_scrape_sees_it(monkeypatch):
    monkeypatch.setattr(service, "_LAG_INTERVAL", 0.001)
    monkeypatch.setattr(service, "_LAG_KEPT", 200)
    measuring = asyncio.create_task(service._measure_lag())
    try:
        await asyncio.sleep(0.01)
        time.sleep(0.3)
        await asyncio.sleep(0.02)
        assert metrics.LOOP_LAG._value.get() > 0.25
        async with asyncio.timeout(20):
            while metrics.LOOP_LAG._value.get() > 0.25:
                await asyncio.sleep(0.01)
    finally:
        measuring.cancel()


CONTRACT = {
    "lablet_reservations": {"phase", "pool"},
    "lablet_instances": {"phase", "pool"},
    "lablet_workers": {"phase", "pool"},
    "lablet_scheduling_decisions": {"result", "reason"},
    "lablet_scheduling_duration_seconds": set(),
    "lablet_decision_latency_seconds": set(),
    "lablet_inbox_depth": {"service", "shard"},
    "lablet_bridge_lag_revisions": {"kind"},
    "lablet_bridge_lag_seconds": {"kind"},
    "lablet_instantiation_duration_seconds": set(),
    "lablet_slot_punctuality_seconds": set(),
    "lablet_worker_hours": {"pool"},
    "lablet_worker_cpu_ratio": {"pool", "worker"},
    "lablet_worker_memory_ratio": {"pool", "worker"},
    "lablet_worker_disk_ratio": {"pool", "worker"},
    "lablet_worker_running_nodes": {"pool", "worker"},
    "lablet_scaling_decisions": {"direction", "rule"},
    "lablet_store_operation_duration_seconds": {"op"},
    "lablet_store_conflicts": set(),
    "lablet_event_handling_duration_seconds": {"consumer"},
    "lablet_events_dead_lettered": {"consumer"},
    "lablet_is_owner": {"service", "shard"},
    "lablet_api_request_duration_seconds": {"method", "route", "status"},
    "lablet_api_shed": {"reason"},
}


def test_every_metric_of_the_contract_is_exported_with_its_labels():
    found = {one._name: set(one._labelnames) for one in vars(metrics).values() if isinstance(one, MetricWrapperBase)}
    assert {name: found.get(name) for name in CONTRACT} == CONTRACT


def record(message, **extra):
    made = logging.LogRecord("lablet.test", logging.INFO, "", 0, message, (), None)
    made.__dict__.update(extra)
    return made


def test_a_log_line_is_json_with_its_fields():
    line = json.loads(JsonFormatter("scheduler", "s-1").format(record("decided", reservation="rsv-1")))
    assert line["message"] == "decided"
    assert line["reservation"] == "rsv-1"
    assert (line["service"], line["replica"], line["level"]) == ("scheduler", "s-1", "info")


def test_a_line_outside_of_any_span_says_whose_story_it_belongs_to():
    origin = f"00-{'a' * 32}-{'b' * 16}-01"
    line = json.loads(JsonFormatter("scheduler", "s-1").format(record("moved", trace_parent=origin)))
    assert (line["traceId"], "spanId" in line, "trace_parent" in line) == ("a" * 32, False, False)
    assert "traceId" not in json.loads(JsonFormatter("scheduler", "s-1").format(record("moved", trace_parent=None)))
    assert "trace_parent" not in ConsoleFormatter().format(record("moved", trace_parent=origin))


def test_on_a_terminal_a_line_is_readable():
    assert "decided reservation=rsv-1" in ConsoleFormatter().format(record("decided", reservation="rsv-1"))


def test_a_phase_links_to_the_span_that_its_resource_was_made_in():
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    (link,) = links_to([parent, None, parent])
    assert f"{link.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert links_to([None, "nonsense", f"{parent[:-2]}00", f"01{parent[2:-2]}00"]) == [], "no such span is kept"
    assert context_of("nonsense") is None


def worker(number, pool, phase):
    spec = {
        "pool": pool, "template": "simulated", "maxNodes": 20, "license": "PERSONAL",
        "capacity": {"cpuCores": 8, "memoryGb": 32, "storageGb": 100},
    }  # fmt: skip
    metadata = {"id": f"{pool}-{number:03d}", "uid": f"u-{number}", "createdAt": datetime(2027, 3, 1, tzinfo=UTC)}
    return Worker.model_validate({"kind": "Worker", "metadata": metadata, "spec": spec, "status": {"phase": phase}})


def test_only_the_pools_that_are_owned_are_counted_and_a_phase_that_empties_goes_away():
    gauge = Gauge("workers", "Workers", ["phase", "pool"], registry=CollectorRegistry())

    def told():
        (metric,) = gauge.collect()
        return {(s.labels["pool"], s.labels["phase"]): s.value for s in metric.samples}

    fleet = [
        worker(1, "east", "Ready"),
        worker(2, "east", "Ready"),
        worker(3, "east", "Offline"),
        worker(4, "west", "Ready"),
    ]
    count(gauge, fleet, {"east"})
    assert told() == {("east", "Ready"): 2, ("east", "Offline"): 1}
    count(gauge, fleet[:2], {"east", "west"})
    assert told() == {("east", "Ready"): 2}
