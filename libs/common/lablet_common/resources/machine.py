"""State machines as plain tables: which phase may follow which.

A table is data, so that it can be walked by tests, drawn in the documentation and compared with the event catalogue.
An illegal move is an error that names both phases; nothing is ever moved silently.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class IllegalTransition(ValueError):
    """A resource was asked to move to a phase that may not follow its present one."""

    def __init__(self, kind: str, name: str, current: str, wanted: str, allowed: frozenset[str]) -> None:
        options = ", ".join(sorted(allowed)) or "nothing: it is final"
        super().__init__(f"{kind} {name} is {current} and cannot become {wanted}; what may follow is {options}")
        self.kind = kind
        self.current = current
        self.wanted = wanted
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class StateMachine:
    """The phases of one kind. `transitions` maps each phase to those that may follow it; a phase that may follow itself
    is listed (such a move is kept in the history, like any other)."""

    kind: str
    initial: frozenset[str]
    transitions: Mapping[str, frozenset[str]]

    def check(self, name: str, current: str, wanted: str) -> None:
        """Raises `IllegalTransition` unless `wanted` may follow `current`."""
        allowed = self.transitions.get(current, frozenset())
        if wanted not in allowed:
            raise IllegalTransition(self.kind, name, current, wanted, allowed)

    def is_final(self, phase: str) -> bool:
        return not self.transitions.get(phase)

    @property
    def phases(self) -> frozenset[str]:
        return frozenset(self.transitions)


def table(kind: str, initial: set[StrEnum] | StrEnum, rows: Mapping[StrEnum, set[StrEnum]]) -> StateMachine:
    """A state machine from enum members; every phase must have a row (an empty one means: final)."""
    starts = {initial} if isinstance(initial, StrEnum) else initial
    transitions = {str(phase): frozenset(str(follower) for follower in followers) for phase, followers in rows.items()}
    unknown = {follower for followers in transitions.values() for follower in followers} - set(transitions)
    if unknown:
        raise ValueError(f"{kind}: phases without a row of their own: {sorted(unknown)}")
    return StateMachine(kind, frozenset(str(phase) for phase in starts), transitions)
