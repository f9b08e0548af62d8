"""The line to agents: a question to one of them, and its answer within a time.

The answer comes on a subject that only that agent may publish on. Questions are idempotent, so one without an answer is
simply asked again by whoever needed it.
"""

import asyncio
import itertools
import logging
from typing import Any, Protocol

from lablet_common.agents import Answer, Question, last_of, reply_filter, reply_subject, work_subject, worker_of
from lablet_common.bus.connection import BusUnavailable, Connection

log = logging.getLogger("lablet.agents.line")


class AgentSilent(Exception):
    """No answer: it is away, or the message was lost."""


class Line(Protocol):
    """Asks agents."""

    async def ask(self, worker: str, verb: str, *, timeout: float = 10.0, **words: Any) -> Answer:
        """`words` are the fields of a `Question`. Raises `AgentSilent`."""
        ...


class NatsLine:
    """A `Line` over core NATS. Answers go to this replica of the service alone."""

    def __init__(self, connection: Connection, service: str, replica: str) -> None:
        self._connection = connection
        self._service = service
        self._replica = replica
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[str, asyncio.Future[Answer]]] = {}

    async def open(self) -> None:
        await self._connection.listen(reply_filter(self._service, self._replica), self._hear)

    async def ask(self, worker: str, verb: str, *, timeout: float = 10.0, **words: Any) -> Answer:
        number = next(self._numbers)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (worker, answer)
        question = Question(reply=reply_subject(worker, self._service, self._replica, number), **words)
        try:
            async with asyncio.timeout(timeout):
                await self._connection.say(work_subject(worker, verb), question.to_json())
                return await answer
        except TimeoutError as error:
            raise AgentSilent(f"the agent {worker} did not answer {verb} within {timeout:g} s") from error
        except BusUnavailable as error:
            raise AgentSilent(f"the agent {worker} cannot be asked: {error}") from error
        finally:
            del self._waiting[number]

    async def _hear(self, subject: str, payload: bytes) -> None:
        try:
            number = int(last_of(subject))
            answer = Answer.model_validate_json(payload)
        except ValueError as error:
            log.warning("not an answer", extra={"subject": subject, "cause": str(error)[:200]})
            return
        waiting = self._waiting.get(number)
        if waiting is not None and waiting[0] == worker_of(subject) and not waiting[1].done():
            waiting[1].set_result(answer)
