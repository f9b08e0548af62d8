"""The agent: its session, its driver and its line to the mesh, put together.

How it ends: SIGTERM and SIGINT leave the labs running, for an agent that is started anew takes them over; they end by
themselves when the permission runs out before that. SIGUSR1 ends the labs first and gives up the session.
"""

import asyncio
import fcntl
import logging
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from lablet_common.agents import (
    Answer,
    Grant,
    Heartbeat,
    Question,
    heartbeat_subject,
    last_of,
    news_subject,
    work_subject,
)
from lablet_common.bus.connection import BusUnavailable, Connection
from lablet_common.intents import WorkerRegister
from lablet_common.resources.worker import Capacity, PortRange
from lablet_common.settings import NatsSettings
from lablet_common.tasks import together
from lablet_common.version import __version__
from lablet_workers.agent.capacity import Meter, measured
from lablet_workers.agent.driver import Account, LabDriver, ProcessDriver
from lablet_workers.agent.joining import JoinRefused, join
from lablet_workers.agent.session import Session
from lablet_workers.agent.work import Work

log = logging.getLogger("lablet.agent")

_NEWS_SECONDS = 0.1
"""Between looks at the labs' records."""


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """What an agent is started with. `token` is also the password of its NATS user, `agent-<name>`."""

    join: str
    token: str
    pool: str
    name: str
    host: str
    nats: NatsSettings
    state: Path
    ports: PortRange
    capacity: Capacity | None = None
    """None: what is measured."""
    account: Account | None = None
    labels: dict[str, str] | None = None


class Agent:
    """One host's agent. Raises `JoinRefused` and `BusRefused`: it is not wanted as it is."""

    def __init__(self, options: AgentOptions) -> None:
        self._options = options
        options.state.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._lock = _sole_agent(options.state)
        self._driver: LabDriver = ProcessDriver(
            options.state / "labs", options.state / "permission.json", options.account
        )
        self._meter = Meter(options.state)
        self._unregistered = asyncio.Event()
        self._connection = Connection(options.nats, f"agent-{options.name}")
        self._session = Session(
            options.state / "permission.json",
            options.host,
            send=self._send,
            stop_labs=self._driver.stop_everything,
            usage=lambda: self._meter.usage(self._running),
            register=self._unregistered.set,
        )
        self._work = Work(self._driver, lambda: self._session.permission is not None, Meter(options.state).load)
        self._answering: set[asyncio.Task[None]] = set()
        self._running = 0
        self._leaving = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Until it is told to end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGUSR1, self._leaving.set)
        self._unregistered.set()
        await self._connection.listen(work_subject(self._options.name, "x").removesuffix("x") + ">", self._hear)
        work = asyncio.create_task(together(self._live(), self._keep_registered(), self._tell_news()))
        ends = [asyncio.create_task(event.wait()) for event in (self._stop, self._leaving)]
        try:
            await asyncio.wait({work, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            for task in (work, *ends):
                task.cancel()
            await asyncio.gather(work, *ends, return_exceptions=True)
            if self._leaving.is_set():
                await self._session.leave()
            await self._connection.close()
            os.close(self._lock)

    async def _live(self) -> None:
        await self._connection.open()
        await self._session.run()

    async def _keep_registered(self) -> None:
        options = self._options
        while True:
            await self._unregistered.wait()
            registration = WorkerRegister(
                pool=options.pool,
                host=options.host,
                capacity=options.capacity or measured(options.state),
                port_range=options.ports,
                labels=options.labels or {},
                version=__version__,
            )
            await join(options.join, options.token, options.name, registration)
            self._unregistered.clear()

    async def _send(self, beat: Heartbeat) -> None:
        try:
            await self._connection.say(heartbeat_subject(self._options.name), beat.to_json())
        except BusUnavailable as error:
            log.info("a heartbeat was not sent", extra={"cause": str(error)})

    async def _hear(self, subject: str, payload: bytes) -> None:
        verb = last_of(subject)
        try:
            if verb == "grant":
                self._session.hear(Grant.model_validate_json(payload))
                return
            question = Question.model_validate_json(payload)
        except ValueError as error:
            log.warning("a message is not understood", extra={"subject": subject, "cause": str(error)[:200]})
            return
        task = asyncio.create_task(self._answer(verb, question))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, verb: str, question: Question) -> None:
        answer: Answer = await self._work.answer(verb, question)
        try:
            await self._connection.say(question.reply, answer.to_json())
        except BusUnavailable as error:
            log.info("an answer was not sent", extra={"verb": verb, "cause": str(error)})

    async def _tell_news(self) -> None:
        """Says which labs have changed, so that nobody has to ask all the time."""
        known: dict[str, tuple[object, ...]] = {}
        while True:
            await asyncio.sleep(_NEWS_SECONDS)
            now: dict[str, tuple[object, ...]] = {}
            for title, lab in self._driver.labs().items():
                record = self._driver.record(lab)
                now[title] = (record.phase, *((node.phase, node.exit_code) for node in record.nodes))
            self._running = sum(1 for state in now.values() if state[0] in ("starting", "running"))
            for title in [title for title, state in now.items() if known.get(title) != state]:
                try:
                    await self._connection.say(news_subject(self._options.name), title.encode())
                except BusUnavailable:
                    now.pop(title)  # said again once there is a connection
            known = now


def _sole_agent(state: Path) -> int:
    """Holds the state folder for this process. Raises `JoinRefused` when another agent has it."""
    lock = os.open(state / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise JoinRefused(f"another agent runs on {state}: choose another --state") from None
    return lock
