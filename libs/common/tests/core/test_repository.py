"""Typed reading and writing: compare-and-swap everywhere, lists at one revision, nothing acknowledged that did not happen."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from lablet_common.resources import Request, WorkerTemplate
from lablet_common.resources.kinds import REQUEST, TEMPLATE
from lablet_common.store import (
    Compacted,
    Conflict,
    InvalidRequest,
    MemoryStore,
    Store,
    StoreUnavailable,
    Transaction,
    changes,
)
from lablet_common.store.changes import (
    Unreadable,
    absent_in,
    create_in,
    decode,
    delete_in,
    encode,
    unchanged_in,
    update_in,
)
from lablet_common.store.repository import AlreadyExists, InvalidCursor, NotFound, Repository
from lablet_common.store.selectors import FieldSelector, LabelSelector

Make = Callable[..., WorkerTemplate]


@pytest.fixture
def templates(store: Store) -> Repository[WorkerTemplate]:
    return Repository(store, TEMPLATE)


async def test_what_was_stored_is_read_back_with_its_revision(
    templates: Repository[WorkerTemplate], make_template: Make
) -> None:
    made = await templates.create(make_template("a", finalizers=("archive",), labels={"x": "y"}))
    assert made.revision > 0
    assert await templates.get("a") == made
    assert await templates.get("b") is None
    with pytest.raises(NotFound, match="template b"):
        await templates.require("b")


async def test_the_revision_is_never_part_of_the_stored_value(store: Store, make_template: Make) -> None:
    made = await Repository[WorkerTemplate](store, TEMPLATE).create(make_template("a"))
    updated = await Repository[WorkerTemplate](store, TEMPLATE).update(made.relabelled({"a": "b"}))
    found = await store.get("/templates/a")
    assert found is not None
    assert "resourceVersion" not in json.loads(found.value)["metadata"]
    assert decode(TEMPLATE, found) == updated
    assert encode(updated) == found.value


async def test_a_list_does_not_push_out_what_is_remembered(
    templates: Repository[WorkerTemplate], make_template: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a sweep over all goes through nobody reads again; what was just read or written, caches and bridges do."""
    for name in "abcdef":
        await templates.create(make_template(name, labels={"own": "push"}))
    monkeypatch.setattr(changes, "_REMEMBERED", 3)
    first = await templates.get("f")
    assert len((await templates.list()).items) == 6
    assert await templates.get("f") is first
    assert (await templates.list()).items[-1] is first


async def test_creating_twice_fails_and_leaves_the_first(
    templates: Repository[WorkerTemplate], make_template: Make
) -> None:
    first = await templates.create(make_template("a"))
    with pytest.raises(AlreadyExists):
        await templates.create(make_template("a"))
    assert await templates.get("a") == first


async def test_the_same_id_in_two_tenants_are_two_resources(store: Store, make_request: Callable[..., Request]) -> None:
    requests: Repository[Request] = Repository(store, REQUEST)
    ours = make_request("k", tenant="acme")
    theirs = ours.model_copy(update={"metadata": ours.metadata.model_copy(update={"tenant": "other", "uid": "u2"})})
    await requests.create(ours)
    await requests.create(theirs)
    found = await requests.require(ours.id, "acme")
    assert found.metadata.uid == ours.metadata.uid
    assert [r.tenant for r in (await requests.list(tenant="other")).items] == ["other"]


async def test_a_stale_update_is_refused(templates: Repository[WorkerTemplate], make_template: Make) -> None:
    made = await templates.create(make_template("a"))
    winner = await templates.update(made.relabelled({"who": "first"}))
    with pytest.raises(Conflict):
        await templates.update(made.relabelled({"who": "second"}))
    assert await templates.get("a") == winner


async def test_of_eight_writers_exactly_one_wins_each_round(
    open_client: Callable[[], Store], make_template: Make
) -> None:
    rounds = 25
    writers = [Repository[WorkerTemplate](open_client(), TEMPLATE) for _ in range(8)]
    await writers[0].create(make_template("a"))
    for _ in range(rounds):
        seen = await writers[0].require("a")

        async def write(writer: Repository[WorkerTemplate], name: str, seen: WorkerTemplate = seen) -> bool:
            try:
                await writer.update(seen.relabelled({"winner": name}))
            except Conflict:
                return False
            return True

        won = await asyncio.gather(*(write(writer, str(n)) for n, writer in enumerate(writers)))
        assert sum(won) == 1
        assert (await writers[0].require("a")).metadata.labels == {"winner": str(won.index(True))}


async def test_deleting_a_resource_with_finalizers_only_marks_it(
    templates: Repository[WorkerTemplate], make_template: Make, store: Store
) -> None:
    made = await templates.create(make_template("a", finalizers=("archive",)))
    await templates.delete(made)
    marked = await templates.require("a")
    assert marked.metadata.deletion_timestamp is not None
    await templates.delete(marked)  # again: nothing more to do
    assert await templates.get("a") == marked
    txn = Transaction()
    with pytest.raises(InvalidRequest, match="archive"):
        delete_in(txn, marked)
    delete_in(txn, marked.without_finalizer("archive"))
    await txn.commit(store)
    assert await templates.get("a") is None


