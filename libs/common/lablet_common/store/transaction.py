"""A transaction as a value that is built up and then committed: comparisons and operations of several parts in one.

Pure but for `commit` and `settle`. The builder knows etcd's limits and refuses, with a clear message, what etcd would
refuse with an obscure one. After `OutcomeUnknown` nobody knows whether the transaction has happened: `settle` finds out
where that can be told from the keys it wrote.
"""

from collections.abc import Sequence

from lablet_common.store.api import (
    MAX_OPERATIONS,
    MAX_VALUE_BYTES,
    Compare,
    Delete,
    InvalidRequest,
    Operation,
    Put,
    Store,
    StoreError,
    Target,
    TxnResult,
)


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
        if len(value) > MAX_VALUE_BYTES:
            raise InvalidRequest(f"the value of {key} has {len(value)} bytes; the most is {MAX_VALUE_BYTES}")
        return self._operate(Put(key, value, lease))

    def delete(self, key: str) -> "Transaction":
        return self._operate(Delete(key))

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
        for what, count in (("operations", len(self._operations)), ("comparisons", len(self._compares))):
            if count > MAX_OPERATIONS:
                raise InvalidRequest(f"a transaction of {count} {what}; the most is {MAX_OPERATIONS}: divide it")

    async def commit(self, store: Store) -> TxnResult:
        """Runs it. Raises `Conflict` when a comparison did not hold, `OutcomeUnknown` when no answer came."""
        self.check_size()
        result = await store.txn(self.compares, self.operations)
        if not result.succeeded:
            raise Conflict([compare.key for compare in self.compares], result.revision)
        return result


async def settle(store: Store, txn: Transaction) -> bool | None:
    """After `OutcomeUnknown`: True when every key stands as the transaction would have left it, False when every
    comparison still holds as before (so it has not happened yet), None where neither can be told (somebody else has
    written since)."""
    written = True
    for operation in txn.operations:
        present = await store.get(operation.key)
        if isinstance(operation, Put):
            written = written and present is not None and present.value == operation.value
        elif isinstance(operation, Delete):
            written = written and present is None
    if written:
        return True
    for compare in txn.compares:
        present = await store.get(compare.key)
        actual = 0
        if present is not None:
            actual = present.mod_revision if compare.target is Target.MOD else present.create_revision
        if compare.target in (Target.MOD, Target.CREATE) and actual != compare.operand:
            return None
    return False
