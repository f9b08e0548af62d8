"""How far each stream has come, asked once from outside: for backups and for people.

Any user may ask who has the right to each stream's `$JS.API.STREAM.INFO`: the gateway's, and an observer's. The server
says nothing on the answer's subject to one who has not, so its refusal is taken from the connection's errors. Only streams
of Lablet's are asked about, one by one: no user of a service may list all.

Not guaranteed: that the positions belong to one moment; each stream is asked on its own.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from typing import Any

import nats
import nats.errors
from nats.js import JetStreamContext
from nats.js.api import StreamState
from nats.js.errors import NotFoundError

from lablet_common.bus.connection import CALL_SECONDS, BusRefused, BusUnavailable, is_refusal
from lablet_common.bus.permissions import inbox_prefix
from lablet_common.bus.streams import used_by
from lablet_common.resources.kinds import Service
from lablet_common.settings import NatsSettings

_ATTEMPTS = 1
_PAUSE_SECONDS = 0.1


class NotAllowed(Exception):
    """The user was let in, but may not ask for the position of a stream."""

    def __init__(self, user: str, stream: str) -> None:
        super().__init__(f"NATS does not let the user {user} ask how far the stream {stream} has come")
        self.user = user
        self.stream = stream


async def stream_positions(settings: NatsSettings) -> Mapping[str, Mapping[str, int]]:
    """Stream → numbers of its first and last message; a stream that nobody has made yet is left out.

    Raises `BusRefused` for a login that is not taken, `NotAllowed`, and `BusUnavailable` for everything else that keeps the
    server from answering within `CALL_SECONDS`, a certificate that is not trusted among it.
    """
    user = settings.user or "without a name"
    reported: list[Exception] = []
    failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def note(error: Exception) -> None:
        reported.append(error)
        if connected and not failed.done():
            failed.set_result(error)
        elif _is_final(error):
            raise error  # neither login nor certificate becomes right; and from the latter the client does not return

    connected = False
    try:
        async with asyncio.timeout(2 * CALL_SECONDS):
            connection = await nats.connect(**_options(settings), error_cb=note)
    except (OSError, nats.errors.Error) as error:  # TimeoutError is an OSError
        last = reported[-1] if reported else error
        cause = str(last) or type(last).__name__
        if is_refusal(last):
            raise BusRefused(f"NATS at {settings.shown} refuses the user {user}") from error
        raise BusUnavailable(f"NATS cannot be reached: {cause}") from error
    connected = True
    js = connection.jetstream(timeout=CALL_SECONDS)
    found: dict[str, Mapping[str, int]] = {}
    try:
        for stream in used_by(Service.GATEWAY):
            state = await _state(js, stream.name, failed)
            if state is not None:
                found[stream.name] = {"first": state.first_seq, "last": state.last_seq}
    except (OSError, nats.errors.Error) as error:
        if _refuses(error, stream.name):
            raise NotAllowed(user, stream.name) from error
        told = str(error) or type(error).__name__
        raise BusUnavailable(f"NATS does not say how far {stream.name} has come: {told}") from error
    finally:
        with contextlib.suppress(
            ConnectionError
        ):  # it is gone already: what was asked has been answered, or has failed
            await connection.close()
    return found


async def _state(js: JetStreamContext, stream: str, failed: "asyncio.Future[Exception]") -> StreamState | None:
    """None where there is no such stream. Raises what the connection reports meanwhile."""
    asked = asyncio.create_task(js.stream_info(stream))
    try:
        await asyncio.wait((asked, failed), return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise failed.result()
        return asked.result().state
    except NotFoundError:
        return None
    finally:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


def _is_final(error: Exception) -> bool:
    return isinstance(error, ssl.SSLError) or is_refusal(error)


def _refuses(error: Exception, stream: str) -> bool:
    """Whether the server refuses to hear a question about the stream."""
    said = str(error).lower()
    return "permissions violation" in said and f"stream.info.{stream}".lower() in said


def _options(settings: NatsSettings) -> dict[str, Any]:
    """Of nats-py's `connect`: each server is tried twice, and no connection that was lost is opened again."""
    options: dict[str, Any] = {
        "servers": [part.strip() for part in settings.url.split(",") if part.strip()],
        "name": "positions",
        "inbox_prefix": inbox_prefix(settings.user or Service.GATEWAY),
        "connect_timeout": CALL_SECONDS,
        "max_reconnect_attempts": _ATTEMPTS,
        "reconnect_time_wait": _PAUSE_SECONDS,
    }
    if settings.ca_cert:
        options["tls"] = ssl.create_default_context(cafile=settings.ca_cert)
    if settings.creds:
        options["user_credentials"] = str(settings.creds)
    elif settings.user:
        options["user"] = settings.user
        options["password"] = settings.password.get_secret_value() if settings.password else ""
    return options
