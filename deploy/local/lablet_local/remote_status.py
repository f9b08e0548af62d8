"""`lablet status` for a mesh that runs elsewhere: what its gateway says about the services, their replicas and shards.

Used where no mesh runs on the data folder and `LABLET_URL` or `LABLET_CONNECTION` names one, as in the compose file's `cli`.
It needs a token of the role operator or admin.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from lablet_client import Client
from lablet_client.cli.failures import exit_code, report
from lablet_client.errors import LabletError
from lablet_local.up import DONE, REFUSED, say

Json = dict[str, Any]


def names_a_mesh(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment says where one is."""
    return bool(environment.get("LABLET_URL") or environment.get("LABLET_CONNECTION"))


def run_remote_status(*, as_json: bool = False) -> int:
    """Exit code 0 when every service has a replica, 1 when one has none or the answer is refused, 3 when nobody answers."""
    try:
        found = asyncio.run(_ask())
    except LabletError as error:
        if as_json:
            say(json.dumps({"running": False, "cause": str(error)}))
        else:
            from rich.console import Console

            report(error, Console(stderr=True, highlight=False))
        return exit_code(error)
    if as_json:
        say(json.dumps(found, indent=1))
    else:
        _show(found)
    return DONE if found["ready"] else REFUSED


async def _ask() -> Json:
    async with Client() as client:
        told = (await client.transport.call("GET", "/mesh")).json()
        me, version = await client.whoami(), await client.version()
        shards = Counter((owner["service"], owner["replica"]) for owner in told["owners"])
        services = [
            {
                "service": one["service"],
                "replicas": [{"name": name, "shards": shards[one["service"], name]} for name in one["replicas"]],
                "waiting": sum(inbox["waiting"] for inbox in one["inbox"]),
            }
            for one in told["services"]
        ]
        return {
            "running": True,
            "ready": all(one["replicas"] for one in services),
            "url": client.connection.url,
            "version": version["version"],
            "me": dict(me),
            "services": services,
        }


def _show(found: Json) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("service", "replica", "shards", "waiting"):
        table.add_column(column, justify="right" if column in ("shards", "waiting") else "left", no_wrap=True)
    for service in found["services"]:
        rows = service["replicas"] or [{"name": "[red]none[/]", "shards": 0}]
        for replica in rows:
            table.add_row(service["service"], replica["name"], str(replica["shards"]), str(service["waiting"]))
    Console().print(table)
    me = found["me"]
    say(
        f"mesh at {found['url']}, version {found['version']}, signed in as {me['name']} ({me['role']}, tenant {me['tenant']})"
    )
