"""What thousands of labs leave alike: one more use costs what the first did, and each is found, kept and let go by itself."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from lablet_artifacts.references import PORTION, References
from lablet_artifacts.sweeping import Sweeper
from lablet_common.bridge import Bridge
from lablet_common.bus.memory import PlainLog
from lablet_common.events import Outgoing, resource_of
from lablet_common.objects import object_key, put_content
from lablet_common.ownership import Fence
from lablet_common.references import CARRIED, REFERENCES
from lablet_common.resources import schema
from lablet_common.resources.artifact import Artifact, ArtifactSpec, Reference
from lablet_common.resources.instance import InstancePhase
from lablet_common.resources.kinds import ARTIFACT
from lablet_common.store import MemoryStore, Put
from lablet_common.store.api import MAX_VALUE_BYTES

SWITCH = b"hostname Switch\n"
MANY = 10_000
LARGEST_EVENT = 16 * 1024


def use(number: int, role: Any = "collected") -> Reference:
    return Reference(subject=f"instance/ins-{number}-1", role=role, name="sw1.cfg", attempt=1)


class Weighed(MemoryStore):
    """Adds up what transactions write."""

    written = transactions = 0

    async def txn(self, compares: Any, success: Any, failure: Any = ()) -> Any:
        self.transactions += 1
        self.written += sum(len(one.value) for one in success if isinstance(one, Put))
        return await super().txn(compares, success, failure)


class Switches:
    """The content that all leave alike, and its uses."""

    def __init__(self, shelf: Any, fence: Fence, sweeper: Sweeper, digest: str) -> None:
        self.shelf, self.digest = shelf, digest
        self.references = References(shelf.store, fence)
        self.spec = ArtifactSpec(digest=digest, bytes=len(SWITCH), media_type="text/plain")
        self.sweeper = sweeper

    async def left_by(self, uses: Sequence[Reference]) -> None:
        for one in uses:
            await self.references.add("default", self.spec, one, self.shelf.clock.now())

    async def artifact(self) -> Artifact | None:
        found: Artifact | None = await self.shelf.all(ARTIFACT).get(self.digest)
        return found

    async def users(self) -> set[str]:
        return {one.reference.subject for one in await self.shelf.uses()}

    async def older_keys(self) -> list[str]:
        return [kv.key for kv in (await self.shelf.store.range(REFERENCES)).items]

    async def check_count(self) -> None:
        """The artifact counts what stands beside it."""
        artifact = await self.artifact()
        assert artifact is not None
        assert artifact.status.older_references == len(await self.older_keys())

    @property
    def stored(self) -> bool:
        return object_key("default", self.digest) in self.shelf.objects.objects


@pytest.fixture
async def switches(shelf: Any) -> Switches:
    shelf.store = Weighed()
    digest = await put_content(shelf.objects, "default", SWITCH, "text/plain")
    return Switches(shelf, await shelf.fence(), await shelf.sweeper(grace=timedelta(0)), digest)


async def test_of_ten_thousand_uses_the_last_costs_what_the_first_few_did(switches: Switches) -> None:
    """The soak's find: each use rewrote all of them, until at 3,500 the value was more than is stored under one key."""
    costs = {}
    for begin, end in ((0, 100), (100, 200), (200, MANY - 100), (MANY - 100, MANY)):
        before = switches.shelf.store.written
        await switches.left_by([use(n) for n in range(begin, end)])
        costs[end] = (switches.shelf.store.written - before) / (end - begin)
    assert costs[MANY] == pytest.approx(costs[200], rel=0.05)
    assert len(await switches.users()) == MANY
    await switches.check_count()


async def test_every_event_is_small_and_tells_of_the_use_that_it_is_about(switches: Switches) -> None:
    events: list[Outgoing] = []

    async def publish(outgoing: Outgoing) -> None:
        events.append(outgoing)

    await switches.left_by([use(n) for n in range(200)])
    store = switches.shelf.store
    fence = await switches.shelf.fence()
    bridge = Bridge(store, ARTIFACT, fence, PlainLog(publish), source="/lablet/artifact-service")
    async with switches.shelf.running(bridge.run()):

        async def told() -> bool:
            return len(events) == 200

        await switches.shelf.until(told)
    for number, outgoing in enumerate(events):
        told_of: Any = resource_of(outgoing.event)
        assert told_of.status.references[-1] == use(number)
        assert len(outgoing.event.get_data()) < LARGEST_EVENT


