"""How much of each worker is used when: step functions in arrays, a day to a page.

A grid of minutes over a year does not fit in memory, and sorted intervals in plain Python are too slow. So each page
keeps, for every worker (the fastest axis), the few *segments* of its day between two changes: `bounds[k, worker]`
says where the k-th segment begins, `use[k, row, worker]` what is used in it. "The peak of every worker in this window"
is then a mask over a handful of rows, exact to the minute, and memory follows the bookings: a day on which nothing is
booked has no page, and a page has as many rows as its busiest worker has segments.

Rows are the five dimensions and a last one for maintenance. Bookings occupy the first three up to the end of the slot
and the others (licence nodes, ports, maintenance) up to the end of the turnaround.

It does not know limits: it adds and subtracts what it is told, and what was added has to be taken away unchanged.
Copies share pages until one of the two writes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .model import Minute, Span

PAGE = 1440
"""Minutes of a page."""

SOFT = 3
"""The first rows (cpu, memory, storage) are free again at the end of the slot, the others after the turnaround."""

ROWS = 6
"""cpu, memory, storage, nodes, ports, maintenance."""

Amounts = tuple[int, int, int, int, int, int]
"""What a booking adds to each row."""

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int32]
ShortArray = npt.NDArray[np.int16]
LongArray = npt.NDArray[np.int64]


class Page:
    """One day of every worker."""

    __slots__ = ("bounds", "owner", "peak", "segments", "use")

    def __init__(self, owner: object, columns: int) -> None:
        self.owner = owner
        self.segments = 1
        """Rows in use: the most segments that a worker has on this day."""
        self.bounds: ShortArray = np.full((2, columns), PAGE, dtype=np.int16)
        self.bounds[0] = 0
        self.use: IntArray = np.zeros((1, ROWS, columns), dtype=np.int32)
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

    @property
    def empty(self) -> bool:
        """Nobody uses anything on this day."""
        return not self.peak.any()

    def widen(self, columns: int) -> None:
        """Room for more workers."""
        fresh = columns - self.bounds.shape[1]
        bounds = np.full((self.bounds.shape[0], fresh), PAGE, dtype=np.int16)
        bounds[0] = 0
        self.bounds = np.concatenate([self.bounds, bounds], axis=1)
        self.use = np.concatenate([self.use, np.zeros((self.use.shape[0], ROWS, fresh), dtype=np.int32)], axis=2)
        self.peak = np.concatenate([self.peak, np.zeros((ROWS, fresh), dtype=np.int32)], axis=1)

    def add(self, column: int, start: int, soft_end: int, end: int, amounts: IntArray, *, leaves: bool) -> None:
        """Adds amounts in `[start, soft_end)` and `[start, end)` (offsets in the page, clipped by the caller). Where
        something leaves, segments that have become alike are joined."""
        if start == 0 and soft_end == PAGE and end == PAGE:
            self.use[:, :, column] += amounts
            self.peak[:, column] += amounts
            return
        steps: list[int] = self.bounds[:, column].tolist()
        before = bisect_left(steps, PAGE)
        steps = steps[:before]
        begins = sorted({*steps, *(at for at in (start, soft_end, end) if at < PAGE)})
        after = len(begins)
        while after >= self.bounds.shape[0]:
            self._deepen()
        use: IntArray = self.use[[bisect_right(steps, at) - 1 for at in begins], :, column]
        first = bisect_left(begins, start)
        use[first : bisect_left(begins, soft_end), :SOFT] += amounts[:SOFT]
        use[first : bisect_left(begins, end), SOFT:] += amounts[SOFT:]
        if leaves:
            rows = use.tolist()
            kept = [number for number in range(after) if not number or rows[number] != rows[number - 1]]
            if len(kept) < after:
                begins, use, after = [begins[one] for one in kept], use[kept], len(kept)
        self.use[:after, :, column] = use
        self.bounds[:after, column] = begins
        if after < before:
            self.use[after:before, :, column] = 0
            self.bounds[after:before, column] = PAGE
        self.segments = max(self.segments, after)
        np.maximum.reduce(use, axis=0, out=self.peak[:, column])

    def lay(self, column: int, entries: Sequence[tuple[int, int, int, IntArray]]) -> None:
        """Adds many at once: as `add` for each, which nothing leaves."""
        steps: list[int] = self.bounds[:, column].tolist()
        steps = steps[: bisect_left(steps, PAGE)]
        marks = {*steps, *(at for *offsets, _ in entries for at in offsets if at < PAGE)}
        begins = sorted(marks)
        after = len(begins)
        while after >= self.bounds.shape[0]:
            self._deepen()
        use: IntArray = self.use[[bisect_right(steps, at) - 1 for at in begins], :, column]
        place = {at: number for number, at in enumerate(begins)} | {PAGE: after}
        for start, soft_end, end, amounts in entries:
            use[place[start] : place[soft_end], :SOFT] += amounts[:SOFT]
            use[place[start] : place[end], SOFT:] += amounts[SOFT:]
        self.use[:after, :, column] = use
        self.bounds[:after, column] = begins
        self.segments = max(self.segments, after)
        np.maximum.reduce(use, axis=0, out=self.peak[:, column])

    def _deepen(self) -> None:
        rows, columns = self.bounds.shape
        more = max(2, (rows - 1) // 2)
        self.bounds = np.concatenate([self.bounds, np.full((more, columns), PAGE, dtype=np.int16)])
        self.use = np.concatenate([self.use, np.zeros((more, ROWS, columns), dtype=np.int32)])


class Slice(NamedTuple):
    """What a window covers of one day: `[opens, soft)` for the first rows, `[opens, hard)` for the others."""

    page: Page
    opens: int
    soft: int
    hard: int

    @property
    def whole(self) -> bool:
        """True when it is the whole day."""
        return self.opens == 0 and self.soft == PAGE

    def floor(self) -> IntArray | None:
        """By row and worker, what the peak is at least (the first instant's use, the whole day's peak): known without
        a look at the segments. None when the window begins inside the day, or no slot but its turnaround reaches it."""
        if self.opens or not self.soft:
            return None
        return self.page.peak if self.soft == PAGE else self.page.use[0]

    def cells(self, workers: int) -> int:
        """How many cells a look at so many workers costs at most."""
        return ROWS * workers * (1 if self.whole else self.page.segments)

    def peaks(self, columns: LongArray | None = None) -> IntArray:
        """By row, the most that is used at one instant, of some workers (None: of all)."""
        page, opens, soft, hard = self
        if columns is not None and not len(columns):
            return np.zeros((ROWS, 0), dtype=np.int32)
        if self.whole:
            return page.peak if columns is None else page.peak.take(columns, axis=1)
        bounds = page.bounds[: page.segments + 1]
        if columns is not None:
            bounds = bounds.take(columns, axis=1)
        inside = _inside(bounds, opens, hard)
        count = len(inside)
        use = page.use[:count].copy() if columns is None else page.use[:count].take(columns, axis=2)
        mask = _mask(inside)[:, None]
        if soft == hard:
            use &= mask
        else:
            use[:, SOFT:] &= mask
            use[:, :SOFT] &= _mask(inside & (bounds[:count] < soft))[:, None] if soft > opens else 0
        most: IntArray = np.maximum.reduce(use, axis=0)
        return most

    def peak_of(self, row: int) -> IntArray:
        """The most that is used of one row, of all workers."""
        page, opens, soft, hard = self
        if self.whole:
            most: IntArray = page.peak[row]
            return most
        closes = soft if row < SOFT else hard
        if closes <= opens:
            return np.zeros(page.peak.shape[1], dtype=np.int32)
        inside = _inside(page.bounds[: page.segments + 1], opens, closes)
        found: IntArray = np.maximum.reduce(page.use[: len(inside), row] & _mask(inside), axis=0)
        return found


def _inside(bounds: ShortArray, opens: int, closes: int) -> BoolArray:
    """Which segments (between two bounds) meet `[opens, closes)`; those beyond everybody's end are left out. Rows that a
    worker does not use hold nothing more than the others, so it does no harm that they seem to."""
    if closes == PAGE:
        return bounds[1:] > opens
    inside = bounds[:-1] < closes
    inside = inside[: int(np.count_nonzero(inside.any(axis=1)))]
    if opens:
        inside &= bounds[1 : len(inside) + 1] > opens
    return inside


def _mask(inside: BoolArray) -> IntArray:
    """All bits where true."""
    return np.negative(inside, dtype=np.int32, casting="unsafe")


@lru_cache(maxsize=4096)
def _signed(amounts: Amounts, sign: int) -> IntArray:
    """As an array, which nobody writes to: most bookings use what others use."""
    signed: IntArray = np.array(amounts, dtype=np.int32) * sign
    signed.flags.writeable = False
    return signed


class Timeline:
    """The pages of all days on which something is booked."""

    __slots__ = ("_owner", "_pages", "columns", "scanned")

    def __init__(self, columns: int = 0) -> None:
        self._owner = object()
        self._pages: dict[int, Page] = {}
        self.columns = columns
        self.scanned = 0
        """Cells (segment × row × worker) looked at so far: work done, for tests that bound it."""

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
        signed = _signed(amounts, sign)
        for number in range(start // PAGE, (max(soft_end, end) - 1) // PAGE + 1):
            base, page = number * PAGE, self._own(number)
            page.add(
                column,
                max(start - base, 0),
                min(max(soft_end - base, 0), PAGE),
                min(max(end - base, 0), PAGE),
                signed,
                leaves=sign < 0,
            )
            if sign < 0 and page.empty:
                del self._pages[number]  # days go by, and each would stay

    def lay(self, column: int, spans: Iterable[tuple[Minute, Minute, Minute, Amounts]]) -> None:
        """Adds what many bookings of one worker use: start, end of the slot, end of the turnaround, amounts."""
        days: dict[int, list[tuple[int, int, int, IntArray]]] = {}
        for start, soft_end, end, amounts in spans:
            used = _signed(amounts, 1)
            for number in range(start // PAGE, (max(soft_end, end) - 1) // PAGE + 1):
                base = number * PAGE
                offsets = (max(start - base, 0), min(max(soft_end - base, 0), PAGE), min(max(end - base, 0), PAGE))
                days.setdefault(number, []).append((*offsets, used))
        for number, entries in days.items():
            self._own(number).lay(column, entries)

    def window(self, start: Minute, soft_end: Minute, end: Minute) -> list[Slice]:
        """What a slot's window covers of each day on which anything is booked, in their order."""
        found: list[Slice] = []
        for number in range(start // PAGE, (max(soft_end, end) - 1) // PAGE + 1):
            page = self._pages.get(number)
            if page is not None:
                base = number * PAGE
                soft = min(max(soft_end - base, 0), PAGE)
                found.append(Slice(page, max(start - base, 0), soft, min(end - base, PAGE)))
        return found

    def peaks(self, start: Minute, soft_end: Minute, end: Minute) -> IntArray:
        """For each row and worker the most that is used at one instant of the window."""
        out: IntArray = np.zeros((ROWS, self.columns), dtype=np.int32)
        for part in self.window(start, soft_end, end):
            np.maximum(out, part.peaks(), out=out)
            self.scanned += part.cells(self.columns)
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
                        out[row] = max(out[row], int(page.use[first:last, row, column].max()))
        return out

    def steps(self, column: int, start: Minute, end: Minute) -> Iterator[tuple[Minute, Minute, list[int]]]:
        """What one worker uses in a span: between two changes from when to when, and by row how much."""
        for number in range(start // PAGE, (end - 1) // PAGE + 1):
            base, page = number * PAGE, self._pages.get(number)
            opens, closes = max(start, base), min(end, base + PAGE)
            if page is None:
                yield opens, closes, [0] * ROWS
                continue
            bounds: list[int] = page.bounds[:, column].tolist()
            for index, (begin, after) in enumerate(pairwise(bounds)):
                first, last = max(opens, base + begin), min(closes, base + after)
                if first < last:
                    yield first, last, page.use[index, :, column].tolist()

    def days_in_use(self) -> set[Span]:
        """The days of which anything is known."""
        return {Span(number * PAGE, (number + 1) * PAGE) for number in self._pages}

    def days(self, start: Minute, end: Minute) -> Iterator[tuple[Minute, Page | None]]:
        """The days of a span, each with its first minute and its page (None: nothing is booked on it)."""
        for number in range(start // PAGE, (end - 1) // PAGE + 1):
            page = self._pages.get(number)
            self.scanned += 0 if page is None else page.segments * ROWS * self.columns
            yield number * PAGE, page

    def _own(self, number: int) -> Page:
        page = self._pages.get(number)
        if page is None:
            page = Page(self._owner, self.columns)
            self._pages[number] = page
        elif page.owner is not self._owner:
            page = page.clone(self._owner)
            self._pages[number] = page
        return page
