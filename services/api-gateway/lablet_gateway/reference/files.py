"""The documents as files: `openapi.json`, `asyncapi.json`, and a JSON Schema for the data of each type of event."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from lablet_common.clock import ManualClock
from lablet_common.events import schemas
from lablet_common.objects import MemoryObjectStore
from lablet_common.store import MemoryStore
from lablet_common.telemetry.health import Health
from lablet_gateway.app import caches_of, create_app
from lablet_gateway.deadletters import MemoryDeadLetters
from lablet_gateway.eventlog import MemoryEventLog
from lablet_gateway.identity.token_file import TokenFile
from lablet_gateway.parts import Parts
from lablet_gateway.reference import asyncapi
from lablet_gateway.reference.samples import steady
from lablet_gateway.settings import GatewaySettings
from lablet_gateway.streams import Hub


def documents() -> Mapping[str, str]:
    """Path below the folder → content."""
    found = {"openapi.json": steady(_openapi()), "asyncapi.json": steady(asyncapi.document())}
    return found | {f"schemas/{name}.json": steady(schema) for name, schema in sorted(schemas().items())}


def _openapi() -> dict[str, object]:
    """Of an application that serves nobody: all its parts are twins in memory."""
    store, log = MemoryStore(), MemoryEventLog()
    parts = Parts(
        settings=GatewaySettings(),
        store=store,
        objects=MemoryObjectStore(),
        clock=ManualClock(datetime(2027, 3, 1, tzinfo=UTC)),
        caches=caches_of(store),
        verifier=TokenFile(None),
        events=log,
        hub=Hub(log, 1),
        dead_letters=MemoryDeadLetters(),
        health=Health(),
    )
    return create_app(parts).openapi()


def write(folder: Path) -> list[str]:
    """Writes what has changed and removes what is no longer there; returns the paths."""
    wanted = documents()
    changed = []
    for path, content in wanted.items():
        target = folder / path
        if not target.is_file() or target.read_text(encoding="utf-8") != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content, encoding="utf-8")
            changed.append(path)
    for stale in (folder / "schemas").glob("*.json"):
        if f"schemas/{stale.name}" not in wanted:
            stale.unlink()
            changed.append(f"schemas/{stale.name}")
    return changed
