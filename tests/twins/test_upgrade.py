"""What earlier releases have stored is read and worked on by this one.

Each file in `releases/` is the store of a mesh of twins as that release left it, at three hours into the morning: bookings
that are over, cancelled, coming and waiting, and one that was asked for and not decided; with the files that they need. They
are never changed. `make golden RELEASE=x.y.z` writes the one of this release (`--golden`).
"""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lablet_common.quotas import Limits, Quota
from lablet_common.resources import schema
from lablet_common.resources.key import ApiKey, KeySpec, KeyStatus
from lablet_common.resources.kinds import DEFINITION, KEY, KINDS, REQUEST, SERIES, SUBSCRIPTION, Kind, quota_key
from lablet_common.resources.model import Metadata
from lablet_common.resources.reservation import ReservationSpec
from lablet_common.resources.series import Occurrence, Series, SeriesPhase, SeriesSpec, SeriesStatus
from lablet_common.resources.subscription import Beginning, Subscription, SubscriptionSpec, SubscriptionStatus
from lablet_common.store import MemoryStore
from lablet_common.store.changes import decode, encode

RELEASES = Path(__file__).with_name("releases")
NOT_KEPT = ("/ownership/", "/members/")
ALL_KINDS = (*KINDS.values(), SUBSCRIPTION)


def saved(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RELEASES / f"{name}.jsonl").read_text().splitlines()]


def raw(value: Any) -> bytes:
    return (json.dumps(value) if isinstance(value, dict) else str(value)).encode()


def kind_at(key: str) -> Kind | None:
    return next((kind for kind in ALL_KINDS if key.startswith(kind.prefix)), None)


async def filled(name: str) -> MemoryStore:
    store = MemoryStore()
    for line in saved(name):
        if "key" in line:
            await store.put(line["key"], raw(line["value"]))
    return store


