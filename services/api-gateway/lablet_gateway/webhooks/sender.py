"""The port to the sinks: one HTTP POST, and what came of it. `HttpSender` is the real one.

It follows no redirect, asks no proxy, keeps no cookie, and reads little of the answer: a sink is a stranger.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Protocol, Self
from urllib.parse import urlsplit

import aiohttp

from lablet_common.version import __version__
from lablet_gateway.webhooks.addresses import CheckedResolver, SinkRefused, check_address, check_url, is_literal

_READ_BYTES = 500
_WORDS = {int(status): status.phrase for status in HTTPStatus}
_CONNECTIONS_PER_SINK = 32
_LONGEST_RETRY_AFTER = 3600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a sink said; `status` None: nothing."""

    status: int | None
    message: str = ""
    retry_after: float = 0.0
    """Seconds that the sink asks to wait."""

    @property
    def taken(self) -> bool:
        return self.status is not None and HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def gone(self) -> bool:
        """The sink wants nothing any more."""
        return self.status == HTTPStatus.GONE

    @property
    def sink_is_down(self) -> bool:
        """It would answer any other event just so."""
        return (
            self.status is None or self.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            or self.status == HTTPStatus.TOO_MANY_REQUESTS
        )  # fmt: skip


class Sender(Protocol):
    async def post(self, url: str, headers: Mapping[str, str], body: bytes, *, allow_private: bool) -> Answer:
        """One attempt. Never raises for what the sink or the network do."""
        ...


class HttpSender:
    """Inside `async with`. `timeout` bounds one attempt, in real seconds. `ca_cert`: a PEM file of authorities that are
    trusted beside the system's. Raises `OSError` where it cannot be read."""

    def __init__(self, *, timeout: float = 15.0, ca_cert: Path | None = None) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._trust: ssl.SSLContext | bool = True
        if ca_cert is not None:
            self._trust = ssl.create_default_context()
            self._trust.load_verify_locations(cafile=ca_cert)
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    def _session(self, allow_private: bool) -> aiohttp.ClientSession:
        if allow_private not in self._sessions:
            connector = aiohttp.TCPConnector(
                resolver=CheckedResolver(allow_private=allow_private),
                use_dns_cache=False,
                limit_per_host=_CONNECTIONS_PER_SINK,
                ssl=self._trust,
            )
            self._sessions[allow_private] = aiohttp.ClientSession(
                connector=connector,
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": f"lablet-webhooks/{__version__}"},
                trust_env=False,
            )
        return self._sessions[allow_private]

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, *, allow_private: bool) -> Answer:
        try:
            check_url(url)
            host = urlsplit(url).hostname or ""
            if is_literal(host):  # the resolver is not asked about those
                check_address(host, host, allow_private=allow_private)
            session = self._session(allow_private)
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                text = (await response.content.read(_READ_BYTES)).decode(errors="replace")
                return answer_of(response.status, response.headers, " ".join(text.split()))
        except SinkRefused as error:
            return Answer(None, str(error))
        except TimeoutError:
            return Answer(None, f"no answer within {self._timeout.total:g} s")
        except aiohttp.ClientConnectorCertificateError as error:
            return Answer(None, _untrusted(error))
        except aiohttp.ClientConnectorError as error:
            return Answer(None, str(error.os_error) or str(error))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(None, str(error) or type(error).__name__)


def _untrusted(error: aiohttp.ClientConnectorCertificateError) -> str:
    found = error.certificate_error
    why = found.verify_message if isinstance(found, ssl.SSLCertVerificationError) else str(found)
    return f"its certificate is not trusted ({why}): WEBHOOK_CA_CERT names further authorities"


def answer_of(status: int, headers: Mapping[str, str], text: str) -> Answer:
    """What a sink's answer comes to, whatever stands in it."""
    words = _WORDS.get(status, "")
    message = f"{status} {words}".rstrip()
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        message += f": redirects are not followed; set the sink to {headers.get('Location', 'where it leads')}"
    elif text:
        message += f": {text}"
    asked = headers.get("Retry-After", "")
    return Answer(status, message, min(float(asked), _LONGEST_RETRY_AFTER) if asked.isdecimal() else 0.0)
