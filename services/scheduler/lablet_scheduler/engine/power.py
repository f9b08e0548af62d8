"""When a worker has to be on, and what one more slot would add to that.

A worker is needed from the start of a slot to the end of the turnaround after it. It is powered on `lead` (boot plus
preparation) before a need. Between two needs it stays on when the next one begins within the grace, or so soon that it
would have to be powered on at once: within `bridge = max(grace, lead)` minutes. Needs joined in this way are a *duty*;
a worker's power spans are its duties, each begun `lead` earlier, and they never overlap because two duties are more
than a lead apart.

The price of a slot follows from the gaps between duties that it touches; `GapIndex` holds the gaps of each day in
arrays and prices a slot on every worker at once. A gap that leaves only a bridge before or after the slot is filled
(the worker stays on), a longer rest costs one more lead.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

import numpy as np

from .model import MAX_LEAD_MINUTES, Minute, Span
from .timeline import PAGE, BoolArray, IntArray, LongArray, ShortArray

REACH = MAX_LEAD_MINUTES + 1
"""How far beyond its day a page has to see the gaps: one minute more than the longest bridge."""

_FAR = np.iinfo(np.int16).max


def join_needs(needs: Iterable[tuple[Minute, Minute]], bridge: int) -> list[Span]:
    """Duties of needs that are sorted by their start."""
    duties: list[Span] = []
    start = end = None
    for need_start, need_end in needs:
        if end is None or start is None:
            start, end = need_start, need_end
        elif need_start - end <= bridge:
            end = max(end, need_end)
        else:
            duties.append(Span(start, end))
            start, end = need_start, need_end
    if start is not None and end is not None:
        duties.append(Span(start, end))
    return duties


def powered(duties: Iterable[Span], lead: int) -> list[Span]:
    """The spans in which a worker with these duties is on."""
    return [Span(duty.start - lead, duty.end) for duty in duties]


def touched(duties: list[Span], start: Minute, end: Minute, bridge: int) -> tuple[int, int]:
    """Index range of the (sorted) duties that a need `[start, end)` overlaps or is bridged to."""
    first = bisect_left(duties, (start - bridge,))
    if first and duties[first - 1].end >= start - bridge:
        first -= 1  # only the one before may reach so far: duties do not overlap
    return first, max(first, bisect_left(duties, (end + bridge + 1,)))


def added_power(duties: list[Span], start: Minute, end: Minute, lead: int, bridge: int) -> list[Span]:
    """The spans that a need `[start, end)` adds to a worker's power spans."""
    first, last = touched(duties, start, end, bridge)
    if first == last:
        return [Span(start - lead, end)]
    begin = min(start, duties[first].start) - lead
    close = max(end, duties[last - 1].end)
    added: list[Span] = []
    for duty in duties[first:last]:
        if duty.start - lead > begin:
            added.append(Span(begin, duty.start - lead))
        begin = duty.end
    if close > begin:
        added.append(Span(begin, close))
    return added


