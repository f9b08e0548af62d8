"""A broker that is killed forgets the last of what it acknowledged: the bridge misses it, and tells it again in its order."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from lablet_common import told
from lablet_common.bridge import Bridge
from lablet_common.bus.memory import PlainLog
from lablet_common.compaction import lowest_cursor
from lablet_common.cursor import Cursor, EventLog, Mark
from lablet_common.events import Outgoing, sequence_of
from lablet_common.ownership import Fence
from lablet_common.requests import accept
from lablet_common.resources import WorkerTemplate
from lablet_common.resources.kinds import REQUEST, TEMPLATE
from lablet_common.store import MemoryStore, Store
from lablet_common.store.repository import Repository
from lablet_common.testing.broker import Broker

SOURCE = "/lablet/worker-controller"
Eventually = Callable[..., Any]


class Telling:
    """Templates that change, one bridge at a time, and the broker that it tells."""

    def __init__(self, store: Store, fence: Fence, make: Callable[..., WorkerTemplate], eventually: Eventually) -> None:
        self.store, self.broker, self._fence = store, Broker(), fence
        self.templates: Repository[WorkerTemplate] = Repository(store, TEMPLATE)
        self._make, self.eventually = make, eventually
        self.bridge: Bridge
        self._running: asyncio.Task[None] | None = None

    def begin(self, log: EventLog | None = None) -> None:
        """A bridge, which may be the next one."""
        self.bridge = Bridge(self.store, TEMPLATE, self._fence, log or self.broker, source=SOURCE)
        self._running = asyncio.create_task(self.bridge.run())

    async def end(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def create(self, *names: str, count: int = 0) -> list[WorkerTemplate]:
        return [await self.templates.create(self._make(name)) for name in names or [f"t{n}" for n in range(count)]]

    async def change(self, templates: list[WorkerTemplate], label: str) -> list[WorkerTemplate]:
        return [await self.templates.update(one.relabelled({label: "1"})) for one in templates]

    async def is_stored(self, templates: list[WorkerTemplate]) -> None:
        """Waits until the cursor stands behind the last of them."""
        await self.eventually(lambda: self.bridge.cursor >= templates[-1].revision)

    async def all_is_told(self) -> None:
        """Waits until the last change of each template is in the stream; what each has there must stand in its order."""
        present = (await self.templates.list()).items
        await self.eventually(lambda: {event_of(one) for one in present} <= set(self.broker.ids))
        for one in present:
            mine = [sequence_of(o.event) for o in self.broker.events if o.event.get_subject() == f"template/{one.id}"]
            assert mine == sorted(mine)

    async def is_told_just(self, ids: list[str]) -> None:
        await self.eventually(lambda: sorted(self.broker.ids) == sorted(ids))

    @property
    def subjects(self) -> list[str]:
        return [subject.removeprefix("template/") for subject, _ in self.broker.facts]

    async def stored(self) -> dict[str, Any]:
        """The cursor as it lies in the store."""
        found = await self.store.get("/bridge/template/cursor")
        return json.loads(found.value) if found is not None else {}


def event_of(template: WorkerTemplate) -> str:
    return f"template/{template.metadata.uid}/{template.revision}"


@pytest.fixture
async def telling(
    memory: MemoryStore, make_fence: Any, make_template: Any, eventually: Eventually
) -> AsyncIterator[Telling]:
    made = Telling(memory, await make_fence(memory), make_template, eventually)
    made.begin()
    yield made
    await made.end()


@pytest.mark.parametrize("forgotten", [1, 3, 30, 60])
async def test_what_was_forgotten_is_told_again_before_anything_else(telling: Telling, forgotten: int) -> None:
    """Fault seed 115: four events that NATS had acknowledged, and that were on no disk when it was killed, were lost."""
    made = await telling.create(count=20)
    for label in "xy":
        made = await telling.change(made, label)
        await telling.is_stored(made)
    before = list(telling.broker.ids)
    assert len(before) == 60
    telling.broker.kill(forgotten)
    made = await telling.change(made, "z")
    await telling.all_is_told()
    assert Counter(telling.broker.ids) == Counter([*before, *map(event_of, made)])
    await telling.is_stored(made)


async def test_it_is_missed_where_nothing_changes_any_more(telling: Telling) -> None:
    await telling.is_stored(await telling.create(count=5))
    before = list(telling.broker.ids)
    telling.broker.kill(3)
    await telling.is_told_just(before)


async def test_killed_again_it_forgets_again_what_was_told_again(telling: Telling) -> None:
    """What comes again lies under numbers that the stream had before."""
    made = await telling.create(count=20)
    await telling.is_stored(made)
    before = list(telling.broker.ids)
    for forgotten in (12, 8, 5):
        telling.broker.kill(forgotten)
        await telling.is_told_just(before)
        await telling.is_stored(made)


async def test_what_was_found_there_is_missed_too_when_it_is_forgotten_later(telling: Telling) -> None:
    """As when a machine loses its power after its NATS was killed: what is passed over as told is told by no older mark."""
    made = await telling.create(count=5)
    await telling.is_stored(made)
    before = list(telling.broker.ids)
    await telling.end()
    cursor = Cursor.from_json((await telling.store.get("/bridge/template/cursor")).value)  # type: ignore[union-attr]
    first = Mark(made[0].revision, 1, telling.broker.events[0].subject)
    back = Cursor((first,), cursor.epoch, 0, again=made[-1].revision)
    await telling.store.put("/bridge/template/cursor", back.to_json())
    telling.begin()
    await telling.is_stored(made)
    assert telling.broker.ids == before, "all of it was there"
    telling.broker.kill(3)
    await telling.is_told_just(before)


async def test_the_next_bridge_misses_what_was_forgotten_between_them(
    store: Store, make_fence: Any, make_template: Any, eventually: Eventually
) -> None:
    telling = Telling(store, await make_fence(store), make_template, eventually)
    telling.begin()
    await telling.is_stored(await telling.create(count=30))
    await telling.end()
    before = list(telling.broker.ids)
    telling.broker.kill(20)
    telling.begin()
    await telling.is_told_just(before)
    await telling.end()


@pytest.mark.parametrize("window", [10**9, 1], ids=["repeats are known", "no repeat is known any more"])
async def test_a_bridge_that_ends_before_it_has_told_again_leaves_that_to_the_next(
    telling: Telling, window: int
) -> None:
    telling.broker.window = window
    made = await telling.create(count=30)
    made[0] = (await telling.change(made[:1], "x"))[0]
    await telling.is_stored(made[:1])
    before = list(telling.broker.ids)
    telling.broker.failing.add("*")
    telling.broker.kill(10)
    await telling.eventually(lambda: telling.bridge.cursor < made[0].revision)
    assert (await telling.stored())["revision"] == telling.bridge.cursor
    await telling.end()
    telling.broker.failing.clear()
    telling.begin()
    await telling.all_is_told()
    await telling.is_told_just(before)


async def test_the_first_that_was_told_is_missed_too_while_something_before_it_is_not_told(telling: Telling) -> None:
    """The cursor stands still then, and its only mark has no message."""
    telling.broker.failing.add("template/slow")
    made = await telling.create("slow", "quick")
    await telling.eventually(lambda: len(telling.broker.events) == 1)
    telling.broker.kill(1)
    await telling.eventually(lambda: telling.subjects == ["quick"])
    telling.broker.failing.clear()
    await telling.is_stored(made)
    assert sorted(telling.broker.facts) == [("template/quick", "created"), ("template/slow", "created")]


async def test_what_may_have_to_be_told_again_is_not_compacted(telling: Telling) -> None:
    """Else a deletion that was lost could not be told any more."""
    made = await telling.create(count=20)
    await telling.is_stored(made)
    await telling.templates.delete(made[0])
    await telling.eventually(lambda: len(telling.broker.events) == 21 and telling.bridge.cursor > made[-1].revision)
    assert await lowest_cursor(telling.store, [TEMPLATE]) <= made[0].revision
    await telling.store.compact(max(1, await lowest_cursor(telling.store, [TEMPLATE])))
    telling.broker.kill(12)
    await telling.eventually(lambda: len(telling.broker.events) == 21)
    assert ("template/t0", "deleted") in telling.broker.facts


async def test_what_was_told_long_ago_may_be_compacted(telling: Telling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "_SAFE_SECONDS", 0.3)
    made = await telling.create("a")
    await telling.is_stored(made)

    async def may_be_compacted() -> bool:
        return await lowest_cursor(telling.store, [TEMPLATE]) >= made[0].revision

    await telling.eventually(may_be_compacted)


async def test_while_nobody_answers_nothing_becomes_safe(telling: Telling, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is away: what it has lost may be the last thing that it was told."""
    monkeypatch.setattr(told, "_SAFE_SECONDS", 0.5)
    made = await telling.create(count=3)
    await telling.is_stored(made)
    telling.broker.away = True
    telling.broker.kill(1)
    later = await telling.create("later")
    await telling.eventually(lambda: telling.bridge.lag_seconds > 1)
    assert await lowest_cursor(telling.store, [TEMPLATE]) < made[-1].revision
    telling.broker.away = False
    await telling.is_stored(later)
    assert sorted(telling.subjects) == ["later", "t0", "t1", "t2"]


