"""Counted licences: how many workers of a kind are on at the same time.

A worker holds its pool's licence while it is on (from power-on to the end of its duty, gaps that it stays on through
included). The ledger is a step function per limited kind; it counts what it is told and refuses nothing itself.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from .model import Minute, Span


class LicenceLedger:
    """Licences of one kind in use over time."""

    __slots__ = ("_counts", "_steps")

    def __init__(self) -> None:
        self._steps: list[Minute] = []
        """Where the count changes."""
        self._counts: list[int] = [0]
        """`_counts[i]` holds before `_steps[i]`, the last one for ever after."""

    def copy(self) -> LicenceLedger:
        """An independent ledger."""
        twin = LicenceLedger()
        twin._steps = self._steps.copy()
        twin._counts = self._counts.copy()
        return twin

    def add(self, spans: Iterable[Span], sign: int = 1) -> None:
        """One more (or with sign −1 one fewer) licence in use in each of the spans."""
        for span in spans:
            self._cut(span.start)
            self._cut(span.end)
            first = bisect_right(self._steps, span.start)
            last = bisect_right(self._steps, span.end)
            for index in range(first, last):
                self._counts[index] += sign
            self._heal(span.end)
            self._heal(span.start)

    def fill(self, spans: Iterable[Span], limit: int) -> None:
        """One more in use in each of the spans, but nowhere more than the limit by that: what is in use now, and is given
        back later, leaves exactly its own licences behind."""
        for span in spans:
            inner = self._steps[bisect_right(self._steps, span.start) : bisect_left(self._steps, span.end)]
            for part in map(Span, (span.start, *inner), (*inner, span.end)):
                if self.peak(part) < limit:
                    self.add((part,))

    def peak(self, span: Span) -> int:
        """The most licences in use at one instant of a span."""
        first = bisect_right(self._steps, span.start)
        last = bisect_left(self._steps, span.end)
        return max(self._counts[first : last + 1])

    def steps(self) -> list[tuple[Minute, int]]:
        """Where the count changes, and to what."""
        return list(zip(self._steps, self._counts[1:], strict=True))

    def drops(self, start: Minute, end: Minute) -> list[Minute]:
        """The minutes of a span at which a licence comes free."""
        first, last = bisect_left(self._steps, start), bisect_left(self._steps, end)
        return [self._steps[i] for i in range(first, last) if self._counts[i + 1] < self._counts[i]]

    def over(self, limit: int) -> list[Span]:
        """The spans in which more licences are in use than the limit."""
        return [Span(self._steps[i - 1], self._steps[i]) for i in range(1, len(self._steps)) if self._counts[i] > limit]

    def _cut(self, at: Minute) -> None:
        index = bisect_left(self._steps, at)
        if index == len(self._steps) or self._steps[index] != at:
            self._steps.insert(index, at)
            self._counts.insert(index, self._counts[index])

    def _heal(self, at: Minute) -> None:
        index = bisect_left(self._steps, at)
        if self._counts[index] == self._counts[index + 1]:
            del self._steps[index]
            del self._counts[index + 1]
