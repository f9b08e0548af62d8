"""Lists: selectors, pages pinned to one revision, and the cache on request."""

from typing import Any

import pytest

from lablet_common.resources.kinds import RESERVATION
from lablet_common.store.repository import Repository

PATH = "/api/v1/reservations"


def ids(answer: Any) -> list[str]:
    return [item["metadata"]["id"] for item in answer.json()["items"]]


async def _many(world: Any, count: int = 7) -> None:
    for at in range(count):
        phase = "Scheduled" if at % 2 else "Waitlisted"
        await world.add(world.reservation(f"rsv-{at}", phase=phase, labels={"course": f"c{at % 3}"}))


async def test_pages_show_one_revision_whatever_happens_in_between(world: Any) -> None:
    await _many(world)
    client = world.client("ina")
    first = await client.get(PATH, params={"limit": 3})
    repository = Repository(world.store, RESERVATION)
    await repository.delete(await repository.require("rsv-5"))
    await world.add(world.reservation("rsv-31"))
    seen = ids(first)
    cursor = first.json()["nextCursor"]
    while cursor:
        page = await client.get(PATH, params={"limit": 3, "cursor": cursor})
        assert page.json()["resourceVersion"] == first.json()["resourceVersion"]
        seen += ids(page)
        cursor = page.json()["nextCursor"]
    assert seen == [f"rsv-{at}" for at in range(7)]


async def test_a_compacted_cursor_is_gone(world: Any) -> None:
    await _many(world)
    client = world.client("ina")
    cursor = (await client.get(PATH, params={"limit": 3})).json()["nextCursor"]
    await world.add(world.reservation("rsv-x"))
    await world.store.compact((await world.store.status()).revision)
    answer = await client.get(PATH, params={"cursor": cursor})
    assert answer.status_code == 410
    assert answer.json()["type"].endswith("/gone")


async def test_selectors_narrow_and_their_mistakes_are_named(world: Any) -> None:
    await _many(world)
    client = world.client("ina")
    assert ids(await client.get(PATH, params={"labelSelector": "course in (c1,c2)"})) == [
        "rsv-1",
        "rsv-2",
        "rsv-4",
        "rsv-5",
    ]
    assert ids(await client.get(PATH, params={"fieldSelector": "status.phase=Scheduled"})) == [
        "rsv-1",
        "rsv-3",
        "rsv-5",
    ]
    for name, value in (
        ("labelSelector", "a==="),
        ("fieldSelector", "status.fase=x"),
        ("cursor", "nonsense"),
        ("limit", "0"),
        ("limit", "1001"),
    ):
        answer = await client.get(PATH, params={name: value})
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, name)


async def test_the_cache_answers_with_its_revision_and_pages_go_on_there(world: Any) -> None:
    await _many(world)
    await world.caught_up()
    client = world.client("ina")
    first = await client.get(PATH, params={"limit": 4, "consistency": "cache"})
    revision = first.json()["resourceVersion"]
    assert int(revision) == world.parts.caches.revision
    await world.add(world.reservation("rsv-99"))
    rest = await client.get(PATH, params={"limit": 4, "consistency": "cache", "cursor": first.json()["nextCursor"]})
    assert ids(first) + ids(rest) == [f"rsv-{at}" for at in range(7)]
    assert rest.json()["resourceVersion"] == revision
    assert (await client.get(f"{PATH}/rsv-3", params={"consistency": "cache"})).status_code == 200


async def test_a_workers_login_never_leaves(world: Any) -> None:
    await world.add(world.worker("default-002", credentials="sealed:secret"))
    client = world.client()
    for path in ("/api/v1/workers", "/api/v1/workers/default-002"):
        answer = await client.get(path)
        assert answer.status_code == 200
        assert "sealed" not in answer.text


async def test_a_first_page_moves_no_resources_and_is_as_new_as_the_store(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _many(world)
    read: list[Any] = []
    in_store = world.store.range

    async def counted(prefix: str, **how: Any) -> Any:
        page = await in_store(prefix, **how)
        read.extend(page.items)
        return page

    monkeypatch.setattr(world.store, "range", counted)
    client = world.client("ina")
    for at in range(20):
        await Repository(world.store, RESERVATION).create(world.reservation(f"rsv-new-{at:02}"))
        answer = await client.get(PATH, params={"fieldSelector": "spec.definition!=none"})
        assert ids(answer)[-1] == f"rsv-new-{at:02}"
    assert not any(kv.key.startswith(RESERVATION.prefix) for kv in read)


async def test_where_the_cache_is_behind_the_store_is_read(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await _many(world)

    async def behind(*_: Any) -> None:
        raise TimeoutError

    monkeypatch.setattr(world.parts.caches, "reached", behind)
    await Repository(world.store, RESERVATION).create(world.reservation("rsv-new"))
    client = world.client("ina")
    assert ids(await client.get(PATH)) == [*(f"rsv-{at}" for at in range(7)), "rsv-new"]


async def test_a_list_without_the_store_is_an_error_though_all_is_in_memory(world: Any) -> None:
    await _many(world)
    client = world.client("ina")
    assert len(ids(await client.get(PATH))) == 7
    world.store.unavailable = True
    answer = await client.get(PATH)
    assert (answer.status_code, answer.json()["dependency"]) == (503, "etcd")