async def test_numbers_of_other_streams_are_no_places_in_this_one(
    store: Store, make_request: Any, make_fence: Any, background: Any, eventually: Eventually
) -> None:
    """Each reconnect sent all intents again."""
    broker = Broker()
    background(Bridge(store, REQUEST, await make_fence(store), broker, source="/lablet/api-gateway").run())
    for key in ("k", "l", "m"):
        await accept(store, make_request(key))
    await eventually(lambda: len(broker.sent) == 6)
    broker.kill(0)
    await accept(store, make_request("n"))
    await eventually(lambda: len(broker.events) == 4 and len(broker.sent) >= 8)
    assert len(broker.sent) == 8


async def test_what_comes_again_does_not_come_behind_something_newer(telling: Telling) -> None:
    """The stream knows a repeat for two minutes only."""
    telling.broker.window = 1
    first = await telling.create("first")
    for label in "uvwxyz":
        first = await telling.change(first, label)
    await telling.is_stored(first)
    await telling.is_stored(await telling.create(count=3))
    telling.broker.kill(2)
    await telling.eventually(lambda: telling.subjects[-2:] == ["t1", "t2"])
    await telling.all_is_told()


async def test_two_plain_logs_repeat_nothing(telling: Telling) -> None:
    """What simulated worlds rest on: a cursor that moved too early would be hidden by a repeat of everything."""
    sent: list[Outgoing] = []

    async def publish(outgoing: Outgoing) -> None:
        sent.append(outgoing)

    await telling.end()
    telling.begin(PlainLog(publish))
    await telling.is_stored(await telling.create("a"))
    await telling.end()
    telling.begin(PlainLog(publish))
    await telling.create("b")
    await telling.eventually(lambda: len(sent) >= 2)
    assert [one.event.get_subject() for one in sent] == ["template/a", "template/b"]


