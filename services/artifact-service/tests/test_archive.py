"""What has ended leaves etcd for the archive: in order, verified, once, and never without a trace."""

import contextlib
import gzip
import weakref
from datetime import date, timedelta
from typing import Any

import pytest

from lablet_artifacts.archive import Archiver
from lablet_common import archive
from lablet_common.objects import MemoryObjectStore, ObjectMismatch, ObjectStoreUnavailable, digest_of
from lablet_common.ownership import Fence, NotOwner
from lablet_common.removal import Removal
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import INSTANCE, RESERVATION, SERIES, ownership_key
from lablet_common.resources.reservation import Reservation
from lablet_common.resources.series import Series, SeriesPhase
from lablet_common.store import MemoryStore, StoreUnavailable

DAY = timedelta(hours=24)


def whole(resource: Any) -> Any:
    return resource


class Bridge:
    """Has published everything, or up to a revision."""

    cursor = 10**9


class Ends(MemoryObjectStore):
    """Dies at the n-th call that changes or reads an object."""

    def __init__(self, real: MemoryObjectStore, left: int) -> None:
        super().__init__()
        self.objects = real.objects
        self.left = left

    def _check(self) -> None:
        if self.left == 0:
            raise ObjectStoreUnavailable("the process has ended here")
        self.left -= 1


class Halting(MemoryStore):
    """Dies at the n-th write; `store` is the one that goes on."""

    def __init__(self, store: MemoryStore, left: int, *, after: bool) -> None:
        self.__dict__.update(store.__dict__)
        self._left, self._after = left, after

    async def txn(self, compares: Any, operations: Any, otherwise: Any = ()) -> Any:
        if not operations or self._left:
            self._left -= bool(operations)
            return await super().txn(compares, operations, otherwise)
        if self._after:
            await super().txn(compares, operations, otherwise)
        raise StoreUnavailable("the process has ended here")


def reservation(name: str, shelf: Any, phase: str = "Completed", **metadata: Any) -> Reservation:
    now = shelf.clock.now()
    return Reservation.model_validate(
        {
            "metadata": {"id": name, "uid": name, "owner": "grace", "createdAt": now, "finalizers": ["archive"]}
            | metadata,
            "spec": {"definition": "small@1.0.0", "durationMinutes": 60},
            "status": {"phase": phase, "pool": "default"},
        }
    )


def seat(name: str, of: str, shelf: Any, phase: str = "Terminated") -> Instance:
    now = shelf.clock.now()
    return Instance.model_validate(
        {
            "metadata": {"id": name, "uid": name, "createdAt": now, "finalizers": ["archive"]},
            "spec": {
                "reservation": of,
                "seat": 1,
                "definition": "small@1.0.0",
                "pool": "default",
                "worker": "default-001",
                "start": now,
                "end": now + timedelta(hours=1),
            },
            "status": {"phase": phase},
        }
    )


async def lesson(shelf: Any, name: str, phase: str = "Completed") -> None:
    await shelf.all(RESERVATION).create(reservation(f"rsv-{name}", shelf, phase))
    await shelf.all(INSTANCE).create(seat(f"ins-{name}-1", f"rsv-{name}", shelf))


async def archiver(shelf: Any, objects: Any = None, store: Any = None, fence: Fence | None = None) -> Archiver:
    return Archiver(
        store or shelf.store,
        fence or await shelf.fence(),
        objects or shelf.objects,
        shelf.clock,
        after=DAY,
        look_seconds=60,
    )


async def removal(shelf: Any, kind: Any, bridge: Any = None, store: Any = None) -> Removal:
    key = ownership_key(kind.owner, f"bridge-{kind.name}")
    found = await shelf.store.get(key)
    fence = Fence(key, found.create_revision if found else await shelf.store.put(key, b"test"))
    return Removal(store or shelf.store, kind, fence, bridge or Bridge())


async def owners(shelf: Any) -> None:
    for kind in (INSTANCE, RESERVATION):
        await (await removal(shelf, kind)).look()


async def names(shelf: Any) -> list[str]:
    return [one.id for kind in (INSTANCE, RESERVATION) for one in (await shelf.all(kind).list()).items]


async def rounds(shelf: Any, count: int = 3) -> None:
    for _ in range(count):
        await (await archiver(shelf)).look()
        await owners(shelf)


