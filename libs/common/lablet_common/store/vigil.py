"""Whether a member that owes an answer can still give it, asked while calls wait.

etcd itself says so late. A member that is cut off from the others, or that has passed a write on to a leader who then died,
lets the call wait for seven seconds (five, and twice the election timeout; etcd issue 5214), though its own election is over
after two. So a member that owes an answer for half a second is asked for its status, which it gives by itself, again and
again until the answer is there, or until one of three things is known:

- it has no leader, and the others have one: what it was asked cannot be decided there;
- it leads, or follows, in a later term than when the call was sent, and a second has passed: what was passed on to the leader
  before is lost, or somebody would have said what became of it;
- it is silent, and the others have a leader: the question about its status had no answer either, and nothing else that it was
  asked.

Then the call is given up. Whether it was carried out is not known, and that may still come: whoever wrote looks again, with a
comparison. While nobody has a leader nothing is given up: after the election it may be answered where it is. Nothing is asked
of the only member there is.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable
from typing import Protocol, TypeVar

import grpc
import grpc.aio

from lablet_common.tasks import is_cancelled

T = TypeVar("T")
Leadership = tuple[int, int]
"""A member's leader (0: none) and term, as it says itself."""

_PATIENCE = 0.5
"""Seconds that an answer may take before its member is asked how it is."""
_AGAIN = 0.25
"""Seconds between two such questions."""
_SETTLED = 1.0
"""Seconds after which a call that was sent in an earlier term is not answered any more: a new leader takes less."""
_SILENCE = 2.0
"""Seconds after which the question itself counts as not answered."""
_OTHERS = 0.5
"""Seconds for the others to say whether they have a leader."""
_log = logging.getLogger(__name__)


class GivenUp(Exception):
    """A call whose answer is not waited for any more. `elsewhere`: another member should be asked, else this one will do."""

    def __init__(self, reason: str, *, elsewhere: bool) -> None:
        super().__init__(reason)
        self.elsewhere = elsewhere


class Call(Protocol):
    """What waits for an answer: a call of gRPC, unary or a stream."""

    def cancel(self) -> bool: ...


class Cluster:
    """What all members together have told."""

    term = 0
    """The latest in which there was a leader."""

    def learn(self, term: int) -> None:
        self.term = max(self.term, term)


class Member(Protocol):
    """What there is to know about the member, and of the others."""

    @property
    def address(self) -> str: ...

    @property
    def alone(self) -> bool:
        """There are no others."""
        ...

    async def leadership(self, seconds: float) -> Leadership:
        """As it says in so many seconds. Raises `AioRpcError`, `UsageError` when the store is closed."""
        ...

    async def leave(self, seconds: float) -> bool:
        """Has another one asked from now on, where the others say in so many seconds that they have a leader. False: they do
        not."""
        ...

    def pass_over(self) -> None:
        """Has another one asked from now on."""
        ...


class Vigil:
    """Over one member."""

    def __init__(self, member: Member, cluster: Cluster) -> None:
        self._member = member
        self._cluster = cluster
        self._closed = False
        self._waiting: dict[Call, tuple[float, int]] = {}
        """Since when, and in which term it was sent; the oldest comes first."""
        self._given_up: dict[Call, GivenUp] = {}
        self._streams: set[Call] = set()
        self._answers = 0
        self._suspected = False
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None

    async def over(self, call: Call, answer: Awaitable[T]) -> T:
        """The call's answer. Raises `GivenUp`, and what the call raises."""
        since, answers = time.monotonic(), self._answers
        self._waiting[call] = since, self._cluster.term
        if self._timer is None and self._asking is None:
            self._look_in(_PATIENCE)
        try:
            result = await answer
        except asyncio.CancelledError:
            given_up = self._given_up.pop(call, None)
            if given_up is not None and not is_cancelled():
                raise given_up from None
            if time.monotonic() - since >= _PATIENCE and answers == self._answers:
                self._member.pass_over()  # it has answered nobody meanwhile: the next call had better ask another
            raise
        finally:
            self._waiting.pop(call, None)
            self._given_up.pop(call, None)
        self._answers += 1
        return result

    def keep(self, stream: Call) -> None:
        """A stream that is cancelled when its member can tell it nothing any more, until `drop`."""
        self._streams.add(stream)

    def drop(self, stream: Call) -> None:
        self._streams.discard(stream)

    def suspect(self) -> None:
        """It has said that it has no leader: its streams go elsewhere as soon as the others have one, and it has not."""
        self._suspected = True
        if self._timer is None and self._asking is None:
            self._look_in(_PATIENCE)

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()

    def _look_in(self, seconds: float) -> None:
        if not (self._closed or self._member.alone):
            self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        oldest = next(iter(self._waiting.values()), None)
        left = _PATIENCE - (time.monotonic() - oldest[0]) if oldest else _PATIENCE
        if self._suspected or left <= 0:
            self._asking = asyncio.create_task(self._ask(), name=f"vigil over {self._member.address}")
        elif oldest:
            self._look_in(left)

    async def _ask(self) -> None:
        self._suspected = False
        try:
            reason = await self._what_is_wrong()
            if reason and await self._member.leave(_OTHERS):
                self._desert(f"{self._member.address} {reason}")
            elif reason:
                self._suspected = bool(self._streams)
        except grpc.aio.UsageError:
            return  # the store is closed
        finally:
            self._asking = None
        if self._waiting or self._suspected:
            self._look_in(_AGAIN)

    async def _what_is_wrong(self) -> str:
        """Why it should be left; empty: it should not, or does not say."""
        answers = self._answers
        try:
            leader, term = await self._member.leadership(_SILENCE)
        except grpc.aio.AioRpcError as error:
            silent = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and answers == self._answers
            return "is silent" if silent else ""
        if not leader:
            return "has no leader"
        self._judge(term)
        return ""

    def _judge(self, term: int) -> None:
        """Gives up what was sent in an earlier term. Where none was known, it is this one from now on."""
        now = time.monotonic()
        reason = f"{self._member.address} follows another leader since it was asked"
        for call, (since, known) in tuple(self._waiting.items()):
            if not known:
                self._waiting[call] = since, term
            elif known < term and now - since >= _SETTLED:
                self._give_up(call, GivenUp(reason, elsewhere=False))
        self._cluster.learn(term)

    def _desert(self, reason: str) -> None:
        """Gives up everything that has waited for a while, and all streams."""
        _log.warning("an etcd member is left", extra={"endpoint": self._member.address, "reason": reason})
        now = time.monotonic()
        for call, (since, _) in tuple(self._waiting.items()):
            if now - since >= _PATIENCE:
                self._give_up(call, GivenUp(reason, elsewhere=True))
        for stream in tuple(self._streams):
            stream.cancel()

    def _give_up(self, call: Call, reason: GivenUp) -> None:
        self._given_up[call] = reason
        call.cancel()
