"""`lablet status`: what runs, since when, how often it was started again, and whether it is ready right now."""

import asyncio
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from lablet_local.folder import DataFolder
from lablet_local.members import leaders
from lablet_local.probe import http_look, new_client, service_ready
from lablet_local.remote_status import names_a_mesh, run_remote_status
from lablet_local.up import DONE, REFUSED, say

Json = dict[str, Any]


def run_status(data: Path, *, as_json: bool = False) -> int:
    """Shows the mesh of a data folder, else the one that the environment names. Exit code 0 when all is ready, else 1."""
    folder = DataFolder(data.expanduser().resolve())
    pid = folder.holder()
    if pid is None and names_a_mesh():
        return run_remote_status(as_json=as_json)
    if pid is None:
        say(
            json.dumps({"running": False, "data": str(folder.root)})
            if as_json
            else f"no mesh is running on {folder.root}"
        )
        return REFUSED
    state = folder.read_state()
    missing, led = asyncio.run(_look(state))
    for process in state.get("processes", []):
        found = missing.get(process["name"])
        if found is not None:
            process["phase"], process["missing"] = "unready", found
    ready = state.get("phase") == "ready" and all(one["phase"] == "ready" for one in state["processes"])
    if as_json:
        say(json.dumps({"running": True, "ready": ready, "data": str(folder.root), "leaders": led, **state}, indent=1))
    else:
        _show(state)
        if led:
            say("; ".join(f"{what} is led by {leader or 'nobody'}" for what, leader in led.items()))
    return DONE if ready else REFUSED


async def _look(state: Json) -> tuple[dict[str, str], dict[str, str | None]]:
    async with new_client() as client:
        return await look_at(state), await leaders(state, client)


async def look_at(state: Json) -> dict[str, str]:
    """Process → what its readiness lacks, for those that run and lack something."""
    running = [one for one in state.get("processes", []) if one.get("readyz") and one.get("pid")]
    async with new_client() as client:
        found = await asyncio.gather(*(http_look(client, one["readyz"], service_ready)() for one in running))
    return {one["name"]: what for one, what in zip(running, found, strict=True) if what is not None}


def _show(state: Json) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("process", "state", "pid", "up", "restarts", "address"):
        table.add_column(column, justify="right" if column in ("pid", "up", "restarts") else "left", no_wrap=True)
    colours = {"ready": "green", "starting": "yellow", "waiting": "yellow"}
    remarks = []
    for process in state["processes"]:
        name, phase, since = process["name"], process["phase"], process["startedAt"]
        up = str(timedelta(seconds=int(time.time() - since))) if since else "-"
        colour = colours.get(phase, "red")
        restarts = str(process["restarts"])
        table.add_row(name, f"[{colour}]{phase}[/]", str(process["pid"] or "-"), up, restarts, process["address"])
        if process["missing"]:
            remarks.append(f"{name}: {process['missing']}")
        elif process["lastEnd"]:
            remarks.append(f"{name} {process['lastEnd']} the last time; see {process['log']}")
    Console().print(table)
    for remark in remarks:
        say(remark)
    say(f"mesh {state['phase']} (pid {state['pid']}), lab time ×{state['speed']:g}, {state['url']}")