@pytest.mark.parametrize(
    "damage", [lambda _: b"{}", lambda data: data[:-9], lambda data: data[:20] + b"x" * 20 + data[40:]]
)
async def test_a_damaged_file_is_named_by_whoever_reads_its_day(shelf: Any, damage: Any) -> None:
    await lesson(shelf, "a")
    await shelf.clock.advance(DAY)
    await rounds(shelf)
    (key,) = [key for key in shelf.objects.objects if "/reservation-" in key]
    day = date.fromisoformat(key.split("/")[2])
    shelf.objects.objects[key] = damage(shelf.objects.objects[key])
    with pytest.raises(ObjectMismatch, match="cannot be read as a file of the archive") as caught:
        [found async for found in archive.days(shelf.objects, RESERVATION, "default", day, day, whole)]
    assert key in str(caught.value)


async def test_after_a_restore_what_is_archived_last_is_what_is_found(shelf: Any) -> None:
    """A restored store counts its revisions anew: what came of a reservation before, and is not so now, had a higher one."""
    for number in range(100):
        await shelf.store.put("/clock", str(number).encode())
    await lesson(shelf, "a")
    await shelf.clock.advance(DAY)
    await rounds(shelf)
    assert (await archive.find(shelf.objects, RESERVATION, "rsv-a", "default")).phase == "Completed"
    shelf.store = MemoryStore()
    await lesson(shelf, "a", "Cancelled")
    await shelf.clock.advance(DAY)
    await rounds(shelf)
    assert await names(shelf) == []
    assert (await archive.find(shelf.objects, RESERVATION, "rsv-a", "default")).phase == "Cancelled"


async def test_an_entry_of_an_earlier_release_is_found_and_gives_way_to_later_ones(shelf: Any) -> None:
    """Its key had only the revision, of twenty digits."""
    kept = reservation("rsv-a", shelf).at_revision(10**12 - 1)
    file, data = "archive/default/2027-03-01/reservation-old.jsonl.gz", archive.pack([kept])
    entry = archive.IndexEntry(file=file, digest=digest_of(data), revision=kept.revision)
    await shelf.objects.put(file, data)
    await shelf.objects.put(f"archive/default/index/reservation/rsv-a/{kept.revision:020}", entry.to_json())
    assert (await archive.find(shelf.objects, RESERVATION, "rsv-a", "default")).phase == "Completed"
    await lesson(shelf, "a", "Cancelled")
    await shelf.clock.advance(DAY)
    await rounds(shelf)
    assert (await archive.find(shelf.objects, RESERVATION, "rsv-a", "default")).phase == "Cancelled"


async def test_what_ended_a_day_ago_is_found_in_the_archive_and_no_longer_in_etcd(shelf: Any) -> None:
    await lesson(shelf, "a")
    before = await shelf.all(RESERVATION).require("rsv-a")
    await shelf.clock.advance(DAY)
    await rounds(shelf)
    assert await names(shelf) == []
    assert await archive.find(shelf.objects, RESERVATION, "rsv-a", "default") == before
    found = await archive.find(shelf.objects, INSTANCE, "ins-a-1", "default")
    assert found is not None
    assert found.phase == "Terminated"
    assert await archive.find(shelf.objects, RESERVATION, "rsv-a", "acme") is None
    assert [kv.key for kv in (await shelf.store.range("/archived/")).items] == []


async def test_what_ended_just_now_or_has_not_ended_stays(shelf: Any) -> None:
    await lesson(shelf, "old", phase="Active")
    await shelf.clock.advance(DAY)
    await lesson(shelf, "new")
    await rounds(shelf)
    assert len(await names(shelf)) == 4
    assert shelf.objects.objects == {}


async def test_a_reservation_leaves_only_after_its_instances(shelf: Any) -> None:
    await lesson(shelf, "a")
    await shelf.clock.advance(DAY)
    await (await archiver(shelf)).look()
    assert await archive.find(shelf.objects, RESERVATION, "rsv-a", "default") is None
    await owners(shelf)
    assert await names(shelf) == ["rsv-a"]


async def test_a_series_that_has_ended_leaves_like_its_dates(shelf: Any) -> None:
    series = Series.model_validate(
        {
            "metadata": {"id": "ser-a", "uid": "ser-a", "createdAt": shelf.clock.now(), "finalizers": ["archive"]},
            "spec": {
                "rule": "FREQ=WEEKLY;COUNT=2",
                "timezone": "UTC",
                "first": shelf.clock.now(),
                "template": {"definition": "small@1.0.0", "durationMinutes": 60},
            },
            "status": {"phase": "Placed"},
        }
    )
    made = await shelf.all(SERIES).create(series)
    await shelf.clock.advance(DAY)
    await (await archiver(shelf)).look()
    await (await removal(shelf, SERIES)).look()
    assert [one.id for one in (await shelf.all(SERIES).list()).items] == ["ser-a"], "it has not ended"
    ended = made.moved(SeriesPhase.COMPLETED, at=shelf.clock.now(), by="/lablet/scheduler", reason="LastDateOver")
    ended = await shelf.all(SERIES).update(ended)
    await shelf.clock.advance(DAY)
    await (await archiver(shelf)).look()
    await (await removal(shelf, SERIES)).look()
    assert (await shelf.all(SERIES).list()).items == ()
    assert await archive.find(shelf.objects, SERIES, "ser-a", "default") == ended


