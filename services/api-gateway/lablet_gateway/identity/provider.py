"""The signing keys of an OpenID Connect provider: found by discovery, kept, and followed when the provider rotates them.

Keys are fetched again when they have been kept for a while, in the background while the present ones go on being used,
and at once when a token names a key that is not known: that is how a rotation shows. Unknown names cause at most one
fetch in ten seconds, so that nobody can turn us against the provider by sending tokens with invented ones. A key that
the provider has taken away counts no more from the next fetch on.

While the provider is away the keys it gave last are used for a day; then nobody can be proven any more.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import httpx

from lablet_common.strangers import NotJson, read_json
from lablet_gateway.identity import ProviderUnavailable

_log = logging.getLogger(__name__)
_WELL_KNOWN = "/.well-known/openid-configuration"
_MAX_BYTES = 1024 * 1024
_PAUSE_SECONDS = 10.0
"""Least real seconds between two fetches."""
_TRUST_SECONDS = 24 * 3600.0
"""Real seconds for which keys are used that could not be fetched again."""
_SIGNING_TYPES = ("RSA", "EC", "OKP")


def is_private_enough(url: str) -> bool:
    """What is trusted on sight has to come over TLS, or from this very machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    local = host in ("localhost", "::1") or host.startswith("127.")
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and local))


@dataclass(frozen=True, slots=True)
class _Keys:
    by_id: Mapping[str, Mapping[str, Any]]
    nameless: tuple[Mapping[str, Any], ...]
    fetched: float


class ProviderKeys:
    """The keys of one issuer. `keep_seconds` and `monotonic` are real seconds."""

    def __init__(
        self,
        issuer: str,
        http: httpx.AsyncClient,
        *,
        keep_seconds: float = 600.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._http = http
        self._keep_seconds = keep_seconds
        self._monotonic = monotonic
        self._keys: _Keys | None = None
        self._tried = float("-inf")
        self._why = ""
        self._fetching = asyncio.Lock()
        self._background: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None) -> Mapping[str, Any] | None:
        """The key (a JWK) of that name; without a name, the only one there is. None: there is none. Raises
        `ProviderUnavailable` while no keys can be had."""
        keys = self._usable()
        if keys is None:
            await self._fetch()
            keys = self._usable()
            if keys is None:
                raise ProviderUnavailable(f"the identity provider {self._issuer} gives no keys: {self._why}")
        elif self._monotonic() - keys.fetched > self._keep_seconds:
            self._fetch_beside()
        key = _pick(keys, key_id)
        if key is None:
            await self._fetch()
            key = _pick(self._usable() or keys, key_id)
        return key

    async def look(self) -> None:
        """For the readiness check. Raises `ProviderUnavailable` while no keys are known."""
        if self._usable() is None:
            await self._fetch()
        if self._usable() is None:
            raise ProviderUnavailable(self._why)

    async def close(self) -> None:
        if self._background is not None:
            self._background.cancel()
            await asyncio.wait({self._background})
        await self._http.aclose()

    def _usable(self) -> _Keys | None:
        keys = self._keys
        return keys if keys is not None and self._monotonic() - keys.fetched <= _TRUST_SECONDS else None

    def _fetch_beside(self) -> None:
        if self._background is None or self._background.done():
            self._background = asyncio.create_task(self._fetch(), name="oidc-keys")

    async def _fetch(self) -> None:
        """Fetches once for all who wait, unless that was tried a moment ago."""
        async with self._fetching:
            if self._monotonic() - self._tried < _PAUSE_SECONDS:
                return
            self._tried = self._monotonic()
            try:
                found = await self._discover()
            except (httpx.HTTPError, ProviderUnavailable) as error:
                self._why = str(error) or type(error).__name__
                if "CERTIFICATE_VERIFY_FAILED" in self._why:
                    self._why += "; OIDC_CA_CERT names the authority to trust"
                _log.warning(
                    "the identity provider's keys cannot be fetched",
                    extra={"issuer": self._issuer, "cause": f"{type(error).__name__}: {self._why}"},
                )
                return
            if self._keys is None or set(found.by_id) != set(self._keys.by_id):
                _log.info("keys of the identity provider", extra={"issuer": self._issuer, "keys": sorted(found.by_id)})
            self._keys = found

    async def _discover(self) -> _Keys:
        document = await self._get(self._issuer.rstrip("/") + _WELL_KNOWN)
        if document.get("issuer") != self._issuer:
            said = document.get("issuer")
            raise ProviderUnavailable(f"it calls itself {said!r}: OIDC_ISSUER has to be written in just that way")
        address = document.get("jwks_uri")
        if not isinstance(address, str) or not is_private_enough(address):
            raise ProviderUnavailable(f"its jwks_uri is {address!r}, which is no https address")
        listed = (await self._get(address)).get("keys")
        if not isinstance(listed, list):
            raise ProviderUnavailable(f"{address} has no list of keys")
        by_id: dict[str, Mapping[str, Any]] = {}
        nameless = []
        for key in listed:
            if not isinstance(key, dict) or key.get("kty") not in _SIGNING_TYPES or key.get("use", "sig") != "sig":
                continue
            if isinstance(key.get("kid"), str):
                by_id[key["kid"]] = key
            else:
                nameless.append(key)
        return _Keys(by_id, tuple(nameless), self._monotonic())

    async def _get(self, address: str) -> dict[str, Any]:
        answer = await self._http.get(address, headers={"Accept": "application/json"})
        if answer.status_code != 200:
            raise ProviderUnavailable(f"{address} answers {answer.status_code}")
        if len(answer.content) > _MAX_BYTES:
            raise ProviderUnavailable(f"{address} answers with {len(answer.content)} bytes")
        try:
            body = read_json(answer.content)
        except NotJson as error:
            raise ProviderUnavailable(f"{address} does not answer with JSON") from error
        if not isinstance(body, dict):
            raise ProviderUnavailable(f"{address} does not answer with a JSON object")
        return cast("dict[str, Any]", body)


def _pick(keys: _Keys, key_id: str | None) -> Mapping[str, Any] | None:
    if key_id is not None:
        return keys.by_id.get(key_id)
    every = (*keys.by_id.values(), *keys.nameless)
    return every[0] if len(every) == 1 else None