async def test_a_use_that_is_known_changes_nothing_wherever_it_stands(switches: Switches) -> None:
    await switches.left_by([use(n) for n in range(CARRIED + 5)])
    before = switches.shelf.store.revision
    await switches.left_by([use(0), use(CARRIED + 4)])
    assert switches.shelf.store.revision == before


async def test_uses_are_dropped_wherever_they_stand_however_many(switches: Switches) -> None:
    count = CARRIED + 2 * PORTION + 10
    await switches.left_by([use(n) for n in range(count)])
    gone = [use(n) for n in range(0, count, 2)]
    assert await switches.references.drop("default", switches.digest, gone)
    assert await switches.users() == {use(n).subject for n in range(1, count, 2)}
    await switches.check_count()
    assert not await switches.references.drop("default", switches.digest, gone), "they are gone already"


async def test_content_that_only_older_uses_are_left_of_is_not_swept(switches: Switches) -> None:
    await switches.left_by([use(n) for n in range(CARRIED + 1)])
    await switches.references.drop("default", switches.digest, [use(n) for n in range(1, CARRIED + 1)])
    artifact = await switches.artifact()
    assert artifact is not None
    assert artifact.status.references == ()
    await switches.sweeper.look()
    await switches.sweeper.look()
    assert switches.stored
    assert await switches.users() == {use(0).subject}


async def test_each_use_ends_after_its_own_retention_and_the_content_with_the_last(switches: Switches) -> None:
    clock = switches.shelf.clock
    await switches.left_by([use(n) for n in range(300)])
    await clock.advance(timedelta(days=60))
    await switches.left_by([use(n) for n in range(300, 340)])
    await clock.advance(timedelta(days=31))
    assert await switches.sweeper.look() == 0
    assert await switches.users() == {use(n).subject for n in range(300, 340)}
    await switches.check_count()
    await clock.advance(timedelta(days=60))
    switches.shelf.objects.modified.clear()
    assert await switches.sweeper.look() == 1
    assert await switches.artifact() is None
    assert await switches.older_keys() == []


async def test_a_use_in_one_role_is_deleted_on_request_wherever_it_stands(switches: Switches) -> None:
    shelf = switches.shelf
    await switches.left_by([use(n) for n in range(PORTION + 50)])
    await switches.left_by([use(n, "exported") for n in range(5)])
    await switches.left_by([use(1000), use(1001)])
    asked = await shelf.ask("delete", switches.digest, {"role": "collected"}, kind="artifact")
    assert (await shelf.decided(asked)).status.reason == "DeleteRequested"
    assert {(one.reference.role) for one in await shelf.uses()} == {"exported"}
    await switches.check_count()
    assert switches.stored
    asked = await shelf.ask("delete", switches.digest, {"role": "collected"}, kind="artifact")
    assert (await shelf.decided(asked)).status.problem.status == 404


async def test_deleting_content_takes_all_its_uses_and_a_living_one_forbids_it(switches: Switches) -> None:
    shelf = switches.shelf
    living = await shelf.instance("ins-0-1", "Running")
    await switches.left_by([use(n) for n in range(PORTION + 50)])
    refused = await shelf.decided(await shelf.ask("delete", switches.digest, {}, kind="artifact"))
    assert "ins-0-1 is Running" in refused.status.problem.detail, "the very first use, which has a key of its own"
    await shelf.change(living.id, phase=InstancePhase.TERMINATED)
    assert (await shelf.decided(await shelf.ask("delete", switches.digest, {}, kind="artifact"))).status.problem is None
    assert await switches.sweeper.look() == 1
    assert not switches.stored
    assert await switches.artifact() is None
    assert await switches.older_keys() == []


async def test_deleting_what_an_instance_left_finds_its_use_among_the_older(switches: Switches) -> None:
    shelf = switches.shelf
    await switches.left_by([use(n) for n in range(CARRIED + 5)])
    assert (await shelf.decided(await shelf.ask("delete", "ins-0-1", {}, kind="artifact"))).status.problem is None
    assert use(0).subject not in await switches.users()
    await switches.check_count()