async def test_nothing_is_asked_of_an_owner_while_the_archive_does_not_read_back(shelf: Any) -> None:
    class Forgetful(MemoryObjectStore):
        async def put(self, key: str, data: bytes, media_type: str = "") -> None:
            await super().put(key, gzip.compress(b""), media_type)

    await lesson(shelf, "a")
    await shelf.clock.advance(DAY)
    with pytest.raises(ObjectMismatch):
        await (await archiver(shelf, Forgetful())).look()
    await owners(shelf)
    assert len(await names(shelf)) == 2


async def test_what_changed_after_it_was_archived_stays_and_is_archived_anew(shelf: Any) -> None:
    await shelf.all(RESERVATION).create(reservation("rsv-a", shelf))
    await shelf.clock.advance(DAY)
    await (await archiver(shelf)).look()
    present = await shelf.all(RESERVATION).require("rsv-a")
    await shelf.all(RESERVATION).update(present.observed(outcomes={"1": "Terminated"}))
    await owners(shelf)
    assert await names(shelf) == ["rsv-a"]
    await rounds(shelf)
    assert await names(shelf) == []
    found = await archive.find(shelf.objects, RESERVATION, "rsv-a", "default")
    assert isinstance(found, Reservation)
    assert found.status.outcomes == {"1": "Terminated"}


async def test_a_day_shows_each_resource_once_in_its_newest_state(shelf: Any) -> None:
    await test_what_changed_after_it_was_archived_stays_and_is_archived_anew(shelf)
    first = date(2027, 3, 1)
    seen = [
        (day, [one.id for one in of])
        async for day, of in archive.days(shelf.objects, RESERVATION, "default", first, first, whole)
    ]
    assert seen == [(first, ["rsv-a"])]


async def test_of_a_day_one_alone_is_in_memory_as_a_whole(shelf: Any) -> None:
    for number in range(4):
        await shelf.all(RESERVATION).create(reservation(f"rsv-{number}", shelf))
    first = shelf.clock.now().date()
    await shelf.clock.advance(DAY)
    await rounds(shelf)
    seen: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def name_of(resource: Reservation) -> str:
        alive.append(sum(ref() is not None for ref in seen))
        seen.append(weakref.ref(resource))
        return resource.id

    days = [found async for _, found in archive.days(shelf.objects, RESERVATION, "default", first, first, name_of)]
    assert days == [[f"rsv-{number}" for number in range(4)]]
    assert max(alive) <= 1


async def test_an_owner_deletes_nothing_that_has_not_been_published(shelf: Any) -> None:
    await shelf.all(RESERVATION).create(reservation("rsv-a", shelf))
    await shelf.clock.advance(DAY)
    await (await archiver(shelf)).look()
    behind = Bridge()
    behind.cursor = 1
    assert await (await removal(shelf, RESERVATION, behind)).look() == 0
    assert await names(shelf) == ["rsv-a"]
    assert await (await removal(shelf, RESERVATION)).look() == 1


async def test_a_resource_with_another_finalizer_stays(shelf: Any) -> None:
    await shelf.all(RESERVATION).create(reservation("rsv-a", shelf, finalizers=["archive", "billing"]))
    await shelf.clock.advance(DAY)
    await rounds(shelf)
    assert await names(shelf) == ["rsv-a"]


async def test_an_archiver_that_is_no_longer_the_owner_asks_nothing(shelf: Any) -> None:
    await lesson(shelf, "a")
    await shelf.clock.advance(DAY)
    old = await shelf.fence()
    await shelf.store.delete(old.key)
    await shelf.store.put(old.key, b"another")
    with pytest.raises(NotOwner):
        await (await archiver(shelf, fence=old)).look()
    assert (await shelf.store.range("/archived/")).items == ()


