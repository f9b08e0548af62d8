"""API keys: how a machine's key is made, proven and noted as used.

A key reads `lbk_<tenant>_<id>_<secret>`, so that the one value in the store that can prove it is known at once. The
store has only the SHA-256 of the secret, which is 256 random bits: there is nothing to guess, and so nothing to slow
guessing down with. The keys stand in this replica's cache; one that is not there yet is looked up in etcd.

When a key was last used is kept in memory and written once an hour at most, so that a call costs no write. A replica that
is killed forgets the last hour.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import cast

from lablet_common.resources.key import ApiKey, KeyPhase
from lablet_common.resources.kinds import KEY, key_use_key
from lablet_common.store import Compacted, Conflict, Get, Store, StoreUnavailable, Transaction
from lablet_common.store.cache import Caches
from lablet_common.store.changes import decode, delete_in
from lablet_gateway.gathering import Found, Gathering, Lookup
from lablet_gateway.identity import Principal, Role, TokenRefused

_log = logging.getLogger(__name__)
_FORM = re.compile(r"lbk_([a-z0-9-]{1,63})_([a-z2-7]{26})_([A-Za-z0-9_-]{43})")
OWNER_PREFIX = "key:"
"""What the names of keys, and of nobody else, begin with."""
_USE_SECONDS = 3600.0
KEPT = timedelta(days=30)
"""Real time for which a key that has ended is still shown."""
_LOOK_SECONDS = 60.0


def new_secret() -> tuple[str, str]:
    """A fresh secret and its SHA-256, hexadecimal."""
    secret = secrets.token_urlsafe(32)
    return secret, hashlib.sha256(secret.encode()).hexdigest()


def token_of(key: ApiKey, secret: str) -> str:
    """What is handed out, once."""
    return f"lbk_{key.tenant}_{key.id.removeprefix('key-')}_{secret}"


def owner_name(key: ApiKey) -> str:
    """As whom a key acts."""
    return f"{OWNER_PREFIX}{key.spec.name}"


class KeyUses:
    """When which key was last used, as this replica has seen it. `now` is real time in seconds."""

    def __init__(self, store: Store, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now
        self._seen: dict[tuple[str, str], float] = {}
        self._written: dict[tuple[str, str], float] = {}

    def note(self, key: ApiKey) -> None:
        self._seen[key.tenant, key.id] = self._now()

    async def flush(self) -> int:
        """Writes what is an hour newer than what was written; returns how many."""
        due = [name for name, at in self._seen.items() if at - self._written.get(name, 0.0) >= _USE_SECONDS]
        for name in due:
            at = self._seen[name]
            await self._store.put(key_use_key(*name), f"{at:.0f}".encode())
            self._written[name] = at
        return len(due)

    async def last(self, tenant: str) -> dict[str, datetime]:
        """By key id, of all replicas."""
        prefix = key_use_key(tenant, "")
        found = await self._store.range(prefix)
        used = {kv.key.removeprefix(prefix): float(kv.value) for kv in found.items}
        for (owner, key_id), at in self._seen.items():
            if owner == tenant:
                used[key_id] = max(at, used.get(key_id, 0.0))
        return {key_id: datetime.fromtimestamp(int(at), UTC) for key_id, at in used.items()}


class KeyVerifier:
    """Proves keys, from the cache and, for what it lacks, from etcd."""

    def __init__(
        self, caches: Caches, lookups: Gathering[Lookup, Found], uses: KeyUses, now: Callable[[], float] = time.time
    ) -> None:
        self._caches = caches
        self._lookups = lookups
        self._uses = uses
        self._now = now

    async def verify(self, token: str) -> Principal | None:
        form = _FORM.fullmatch(token)
        if form is None:
            return None
        tenant, code, secret = form.groups()
        key = await self._find(tenant, f"key-{code}")
        digest = hashlib.sha256(secret.encode()).hexdigest()
        if key is None or not hmac.compare_digest(digest, key.spec.sha256 or ""):
            raise TokenRefused("the API key is unknown")
        if key.phase == KeyPhase.REVOKED:
            raise TokenRefused(f"the API key {key.spec.name} has been revoked")
        if key.spec.expires_at.timestamp() <= self._now():
            raise TokenRefused(f"the API key {key.spec.name} has expired: ask for a new one")
        self._uses.note(key)
        scopes = frozenset(key.spec.scopes) or None
        return Principal(owner_name(key), Role(key.spec.role), key.tenant, scopes, key.id)

    async def _find(self, tenant: str, key_id: str) -> ApiKey | None:
        cached = self._caches[KEY].get(key_id, tenant)
        if cached is not None:
            return cast("ApiKey", cached)
        ((found,),) = (await self._lookups.ask((Get(KEY.key(key_id, tenant)),)),)
        return cast("ApiKey", decode(KEY, found[0])) if found else None


class KeyCare:
    """What has to be done for keys now and then: write down their use, and drop what ended a month ago."""

    def __init__(self, store: Store, caches: Caches, uses: KeyUses, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._caches = caches
        self._uses = uses
        self._now = now

    async def run(self) -> None:
        """Every minute, until it is cancelled."""
        while True:
            try:
                await self._uses.flush()
                await self.sweep()
            except (StoreUnavailable, Compacted) as error:
                _log.warning("keys cannot be looked after just now", extra={"cause": str(error)})
            await asyncio.sleep(_LOOK_SECONDS)

    async def sweep(self) -> int:
        """Deletes keys that ended long ago; another replica may do the same at the same time. Returns how many went."""
        before = datetime.fromtimestamp(self._now(), UTC) - KEPT
        swept = 0
        for key in cast("list[ApiKey]", self._caches[KEY].items()):
            ended = min(key.spec.expires_at, key.status.ended_at or key.spec.expires_at)
            if ended >= before:
                continue
            txn = Transaction()
            delete_in(txn, key)
            txn.delete(key_use_key(key.tenant, key.id))
            try:
                await txn.commit(self._store)
                swept += 1
            except Conflict:
                _log.debug("a key was swept by another replica", extra={"key": key.id})
        return swept
