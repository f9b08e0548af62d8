"""Decisions that the store refuses."""

from lablet_common.ownership import Fence
from lablet_common.store import MemoryStore
from lablet_common.telemetry.metrics import REGISTRY
from lablet_scheduler.accounts import Accounts
from lablet_scheduler.commits import Refused, write

GATE, OWNER = "/gate", "/owner"


async def test_a_refusal_names_the_gate_as_it_is_and_is_left_to_the_store_to_count() -> None:
    store = MemoryStore()  # the twin counts nothing
    owned = await store.put(OWNER, b"me")
    stale = await store.put(GATE, b"one")
    now = await store.put(GATE, b"two")
    before = REGISTRY.get_sample_value("lablet_store_conflicts_total")
    refused = await write(store, Fence(OWNER, owned), GATE, stale, [], Accounts(store))
    assert isinstance(refused, Refused)
    assert refused.gate == now
    assert REGISTRY.get_sample_value("lablet_store_conflicts_total") == before
