"""Who has room for a seat in a slot: a coarse look at everybody, an exact one at those who remain.

Most workers of a busy pool are full at some instant that is known without a search: on a day that the slot covers
whole, by the day's peak; on another, by what is in use as the day begins. One dimension, the scarcest for the demand,
is asked of everybody, the others of who is left; the segments of a day are looked at for those alone. The result is
exact, the work follows the number of workers that have room.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .fleet import BoolArray, Eligibility, IntArray
from .timeline import ROWS, LongArray, Slice, Timeline


def with_room(
    timeline: Timeline, eligibility: Eligibility, parts: Sequence[Slice], wanted: int, candidates: BoolArray
) -> tuple[LongArray, IntArray, IntArray]:
    """The columns of the candidates that can take a seat, how many each (up to those wanted), and the peaks of their use,
    by row."""
    columns, limits = _coarse(timeline, eligibility, parts, candidates)
    peaks: IntArray = np.zeros(limits.shape, dtype=np.int32)
    for part in parts:
        timeline.scanned += part.cells(len(columns))
        now = part.peaks(columns)
        fit = np.flatnonzero((now <= limits).all(axis=0))
        if len(fit) < len(columns):  # who is full on this day is not looked at on the next
            columns, limits = columns[fit], limits.take(fit, axis=1)
            peaks, now = peaks.take(fit, axis=1), now.take(fit, axis=1)
        np.maximum(peaks, now, out=peaks)
    limits -= peaks
    if not parts:
        fit = np.flatnonzero((limits >= 0).all(axis=0))  # nothing is booked, but some may be too small even so
        columns, limits, peaks = columns[fit], limits.take(fit, axis=1), peaks.take(fit, axis=1)
    if wanted == 1 or not len(columns):
        return columns, np.ones(len(columns), dtype=np.int32), peaks
    needs = np.maximum(eligibility.needs, 1)[:, None]
    seats: IntArray = np.minimum.reduce(limits // needs, axis=0)
    seats += 1  # the limits leave room for one
    return columns, np.minimum(seats, wanted, out=seats), peaks


def _coarse(
    timeline: Timeline, eligibility: Eligibility, parts: Sequence[Slice], candidates: BoolArray
) -> tuple[LongArray, IntArray]:
    """The candidates that the coarse look cannot refuse, and their limits."""
    scarcest = eligibility.scarcest
    limit = eligibility.limits[scarcest]
    floors = [floor for floor in (part.floor() for part in parts) if floor is not None]
    keep = candidates
    if floors:
        for floor in floors:
            keep = keep & (floor[scarcest] <= limit)
    else:
        for part in parts:
            timeline.scanned += part.cells(len(limit)) // ROWS
            keep = keep & (part.peak_of(scarcest) <= limit)
    columns: LongArray = np.flatnonzero(keep)
    limits = eligibility.limits.take(columns, axis=1)
    for floor in floors:
        fits = np.flatnonzero((floor.take(columns, axis=1) <= limits).all(axis=0))
        columns, limits = columns[fits], limits.take(fits, axis=1)
    return columns, limits
