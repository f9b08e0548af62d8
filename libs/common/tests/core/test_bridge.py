"""Every committed change becomes its events: none missing, repeats with the same ids, one in flight per resource."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from lablet_common.bridge import Bridge
from lablet_common.bus.connection import TooLarge
from lablet_common.bus.memory import PlainLog
from lablet_common.events import Outgoing, sequence_of
from lablet_common.events.binding import InvalidEvent
from lablet_common.ownership import NotOwner
from lablet_common.requests import Inbox, accept, decide_in, hand_on_in
from lablet_common.resources import Request, WorkerTemplate
from lablet_common.resources.kinds import REQUEST, TEMPLATE
from lablet_common.store import MemoryStore, Store, StoreUnavailable, Transaction
from lablet_common.store.changes import create_in
from lablet_common.store.repository import Repository
from lablet_common.telemetry.metrics import REGISTRY
from lablet_common.testing.broker import Broker

SOURCE = "/lablet/worker-controller"
Make = Callable[..., WorkerTemplate]
Background = Callable[..., asyncio.Task[Any]]
Eventually = Callable[..., Any]


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def templates(store: Store) -> Repository[WorkerTemplate]:
    return Repository(store, TEMPLATE)


@pytest.fixture
async def bridge(store: Store, broker: Broker, make_fence: Callable[..., Any]) -> Bridge:
    return Bridge(store, TEMPLATE, await make_fence(store), broker, source=SOURCE)


async def end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_every_commit_is_published_once_in_its_order(
    bridge: Bridge,
    broker: Broker,
    templates: Repository[WorkerTemplate],
    make_template: Make,
    background: Background,
    eventually: Eventually,
) -> None:
    first = await templates.create(make_template("before"))
    background(bridge.run())
    changed = await templates.update(first.relabelled({"x": "y"}))
    await templates.delete(changed)
    other = await templates.create(make_template("other"))
    await eventually(lambda: len(broker.events) == 4)
    of_first = [fact for subject, fact in broker.facts if subject == "template/before"]
    assert of_first == ["created", "changed", "deleted"]
    assert len(set(broker.ids)) == 4
    assert f"template/{other.metadata.uid}/{other.revision}" in broker.ids
    await eventually(lambda: bridge.cursor >= other.revision)


async def test_several_resources_of_one_commit_are_all_published(
    bridge: Bridge, broker: Broker, store: Store, make_template: Make, background: Background, eventually: Eventually
) -> None:
    background(bridge.run())
    txn = Transaction()
    for number in range(40):
        create_in(txn, make_template(f"t{number}"))
    revision = (await txn.commit(store)).revision
    await eventually(lambda: len(broker.events) == 40)
    assert {sequence_of(o.event) for o in broker.events} == {revision}
    await eventually(lambda: bridge.cursor >= revision)


async def test_one_publish_is_in_flight_per_resource_and_many_in_all(
    memory: MemoryStore, broker: Broker, make_template: Make, make_fence: Any, background: Background, eventually: Any
) -> None:
    templates: Repository[WorkerTemplate] = Repository(memory, TEMPLATE)
    bridge = Bridge(memory, TEMPLATE, await make_fence(memory), broker, source=SOURCE)
    background(bridge.run())
    broker.open.clear()
    for name in ("a", "b", "c", "d"):
        made = await templates.create(make_template(name))
        for number in range(5):
            made = await templates.update(made.relabelled({"n": str(number)}))
    await eventually(lambda: broker.most_at_once == 4)
    broker.open.set()
    await eventually(lambda: len(broker.events) == 24)
    assert broker.most_per_resource == 1
    sequences: dict[str, list[int]] = defaultdict(list)
    for outgoing in broker.events:
        sequences[outgoing.event.get_subject() or ""].append(sequence_of(outgoing.event) or 0)
    assert all(found == sorted(found) for found in sequences.values())


async def test_what_was_published_before_a_crash_comes_again_with_the_same_ids(
    store: Store,
    broker: Broker,
    templates: Repository[WorkerTemplate],
    make_template: Make,
    make_fence: Any,
    background: Background,
    eventually: Eventually,
) -> None:
    fence = await make_fence(store)
    made = [await templates.create(make_template(name)) for name in ("a", "b")]
    first = background(Bridge(store, TEMPLATE, fence, broker, source=SOURCE).run())
    await eventually(lambda: len(broker.events) == 2)
    await end(first)  # before the cursor is stored behind them, which takes 200 ms
    stored = await store.get("/bridge/template/cursor")
    assert stored is None or json.loads(stored.value)["revision"] < made[0].revision
    await templates.create(make_template("c"))
    before = sorted((o.event.get_id(), o.msg_id, o.event.get_data()) for o in broker.events)
    broker.events.clear()
    background(Bridge(store, TEMPLATE, fence, broker, source=SOURCE).run())
    await eventually(lambda: len(broker.events) == 3)
    again = [(o.event.get_id(), o.msg_id, o.event.get_data()) for o in broker.events]
    assert all(one in again for one in before)


async def test_killed_at_any_moment_nothing_is_missing(
    memory: MemoryStore, make_template: Make, make_fence: Any, background: Background, eventually: Eventually
) -> None:
    templates: Repository[WorkerTemplate] = Repository(memory, TEMPLATE)
    fence = await make_fence(memory)
    broker = Broker()
    wanted: set[str] = set()
    for round_ in range(40):
        made = await templates.create(make_template(f"t{round_}"))
        changed = await templates.update(made.relabelled({"x": "y"}))
        wanted |= {f"template/{t.metadata.uid}/{t.revision}" for t in (made, changed)}
        task = background(Bridge(memory, TEMPLATE, fence, broker, source=SOURCE).run())
        for _ in range(round_):
            await asyncio.sleep(0)
        await end(task)
    background(Bridge(memory, TEMPLATE, fence, broker, source=SOURCE).run())
    await eventually(lambda: wanted <= set(broker.ids))
    assert set(broker.ids) == wanted


async def test_a_restart_goes_on_at_the_cursor_and_repeats_nothing(
    store: Store,
    broker: Broker,
    templates: Repository[WorkerTemplate],
    make_template: Make,
    make_fence: Any,
    background: Background,
    eventually: Eventually,
) -> None:
    fence = await make_fence(store)
    made = await templates.create(make_template("a"))
    bridge = Bridge(store, TEMPLATE, fence, broker, source=SOURCE)
    task = background(bridge.run())
    await eventually(lambda: bridge.cursor >= made.revision)
    await end(task)
    await templates.create(make_template("b"))
    background(Bridge(store, TEMPLATE, fence, broker, source=SOURCE).run())
    await eventually(lambda: len(broker.events) == 2)
    assert [subject for subject, _ in broker.facts] == ["template/a", "template/b"]


async def test_after_a_compaction_the_present_state_of_everything_newer_is_published_as_replayed(
    store: Store,
    broker: Broker,
    templates: Repository[WorkerTemplate],
    make_template: Make,
    make_fence: Any,
    background: Background,
    eventually: Eventually,
) -> None:
    fence = await make_fence(store)
    old = await templates.create(make_template("old"))
    bridge = Bridge(store, TEMPLATE, fence, broker, source=SOURCE)
    task = background(bridge.run())
    await eventually(lambda: bridge.cursor >= old.revision)
    await end(task)
    broker.purge()
    late = await templates.create(make_template("late"))
    late = await templates.update(late.relabelled({"x": "y"}))
    await templates.create(make_template("last"))
    revision = (await templates.list()).revision
    await store.compact(revision)
    bridge = Bridge(store, TEMPLATE, fence, broker, source=SOURCE)
    background(bridge.run())
    await eventually(lambda: bridge.cursor >= revision)
    assert [subject for subject, _ in broker.facts] == ["template/late", "template/last"]
    assert broker.ids[0] == f"template/{late.metadata.uid}/{late.revision}"
    assert all(o.event.get_extension("replayed") == "true" for o in broker.events)
    await templates.create(make_template("live"))
    await eventually(lambda: len(broker.events) == 3)
    assert broker.events[-1].event.get_extension("replayed") is None


async def test_a_former_owner_cannot_move_the_cursor(
    bridge: Bridge,
    broker: Broker,
    store: Store,
    templates: Repository[WorkerTemplate],
    make_template: Make,
    background: Background,
    eventually: Eventually,
) -> None:
    task = background(bridge.run())
    first = await templates.create(make_template("a"))
    await eventually(lambda: bridge.cursor >= first.revision)
    stored = await store.get("/bridge/template/cursor")
    await store.delete("/ownership/scheduler/default")
    await store.put("/ownership/scheduler/default", b"another")
    await templates.create(make_template("b"))
    with pytest.raises(NotOwner):
        await asyncio.wait_for(task, 5)
    assert await store.get("/bridge/template/cursor") == stored


async def test_a_publish_that_fails_is_tried_for_ever_and_holds_up_only_its_resource_and_the_cursor(
    memory: MemoryStore, broker: Broker, make_template: Make, make_fence: Any, background: Background, eventually: Any
) -> None:
    templates: Repository[WorkerTemplate] = Repository(memory, TEMPLATE)
    bridge = Bridge(memory, TEMPLATE, await make_fence(memory), broker, source=SOURCE)
    task = background(bridge.run())
    broker.failing.add("template/bad")
    bad = await templates.create(make_template("bad"))
    await templates.update(bad.relabelled({"x": "y"}))
    for number in range(10):
        good = await templates.create(make_template(f"good{number}"))
    await eventually(lambda: len(broker.events) == 10 and broker.tries["template/bad"] >= 3)
    assert bridge.cursor < bad.revision
    assert bridge.lag_revisions >= good.revision - bad.revision
    assert bridge.lag_seconds > 0
    broker.failing.clear()
    await eventually(lambda: bridge.cursor >= good.revision)
    assert [fact for subject, fact in broker.facts if subject == "template/bad"] == ["created", "changed"]
    assert bridge.lag_revisions == 0
    assert bridge.lag_seconds == 0
    assert not task.done()


async def test_the_cursor_is_stored_seldom_and_not_at_all_when_nothing_was_published(
    memory: MemoryStore, broker: Broker, make_template: Make, make_fence: Any, background: Background, eventually: Any
) -> None:
    templates: Repository[WorkerTemplate] = Repository(memory, TEMPLATE)
    bridge = Bridge(memory, TEMPLATE, await make_fence(memory), broker, source=SOURCE)
    background(bridge.run())
    for number in range(300):
        made = await templates.create(make_template(f"t{number}"))
    await eventually(lambda: bridge.cursor >= made.revision)
    stored = await memory.get("/bridge/template/cursor")
    assert stored is not None
    assert stored.version <= 3
    assert json.loads(stored.value)["revision"] >= made.revision
    await memory.put("/elsewhere", b"x")
    memory.notify_progress()
    await asyncio.sleep(0.5)  # longer than the cursor's interval: there must be nothing to wait for
    assert await memory.get("/bridge/template/cursor") == stored


async def test_an_idle_bridge_follows_the_store_at_a_distance(
    memory: MemoryStore, broker: Broker, make_fence: Any, background: Background, eventually: Any
) -> None:
    bridge = Bridge(memory, TEMPLATE, await make_fence(memory), broker, source=SOURCE)
    background(bridge.run())
    await eventually(lambda: memory.watchers)
    for _ in range(1500):
        await memory.put("/elsewhere", b"x")
    memory.notify_progress()
    await eventually(lambda: bridge.cursor >= 1500)


async def test_it_outlives_an_absence_of_etcd(
    memory: MemoryStore, broker: Broker, make_template: Make, make_fence: Any, background: Background, eventually: Any
) -> None:
    templates: Repository[WorkerTemplate] = Repository(memory, TEMPLATE)
    fence = await make_fence(memory)
    await templates.create(make_template("a"))
    memory.fail_next(2, StoreUnavailable("etcd is away"))
    bridge = Bridge(memory, TEMPLATE, fence, broker, source=SOURCE)
    task = background(bridge.run())
    await eventually(lambda: broker.events)
    memory.unavailable = True
    await asyncio.sleep(0.3)  # over an attempt to store the cursor, which fails
    memory.unavailable = False
    made = await templates.create(make_template("b"))
    await eventually(lambda: bridge.cursor >= made.revision)
    assert not task.done()


async def test_a_request_goes_out_as_its_state_and_its_intent_also_when_handed_on(
    store: Store,
    broker: Broker,
    make_request: Callable[..., Request],
    make_fence: Any,
    background: Background,
    eventually: Eventually,
) -> None:
    background(Bridge(store, REQUEST, await make_fence(store), broker, source="/lablet/api-gateway").run())
    accepted = await accept(store, make_request("k"))
    await eventually(lambda: len(broker.sent) == 2)
    (waiting,) = await Inbox(store, "scheduler", "default").pending()
    txn = Transaction()
    hand_on_in(txn, waiting, "scheduler", "spare")
    await txn.commit(store)
    (waiting,) = await Inbox(store, "scheduler", "spare").pending()
    txn = Transaction()
    decide_in(txn, waiting, at=waiting.request.spec.received_at, by="/lablet/scheduler", reason="Placed")
    await txn.commit(store)
    await eventually(lambda: len(broker.sent) == 5)
    subjects = [o.subject for o in broker.sent]
    intents = [subject for subject in subjects if subject.startswith("lablet.intent.")]
    target = accepted.request.spec.subject.partition("/")[2]
    assert intents == [f"lablet.intent.scheduler.{shard}.reservation.{target}" for shard in ("default", "spare")]
    facts = [fact for subject, fact in broker.facts if subject.startswith("request/")]
    assert facts == ["accepted", "changed", "decided"]
    assert len({o.msg_id for o in broker.sent}) == 5


@pytest.mark.parametrize(
    "error", [TooLarge("1.2 MB of 1 MB"), InvalidEvent("no Unicode")], ids=["too large", "no event"]
)
async def test_an_event_that_can_never_be_published_holds_up_nothing_and_is_counted(
    memory: MemoryStore,
    broker: Broker,
    make_template: Make,
    make_fence: Any,
    background: Background,
    eventually: Any,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It was tried for ever, and nothing of its kind came out any more."""

    async def publish(outgoing: Outgoing) -> None:
        if outgoing.event.get_subject() == "template/odd":
            raise error
        await broker.publish(outgoing, session=broker.session)

    def left_out() -> float | None:
        return REGISTRY.get_sample_value("lablet_events_left_out_total", {"kind": "template"})

    templates: Repository[WorkerTemplate] = Repository(memory, TEMPLATE)
    bridge = Bridge(memory, TEMPLATE, await make_fence(memory), PlainLog(publish), source=SOURCE)
    background(bridge.run())
    await eventually(lambda: left_out() is not None)
    before = left_out() or 0.0
    odd = await templates.create(make_template("odd"))
    after = await templates.create(make_template("after"))
    await eventually(lambda: bridge.cursor >= after.revision)
    assert [subject for subject, _ in broker.facts] == ["template/after"]
    assert left_out() == before + 1
    (record,) = [one for one in caplog.records if "left out" in one.message]
    assert record.__dict__["event"] == f"template/{odd.metadata.uid}/{odd.revision}"


async def test_a_change_that_cannot_be_written_as_an_event_holds_up_nothing_either(
    memory: MemoryStore, broker: Broker, make_template: Make, make_fence: Any, background: Background, eventually: Any
) -> None:
    templates: Repository[WorkerTemplate] = Repository(memory, TEMPLATE)
    bridge = Bridge(memory, TEMPLATE, await make_fence(memory), broker, source=SOURCE)
    task = background(bridge.run())
    odd = make_template("odd")
    await templates.create(odd.model_copy(update={"metadata": odd.metadata.model_copy(update={"tenant": ""})}))
    after = await templates.create(make_template("after"))
    await eventually(lambda: bridge.cursor >= after.revision or task.done())
    assert [subject for subject, _ in broker.facts] == ["template/after"]
