"""An agent's session: the permission counts from the sending, and nothing of one session lives in the next."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lablet_common.agents import Grant, Heartbeat, Usage
from lablet_workers.agent.permission import Permission, now, read_permission, write_permission
from lablet_workers.agent.session import Session


@dataclass
class Played:
    """The mesh's part, played by the test."""

    path: Path
    sent: list[Heartbeat] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    _task: "asyncio.Task[None] | None" = None

    def __post_init__(self) -> None:
        self.session = Session(
            self.path,
            "h1",
            send=self._send,
            stop_labs=self._stop,
            usage=Usage,
            register=lambda: self.told.append("register"),
        )

    async def _send(self, beat: Heartbeat) -> None:
        self.sent.append(beat)

    async def _stop(self) -> None:
        self.told.append("stop labs")

    def start(self) -> None:
        self._task = asyncio.create_task(self.session.run())

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.005)

    async def beat(self) -> Heartbeat:
        """The next heartbeat."""
        count = len(self.sent)
        await self.until(lambda: len(self.sent) > count)
        return self.sent[-1]

    def grant(self, beat: Heartbeat, seconds: float = 30.0) -> None:
        self.session.hear(Grant(epoch=beat.epoch, number=beat.number, seconds=seconds))

    def refuse(self, beat: Heartbeat, why: str) -> None:
        self.session.hear(Grant(epoch=beat.epoch, number=beat.number, refused=why))

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task


@pytest.fixture
async def played(tmp_path: Path):
    made = Played(tmp_path / "permission.json")
    yield made
    await made.end()


async def test_a_permission_counts_from_the_sending_of_the_heartbeat(played: Played) -> None:
    before = now()
    played.start()
    beat = await played.beat()
    sent_by = now()
    await asyncio.sleep(0.05)
    played.grant(beat, 30)
    permission = played.session.permission
    assert permission is not None
    assert before + 30 <= permission.until <= sent_by + 30
    assert (beat.first, beat.replaces) == (True, "")


async def test_a_late_grant_does_not_shorten_a_permission_and_a_strange_one_is_ignored(played: Played) -> None:
    played.start()
    beat = await played.beat()
    played.grant(beat, 30)
    until = read_permission(played.path)
    played.grant(beat, 5)
    played.session.hear(Grant(epoch="somebody-else", number=beat.number, seconds=900))
    played.session.hear(Grant(epoch=beat.epoch, number=999, seconds=900))
    assert read_permission(played.path) == until


async def test_an_agent_started_anew_goes_on_with_its_session(played: Played) -> None:
    write_permission(played.path, Permission("earlier-epoch", now() + 20))
    played.start()
    beat = await played.beat()
    assert (beat.epoch, beat.first) == ("earlier-epoch", False)
    assert played.told == []


async def test_one_that_comes_too_late_stops_everything_and_begins_a_new_session(played: Played) -> None:
    write_permission(played.path, Permission("earlier-epoch", now() - 1))
    played.start()
    beat = await played.beat()
    assert played.told == ["stop labs"]
    assert beat.first
    assert (beat.epoch != "earlier-epoch", beat.replaces) == (True, "earlier-epoch")
    assert read_permission(played.path) is None


async def test_when_the_permission_runs_out_the_session_is_over(played: Played) -> None:
    played.start()
    beat = await played.beat()
    played.grant(beat, 0.2)
    played.told.clear()
    await played.until(lambda: played.sent[-1].epoch != beat.epoch)
    assert played.told == ["stop labs"]
    assert (played.sent[-1].first, played.sent[-1].replaces) == (True, beat.epoch)


@pytest.mark.parametrize("why", ["session-over", "other-session"])
async def test_the_meshs_word_ends_a_session_at_once(played: Played, why: str) -> None:
    played.start()
    first = await played.beat()
    played.grant(first, 5)
    second = await played.beat()
    played.told.clear()
    played.refuse(second, why)
    await played.until(lambda: played.sent[-1].epoch != first.epoch)
    assert played.told == ["stop labs"]
    assert played.session.permission is None


async def test_a_name_that_is_taken_is_waited_for(played: Played) -> None:
    played.start()
    beat = await played.beat()
    played.told.clear()
    played.refuse(beat, "other-session")
    following = await played.beat()
    assert (following.epoch, following.first, played.told) == (beat.epoch, True, [])


async def test_an_unknown_worker_registers_again(played: Played) -> None:
    played.start()
    played.refuse(await played.beat(), "not-registered")
    assert played.told[-1] == "register"


async def test_leaving_stops_the_labs_before_it_is_said(played: Played) -> None:
    played.start()
    played.grant(await played.beat())
    await played.end()
    played.told.clear()
    await played.session.leave()
    assert played.told == ["stop labs"]
    assert played.sent[-1].leaving
    assert read_permission(played.path) is None
