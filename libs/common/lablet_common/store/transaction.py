"""A transaction as a value that is built up and then committed: comparisons and operations of several parts in one.

Pure but for `commit` and `settle`. The builder knows etcd's limits and refuses, with a clear message, what etcd would
refuse with an obscure one. After `OutcomeUnknown` nobody knows whether the transaction has happened: `settle` finds out
where that can be told from the keys it wrote.
"""

from collections.abc import Mapping, Sequence

from lablet_common.store.api import (
    MAX_OPERATIONS,
    Compare,
    Delete,
    Get,
    InvalidRequest,
    KeyValue,
    Operation,
    Put,
    Store,
    StoreError,
    Target,
    TxnResult,
)
from lablet_common.store.limits import check_put, check_transaction


class Conflict(StoreError):
    """A comparison did not hold: somebody else was first. Read again and decide anew."""

    def __init__(self, keys: Sequence[str], revision: int) -> None:
        super().__init__(f"the transaction was refused at revision {revision}: one of {', '.join(keys)} has changed")
        self.keys = tuple(keys)
        self.revision = revision


class Transaction:
    """Comparisons that must all hold, and operations that then all happen."""

    def __init__(self) -> None:
        self._compares: dict[tuple[str, Target], Compare] = {}
        self._operations: dict[str, Put | Delete] = {}

    @property
    def compares(self) -> tuple[Compare, ...]:
        return tuple(self._compares.values())

    @property
    def operations(self) -> tuple[Operation, ...]:
        return tuple(self._operations.values())

    def require(self, key: str, *, mod_revision: int) -> "Transaction":
        """The key is as it was at this mod_revision; 0: it is absent."""
        return self._compare(Compare(key, Target.MOD, "=", mod_revision))

    def require_absent(self, key: str) -> "Transaction":
        return self.require(key, mod_revision=0)

    def require_create_revision(self, key: str, revision: int) -> "Transaction":
        """The key is the very one that was created at this revision (fencing)."""
        return self._compare(Compare(key, Target.CREATE, "=", revision))

    def put(self, key: str, value: bytes, *, lease: int = 0) -> "Transaction":
        check_put(key, value)
        return self._operate(Put(key, value, lease))

    def delete(self, key: str) -> "Transaction":
        return self._operate(Delete(key))

    def delete_below(self, prefix: str) -> "Transaction":
        """Everything whose key begins so, as one operation."""
        return self._operate(Delete(prefix, prefix=True))

    def merge(self, other: "Transaction") -> "Transaction":
        """Takes over the other's parts. Raises `InvalidRequest` where the two contradict each other."""
        for compare in other._compares.values():
            self._compare(compare)
        for operation in other._operations.values():
            self._operate(operation)
        return self

    def _compare(self, compare: Compare) -> "Transaction":
        slot = (compare.key, compare.target)
        known = self._compares.setdefault(slot, compare)
        if known != compare:
            raise InvalidRequest(
                f"one transaction cannot require {compare.key} to be at {known.operand!r} and at {compare.operand!r}"
            )
        return self

    def _operate(self, operation: Put | Delete) -> "Transaction":
        known = self._operations.setdefault(operation.key, operation)
        if known != operation:
            raise InvalidRequest(f"one transaction cannot write {operation.key} twice")
        return self

    def check_size(self) -> None:
        """Raises `InvalidRequest` for more than etcd takes."""
        check_transaction(self.compares, self.operations, ())

    async def commit(self, store: Store) -> TxnResult:
        """Runs it. Raises `Conflict` when a comparison did not hold, `OutcomeUnknown` when no answer came."""
        self.check_size()
        result = await store.txn(self.compares, self.operations)
        if not result.succeeded:
            raise Conflict([compare.key for compare in self.compares], result.revision)
        return result


async def settle(store: Store, txn: Transaction) -> bool | None:
    """After `OutcomeUnknown`, from one consistent look at the keys: True when the transaction has happened, False when it
    has not (it may be committed again: it rests on comparisons), None when it cannot be told, because somebody else has
    written since, or the transaction left nothing to know it by.

    True rests on the values it put: where several writers would put the very same value, it must name its writer. False
    for a key that had to be absent and is absent takes it that nobody deletes such a key at once.
    """
    keys = sorted({part.key for part in (*txn.compares, *txn.operations)})
    present = await _read_together(store, keys)
    written = [op for op in txn.operations if isinstance(op, Put)]
    if written and _stands(txn, written, present):
        return True
    changed = {op.key for op in txn.operations}
    for compare in txn.compares:
        if (
            compare.key in changed
            and compare.target is Target.MOD
            and _modified(present[compare.key]) == compare.operand
        ):
            return False
    return None


def _stands(txn: Transaction, written: Sequence[Put], present: Mapping[str, KeyValue | None]) -> bool:
    """Whether the keys are as the transaction leaves them: values put at one revision that none of them had before."""
    put = [(op, present[op.key]) for op in written]
    if any(kv is None or kv.value != op.value for op, kv in put):
        return False
    if len({_modified(kv) for _, kv in put}) != 1:
        return False
    if any(present[op.key] is not None for op in txn.operations if isinstance(op, Delete)):
        return False
    before = {compare.key: compare.operand for compare in txn.compares if compare.target is Target.MOD}
    return all(before.get(op.key) != _modified(kv) for op, kv in put)


def _modified(kv: KeyValue | None) -> int:
    return kv.mod_revision if kv else 0


async def _read_together(store: Store, keys: Sequence[str]) -> dict[str, KeyValue | None]:
    """The keys at one revision, also when they are more than one transaction can read."""
    present: dict[str, KeyValue | None] = {}
    first = await store.txn((), [Get(key) for key in keys[:MAX_OPERATIONS]])
    for key, found in zip(keys, first.reads, strict=False):
        present[key] = found[0] if found else None
    for key in keys[MAX_OPERATIONS:]:
        present[key] = await store.get(key, revision=first.revision)
    return present
