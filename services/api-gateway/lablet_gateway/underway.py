"""How many calls are under way at once: more than that would only make each of them wait longer.

A gateway that is asked for more than its processor can do would take every call and answer all of them late. So beyond a
number of calls, new ones are sent away at once, which costs little; and no caller may have more than half of them, so that
one with a thousand slow connections does not shut out the others. A call counts from the proof of who asks until its answer
begins. Not counted: calls that wait for a decision (the inboxes are bounded by themselves, see `admission`) or for the first
sight of the event log, answers that are still being sent, event streams among them, and probes.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lablet_common.telemetry.metrics import SHED
from lablet_gateway import problems
from lablet_gateway.faults import problem_response
from lablet_gateway.identity import Principal
from lablet_gateway.problems import Refused

_RETRY = {"Retry-After": "1"}


class Underway:
    """The calls of one replica. At most `most` at once, and `most` / 2 of one caller."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._each = max(1, most // 2)
        self._by_caller: Counter[tuple[str, str]] = Counter()
        self.count = 0

    def refusal(self, tenant: str, name: str) -> Refused | None:
        """Why one more call of that caller is not taken now; None where it is."""
        if self._by_caller[tenant, name] >= self._each:
            said = f"{name} has {self._each:,} calls under way: wait for their answers"
            return problems.TOO_MANY(said, headers=_RETRY)
        if self.count >= self._most:
            said = f"{self.count:,} calls are under way, which is all that this replica takes: come back in a moment"
            return problems.OVERLOADED(said, headers=_RETRY)
        return None

    def enter(self, caller: tuple[str, str]) -> None:
        self.count += 1
        self._by_caller[caller] += 1

    def leave(self, caller: tuple[str, str]) -> None:
        self.count -= 1
        self._by_caller[caller] -= 1
        if not self._by_caller[caller]:
            del self._by_caller[caller]


class _Ticket:
    """One call's place; given back once."""

    def __init__(self, calls: Underway, caller: tuple[str, str]) -> None:
        self._calls = calls
        self._caller = caller
        self._held = False
        self.take()

    def take(self) -> None:
        if not self._held:
            self._calls.enter(self._caller)
        self._held = True

    def give_back(self) -> None:
        if self._held:
            self._calls.leave(self._caller)
        self._held = False


_ticket: ContextVar[_Ticket | None] = ContextVar("ticket", default=None)


@contextmanager
def aside() -> Iterator[None]:
    """While the call does nothing but wait for somebody else, it is not counted."""
    ticket = _ticket.get()
    if ticket is None:
        yield
        return
    ticket.give_back()
    try:
        yield
    finally:
        ticket.take()


class Places:
    """Answers 503, or 429 to a caller who has half of them, when there are too many calls. Stands behind the proof."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._calls = Underway(most)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal: Principal | None = scope.get("lablet.principal")
        if principal is None:
            await self._app(scope, receive, send)
            return
        refused = self._calls.refusal(principal.tenant, principal.name)
        if refused is not None:
            SHED.labels("places").inc()
            await problem_response(refused.problem, Request(scope), refused.headers)(scope, receive, send)
            return
        ticket = _Ticket(self._calls, (principal.tenant, principal.name))

        async def answered(message: Message) -> None:
            ticket.give_back()
            await send(message)

        token = _ticket.set(ticket)
        try:
            await self._app(scope, receive, answered)
        finally:
            _ticket.reset(token)
            ticket.give_back()