async def test_a_stream_that_somebody_else_made_anew_is_noticed(
    telling: Telling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the connection stands. What the new one forgets later was taken for what went with the old one."""
    monkeypatch.setattr(told, "_LOOK_SECONDS", 0.1)
    await telling.is_stored(await telling.create(count=5))
    telling.broker.events.clear()
    telling.broker.epoch = "second"

    async def noticed() -> bool:
        return (await telling.stored()).get("epoch") == "second"

    later = await telling.create("later")
    await telling.eventually(noticed)
    await telling.is_stored(await telling.change(later, "x"))
    telling.broker.kill(1)
    await telling.eventually(lambda: telling.broker.facts[-1] == ("template/later", "changed"))
    assert len(telling.broker.events) == 2


async def test_a_stream_that_was_purged_or_made_anew_is_not_filled_again(telling: Telling) -> None:
    await telling.is_stored(await telling.create("first"))
    telling.broker.purge()
    telling.broker.kill(0)
    await telling.is_stored(await telling.create("second"))
    assert telling.subjects == ["second"]
    telling.broker.events.clear()
    telling.broker.before, telling.broker.epoch = 0, "second"
    telling.broker.kill(0)
    await telling.is_stored(await telling.create("third"))
    assert telling.subjects == ["third"]
    telling.broker.kill(1)
    await telling.eventually(lambda: telling.subjects == ["third"])


async def test_while_the_broker_is_away_the_lag_shows_and_the_cursor_stands_still(telling: Telling) -> None:
    await telling.is_stored(await telling.create("first"))
    telling.broker.away = True
    telling.broker.session += 1
    second = await telling.create("second")
    await telling.eventually(lambda: telling.bridge.lag_seconds > 0.3)
    assert telling.bridge.cursor < second[0].revision
    telling.broker.away = False
    await telling.is_stored(second)
    await telling.eventually(lambda: telling.bridge.lag_seconds == 0)
    assert telling.subjects == ["first", "second"]
