"""A transaction that a comparison refuses is counted, once, where it is refused."""

from lablet_common.store import Compare, EtcdStore, Get, Put, Target
from lablet_common.telemetry.metrics import REGISTRY


def counted() -> float:
    return REGISTRY.get_sample_value("lablet_store_conflicts_total") or 0.0


async def test_one_refused_comparison_counts_one(etcd: EtcdStore) -> None:
    await etcd.put("/k", b"one")
    before = counted()
    absent = Compare("/k", Target.VERSION, "=", 0)
    assert not (await etcd.txn([absent], [Put("/k", b"two")], [Get("/k")])).succeeded
    assert counted() == before + 1


async def test_what_is_done_counts_nothing(etcd: EtcdStore) -> None:
    before = counted()
    assert (await etcd.txn([Compare("/k", Target.VERSION, "=", 0)], [Put("/k", b"one")])).succeeded
    assert counted() == before