async def test_deleting_compares(templates: Repository[WorkerTemplate], make_template: Make) -> None:
    made = await templates.create(make_template("a"))
    newer = await templates.update(made.relabelled({"x": "y"}))
    with pytest.raises(Conflict):
        await templates.delete(made)
    await templates.delete(newer)
    assert await templates.get("a") is None


async def test_a_decision_over_several_resources_is_all_or_nothing(
    templates: Repository[WorkerTemplate], make_template: Make, store: Store
) -> None:
    read, changed = await templates.create(make_template("read")), await templates.create(make_template("changed"))
    await templates.update(read.relabelled({"moved": "on"}))
    txn = Transaction()
    unchanged_in(txn, read)
    absent_in(txn, TEMPLATE, "new")
    update_in(txn, changed.relabelled({"x": "y"}))
    create_in(txn, make_template("new"))
    with pytest.raises(Conflict):
        await txn.commit(store)
    assert await templates.get("new") is None
    assert await templates.get("changed") == changed


def test_changing_what_was_never_read_is_refused(make_template: Make) -> None:
    with pytest.raises(InvalidRequest, match="has no revision"):
        update_in(Transaction(), make_template("a"))


async def test_an_old_revision_can_be_read(templates: Repository[WorkerTemplate], make_template: Make) -> None:
    first = await templates.create(make_template("a"))
    await templates.update(first.relabelled({"x": "y"}))
    assert await templates.get("a", revision=first.revision) == first


async def test_pages_neither_repeat_nor_miss_while_others_write(
    templates: Repository[WorkerTemplate], make_template: Make
) -> None:
    for number in range(7):
        await templates.create(make_template(f"t{number}"))
    page = await templates.list(limit=3)
    await templates.create(make_template("t00"))
    await templates.delete(await templates.require("t5"))
    names = [t.id for t in page.items]
    while page.next_cursor:
        following = await templates.list(limit=3, cursor=page.next_cursor)
        assert following.revision == page.revision
        page = following
        names += [t.id for t in page.items]
    assert names == [f"t{number}" for number in range(7)]


async def test_a_page_that_ends_with_the_list_has_no_cursor(
    templates: Repository[WorkerTemplate], make_template: Make
) -> None:
    for number in range(4):
        await templates.create(make_template(f"t{number}", labels={"odd": str(number % 2)}))
    assert (await templates.list(limit=4)).next_cursor is None
    odd = await templates.list(limit=2, labels=LabelSelector.parse("odd=1"))
    assert [t.id for t in odd.items] == ["t1", "t3"]
    assert odd.next_cursor is None
    one = await templates.list(limit=1, fields=FieldSelector.parse("metadata.labels.odd=1"))
    assert one.next_cursor is not None
    rest = await templates.list(cursor=one.next_cursor, fields=FieldSelector.parse("metadata.labels.odd=1"))
    assert [t.id for t in rest.items] == ["t3"]


async def test_a_cursor_whose_revision_was_compacted_says_so(
    templates: Repository[WorkerTemplate], make_template: Make, store: Store
) -> None:
    for number in range(3):
        await templates.create(make_template(f"t{number}"))
    page = await templates.list(limit=1)
    await store.compact((await templates.create(make_template("t9"))).revision)
    with pytest.raises(Compacted):
        await templates.list(limit=1, cursor=page.next_cursor)


@pytest.mark.parametrize("forged", ["%%%", "", [1], [5, "/instances/x"], [0, "/templates/x"], ["5", "/templates/x"]])
async def test_a_forged_cursor_is_refused(memory: MemoryStore, forged: Any) -> None:
    cursor = forged if isinstance(forged, str) else base64.urlsafe_b64encode(json.dumps(forged).encode()).decode()
    with pytest.raises(InvalidCursor):
        await Repository[WorkerTemplate](memory, TEMPLATE).list(cursor=cursor or "=")


async def test_a_cursor_does_not_lead_into_another_tenant(
    memory: MemoryStore, make_request: Callable[..., Request]
) -> None:
    requests: Repository[Request] = Repository(memory, REQUEST)
    for key in ("one", "two"):
        await requests.create(make_request(key, tenant="acme"))
    cursor = (await requests.list(tenant="acme", limit=1)).next_cursor
    with pytest.raises(InvalidCursor):
        await requests.list(tenant="zeta", cursor=cursor)


async def test_an_outage_is_an_error_and_never_an_empty_list(memory: MemoryStore, make_template: Make) -> None:
    templates: Repository[WorkerTemplate] = Repository(memory, TEMPLATE)
    memory.unavailable = True
    with pytest.raises(StoreUnavailable):
        await templates.list()
    with pytest.raises(StoreUnavailable):
        await templates.create(make_template("a"))
    memory.unavailable = False
    assert (await templates.list()).items == ()


async def test_a_foreign_value_is_named_instead_of_read(memory: MemoryStore) -> None:
    await memory.put("/templates/a", b'{"kind": "WorkerTemplate", "surprise": 1}')
    with pytest.raises(Unreadable, match="/templates/a"):
        await Repository[WorkerTemplate](memory, TEMPLATE).get("a")
