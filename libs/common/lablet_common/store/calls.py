"""How one call finds a member that answers it: the endpoint that answered last first, then the others, at once.

Nothing that may have been carried out is sent a second time, unless doing it twice does no harm. A member that has no
leader says so before it does anything: such calls go round until the time is over, because an election takes about a
second. A refused token is fetched anew, once. All endpoints dead: the error comes at once, not after the timeout. While a
call waits, its member is under a `Vigil`: where no answer can come any more, another is asked, or a write ends in doubt.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio
from grpc.aio import Metadata
from prometheus_client import Histogram

from lablet_common.store import errors
from lablet_common.store.api import OutcomeUnknown, StoreUnavailable
from lablet_common.store.channels import Endpoint, Stream
from lablet_common.store.proto import etcd_pb2 as pb
from lablet_common.store.vigil import Cluster, GivenUp, Leadership, Vigil
from lablet_common.tasks import is_cancelled
from lablet_common.telemetry.metrics import STORE_OPERATION
from lablet_common.telemetry.spans import calling

T = TypeVar("T")
Attempt = Callable[[Endpoint, Metadata, float], Awaitable[T]]
"""One try on one endpoint with this metadata, in at most so many seconds. Raises `grpc.aio.AioRpcError`; on a stream, for
calls that may be repeated, also `TimeoutError`, or `InvalidStateError` when it broke."""

_log = logging.getLogger(__name__)
_CONNECT_SECONDS = 2.0
_ELECTION_PAUSE = 0.05
_ELECTION_PAUSE_MAXIMUM = 0.5
_BROKEN = (TimeoutError, asyncio.InvalidStateError, grpc.aio.UsageError)
_LEADER = Metadata(("hasleader", "true"))
_NOTHING = Metadata()


class _Passed(Exception):
    """An endpoint that did nothing about a call: another may be asked."""

    def __init__(self, reason: str, *, electing: bool = False, elsewhere: bool = True) -> None:
        super().__init__(reason)
        self.electing = electing
        self.elsewhere = elsewhere
        """False: this one may be asked again."""

    @classmethod
    def by(cls, endpoint: Endpoint, error: grpc.aio.AioRpcError) -> "_Passed":
        reason = f"{endpoint.address} says {error.code().name.lower()}: {error.details()}"
        if errors.unconnected(error):
            reason += endpoint.doubt
        return cls(reason, electing=errors.electing(error))


class Calls:
    """The endpoints of one cluster, and the login to it."""

    def __init__(self, endpoints: Sequence[Endpoint], timeout: float, login: tuple[str, str] | None) -> None:
        self._endpoints = tuple(endpoints)
        self._current = 0
        self._timeout = timeout
        self._login = login
        self._token = ""
        self._logged_in = False
        self._logging_in = asyncio.Lock()
        self._histograms: dict[str, Histogram] = {}
        self._cluster = Cluster()
        self._vigils = {endpoint: Vigil(_Member(self, endpoint), self._cluster) for endpoint in self._endpoints}
        self.closed = False

    def vigil(self, endpoint: Endpoint) -> Vigil:
        """Over this endpoint's member."""
        return self._vigils[endpoint]

    async def unary(self, method: str, request: Any, *, repeatable: bool = False, leader: bool = True) -> Any:
        """The answer to one request. `leader` False: a member without a leader may answer too. A read from the only
        endpoint does not ask either, which makes it a fifth faster: it would have to wait for a leader anyway."""
        leader = leader and (not repeatable or len(self._endpoints) > 1)

        async def attempt(endpoint: Endpoint, metadata: Metadata, seconds: float) -> Any:
            call = endpoint.unary[method](request, timeout=seconds, metadata=metadata)
            if not leader:
                return await call
            answer = await self._vigils[endpoint].over(call, call)
            self._cluster.learn(answer.header.raft_term)
            return answer

        with calling(f"{method} etcd", {"db.system.name": "etcd", "db.operation.name": method}):
            return await self.run(method, attempt, repeatable=repeatable, leader=leader)

    async def exchange(self, method: str, message: Any) -> tuple[Endpoint, Stream, Any]:
        """Opens a stream, sends one message that may be sent twice, and reads the first answer (or `grpc.aio.EOF`). The
        caller cancels the stream in the end."""

        async def attempt(endpoint: Endpoint, metadata: Metadata, seconds: float) -> tuple[Endpoint, Stream, Any]:
            stream = endpoint.open(method, metadata)
            try:
                async with asyncio.timeout(seconds):
                    return endpoint, stream, await self._vigils[endpoint].over(stream, _first_answer(stream, message))
            except BaseException:
                stream.cancel()
                raise

        return await self.run(method, attempt, repeatable=True)

    async def run(self, method: str, attempt: Attempt[T], *, repeatable: bool, leader: bool = True) -> T:
        """Tries the endpoints until one decides. Raises the port's errors."""
        began = time.monotonic()
        try:
            return await self._run(method, attempt, repeatable, leader, began + self._timeout)
        except asyncio.CancelledError:
            if not self.closed or is_cancelled():
                raise
            raise StoreUnavailable(f"the store was closed during {method}") from None
        finally:
            self._observe(method, time.monotonic() - began)

    async def _run(self, method: str, attempt: Attempt[T], repeatable: bool, leader: bool, deadline: float) -> T:
        pause = _ELECTION_PAUSE
        while True:
            passed: list[_Passed] = []
            for _ in self._endpoints:
                endpoint = self._endpoints[self._current]
                left = deadline - time.monotonic()
                if self.closed or left <= 0:
                    break
                try:
                    return await self._ask(endpoint, method, attempt, repeatable, leader, left)
                except _Passed as reason:
                    passed.append(reason)
                    if reason.elsewhere:
                        self.turn(endpoint)
            if self.closed:
                raise StoreUnavailable(f"the store is closed: no {method}")
            if time.monotonic() + pause >= deadline or not any(reason.electing for reason in passed):
                said = "; ".join(str(reason) for reason in passed) or "time is over"
                raise StoreUnavailable(f"no etcd endpoint answers {method}: {said}")
            await asyncio.sleep(pause)
            pause = min(pause * 2, _ELECTION_PAUSE_MAXIMUM)

    async def _ask(
        self, endpoint: Endpoint, method: str, attempt: Attempt[T], repeatable: bool, leader: bool, left: float
    ) -> T:
        """One endpoint's answer. Raises `_Passed` when another may be asked, else the port's errors."""
        if not repeatable and not await endpoint.connected(min(_CONNECT_SECONDS, left)):
            raise _Passed(f"{endpoint.address} cannot be reached{endpoint.doubt}")
        seconds = self._patience(left, repeatable)
        relogged = False
        while True:
            token = await self._authenticate(endpoint, seconds)
            metadata = _LEADER if leader else _NOTHING
            if token:
                metadata = Metadata(*metadata, ("token", token))
            try:
                return await attempt(endpoint, metadata, seconds)
            except grpc.aio.AioRpcError as error:
                if errors.token_refused(error) and self._login and not relogged:
                    relogged = True
                    self.forget(token)
                    continue
                if errors.no_leader(error):
                    self._vigils[endpoint].suspect()
                if errors.unanswered(error):
                    if repeatable or errors.without_effect(error):
                        raise _Passed.by(endpoint, error) from error
                    self.turn(endpoint)
                raise errors.translate(error, method, endpoint.address, repeatable=repeatable) from error
            except GivenUp as reason:
                if repeatable:
                    raise _Passed(str(reason), electing=True, elsewhere=reason.elsewhere) from reason
                raise OutcomeUnknown(f"no answer to {method}: {reason}; it may have happened") from reason
            except _BROKEN as error:
                raise _Passed(f"{endpoint.address} did not answer in {seconds:.1f} s ({error!r})") from error

    def _observe(self, method: str, seconds: float) -> None:
        histogram = self._histograms.get(method)
        if histogram is None:
            histogram = self._histograms[method] = STORE_OPERATION.labels(method)
        histogram.observe(seconds)

    def _patience(self, left: float, repeatable: bool) -> float:
        """A repeatable call leaves time for the other endpoints; a write waits as long as it may."""
        return min(left, max(self._timeout / len(self._endpoints), 1.0)) if repeatable else left

    def turn(self, away_from: Endpoint, to: Endpoint | None = None) -> None:
        """Moves on to the next endpoint, or to this one, unless somebody has done so already."""
        if self._endpoints[self._current] is away_from and len(self._endpoints) > 1:
            self._current = self._endpoints.index(to) if to else (self._current + 1) % len(self._endpoints)
            _log.info("another etcd endpoint is used", extra={"endpoint": self._endpoints[self._current].address})

    def forget(self, token: str | None = None) -> None:
        """Drops a token that was refused (None: whichever it is), unless it has been replaced already."""
        if token is None or token == self._token:
            self._token, self._logged_in = "", False

    async def _authenticate(self, endpoint: Endpoint, seconds: float) -> str:
        """The token, fetched where there is none. Empty where no login is configured or wanted."""
        if self._login is None:
            return ""
        if not self._logged_in:
            async with self._logging_in:
                if not self._logged_in:
                    self._token = await self._log_in(endpoint, *self._login, seconds)
                    self._logged_in = True
        return self._token

    async def _log_in(self, endpoint: Endpoint, name: str, password: str, seconds: float) -> str:
        request = pb.AuthenticateRequest(name=name, password=password)
        try:
            answer = await endpoint.unary["Authenticate"](request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            if errors.authentication_off(error):
                _log.warning("etcd wants no login, though one is configured", extra={"endpoint": endpoint.address})
                return ""
            if errors.unanswered(error):
                raise _Passed.by(endpoint, error) from error
            raise errors.translate(error, "Authenticate", endpoint.address, repeatable=True) from error
        return str(answer.token)

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        return self._endpoints

    async def leadership(self, endpoint: Endpoint, seconds: float) -> Leadership:
        """What a member knows about its leader. Raises `AioRpcError`."""
        metadata = Metadata(("token", self._token)) if self._token else _NOTHING
        answer = await endpoint.unary["Status"](pb.StatusRequest(), timeout=seconds, metadata=metadata)
        return answer.leader, answer.header.raft_term

    async def close(self) -> None:
        self.closed = True
        for endpoint, vigil in self._vigils.items():
            vigil.close()
            await endpoint.close()


class _Member:
    """An endpoint's member, among the others, as a `Vigil` sees it."""

    def __init__(self, calls: Calls, endpoint: Endpoint) -> None:
        self._calls = calls
        self._endpoint = endpoint
        self._others = [other for other in calls.endpoints if other is not endpoint]
        self.address = endpoint.address
        self.alone = not self._others

    async def leadership(self, seconds: float) -> Leadership:
        return await self._calls.leadership(self._endpoint, seconds)

    async def leave(self, seconds: float) -> bool:
        """More than half of the others must name the same leader: one alone may be a former one that is cut off itself."""
        told = await asyncio.gather(*(self._leader_of(other, seconds) for other in self._others))
        for other, leader in zip(self._others, told, strict=True):
            if leader and told.count(leader) * 2 > len(told):
                self._calls.turn(self._endpoint, other)
                return True
        return False

    async def _leader_of(self, other: Endpoint, seconds: float) -> int:
        try:
            return (await self._calls.leadership(other, seconds))[0]
        except grpc.aio.AioRpcError:
            return 0

    def pass_over(self) -> None:
        self._calls.turn(self._endpoint)


async def _first_answer(stream: Stream, message: Any) -> Any:
    await stream.write(message)
    return await stream.read()
