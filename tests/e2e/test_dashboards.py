"""Every query of the dashboards and alerts against a real Prometheus that scrapes the local mesh: no panel without data."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from lablet_common.testing.etcd import free_ports

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.long,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on this machine"),
]
ROOT = Path(__file__).resolve().parents[2]
OBSERVABILITY = ROOT / "deploy/observability"
VARIABLES = {"$__rate_interval": "1m", "$price": "3.5"}


def config(mesh: Any, nats_metrics: int) -> dict[str, Any]:
    """The compose file's scrape jobs, with this mesh's addresses in the place of names."""
    document: dict[str, Any] = yaml.safe_load((OBSERVABILITY / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
    jobs = []
    for job in document["scrape_configs"]:
        name = job["job_name"]
        if name == "proxy":
            continue  # the local mesh has none
        known = {"etcd": mesh.etcd_endpoint, "nats": f"127.0.0.1:{nats_metrics}"}
        target = known[name] if name in known else mesh.health_url(f"{name}-1").removeprefix("http://")
        jobs.append({"job_name": name, "static_configs": [{"targets": [target]}]})
    timing = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    return {
        "global": timing,
        "scrape_configs": jobs,
        "rule_files": [str(OBSERVABILITY / "prometheus/rules/alerts.yml")],
    }


@asynccontextmanager
async def running(*command: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
        assert process.returncode is None, f"{command[0]} ended by itself"
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()


async def ask(http: httpx.AsyncClient, query: str) -> list[Any]:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    answer = await http.get("/api/v1/query", params={"query": query})
    assert answer.status_code == 200, f"{query}: {answer.text}"
    found: list[Any] = answer.json()["data"]["result"]
    return found


async def test_no_panel_is_without_data_and_no_alert_fires(door: Any, tmp_path: Path) -> None:
    if door.mesh is None:
        pytest.skip("needs the local mesh's own internal ports")
    web, metrics = free_ports(2)
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config(door.mesh, metrics)))
    monitor = f"http://127.0.0.1:{door.mesh.ports.nats_monitor}"
    prometheus = [
        shutil.which("prometheus") or "prometheus", f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{web}", "--log.level=error",
    ]  # fmt: skip
    exporter = [sys.executable, "-m", "lablet_local.nats_metrics", f"--monitor={monitor}", f"--port={metrics}"]
    async with (
        running(*exporter),
        running(*prometheus),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{web}", trust_env=False, timeout=10) as http,
    ):
        definition = await door.publish("ospf-basics")
        made = (
            await door.reserve({"definition": definition, "seats": 1, **await door.slot(lead=45, minutes=60)})
        ).json()
        # workers tell of themselves only while they are up, so panels are looked at from now on
        looking = asyncio.create_task(all_have_data(http))
        await door.until_phase(f"/reservations/{made['metadata']['id']}", "Completed", seconds=90)
        async with asyncio.timeout(40):
            await looking
        rules = (await http.get("/api/v1/rules")).json()["data"]["groups"][0]["rules"]
        assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []
        assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


async def all_have_data(http: httpx.AsyncClient) -> None:
    """Until each panel has had some."""
    empty = dict(queries())
    while empty:
        for name, query in list(empty.items()):
            if await ask(http, query):
                del empty[name]
        if empty:
            await asyncio.sleep(1)
        if empty and os.environ.get("SHOW"):
            print(json.dumps(empty, indent=1))


def queries() -> list[tuple[str, str]]:
    """(dashboard, panel and number, query) of every panel that asks Prometheus."""
    return [
        (f"{path.stem}: {panel['title']} {target['refId']}", target["expr"])
        for path in sorted((OBSERVABILITY / "grafana/dashboards").iterdir())
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]
        for target in panel["targets"]
        if "expr" in target
    ]
