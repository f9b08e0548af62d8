"""Accepting many requests at once: as few transactions as they need, each request with the outcome it would have alone.

A burst of intents is then one write to etcd's log instead of hundreds. In the inbox they keep the order in which they
were given: a pointer says its place among those of its transaction.

Not guaranteed: that all are accepted or none. When etcd goes away in between, the first ones may stand; asking again is
safe for all.
"""

from collections.abc import Sequence
from typing import cast

from lablet_common.requests import TOGETHER, Accepted, KeyReused, acceptable, pointer_of
from lablet_common.resources.kinds import REQUEST
from lablet_common.resources.request import Request
from lablet_common.store.api import Compare, Get, OutcomeUnknown, Put, Store, Target
from lablet_common.store.changes import committed, decode

_BYTES = 1024 * 1024
"""Bytes of requests in one transaction, of the 1.5 MiB that etcd takes."""


async def accept_all(store: Store, requests: Sequence[Request]) -> list[Accepted | KeyReused]:
    """Stores each request with its inbox pointer, unless its key has brought one before. Outcomes in the order of the
    requests. Raises `StoreUnavailable`, and `InvalidRequest` when one of them is too large to be stored."""
    outcomes: dict[int, Accepted | KeyReused] = {}
    left = [(number, request, acceptable(request)) for number, request in enumerate(requests)]
    while left:
        group, rest = _fitting(left)
        decided = await _accept(store, group)
        outcomes |= decided
        left = sorted([one for one in group if one[0] not in decided] + rest, key=lambda one: one[0])
    return [outcomes[number] for number in range(len(requests))]


_Numbered = tuple[int, Request, bytes]


def _fitting(left: Sequence[_Numbered]) -> tuple[list[_Numbered], list[_Numbered]]:
    """Those that share a transaction, and the others: a key can be written once in it."""
    group: list[_Numbered] = []
    rest: list[_Numbered] = []
    keys: set[str] = set()
    size = 0
    for one in left:
        key = REQUEST.key_of(one[1])
        full = len(group) == TOGETHER or (group and size + len(one[2]) > _BYTES)
        if full or key in keys:
            rest.append(one)
            continue
        keys.add(key)
        size += len(one[2])
        group.append(one)
    return group, rest


async def _accept(store: Store, group: Sequence[_Numbered]) -> dict[int, Accepted | KeyReused]:
    """The outcomes of one transaction; when some of its keys are taken, only theirs."""
    absent, writes, looks = [], [], []
    for place, (_, request, value) in enumerate(group):
        key = REQUEST.key_of(request)
        absent.append(Compare(key, Target.MOD, "=", 0))
        looks.append(Get(key))
        writes += [Put(key, value), pointer_of(request, place)]
    try:
        done = await store.txn(absent, writes, looks)
    except OutcomeUnknown:
        done = await store.txn(absent, writes, looks)  # its comparisons make the second try harmless
    if done.succeeded:
        return {
            number: Accepted(cast("Request", committed(request, value, done.revision)), created=True)
            for number, request, value in group
        }
    outcomes: dict[int, Accepted | KeyReused] = {}
    for (number, request, _), found in zip(group, done.reads, strict=True):
        if found:
            stored = cast("Request", decode(REQUEST, found[0]))
            same = stored.spec.digest == request.spec.digest
            created = stored.metadata.uid == request.metadata.uid
            outcomes[number] = Accepted(stored, created) if same else KeyReused(stored)
    return outcomes
