"""nats-py's client with the inner loops of publishing and reading headers written anew, for speed.

An event carries some fifteen headers, and every commit becomes events, so these loops are a large part of what the bridges
and consumers cost (ADR 0022 has the figures). Everything else (connecting, reconnecting, subscriptions, requests) is
nats-py's. `store` publishes into a stream and waits for the server's acknowledgement; acknowledgements come on one
subscription and go straight to whoever waits.

Nothing that was handed over in one connection is sent in the next: when a connection is lost, what had not been sent is
dropped and whoever waits for an acknowledgement is told at once.

Not guaranteed: that what was not acknowledged in time was not stored; message ids make a repeat harmless. This class
overrides methods that nats-py does not document: its version is pinned, and the tests hold both to the same behaviour.
"""

import asyncio
import itertools
import json
import re
from collections.abc import Mapping
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import APIError, NoStreamResponseError

MOST_HEADERS = 65_535
"""Bytes of headers that a stream takes (nats-server: "header size exceeds maximum allowed of 64k"), whatever its payload."""
_HEADER_LINE = "NATS/1.0\r\n"
_STORED = re.compile(rb'\{"stream":"[^"]*", *"seq":(\d+)')
_NO_RESPONDERS = b"NATS/1.0 503"
_EXPECTED_STREAM = "Nats-Expected-Stream"
_NO_NAME = "\r\n"
"""Stands for a header's name that is none."""
_REMEMBERED = 500
"""Names of headers that are remembered: outside systems may send any."""
_names: dict[bytes, str] = {}


class StoringClient(Client):
    """Made like nats-py's own, and then `connect`ed."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count()
        self._unacknowledged: dict[bytes, asyncio.Future[bytes]] = {}
        self._acknowledgements = 0
        """Number of the subscription on which they come; 0: not subscribed yet."""
        self._prefix = ""
        self._subscribing = asyncio.Lock()
        self._giving_up: asyncio.Task[None] | None = None

    async def prepare(self) -> None:
        """What the first `store` would wait for: from then on one sends, or raises, before anything else runs."""
        if not self._acknowledgements:
            await self._subscribe_acknowledgements()

    async def store(
        self, subject: str, headers: Mapping[str, str], payload: bytes, *, stream: str, within: float
    ) -> int:
        """Publishes, waits up to `within` seconds for the acknowledgement of `stream` and returns the message's number
        there (of what was there already, under the same message id, the first one's). Raises `TimeoutError`,
        `NoStreamResponseError` where no stream takes the subject, `APIError` for a refusal, `MaxPayloadError` for more than
        the server takes (headers count: sent all the same, it would close the connection), `nats.errors.Error` without a
        connection, and `ValueError` for a header that holds the end of a line."""
        if not self._acknowledgements:
            await self._subscribe_acknowledgements()
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        if self.is_reconnecting:
            raise nats.errors.ConnectionReconnectingError
        if self.is_draining_pubs:
            raise nats.errors.ConnectionDrainingError
        block = _block(headers, stream)
        if len(block) > MOST_HEADERS or len(block) + len(payload) > self.max_payload:
            raise nats.errors.MaxPayloadError
        token = b"%d" % next(self._numbers)
        loop = asyncio.get_running_loop()
        future = self._unacknowledged[token] = loop.create_future()
        deadline = loop.call_later(within, _give_up, future)  # what `asyncio.timeout` does, at a third of its price
        try:
            reply, size = f"{self._prefix}{token.decode()}", len(block)
            command = f"HPUB {subject} {reply} {size} {size + len(payload)}\r\n".encode()
            await self._send_command(b"%b%b%b\r\n" % (command, block, payload))
            if self._flush_queue is not None and self._flush_queue.empty():
                await self._flush_pending()
            answer = await future
        finally:
            deadline.cancel()
            del self._unacknowledged[token], future, deadline  # its error would hold this frame, which would hold it
        return _number_in(answer)

    async def _process_op_err(self, error: Exception) -> None:
        """The connection is lost (or is being tended to already)."""
        before = self.is_reconnecting
        await super()._process_op_err(error)
        if self.is_reconnecting and not before:
            self._pending, self._pending_data_size = [], 0
            for future in self._unacknowledged.values():
                if not future.done():
                    future.set_exception(nats.errors.ConnectionReconnectingError())

    async def _attempt_reconnect(self) -> None:
        """nats-py's own ends for good, and tells nobody, at an error that it does not expect: that of a file of credentials
        which is just being written, for one. Then this client closes, and says so."""
        try:
            await super()._attempt_reconnect()
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody else would hear of it
            await self._error_cb(error)
            self._giving_up = asyncio.create_task(self._close(Client.CLOSED), name="nats-give-up")

    async def _process_pong(self) -> None:
        """nats-py's own raises where whoever waited for the answer has gone, and with that nothing is read any more."""
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _subscribe_acknowledgements(self) -> None:
        async with self._subscribing:
            if not self._acknowledgements:
                prefix = f"{self.new_inbox()}."
                subscription = await self.subscribe(f"{prefix}*", cb=_unheard)
                self._prefix, self._acknowledgements = prefix, subscription._id

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if sid != self._acknowledgements:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        future = self._unacknowledged.get(bytes(subject[len(self._prefix) :]))
        if future is not None and not future.done():
            future.set_result(bytes(headers or data))

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        """What nats-py's own finds, with the names decoded once."""
        found: dict[str, str] = {}
        for line in raw.split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if not colon:
                continue
            key = _names.get(name)
            if key is None:
                key = _name(bytes(name))
            if key is not _NO_NAME:
                found[key] = value.strip().decode("utf-8", "replace")
        return found


def _give_up(future: asyncio.Future[bytes]) -> None:
    if not future.done():
        future.set_exception(TimeoutError("the server has not acknowledged it"))


def _name(name: bytes) -> str:
    """What nats-py makes of a header's name."""
    key = next(iter(Client._parse_header_lines(name + b": -")), _NO_NAME)
    if len(_names) < _REMEMBERED:
        _names[name] = key
    return key


async def _unheard(message: Msg) -> None:
    """Acknowledgements never come this far."""
    raise AssertionError(f"an acknowledgement was not taken: {message.subject}")


def _block(headers: Mapping[str, str], stream: str) -> bytes:
    """The headers as they travel."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise ValueError("a header's value holds the end of a line")
    return f"{_HEADER_LINE}{lines}{_EXPECTED_STREAM}: {stream}\r\n\r\n".encode()


def _number_in(answer: bytes) -> int:
    """Number of the stored message. Raises unless the answer says that it is stored."""
    stored = _STORED.match(answer)
    if stored is not None:
        return int(stored[1])
    if answer.startswith(_NO_RESPONDERS):
        raise NoStreamResponseError
    said: Any = json.loads(answer)
    if "error" in said:
        raise APIError.from_error(said["error"])
    return int(said["seq"])
