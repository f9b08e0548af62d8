"""The account of confirmed writes that fault runs are judged by."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lablet_common.ownership import Fence
from lablet_common.store import Conflict, EtcdStore, Get, InvalidRequest, Transaction
from lablet_common.store.journal import Journal
from lablet_common.testing.etcd import EtcdServer

pytestmark = pytest.mark.integration


@asynccontextmanager
async def client(server: EtcdServer, log: Path | None) -> AsyncIterator[EtcdStore]:
    store = EtcdStore([server.endpoint], prefix="/journal", commit_log=log)
    try:
        yield store
    finally:
        await store.close()


async def test_each_confirmed_write_has_a_line_with_the_ownership_it_rested_on(tmp_path: Path) -> None:
    log = tmp_path / "scheduler-1.commits"
    with EtcdServer.start(tmp_path / "etcd") as server:
        async with client(server, log) as store:
            owned = await store.put("/ownership/scheduler/default", b"scheduler-1")
            fence = Fence("/ownership/scheduler/default", owned)
            txn = Transaction().put("/reservations/a", b"1")
            fence.guard(txn)
            guarded = (await txn.commit(store)).revision
            with pytest.raises(Conflict):
                await Transaction().require_absent("/reservations/a").put("/reservations/a", b"2").commit(store)
            await store.txn([], [Get("/reservations/a")])
            assert await store.delete("/reservations/none") == 0
            await store.delete("/reservations/a")
            last = (await store.status()).revision
        assert log.read_text().splitlines() == [
            f"{owned}",
            f"{guarded} /ownership/scheduler/default@{owned}",
            f"{last}",
        ]
        async with client(server, log) as store:
            again = await store.put("/reservations/b", b"3")
        assert log.read_text().splitlines()[3:] == [f"{again}"], "who starts again goes on in the same file"


async def test_a_file_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Journal(tmp_path / "nowhere" / "log")
    with pytest.raises(InvalidRequest):
        EtcdStore([], commit_log=tmp_path / "log")
    assert not (tmp_path / "log").exists()