def of_the_first_version(digest: str, at: Any, count: int) -> bytes:
    """As an earlier release has stored it: all in one piece."""
    metadata = {"id": digest, "uid": "u", "tenant": "default", "createdAt": at.isoformat()}
    references = [use(n).to_dict() for n in range(count)]
    status = {"phase": "Stored", "references": references, "verifiedAt": at.isoformat()}
    document = {"kind": "Artifact", "schemaVersion": 1, "metadata": metadata, "spec": {"digest": digest, "bytes": 1}}
    return json.dumps(document | {"status": status}).encode()


@pytest.mark.parametrize("order", [("used", "swept"), ("swept", "used")], ids=" then ".join)
@pytest.mark.parametrize("count", [CARRIED, CARRIED + PORTION, 3 * PORTION])
async def test_what_an_earlier_release_stored_in_one_piece_is_read_and_carried_out(
    switches: Switches, count: int, order: tuple[str, str]
) -> None:
    shelf = switches.shelf
    value = of_the_first_version(switches.digest, shelf.clock.now(), count)
    await shelf.store.put(ARTIFACT.key(switches.digest), value)
    assert await switches.users() == {use(n).subject for n in range(count)}
    await shelf.clock.advance(timedelta(days=80))
    for step in order:
        await (switches.left_by([use(count)]) if step == "used" else switches.sweeper.look())
        assert len(await switches.users()) == count + (order.index("used") <= order.index(step))
    artifact = await switches.artifact()
    assert artifact is not None
    assert (artifact.schema_version, len(artifact.status.references)) == (2, CARRIED)
    assert len(await switches.users()) == count + 1
    await switches.check_count()
    await shelf.clock.advance(timedelta(days=11))
    await switches.sweeper.look()
    assert await switches.users() == {use(count).subject}, "they count from when the content was last stored"


async def test_as_much_as_an_earlier_release_could_store_can_be_used_and_carried_out(switches: Switches) -> None:
    count = 5_780
    value = of_the_first_version(switches.digest, switches.shelf.clock.now(), count)
    assert MAX_VALUE_BYTES - 10_000 < len(value) < MAX_VALUE_BYTES
    await switches.shelf.store.put(ARTIFACT.key(switches.digest), value)
    await switches.left_by([use(count)])
    await switches.sweeper.look()
    assert len(await switches.users()) == count + 1
    await switches.check_count()


async def test_a_release_that_would_not_count_older_uses_refuses_such_an_artifact(
    switches: Switches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take content for unreferred to whose uses all stand beside it."""
    await switches.left_by([use(n) for n in range(CARRIED + 1)])
    stored = await switches.shelf.store.get(ARTIFACT.key(switches.digest))
    monkeypatch.setattr(schema, "MIGRATIONS", {})
    with pytest.raises(schema.NewerSchema):
        schema.read(Artifact, stored.value)


async def test_a_look_at_what_is_in_order_reads_no_artifact_by_itself(switches: Switches) -> None:
    """Tens of thousands of them, one by one, would keep who wants something deleted waiting for minutes."""
    await switches.left_by([use(n) for n in range(CARRIED)])
    before = switches.shelf.store.transactions
    await switches.sweeper.look()
    assert switches.shelf.store.transactions == before


async def test_a_key_that_nobody_counts_holds_up_no_deletion(switches: Switches) -> None:
    """As a hand may have put it: it cannot be dropped, and goes with the artifact."""
    shelf = switches.shelf
    await switches.left_by([use(0), *(use(n, "exported") for n in range(CARRIED + 5))])
    await shelf.store.put(f"{REFERENCES}default/{switches.digest}/odd", use(99).to_json())
    for body in ({"role": "collected"}, {}):
        asked = await shelf.ask("delete", switches.digest, body, kind="artifact")
        assert (await shelf.decided(asked)).status.reason == "DeleteRequested"
        assert use(0).subject + "collected" not in {
            one.reference.subject + one.reference.role for one in await shelf.uses()
        }
    await switches.sweeper.look()
    assert await switches.older_keys() == []


async def test_a_reference_that_comes_while_the_last_one_goes_keeps_the_content(switches: Switches) -> None:
    """The sweeper has judged by what it read; in the meantime somebody else has left the same."""
    await switches.left_by([use(0)])
    await switches.shelf.clock.advance(timedelta(days=91))
    over = [use(0)]
    await switches.left_by([use(1)])
    await switches.references.drop("default", switches.digest, over, emptied=switches.sweeper._condemned)
    artifact = await switches.artifact()
    assert artifact is not None
    assert artifact.phase == "Stored"
