"""The explorer finds the one bad order among many, and goes through all of them."""

import asyncio
from math import comb
from typing import Any

import pytest

from lablet_common.store import Conflict, MemoryStore, Store, Transaction
from lablet_common.testing.interleaving import OrderFault, Scene, explore


async def nothing_wrong() -> None:
    pass


@pytest.mark.parametrize(("first", "second"), [(1, 1), (2, 3), (4, 4)])
async def test_every_order_is_run_once(first: int, second: int) -> None:
    seen: list[str] = []

    async def make() -> Scene:
        order: list[str] = []

        def actor(name: str, calls: int) -> Any:
            async def act(store: Store) -> None:
                for _ in range(calls):
                    await store.put("/key", name.encode())
                    order.append(name)
                if len(order) == first + second:
                    seen.append("".join(order))

            return act

        return Scene(MemoryStore(), {"a": actor("a", first), "b": actor("b", second)}, nothing_wrong)

    assert await explore(make) == comb(first + second, first)
    assert len(set(seen)) == comb(first + second, first)


def counting(increment: Any) -> Any:
    async def make() -> Scene:
        store = MemoryStore()
        await store.put("/count", b"0")
        done: list[int] = []

        async def act(own: Store) -> None:
            await increment(own)
            done.append(1)

        async def check() -> None:
            if len(done) == 2:
                found = await store.get("/count")
                assert found is not None
                assert int(found.value) == 2, "an increment was lost"

        return Scene(store, {"a": act, "b": act}, check)

    return make


async def test_a_lost_update_is_found_with_the_order_that_leads_to_it() -> None:
    async def read_then_put(store: Store) -> None:
        found = await store.get("/count")
        assert found is not None
        await store.put("/count", str(int(found.value) + 1).encode())

    with pytest.raises(OrderFault, match="an increment was lost") as fault:
        await explore(counting(read_then_put))
    assert fault.value.order == ("a", "b", "a", "b")


async def test_with_a_comparison_no_order_loses_anything() -> None:
    async def compare_and_swap(store: Store) -> None:
        while True:
            found = await store.get("/count")
            assert found is not None
            txn = Transaction().require("/count", mod_revision=found.mod_revision)
            try:
                await txn.put("/count", str(int(found.value) + 1).encode()).commit(store)
            except Conflict:
                continue
            return

    assert await explore(counting(compare_and_swap)) > 2


async def test_an_actor_that_waits_for_something_else_is_named() -> None:
    async def sleeper(_: Store) -> None:
        await asyncio.Event().wait()

    async def make() -> Scene:
        return Scene(MemoryStore(), {"sleeper": sleeper}, nothing_wrong)

    with pytest.raises(RuntimeError, match="sleeper waits for something else"):
        await explore(make)


async def test_what_an_actor_raises_comes_out_and_too_many_orders_are_said() -> None:
    async def fails(store: Store) -> None:
        await store.get("/key")
        raise LookupError("no key")

    async def busy(store: Store) -> None:
        for _ in range(9):
            await store.get("/key")

    async def failing() -> Scene:
        return Scene(MemoryStore(), {"a": fails}, nothing_wrong)

    async def many() -> Scene:
        return Scene(MemoryStore(), {"a": busy, "b": busy}, nothing_wrong)

    with pytest.raises(LookupError, match="no key"):
        await explore(failing)
    with pytest.raises(RuntimeError, match="more than 50 orders"):
        await explore(many, most=50)
