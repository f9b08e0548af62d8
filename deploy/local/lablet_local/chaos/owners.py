"""No owner wrote when its ownership had ended. Pure: what each process says that it has committed, against etcd's history.

Every service of the mesh keeps an account of its confirmed writes (`ETCD_COMMIT_LOG`): the revision, and the ownership keys
that the transaction compared. etcd's history says who held each of these keys just before that revision. So a write that
compared nothing is seen, and one whose comparison did not stand, and one by somebody who did not hold what it compared.
What was committed without its answer having arrived stands in no account and is not judged.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lablet_common.resources.kinds import KINDS
from lablet_local.demo.books import Json
from lablet_local.demo.checks.check import Check, Harm
from lablet_local.demo.evidence import Change, Evidence

OWNERSHIP = "/ownership/"
_OWNER_OF = {kind.prefix: str(kind.owner) for kind in KINDS.values() if kind.name not in ("key", "request")}
_REQUESTS = "/requests/"
_GATEWAY = "api-gateway"
_SEEDED = ("/pools/", "/templates/")
"""Made by whoever starts first, where they do not exist yet."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One confirmed write, as its process noted it."""

    replica: str
    revision: int
    fences: tuple[tuple[str, int], ...] = ()
    """Ownership keys that it compared, each with the create revision that was asked for."""


def commits_in(folder: Path) -> Iterator[Commit]:
    """The accounts `<replica>.commits` of a folder. What a killed process left half written is passed over."""
    for path in sorted(folder.glob("*.commits")):
        for line in path.read_text(encoding="ascii").splitlines():
            revision, *compared = line.split() or [""]
            if not revision.isdigit():
                continue
            fences = [one.rpartition("@") for one in compared if one.startswith(OWNERSHIP)]
            yield Commit(path.stem, int(revision), tuple((key, int(created)) for key, _, created in fences))


def accounts_kept(evidence: Evidence, commits: Iterable[Commit]) -> Check:
    """Of each service that owns something, most of what was written of it: a killed process, or an answer that was lost, may
    leave out some, and one that keeps no account leaves out all."""
    noted = {commit.revision for commit in commits}
    written: dict[str, set[int]] = defaultdict(set)
    for revision, changes in _owned_writes(evidence).items():
        for change, _ in changes:
            owner = next((one for prefix, one in _OWNER_OF.items() if change.key.startswith(prefix)), None)
            if owner is not None:
                written[owner].add(revision)
    broken = [
        f"{owner}: {len(revisions & noted)} of {len(revisions)}"
        for owner, revisions in written.items()
        if 2 * len(revisions & noted) < len(revisions)
    ]
    claim = "most of what owners wrote stands in their accounts"
    return Check("etcd", claim, sum(map(len, written.values())), tuple(broken), Harm.UNSETTLED)


def no_stale_owner(evidence: Evidence, commits: Iterable[Commit]) -> Check:
    """Every write of an owner's resource compared an ownership of its service that it held at that very revision."""
    holders = _Holders(evidence)
    owned = _owned_writes(evidence)
    looked_at = 0
    broken = []
    for commit in commits:
        for change, wanted in owned.get(commit.revision, ()):
            looked_at += 1
            if said := _against(commit, wanted, holders):
                broken.append(f"{commit.replica} wrote {change.key} at revision {commit.revision} {said}")
    claim = "no owner wrote after its ownership had ended"
    return Check("etcd", claim, looked_at, tuple(broken), Harm.DOUBLED)


def _against(commit: Commit, wanted: frozenset[str], holders: "_Holders") -> str:
    ours = [(key, created) for key, created in commit.fences if key.startswith(tuple(wanted))]
    if not ours:
        return "without proof that it owned it"
    for key, created in ours:
        holder = holders.before(key, commit.revision)
        if holder is None:
            return f"when nobody owned {key}"
        if holder != (commit.replica, created):
            return f"when {holder[0]} owned {key}"
    return ""


class _Holders:
    """Who held each ownership key when."""

    def __init__(self, evidence: Evidence) -> None:
        self._changes: dict[str, list[tuple[int, tuple[str, int] | None]]] = defaultdict(list)
        for change in evidence.history:
            if change.key.startswith(OWNERSHIP):
                held = (str(change.value), change.revision) if change.value is not None else None
                self._changes[change.key].append((change.revision, held))

    def before(self, key: str, revision: int) -> tuple[str, int] | None:
        """The holder and when it took it, as a transaction at that revision found it."""
        changes = self._changes[key]
        at = bisect_left(changes, revision, key=lambda one: one[0])
        return changes[at - 1][1] if at else None


def _owned_writes(evidence: Evidence) -> dict[int, list[tuple[Change, frozenset[str]]]]:
    """Revision → what only an owner may write, each with the beginnings of the ownership keys that allow it."""
    found: dict[int, list[tuple[Change, frozenset[str]]]] = defaultdict(list)
    known: dict[str, Json] = {}
    for change in evidence.history:
        before = known.get(change.key)
        wanted = _wanted(change, before)
        if wanted:
            found[change.revision].append((change, frozenset(f"{OWNERSHIP}{one}" for one in wanted)))
        if isinstance(change.value, dict):
            known[change.key] = change.value
        else:
            known.pop(change.key, None)
    return found


def _wanted(change: Change, before: Json | None) -> tuple[str, ...]:
    """`service/shard`, or `service/` where any of its shards will do; none: everybody may write it."""
    if change.key.startswith(_REQUESTS):
        if before is None:
            return ()  # accepted
        return (f"{_GATEWAY}/", f"{before['spec']['service']}/")
    owner = next((owner for prefix, owner in _OWNER_OF.items() if change.key.startswith(prefix)), None)
    if owner is None or (before is None and change.key.startswith(_SEEDED)):
        return ()
    pools = _pools(change.value if isinstance(change.value, dict) else before)
    if change.value is None or not pools:
        return (f"{owner}/",)
    return tuple(f"{owner}/{pool}" for pool in pools)


def _pools(resource: Json | None) -> set[str]:
    """Whose owner writes it: of a pool that the resource names."""
    if resource is None:
        return set()
    spec, status = resource["spec"], resource["status"]
    named = {spec.get("pool"), status.get("pool"), *(spec.get("pools") or ())}
    return {str(one) for one in named if one}