class GapPage:
    """The gaps between duties on one day, as offsets, cut off `reach` minutes outside the day."""

    __slots__ = ("count", "end", "owner", "start")

    def __init__(self, owner: object, columns: int, reach: int) -> None:
        self.owner = owner
        self.count = 1
        self.start: ShortArray = np.full((1, columns), -reach, dtype=np.int16)
        self.end: ShortArray = np.full((1, columns), PAGE + reach, dtype=np.int16)

    def clone(self, owner: object) -> GapPage:
        """A page of its own with the same content."""
        twin = GapPage.__new__(GapPage)
        twin.owner = owner
        twin.count = self.count
        twin.start = self.start.copy()
        twin.end = self.end.copy()
        return twin

    def widen(self, columns: int, reach: int) -> None:
        """Room for more workers, all of them one gap."""
        fresh = np.full((self.start.shape[0], columns - self.start.shape[1]), _FAR, dtype=np.int16)
        starts, ends = fresh.copy(), fresh
        starts[0], ends[0] = -reach, PAGE + reach
        self.start = np.concatenate([self.start, starts], axis=1)
        self.end = np.concatenate([self.end, ends], axis=1)

    def is_one(self, reach: int) -> bool:
        """The day lies in everybody's gap."""
        return bool((self.start[0] == -reach).all() and (self.end[0] == PAGE + reach).all())

    def write(self, column: int, gaps: list[Span]) -> None:
        """Replaces one worker's gaps."""
        rows = self.start.shape[0]
        if len(gaps) > rows:
            more = np.full((max(len(gaps) - rows, rows // 2 + 1), self.start.shape[1]), _FAR, dtype=np.int16)
            self.start = np.concatenate([self.start, more])
            self.end = np.concatenate([self.end, more])
        self.count = max(self.count, len(gaps))
        unused = [_FAR] * (self.start.shape[0] - len(gaps))
        self.start[:, column] = [gap.start for gap in gaps] + unused
        self.end[:, column] = [gap.end for gap in gaps] + unused


class GapIndex:
    """The gaps of all workers, by day; a day that lies in everybody's gap has no page."""

    __slots__ = ("_owner", "_pages", "columns", "priced", "reach")

    def __init__(self, columns: int = 0, reach: int = REACH) -> None:
        self._owner = object()
        self._pages: dict[int, GapPage] = {}
        self.columns = columns
        self.reach = reach
        self.priced = 0
        """Workers whose added power was asked for so far (work done, for tests that bound it)."""

    def copy(self) -> GapIndex:
        """An independent index; pages are copied when one of the two changes them."""
        twin = GapIndex(self.columns, self.reach)
        twin._pages = self._pages.copy()
        self._owner = object()
        return twin

    def widen(self, columns: int) -> None:
        """Room for exactly so many workers (the timeline's number)."""
        if columns <= self.columns:
            return
        self.columns = columns
        for number in self._pages:
            self._own(number).widen(columns, self.reach)

    def forget(self, before: Minute) -> None:
        """Drops the days that lie wholly before a minute."""
        for number in [number for number in self._pages if (number + 1) * PAGE <= before]:
            del self._pages[number]

    def refresh(self, column: int, duties: list[Span], start: Minute, end: Minute) -> None:
        """Writes a worker's gaps again wherever a change of its duties within `[start, end)` can be seen."""
        self._write(column, duties, range((start - self.reach) // PAGE, (end + self.reach) // PAGE + 1))

    def lay(self, column: int, duties: list[Span]) -> None:
        """Writes a worker's gaps on all days on which its duties can be seen; between them may lie thousands of years."""
        reach = 2 * self.reach  # a day sees so far, and a duty bridges less
        after = None
        for start, end in duties:
            first, last = (start - reach) // PAGE, (end + reach) // PAGE + 1
            self._write(column, duties, range(first if after is None else max(first, after), last))
            after = last

    def _write(self, column: int, duties: list[Span], days: Iterable[int]) -> None:
        for number in days:
            base, reach = number * PAGE, self.reach
            gaps = _gaps_between(duties, base, reach)
            one = len(gaps) == 1 and gaps[0] == (-reach, PAGE + reach)
            if one and number not in self._pages:
                continue
            page = self._own(number)
            page.write(column, gaps)
            if one and page.is_one(reach):
                del self._pages[number]  # days go by, and each would stay

    def added_minutes(
        self, start: Minute, end: Minute, lead: IntArray, bridge: IntArray, columns: LongArray
    ) -> IntArray:
        """For each of some workers the minutes of power that a need `[start, end)` adds (`lead`, `bridge`: theirs)."""
        self.priced += len(columns)
        total: IntArray = np.zeros(len(columns), dtype=np.int32)
        rows: list[tuple[ShortArray, ShortArray, int]] = []
        for number in range(start // PAGE, (end - 1) // PAGE + 1):
            base = number * PAGE
            page = self._pages.get(number)
            if page is None:
                total += min(end - base, PAGE) - max(start - base, 0)
                if end - base <= PAGE:
                    total += lead
            else:
                gap_start, gap_end = page.start[: page.count], page.end[: page.count]
                rows.append((gap_start.take(columns, axis=1), gap_end.take(columns, axis=1), base))
        if not rows:
            return total
        # all gaps of all days as minutes since `start`, each with the part of the slot that its day covers
        deep = [len(begins) for begins, _, _ in rows]
        days = np.repeat(np.array([base - start for _, _, base in rows], dtype=np.int32), deep)[:, None]
        begins = np.concatenate([one for one, _, _ in rows]) + days
        ends = np.concatenate([one for _, one, _ in rows]) + days
        inside = np.minimum(ends, np.minimum(days + PAGE, end - start))
        inside -= np.maximum(begins, np.maximum(days, 0))
        hit = inside > 0
        total += np.add.reduce(np.maximum(inside, 0, out=inside), axis=0, dtype=np.int32)
        begun = hit & ((begins >= days) | (days <= 0))  # a gap of the day before is counted there
        total -= lead * np.add.reduce(begun, axis=0, dtype=np.int32)
        if rows[0][2] <= start:
            before = -begins[: deep[0]]
            total += _rest(before, hit[: deep[0]], lead, bridge)
        if end <= rows[-1][2] + PAGE:
            after = ends[-deep[-1] :] - (end - start)
            total += _rest(after, hit[-deep[-1] :], lead, bridge)
        return total

    def idle(self, start: Minute, end: Minute, columns: LongArray) -> BoolArray:
        """For each of some workers whether it is off at any minute of `[start, end)`: then the span adds power."""
        off = np.zeros(len(columns), dtype=np.bool_)
        for number in range(start // PAGE, (end - 1) // PAGE + 1):
            page = self._pages.get(number)
            if page is None:
                off[:] = True
                return off
            base = number * PAGE
            begins, ends = page.start[: page.count].take(columns, axis=1), page.end[: page.count].take(columns, axis=1)
            met = (begins < min(end - base, PAGE)) & (ends > max(start - base, 0))
            off |= np.logical_or.reduce(met, axis=0)
        return off

    def ready(self, now: Minute, lead: IntArray, boot: IntArray) -> IntArray:
        """For each worker the first minute from `now` on at which it can be ready, if it keeps to its duties."""
        booted: IntArray = np.full(self.columns, now, dtype=np.int32)
        off = np.zeros(self.columns, dtype=np.bool_)
        today = now // PAGE
        for number in (today - 1, today):
            page = self._pages.get(number)
            if page is None:
                off |= number == today
                continue
            at = now - number * PAGE
            for gap_start, gap_end in zip(page.start[: page.count], page.end[: page.count], strict=True):
                power_on = gap_end - lead
                began = (gap_end < _FAR) & (power_on <= at)
                np.maximum(booted, np.where(began, power_on + (boot + number * PAGE), now), out=booted)
                off |= (gap_start <= at) & (at < power_on) & (gap_start < _FAR)
        return np.where(off, now + boot, booted).astype(np.int32)

    def _own(self, number: int) -> GapPage:
        page = self._pages.get(number)
        if page is None:
            page = GapPage(self._owner, self.columns, self.reach)
            self._pages[number] = page
        elif page.owner is not self._owner:
            page = page.clone(self._owner)
            self._pages[number] = page
        return page


def _rest(rest: IntArray, hit: BoolArray, lead: IntArray, bridge: IntArray) -> IntArray:
    """What remains of a gap before or after a slot: bridged (the worker stays on), or the price of one more lead."""
    minutes = np.add.reduce(rest * (hit & (rest >= 0)), axis=0, dtype=np.int32)
    return np.where(minutes <= bridge, minutes, lead)


def _gaps_between(duties: list[Span], base: Minute, reach: int) -> list[Span]:
    """Gaps that meet the day beginning at `base`, as offsets, cut at `reach` outside it."""
    index = bisect_left(duties, (base,))
    if index and duties[index - 1].end > base:
        index -= 1
    gaps: list[Span] = []
    begin = -reach if index == 0 else max(duties[index - 1].end - base, -reach)
    while begin < PAGE:
        if index == len(duties):
            gaps.append(Span(begin, PAGE + reach))
            break
        duty = duties[index]
        close = min(duty.start - base, PAGE + reach)
        if close > max(begin, 0):
            gaps.append(Span(begin, close))
        begin = duty.end - base
        index += 1
    return gaps
