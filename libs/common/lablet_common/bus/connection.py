"""One connection to NATS that never gives up, on FastStream's broker.

The broker (FastStream's `NatsBroker`) holds the connection. Three things about it are ours. First, its
error callback raises on errors that it takes for final, which inside a reconnect would end the client's reconnect task
for good; here only a refused login at the first connect is final. Second, the client closes itself for good on errors that
pass (a server started anew with other users, too many connections, a file of credentials that is being written): then a new
one is opened. Third, whoever holds
pulls is told of every loss and return of the connection, because pulls do not survive it.

Not guaranteed: that a publish which failed was not stored; message ids make a repeat harmless.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import cast

import nats.errors
from faststream.nats import NatsBroker
from faststream.nats.security import NatsCredentials, NatsSecurity, NatsUserPassword
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from lablet_common.bus.client import StoringClient
from lablet_common.bus.permissions import inbox_prefix
from lablet_common.events.subjects import matches
from lablet_common.settings import NatsSettings

CALL_SECONDS = 5.0
"""After which a call to the server has failed."""
_RECONNECT_SECONDS = 1
_PING_SECONDS = 5
_DRAIN_SECONDS = 2
_PENDING_BYTES = 16 * 1024 * 1024

Listener = Callable[[str, bytes], Awaitable[None]]
"""Gets subject and payload of a core message."""

_log = logging.getLogger(__name__)


class BusUnavailable(Exception):
    """NATS did not take it (not connected, no answer, stream refused it): try again later; answer 503 naming NATS."""


class TooLarge(BusUnavailable):
    """NATS will never take it: headers and payload are more than one message may have."""


class BusRefused(Exception):
    """NATS refused the login. Trying again does not help; the settings must change."""


class _Broker(NatsBroker):
    """FastStream's broker with our callbacks under it."""

    error_callback: "Callable[[Exception], object]"

    async def _connect(self) -> Client:
        connection = StoringClient()
        await connection.connect(**self._connection_kwargs | {"error_cb": self.error_callback})
        self.config.connect(connection)
        return connection


