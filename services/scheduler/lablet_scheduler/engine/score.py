"""Which worker is the best: the one documented rule, as a number to be minimised.

`pack`: in time first, then the least added minutes of power (that is the money), then the fuller worker, then the name.
`spread`: in time first, then the emptier worker, then the least added power, then the name. Fullness is the mean share
of cpu, memory, storage and licence nodes in use at the slot's worst minute with the seat in place, in steps of 1/4095.
Where workers differ in size, `pack` counts what is in use on the scale of the largest, and prefers the larger of two
that are equally used: a minute of power counts alike for all, and a small worker that one seat fills is a minute that
hosts nothing more.

Lateness counts up to 2,047 minutes and added power up to two years; beyond, workers tie and the next criterion decides.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .fleet import Fleet, IntArray
from .model import Spreading
from .timeline import Amounts, LongArray

FloatArray = npt.NDArray[np.float64]

REFUSED = int(np.iinfo(np.int64).max)
"""The key of a worker that does not come into question."""

_STEPS = 4095
_SIZE = 1 / 64
"""What the size of a worker counts for beside what is in use on it."""
_RANK_BITS, _FULL_BITS, _ADDED_BITS = 20, 12, 20
_LATE_MOST, _ADDED_MOST = (1 << 11) - 1, (1 << _ADDED_BITS) - 1


def fullness(fleet: Fleet, peaks: IntArray, amounts: Amounts, columns: LongArray) -> FloatArray:
    """Share of each of some workers in use with one more seat (`peaks`: theirs)."""
    needs = np.array(amounts[:4], dtype=np.int32)[:, None]
    share: FloatArray = np.add.reduce((peaks[:4] + needs) * fleet.share.take(columns, axis=1), axis=0)
    return share


def in_use(fleet: Fleet, peaks: IntArray, amounts: Amounts, columns: LongArray) -> FloatArray:
    """What `pack` means by fuller: what is in use with one more seat, on the scale of the largest worker, and a little
    for the worker's size."""
    needs = np.array(amounts[:4], dtype=np.int32)[:, None]
    used: FloatArray = np.add.reduce((peaks[:4] + needs) * fleet.scale.take(columns, axis=1), axis=0)
    used += fleet.size.take(columns) * _SIZE
    used /= 1 + _SIZE
    return used


def keys(spreading: Spreading, late: IntArray | None, added: IntArray, full: FloatArray, rank: LongArray) -> LongArray:
    """The keys of several workers at once."""
    steps = np.minimum(full * _STEPS, _STEPS).astype(np.int64)
    key: LongArray = np.minimum(added, _ADDED_MOST).astype(np.int64)
    if spreading is Spreading.PACK:
        key <<= _FULL_BITS
        key |= _STEPS - steps
        key <<= _RANK_BITS
    else:
        key |= steps << _ADDED_BITS
        key <<= _RANK_BITS
    key |= rank
    if late is not None:
        key |= np.minimum(late, _LATE_MOST).astype(np.int64) << (_ADDED_BITS + _FULL_BITS + _RANK_BITS)
    return key


def key_of(spreading: Spreading, late: int, added: int, full: float, rank: int) -> int:
    """The key of one worker; equal to what `keys` gives for it."""
    steps = int(min(full * _STEPS, _STEPS))
    minutes = min(added, _ADDED_MOST)
    if spreading is Spreading.PACK:
        key = (minutes << (_FULL_BITS + _RANK_BITS)) | ((_STEPS - steps) << _RANK_BITS)
    else:
        key = (steps << (_ADDED_BITS + _RANK_BITS)) | (minutes << _RANK_BITS)
    key |= rank | (min(late, _LATE_MOST) << (_ADDED_BITS + _FULL_BITS + _RANK_BITS))
    return key


def price_of(key: int) -> int:
    """What a worker of a pool that packs costs in a set: a number that may be summed over up to MAX_SEATS workers, lateness
    counting before power and power before emptiness, as in its key."""
    late, minutes = key >> (_ADDED_BITS + _FULL_BITS + _RANK_BITS), key >> (_FULL_BITS + _RANK_BITS) & _ADDED_MOST
    return (late << 60) + (minutes << 30) + (key >> _RANK_BITS & _STEPS)