def lost(before: Any, after: Any, at: str) -> Iterator[str]:
    """Where what was stored is not said any more; what this release has added does not count."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name, value in before.items():
            if name != "schemaVersion":
                yield from lost(value, after.get(name), f"{at}.{name}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, pair in enumerate(zip(before, after, strict=True)):
            yield from lost(*pair, f"{at}[{number}]")
    elif before != after:
        yield at


NAMES = sorted(path.stem for path in RELEASES.glob("*.jsonl"))


@pytest.mark.parametrize("name", NAMES)
async def test_every_value_of_the_release_is_read_and_keeps_its_meaning(name: str) -> None:
    store = await filled(name)
    seen: set[str] = set()
    for kv in (await store.range("/")).items:
        kind = kind_at(kv.key)
        if kind is None:
            continue
        resource = decode(kind, kv)
        seen.add(kind.name)
        assert resource.model_extra is None, f"{kv.key} has fields that this release does not know any more"
        written = json.loads(encode(resource))
        assert written["schemaVersion"] == schema.newest(kind.model)
        assert list(lost(json.loads(kv.value), written, kv.key)) == []
    wanted = {kind.name for kind in ALL_KINDS}
    assert seen == (wanted - {"series", "key", "subscription"} if name == "first" else wanted)


@pytest.mark.parametrize("name", NAMES)
async def test_the_day_goes_on_from_what_the_release_has_stored(mesh: Any, name: str) -> None:
    await mesh.stop()
    mesh.store = await filled(name)
    head, *lines = saved(name)
    mesh.objects.objects = {line["object"]: base64.b64decode(line["base64"]) for line in lines if "object" in line}
    await mesh.clock.set(datetime.fromisoformat(head["at"]))
    await mesh.start()
    await mesh.settle()
    assert (await mesh.reservation("rsv-waits")).phase == "Waitlisted"
    asked_before = (await mesh.reservation("rsv-asked")).status
    assert asked_before.phase == "Waitlisted", "what was asked before the upgrade is decided"
    assert asked_before.explanation.binding == "waitList", "it stands behind rsv-waits, which wants the same room"
    await mesh.until(timedelta(hours=5, minutes=5))
    assert (await mesh.reservation("rsv-tomorrow")).phase == "Active"
    assert {(await mesh.instance(f"ins-tomorrow-{seat}")).phase for seat in (1, 2)} == {"Running"}
    await mesh.until(timedelta(hours=7, minutes=40), step=timedelta(minutes=5))
    for reservation, phase in {
        "rsv-done": "Completed",
        "rsv-off": "Cancelled",
        "rsv-tomorrow": "Completed",
        "rsv-asked": "Completed",
        "rsv-waits": "Expired",
    }.items():
        assert (await mesh.reservation(reservation)).phase == phase
    asked = await mesh.repository(REQUEST).list()
    assert {request.phase for request in asked.items} <= {"Decided", "Refused"}
    for kv in (await mesh.store.range("/")).items:
        kind = kind_at(kv.key)
        if kind is not None and kv.version > 1:
            assert json.loads(kv.value)["schemaVersion"] == schema.newest(kind.model), f"{kv.key} was written anew"


async def test_writing_the_present_release(mesh: Any, request: pytest.FixtureRequest) -> None:
    """With `--golden NAME` it is kept; without, only that it could be."""
    await mesh.publish("ospf-basics")
    await mesh.reserve("rsv-done", at=timedelta(hours=1))
    await mesh.reserve("rsv-tomorrow", at=timedelta(hours=5), seats=2)
    await mesh.reserve("rsv-waits", at=timedelta(hours=5), seats=17)
    await mesh.reserve("rsv-off", at=timedelta(hours=4))
    await mesh.ask("cancel.requested", "rsv-off", {"reason": "changed my mind"})
    await mesh.until(timedelta(hours=3), step=timedelta(minutes=5))
    await mesh.stop()
    await _others(mesh)
    start = mesh.clock.now() + timedelta(hours=3)
    await mesh.ask("requested", "rsv-asked", {
        "id": "rsv-asked", "owner": "teacher", "definition": "ospf-basics@1.0.0", "pools": ["default"], "seats": 1,
        "start": start.isoformat(), "end": (start + timedelta(hours=1)).isoformat(), "durationMinutes": 60,
    })  # fmt: skip
    lines = await _lines(mesh)
    kinds = {kind.name for line in lines if (kind := kind_at(line.get("key", ""))) is not None}
    assert kinds == {kind.name for kind in ALL_KINDS}
    name = request.config.getoption("--golden", default="")
    if name:
        text = "".join(json.dumps(line) + "\n" for line in [{"release": name, "at": str(mesh.clock.now())}, *lines])
        (RELEASES / f"{name}.jsonl").write_text(text)


async def _lines(mesh: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for kv in (await mesh.store.range("/")).items:
        if not kv.key.startswith(NOT_KEPT):
            value = kv.value.decode()
            found.append({"key": kv.key, "value": json.loads(value) if value.startswith("{") else value})
    topologies = {one.spec.topology.digest for one in (await mesh.repository(DEFINITION).list()).items}
    for key, data in sorted(mesh.objects.objects.items()):
        if any(digest in key for digest in topologies):
            found.append({"object": key, "base64": base64.b64encode(data).decode()})
    return found


async def _others(mesh: Any) -> None:
    """The kinds that a morning of twins has no use for."""
    now = mesh.clock.now()
    template = ReservationSpec(definition="ospf-basics@1.0.0", duration_minutes=60)
    date = Occurrence(date="2027-03-02", start=now, end=now + timedelta(hours=1), reason="it did not fit")
    await mesh.repository(SERIES).create(
        Series(
            metadata=Metadata(id="ser-a", uid="s", owner="teacher", created_at=now),
            spec=SeriesSpec(rule="FREQ=WEEKLY", timezone="Europe/Berlin", first=now, template=template),
            status=SeriesStatus(phase=SeriesPhase.REFUSED, occurrences=(date,)),
        )
    )
    await mesh.repository(KEY).create(
        ApiKey(
            metadata=Metadata(id="key-a", uid="k", created_at=now),
            spec=KeySpec(name="ci", expires_at=datetime(2030, 1, 1, tzinfo=UTC), sha256="0" * 64),
            status=KeyStatus(),
        )
    )
    await mesh.repository(SUBSCRIPTION).create(
        Subscription(
            metadata=Metadata(id="lms", uid="w", created_at=now),
            spec=SubscriptionSpec(sink="https://lms.example.org/events"),
            status=SubscriptionStatus(beginning=Beginning(epoch="e", number=1)),
        )
    )
    quota = Quota(owner=Limits(open_seats=90), retention_days=30)
    await mesh.store.put(quota_key("default"), quota.to_json())
