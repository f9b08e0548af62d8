"""How much of each worker is used when: step functions in arrays, a day to a page.

A grid of minutes over a year does not fit in memory, and sorted intervals in plain Python are too slow. So each page
keeps, for every worker (the fastest axis), the few *segments* of its day between two changes: `bounds[k, worker]`
says where the k-th segment begins, `use[row, k, worker]` what is used in it. "The peak of every worker in this window"
is then a mask over a handful of rows, exact to the minute, and memory follows the bookings: a day on which nothing is
booked has no page, and a page has as many rows as its busiest worker has segments.

Rows are the five dimensions and a last one for maintenance. Bookings occupy the first three up to the end of the slot
and the others (licence nodes, ports, maintenance) up to the end of the turnaround.

It does not know limits: it adds and subtracts what it is told, and what was added has to be taken away unchanged.
Copies share pages until one of the two writes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .model import Minute

PAGE = 1440
"""Minutes of a page."""

SOFT = 3
"""The first rows (cpu, memory, storage) are free again at the end of the slot, the others after the turnaround."""

ROWS = 6
"""cpu, memory, storage, nodes, ports, maintenance."""

Amounts = tuple[int, int, int, int, int, int]
"""What a booking adds to each row."""

IntArray = npt.NDArray[np.int32]
ShortArray = npt.NDArray[np.int16]


class Page:
    """One day of every worker."""

    __slots__ = ("bounds", "owner", "peak", "segments", "use")

    def __init__(self, owner: object, columns: int) -> None:
        self.owner = owner
        self.segments = 1
        """Rows in use: the most segments that a worker has on this day."""
        self.bounds: ShortArray = np.full((2, columns), PAGE, dtype=np.int16)
        self.bounds[0] = 0
        self.use: IntArray = np.zeros((ROWS, 1, columns), dtype=np.int32)
        self.peak: IntArray = np.zeros((ROWS, columns), dtype=np.int32)

    def clone(self, owner: object) -> Page:
        """A page of its own with the same content."""
        twin = Page.__new__(Page)
        twin.owner = owner
        twin.segments = self.segments
        twin.bounds = self.bounds.copy()
        twin.use = self.use.copy()
        twin.peak = self.peak.copy()
        return twin

    def widen(self, columns: int) -> None:
        """Room for more workers."""
        fresh = columns - self.bounds.shape[1]
        bounds = np.full((self.bounds.shape[0], fresh), PAGE, dtype=np.int16)
        bounds[0] = 0
        self.bounds = np.concatenate([self.bounds, bounds], axis=1)
        self.use = np.concatenate([self.use, np.zeros((ROWS, self.use.shape[1], fresh), dtype=np.int32)], axis=2)
        self.peak = np.concatenate([self.peak, np.zeros((ROWS, fresh), dtype=np.int32)], axis=1)

    def add(self, column: int, start: int, soft_end: int, end: int, amounts: IntArray) -> None:
        """Adds amounts in `[start, soft_end)` and `[start, end)` (offsets in the page, clipped by the caller)."""
        if start == 0 and soft_end == PAGE and end == PAGE:
            self.use[:, :, column] += amounts[:, None]
            self.peak[:, column] += amounts
            return
        steps: list[int] = self.bounds[:, column].tolist()
        steps = steps[: bisect_left(steps, PAGE)]
        for at in (start, soft_end, end):
            if 0 < at < PAGE:
                self._split(column, steps, at)
        steps.append(PAGE)
        first = bisect_left(steps, start)
        soft, last = bisect_left(steps, soft_end), bisect_left(steps, end)
        if soft > first:
            self.use[:SOFT, first:soft, column] += amounts[:SOFT, None]
        if last > first:
            self.use[SOFT:, first:last, column] += amounts[SOFT:, None]
        steps.pop()
        if amounts.min() < 0:
            for at in (end, soft_end, start):
                if 0 < at < PAGE:
                    self._join(column, steps, at)
        self.peak[:, column] = self.use[:, : len(steps), column].max(axis=1)

    def _split(self, column: int, steps: list[int], at: int) -> None:
        where = bisect_left(steps, at)
        count = len(steps)
        if where < count and steps[where] == at:
            return
        if count + 1 >= self.bounds.shape[0]:
            self._deepen()
        self.bounds[where + 1 : count + 1, column] = steps[where:]
        self.bounds[where, column] = at
        column_use = self.use[:, :, column]
        column_use[:, where + 1 : count + 1] = column_use[:, where:count].copy()
        column_use[:, where] = column_use[:, where - 1]
        steps.insert(where, at)
        self.segments = max(self.segments, count + 1)

    def _join(self, column: int, steps: list[int], at: int) -> None:
        where = bisect_left(steps, at)
        count = len(steps)
        if where >= count or steps[where] != at:
            return
        column_use = self.use[:, :, column]
        if (column_use[:, where] != column_use[:, where - 1]).any():
            return
        column_use[:, where : count - 1] = column_use[:, where + 1 : count].copy()
        column_use[:, count - 1] = 0
        self.bounds[where : count - 1, column] = steps[where + 1 :]
        self.bounds[count - 1, column] = PAGE
        del steps[where]

    def _deepen(self) -> None:
        rows, columns = self.bounds.shape
        more = max(2, (rows - 1) // 2)
        self.bounds = np.concatenate([self.bounds, np.full((more, columns), PAGE, dtype=np.int16)])
        self.use = np.concatenate([self.use, np.zeros((ROWS, more, columns), dtype=np.int32)], axis=1)


class Timeline:
    """The pages of all days on which something is booked."""

    __slots__ = ("_owner", "_pages", "columns", "scanned")

    def __init__(self, columns: int = 0) -> None:
        self._owner = object()
        self._pages: dict[int, Page] = {}
        self.columns = columns
        self.scanned = 0
        """Segment rows looked at so far (work done, for tests that bound it)."""

    def copy(self) -> Timeline:
        """An independent timeline; pages are copied when one of the two changes them."""
        twin = Timeline(self.columns)
        twin._pages = self._pages.copy()
        self._owner = object()
        return twin

    def widen(self, columns: int) -> None:
        """Room for at least so many workers."""
        if columns <= self.columns:
            return
        self.columns = max(columns, self.columns + self.columns // 2, 8)
        for number in self._pages:
            self._own(number).widen(self.columns)

    def forget(self, before: Minute) -> None:
        """Drops the days that lie wholly before a minute."""
        for number in [number for number in self._pages if (number + 1) * PAGE <= before]:
            del self._pages[number]

    def add(self, column: int, start: Minute, soft_end: Minute, end: Minute, amounts: Amounts, sign: int = 1) -> None:
        """Adds (or with sign −1 takes away) what one booking uses."""
        signed = np.array(amounts, dtype=np.int32) * sign
        for number in range(start // PAGE, (max(soft_end, end) - 1) // PAGE + 1):
            base = number * PAGE
            self._own(number).add(
                column,
                max(start - base, 0),
                min(max(soft_end - base, 0), PAGE),
                min(max(end - base, 0), PAGE),
                signed,
            )

    def peaks(self, start: Minute, soft_end: Minute, end: Minute) -> IntArray:
        """For each row and worker the most that is used at one instant of the window."""
        out: IntArray = np.zeros((ROWS, self.columns), dtype=np.int32)
        for number in range(start // PAGE, (max(soft_end, end) - 1) // PAGE + 1):
            page = self._pages.get(number)
            if page is None:
                continue
            base = number * PAGE
            opens = max(start - base, 0)
            soft, hard = min(soft_end - base, PAGE), min(end - base, PAGE)
            if opens == 0 and soft == PAGE and hard == PAGE:
                self.scanned += 1
                np.maximum(out, page.peak, out=out)
                continue
            count = page.segments
            self.scanned += count
            lower, upper = page.bounds[:count], page.bounds[1 : count + 1]
            begun = upper > opens
            mask = np.negative(begun & (lower < hard), dtype=np.int32, casting="unsafe")
            if soft == hard:
                np.maximum(out, (page.use[:, :count] & mask).max(axis=1), out=out)
                continue
            np.maximum(out[SOFT:], (page.use[SOFT:, :count] & mask).max(axis=1), out=out[SOFT:])
            if soft > opens:
                mask = np.negative(begun & (lower < soft), dtype=np.int32, casting="unsafe")
                np.maximum(out[:SOFT], (page.use[:SOFT, :count] & mask).max(axis=1), out=out[:SOFT])
        return out

    def peak(self, column: int, start: Minute, soft_end: Minute, end: Minute) -> list[int]:
        """The same for one worker."""
        out = [0] * ROWS
        for number in range(start // PAGE, (max(soft_end, end) - 1) // PAGE + 1):
            page = self._pages.get(number)
            if page is None:
                continue
            base = number * PAGE
            steps: list[int] = page.bounds[:, column].tolist()
            first = bisect_right(steps, max(start - base, 0)) - 1
            for rows, closes in (((0, 1, 2), soft_end - base), ((3, 4, 5), end - base)):
                last = bisect_left(steps, min(closes, PAGE))
                if last > first:
                    for row in rows:
                        out[row] = max(out[row], int(page.use[row, first:last, column].max()))
        return out

    def days(self, start: Minute, end: Minute) -> Iterator[tuple[Minute, Page | None]]:
        """The days of a span, each with its first minute and its page (None: nothing is booked on it)."""
        for number in range(start // PAGE, (end - 1) // PAGE + 1):
            yield number * PAGE, self._pages.get(number)

    def _own(self, number: int) -> Page:
        page = self._pages.get(number)
        if page is None:
            page = Page(self._owner, self.columns)
            self._pages[number] = page
        elif page.owner is not self._owner:
            page = page.clone(self._owner)
            self._pages[number] = page
        return page