async def test_an_owner_that_was_replaced_deletes_nothing(shelf: Any) -> None:
    await shelf.all(RESERVATION).create(reservation("rsv-a", shelf))
    await shelf.clock.advance(DAY)
    await (await archiver(shelf)).look()
    old = await removal(shelf, RESERVATION)
    key = ownership_key(RESERVATION.owner, "bridge-reservation")
    await shelf.store.delete(key)
    await shelf.store.put(key, b"another")
    with pytest.raises(NotOwner):
        await old.look()
    assert await names(shelf) == ["rsv-a"]


@pytest.mark.parametrize("step", range(6))
async def test_a_crash_between_any_two_steps_in_the_object_store_loses_nothing(shelf: Any, step: int) -> None:
    await shelf.all(RESERVATION).create(reservation("rsv-a", shelf))
    await shelf.all(RESERVATION).create(reservation("rsv-b", shelf))
    await shelf.clock.advance(DAY)
    with contextlib.suppress(ObjectStoreUnavailable):
        await (await archiver(shelf, Ends(shelf.objects, step))).look()
    await owners(shelf)
    for name in ("rsv-a", "rsv-b"):
        here = await shelf.all(RESERVATION).get(name)
        assert here or await archive.find(shelf.objects, RESERVATION, name, "default")
    await rounds(shelf)
    assert await names(shelf) == []
    assert len([key for key in shelf.objects.objects if key.endswith(".gz")]) == 1, "written again under the same key"


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(3))
async def test_a_crash_around_any_commit_loses_nothing(shelf: Any, step: int, after: bool) -> None:
    await lesson(shelf, "a")
    await shelf.clock.advance(DAY)
    await shelf.fence()
    dying = Halting(shelf.store, step, after=after)
    with contextlib.suppress(StoreUnavailable):
        for _ in range(3):
            await (await archiver(shelf, store=dying)).look()
            for kind in (INSTANCE, RESERVATION):
                await (await removal(shelf, kind, store=dying)).look()
    for kind, name in ((RESERVATION, "rsv-a"), (INSTANCE, "ins-a-1")):
        here = await shelf.all(kind).get(name)
        assert here or await archive.find(shelf.objects, kind, name, "default")
    await rounds(shelf)
    assert await names(shelf) == []


async def test_an_archiver_that_looks_again_sees_what_has_changed_meanwhile(shelf: Any) -> None:
    shelving = await archiver(shelf)
    await lesson(shelf, "a", "Active")
    await shelf.clock.advance(DAY)
    assert await shelving.look() == 0
    running = await shelf.all(RESERVATION).get("rsv-a")
    await shelf.all(RESERVATION).update(running.moved("Completed", at=shelf.clock.now(), by="test", reason="Test"))
    await shelf.clock.advance(DAY)
    assert await shelving.look() == 1, "the instance"
    await owners(shelf)
    assert await shelving.look() == 1
    await owners(shelf)
    assert await names(shelf) == []


async def _term(shelf: Any, lessons: int, per_hour: int) -> int:
    """Lessons end at an even rate; the most resources that etcd ever held."""
    most, shelving = 0, await archiver(shelf)
    for at in range(0, lessons, per_hour):
        for number in range(at, min(at + per_hour, lessons)):
            await lesson(shelf, f"{number:05}")
        await shelf.clock.advance(timedelta(hours=1))
        for _ in range(2):
            await shelving.look()
            await owners(shelf)
        most = max(most, (await shelf.store.range("/", limit=1, keys_only=True)).count)
    return most


async def _all_found(shelf: Any, lessons: int) -> None:
    await shelf.clock.advance(DAY)
    await rounds(shelf)
    assert await names(shelf) == []
    last = shelf.clock.now().date()
    found = [
        one.id
        async for _, of in archive.days(shelf.objects, RESERVATION, "default", date(2027, 3, 1), last, whole)
        for one in of
    ]
    assert sorted(found) == [f"rsv-{number:05}" for number in range(lessons)]
    assert await archive.find(shelf.objects, INSTANCE, f"ins-{lessons // 2:05}-1", "default") is not None


async def test_etcd_stays_bounded_while_hundreds_of_lessons_pass(shelf: Any) -> None:
    most = await _term(shelf, 400, per_hour=8)
    assert most <= 8 * 26 * 2 + 50, "a day's lessons, not a term's"
    await _all_found(shelf, 400)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_etcd_stays_bounded_while_twenty_thousand_lessons_pass(shelf: Any) -> None:
    most = await _term(shelf, 20_000, per_hour=100)
    assert most <= 100 * 26 * 2 + 50
    await _all_found(shelf, 20_000)