class Connection:
    """Connected, or on the way to it, from `open` until `close`."""

    def __init__(self, settings: NatsSettings, user: str) -> None:
        self._settings = settings
        self._user = settings.user or user
        self._name = user
        self._broker: _Broker | None = None
        self._js: JetStreamContext | None = None
        self._up = asyncio.Event()
        self._losses = 0
        self._closing = False
        self._first = True
        self._listeners: set[Callable[[str], None]] = set()
        self._reviving: asyncio.Task[None] | None = None
        self._trouble = ""
        self._heard: list[tuple[str, str, Listener]] = []
        """What is subscribed to, on this client and on each that takes its place."""

    @property
    def connected(self) -> bool:
        return self._up.is_set()

    @property
    def trouble(self) -> str:
        """Why there is no connection, as far as the client said; empty while there is one."""
        return "" if self.connected else self._trouble

    @property
    def session(self) -> int:
        """Which connection it is: how many have been lost before."""
        return self._losses

    @property
    def url(self) -> str:
        """For people: without a login."""
        return self._settings.shown

    @property
    def broker(self) -> NatsBroker:
        """Raises `BusUnavailable` while there is no connection."""
        if self._broker is None or not self.connected:
            raise BusUnavailable(f"not connected to NATS at {self.url}")
        return self._broker

    @property
    def client(self) -> StoringClient:
        return cast("StoringClient", self.broker.connection)

    @property
    def js(self) -> JetStreamContext:
        if self._js is None or not self.connected:
            raise BusUnavailable(f"not connected to NATS at {self.url}")
        return self._js

    @property
    def server(self) -> tuple[int, int]:
        """The server's version."""
        version = self.client.connected_server_version
        return version.major, version.minor

    @property
    def clustered(self) -> bool:
        """Whether the server is one of several."""
        return bool(self.client._server_info.get("cluster"))

    async def wait_up(self) -> None:
        await self._up.wait()

    def on_loss(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Calls `listener` with the reason whenever pulls have become worthless; returns what takes it off again."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    async def listen(self, subject: str, listener: Listener, *, queue: str = "") -> None:
        """Hears core messages on a subject for as long as this object lives, also over a new client; what is sent while
        there is no connection is lost. With a `queue`, one of its members hears each message. A listener must not block
        for long: the next message of its subject waits for it. What was published under another subject is not heard: a
        consumer may have its messages delivered to any subject, also to one that its user must not publish to."""
        self._heard.append((subject, queue, listener))
        # also a client that is just reconnecting: nobody asks it again when it is back
        if self._broker is not None and not self._broker.connection.is_closed:
            await self._subscribe(self._broker.connection, subject, queue, listener)

    async def say(self, subject: str, payload: bytes) -> None:
        """Publishes to whoever listens now. Raises `BusUnavailable`."""
        try:
            await self.client.publish(subject, payload)
        except nats.errors.Error as error:
            raise BusUnavailable(f"NATS did not take {subject}: {error}") from error

    @staticmethod
    async def _subscribe(client: Client, subject: str, queue: str, listener: Listener) -> None:
        async def hear(message: Msg) -> None:
            if matches(subject, message.subject):
                await listener(message.subject, message.data)
            else:
                _log.warning("a message came by a way that is not its own", extra={"subject": message.subject})

        await client.subscribe(subject, queue=queue, cb=hear)

    async def open(self) -> None:
        """Waits until the server is there, however long. Raises `BusRefused` when it refuses the login."""
        broker = self._make_broker()
        try:
            await broker.connect()
        except nats.errors.Error as error:
            if not is_refusal(error):
                raise
            raise BusRefused(f"NATS at {self.url} refuses the user {self._user}") from error
        for subject, queue, listener in self._heard:  # what is added meanwhile, too
            await self._subscribe(broker.connection, subject, queue, listener)
        self._broker = broker
        self._js = broker.connection.jetstream(timeout=CALL_SECONDS)
        self._first = False
        self._up.set()
        _log.info("connected to NATS", extra={"url": self.url})

    async def close(self) -> None:
        self._closing = True
        self._lost("closing")
        if self._reviving is not None:
            self._reviving.cancel()
            await asyncio.gather(self._reviving, return_exceptions=True)
        if self._broker is not None:
            try:
                await self._broker.stop()
            except (nats.errors.Error, OSError) as error:
                _log.info("NATS was left without a farewell", extra={"cause": str(error)})
            self._broker = None

    def _make_broker(self) -> _Broker:
        settings = self._settings
        broker = _Broker(
            [part.strip() for part in settings.url.split(",") if part.strip()],
            name=self._name,
            security=_security(settings),
            inbox_prefix=inbox_prefix(self._user),
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=_RECONNECT_SECONDS,
            ping_interval=_PING_SECONDS,
            max_outstanding_pings=2,
            drain_timeout=_DRAIN_SECONDS,
            pending_size=_PENDING_BYTES,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
            apply_types=False,
            logger=None,
        )
        broker.error_callback = self._on_error
        return broker

    async def _on_error(self, error: Exception) -> None:
        if self._first and is_refusal(error):
            raise error  # ends the first connect: a wrong password does not become right
        self._trouble = f"{type(error).__name__}: {error}"
        if isinstance(error, ssl.SSLError):
            self._trouble += "; NATS_CA_CERT names the authority to trust"
        _log.warning("NATS reports an error", extra={"cause": self._trouble})

    async def _on_disconnected(self) -> None:
        if not self._closing:
            _log.warning("the connection to NATS is lost", extra={"url": self.url})
        self._lost("disconnected")

    async def _on_reconnected(self) -> None:
        _log.info("connected to NATS again", extra={"url": self.url})
        self._up.set()

    async def _on_closed(self) -> None:
        self._lost("closed")
        if not self._closing and (self._reviving is None or self._reviving.done()):
            self._reviving = asyncio.create_task(self._revive(), name="nats-revive")

    async def _revive(self) -> None:
        """The client closed itself; open another one."""
        while True:
            await asyncio.sleep(_RECONNECT_SECONDS)
            try:
                await self.open()
            except Exception as error:  # noqa: BLE001 - nobody waits for this task, and without it there is no NATS any more
                _log.warning("NATS cannot be reached anew", extra={"cause": f"{type(error).__name__}: {error}"})
            else:
                return

    def _lost(self, reason: str) -> None:
        self._up.clear()
        self._losses += 1
        for listener in tuple(self._listeners):
            listener(reason)


def is_refusal(error: Exception) -> bool:
    """Whether the server does not take the login. The client has a class for it, but not at the first connect."""
    return isinstance(error, nats.errors.AuthorizationError) or "authorization violation" in str(error).lower()


def _security(settings: NatsSettings) -> NatsSecurity | None:
    context = ssl.create_default_context(cafile=settings.ca_cert) if settings.ca_cert else None
    if settings.creds:
        return NatsCredentials.from_file(settings.creds, ssl_context=context)
    if settings.user:
        password = settings.password.get_secret_value() if settings.password else ""
        return NatsUserPassword(settings.user, password, ssl_context=context)
    return NatsSecurity(ssl_context=context) if context else None
