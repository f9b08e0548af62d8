"""A store that a test looks through: its calls, what is written without the fence, and a moment before each transaction."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from lablet_common.resources.kinds import ownership_key
from lablet_common.store import Get, Store, Target

_READS = ("get", "range", "status", "watch", "close")
"""Calls of a store that write nothing."""


def _fenced(compares: Iterable[Any]) -> bool:
    owners = ownership_key("scheduler", "")
    return any(one.target is Target.CREATE and one.key.startswith(owners) and one.operand > 0 for one in compares)


class Counting:
    """A store that counts its calls, notes what is written without the proof of ownership, and lets a test step in before or
    after a transaction."""

    def __init__(self, store: Store) -> None:
        self.inner = store
        self.calls = 0
        self.before_txn: list[Callable[[Sequence[Any], Sequence[Any]], Awaitable[bool]]] = []
        """Each is asked before every writing transaction until it says True: then it has done its work."""
        self.unfenced: list[str] = []
        """What was written without comparing an ownership key's create_revision: whoever has stood still could write it."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if not callable(method) or name == "watch":
            return method

        async def call(*args: Any, **options: Any) -> Any:
            self.calls += 1
            if name not in _READS:
                self.unfenced.append(f"{name} {args[0] if args else ''}")
            return await method(*args, **options)

        return call

    async def txn(self, compares: Sequence[Any], success: Sequence[Any], failure: Sequence[Any] = ()) -> Any:
        self.calls += 1
        if not all(isinstance(part, Get) for part in (*success, *failure)) and not _fenced(compares):
            self.unfenced.append(", ".join(part.key for part in (*success, *failure)))
        if self.before_txn and compares and await self.before_txn[0](compares, success):
            self.before_txn.pop(0)
        return await self.inner.txn(compares, success, failure)
