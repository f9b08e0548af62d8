"""The workers as columns: what they have, and which of them a demand may use at all, whatever the time.

Each worker keeps its column for as long as it exists; a removed worker's column is given to the next new one. Results
of the timeless filters are remembered per demand until a worker changes, so that the thousandth reservation of a
definition pays nothing for them, and they are asked once for all workers that are alike, so that the first pays little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from .model import MAX_SEATS, Demand, Filter, Minute, WorkerView, scaled_capacity, scaled_demand
from .timeline import ROWS, Amounts
from .versions import in_range

UNLIMITED = 2**30
"""Capacity of a dimension without a limit."""

REMEMBERED = 500_000
"""Demands times workers for which the timeless filters' results are kept (some 30 bytes each)."""

BLOCKED = 2**20
"""What a maintenance span uses of the last row: more than anything that fits beside it."""

IntArray = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]


@lru_cache(maxsize=4096)
def amounts_of(demand: Demand) -> Amounts:
    """What a seat uses of each row of the timeline."""
    return (
        scaled_demand(demand.cpu_cores),
        scaled_demand(demand.memory_gb),
        scaled_demand(demand.storage_gb),
        demand.nodes,
        len(demand.ports),
        0,
    )


def capacity_of(view: WorkerView) -> Amounts:
    """What a worker has of each row of the timeline."""
    return (
        min(scaled_capacity(view.cpu_cores), UNLIMITED),
        min(scaled_capacity(view.memory_gb), UNLIMITED),
        min(scaled_capacity(view.storage_gb), UNLIMITED),
        UNLIMITED if view.max_nodes is None else min(view.max_nodes, UNLIMITED),
        view.port_end - view.port_start + 1,
        BLOCKED - 1,
    )


@dataclass(frozen=True, slots=True)
class Eligibility:
    """Which workers a demand may use at all, and how many each filter removed."""

    allowed: BoolArray
    """Workers that no timeless filter removes."""
    considered: int
    """Workers looked at."""
    removed: Mapping[str, int]
    ever: BoolArray
    """As `allowed`, but with those that are only failed at the moment."""
    seats_when_empty: IntArray
    """Seats that each worker of `ever` could take if nothing were booked."""
    needs: IntArray
    """What a seat needs of each row, with 1 in the row that maintenance fills."""
    limits: IntArray
    """By row, the most that may be in use beside one seat: −1 on workers that are not allowed, no limit where nothing is
    needed."""
    scarcest: int
    """The row of which a seat needs the largest share."""


@dataclass
class Fleet:
    """Names, capacities and states of all workers, by column."""

    columns: dict[str, int] = field(default_factory=dict)
    views: list[WorkerView | None] = field(default_factory=list)
    width: int = 0
    """Columns for which there is room."""

    def __post_init__(self) -> None:
        self.capacity: IntArray = np.zeros((ROWS, self.width), dtype=np.int32)
        self.share: npt.NDArray[np.float64] = np.zeros((4, self.width), dtype=np.float64)
        """Per dimension but ports: what one unit is of the worker's fullness."""
        self.lead: IntArray = np.zeros(self.width, dtype=np.int32)
        self.bridge: IntArray = np.zeros(self.width, dtype=np.int32)
        self.boot: IntArray = np.zeros(self.width, dtype=np.int32)
        self.ready: IntArray = np.full(self.width, -1, dtype=np.int32)
        """When a worker that is on was or will be ready; −1: it is off."""
        self.free_columns: list[int] = []
        self._rank: npt.NDArray[np.int64] | None = None
        self._scale: npt.NDArray[np.float64] | None = None
        self._size: npt.NDArray[np.float64] | None = None
        self._eligible: dict[tuple[str, Demand], Eligibility] = {}
        self.kind: IntArray = np.full(self.width, -1, dtype=np.int32)
        """For each column which kind of worker it is, as the timeless filters see it; −1: none."""
        self._kinds: dict[tuple[object, ...], int] = {}
        self._samples: list[WorkerView] = []
        """One worker of each kind."""
        self._cordoned: dict[int, Minute | None] | None = None
        self._longest_lead: int | None = None

    def copy(self) -> Fleet:
        """An independent fleet (views are shared: they never change)."""
        twin = Fleet.__new__(Fleet)
        twin.__dict__.update(self.__dict__)
        twin.columns = self.columns.copy()
        twin.views = self.views.copy()
        twin.capacity = self.capacity.copy()
        twin.share = self.share.copy()
        twin.lead = self.lead.copy()
        twin.bridge = self.bridge.copy()
        twin.boot = self.boot.copy()
        twin.ready = self.ready.copy()
        twin.free_columns = self.free_columns.copy()
        twin._eligible = self._eligible.copy()
        twin.kind = self.kind.copy()
        twin._kinds = self._kinds.copy()
        twin._samples = self._samples.copy()
        return twin

    def put(self, view: WorkerView, lead: int, bridge: int, width: int) -> int:
        """Adds or replaces a worker; `width` is the number of columns that the timeline has room for."""
        column = self.columns.get(view.name)
        if column is None:
            column = self.free_columns.pop() if self.free_columns else len(self.views)
            if column == len(self.views):
                self.views.append(None)
            self.columns[view.name] = column
            self._rank = None
        self._widen(width)
        self.views[column] = view
        capacity = capacity_of(view)
        self.capacity[:, column] = capacity
        limited = [i for i in range(4) if 0 < capacity[i] < UNLIMITED]
        self.share[:, column] = 0.0
        for i in limited:
            self.share[i, column] = 1.0 / (capacity[i] * len(limited))
        self.lead[column] = lead
        self.bridge[column] = bridge
        self.boot[column] = view.boot_minutes
        self.ready[column] = -1 if view.on_since is None else view.on_since + view.boot_minutes
        self._scale = self._size = None
        kind = self._kind_of(view)
        if kind != self.kind[column]:
            self.kind[column] = kind
            self._eligible.clear()
        self._cordoned = None
        self._longest_lead = None
        return column

    def remove(self, name: str) -> int:
        """Takes a worker out and returns its column, which is free from now on."""
        column = self.columns.pop(name)
        self.views[column] = None
        self.capacity[:, column] = 0
        self.kind[column] = -1
        self.free_columns.append(column)
        self._scale = self._size = None
        self._eligible.clear()
        self._cordoned = None
        self._rank = None
        return column

    def view(self, column: int) -> WorkerView:
        """The worker of a column. Raises LookupError when it has none."""
        view = self.views[column]
        if view is None:
            raise LookupError(f"column {column} has no worker")
        return view

    @property
    def rank(self) -> npt.NDArray[np.int64]:
        """For each column the place of its worker's name among all names."""
        if self._rank is None or len(self._rank) != self.width:
            rank = np.zeros(self.width, dtype=np.int64)
            for place, name in enumerate(sorted(self.columns)):
                rank[self.columns[name]] = place
            self._rank = rank
        return self._rank

    @property
    def scale(self) -> npt.NDArray[np.float64]:
        """As `share`, but of the most that any worker has: by dimension (but ports) and column."""
        if self._scale is None or self._scale.shape[1] != self.width:
            limited = (self.capacity[:4] > 0) & (self.capacity[:4] < UNLIMITED)
            most = np.where(limited, self.capacity[:4], 0).max(axis=1, initial=1)[:, None]
            self._scale = np.where(limited, 1.0 / (most * np.maximum(limited.sum(axis=0), 1)), 0.0)
        return self._scale

    @property
    def size(self) -> npt.NDArray[np.float64]:
        """For each column how large its worker is beside the largest, 0 to 1, the mean of its limited dimensions."""
        scale = self.scale
        if self._size is None:
            self._size = (np.where(scale > 0, self.capacity[:4], 0) * scale).sum(axis=0)
        return self._size

    @property
    def longest_lead(self) -> int:
        """The longest lead of any worker: a slot that begins later is in nobody's boot time."""
        if self._longest_lead is None:
            self._longest_lead = int(self.lead.max(initial=0))
        return self._longest_lead

    @property
    def cordoned(self) -> dict[int, Minute | None]:
        """Column → the minute until which no slot may start there (None: without an end)."""
        if self._cordoned is None:
            self._cordoned = {
                column: view.unschedulable_until
                for column, view in enumerate(self.views)
                if view is not None and view.unschedulable
            }
        return self._cordoned

    def eligible(self, pool: str, demand: Demand) -> Eligibility:
        """The timeless filters' result for a demand in a pool."""
        key = (pool, demand)
        found = self._eligible.get(key)
        if found is None:
            if len(self._eligible) * self.width >= REMEMBERED:
                self._eligible.clear()
            found = self._eligible[key] = self._judge(pool, demand)
        return found

    def _kind_of(self, view: WorkerView) -> int:
        key = (
            view.pool,
            frozenset(view.labels.items()),
            view.runtime,
            view.licence,
            view.version,
            view.node_definitions,
            view.max_nodes,
            capacity_of(view),
            view.failed,
        )
        found = self._kinds.get(key)
        if found is None:
            found = self._kinds[key] = len(self._samples)
            self._samples.append(view)
        return found

    def _judge(self, pool: str, demand: Demand) -> Eligibility:
        there = self.kind[self.kind >= 0]
        workers_of: list[int] = np.bincount(there, minlength=len(self._samples)).tolist()
        allowed = np.zeros(len(self._samples) + 1, dtype=np.bool_)  # the last one is for columns without a worker
        ever = np.zeros(len(self._samples) + 1, dtype=np.bool_)
        empty = np.zeros(len(self._samples) + 1, dtype=np.int32)
        removed: dict[str, int] = {}
        amounts = amounts_of(demand)
        for kind, (view, count) in enumerate(zip(self._samples, workers_of, strict=True)):
            if not count:
                continue
            reason = Filter.POOL if view.pool != pool else unfit(view, demand, amounts)
            if reason is None:
                ever[kind] = True
                capacity = capacity_of(view)
                seats = [have // need for have, need in zip(capacity, amounts, strict=True) if need]
                empty[kind] = min([*seats, MAX_SEATS])
                if not view.failed:
                    allowed[kind] = True
                    continue
                reason = Filter.FAILED
            removed[reason] = removed.get(reason, 0) + count
        needs = np.array([*amounts[:-1], 1], dtype=np.int32)
        limits = np.where(allowed[self.kind], self.capacity - needs[:, None], np.int32(-1))
        limits[needs == 0] = np.iinfo(np.int32).max
        scarcest = int((needs / np.maximum(self.capacity.max(axis=1, initial=1), 1)).argmax())
        limits[scarcest, ~allowed[self.kind]] = -1
        return Eligibility(
            allowed=allowed[self.kind],
            considered=len(there),
            removed=removed,
            ever=ever[self.kind],
            seats_when_empty=empty[self.kind],
            needs=needs,
            limits=limits,
            scarcest=scarcest,
        )

    def _widen(self, width: int) -> None:
        if width <= self.width:
            return
        more = width - self.width
        self.capacity = np.concatenate([self.capacity, np.zeros((ROWS, more), dtype=np.int32)], axis=1)
        self.share = np.concatenate([self.share, np.zeros((4, more))], axis=1)
        self.lead = np.concatenate([self.lead, np.zeros(more, dtype=np.int32)])
        self.bridge = np.concatenate([self.bridge, np.zeros(more, dtype=np.int32)])
        self.boot = np.concatenate([self.boot, np.zeros(more, dtype=np.int32)])
        self.ready = np.concatenate([self.ready, np.full(more, -1, dtype=np.int32)])
        self.kind = np.concatenate([self.kind, np.full(more, -1, dtype=np.int32)])
        self.width = width
        self._rank = None
        self._scale = self._size = None


def unfit(view: WorkerView, demand: Demand, amounts: Amounts) -> Filter | None:
    """The first timeless filter that refuses a worker to a demand for ever; None when it would do."""
    if any(view.labels.get(label) != value for label, value in demand.selector):
        return Filter.SELECTOR
    if demand.runtime != view.runtime:
        return Filter.RUNTIME
    if demand.licences and view.licence not in demand.licences:
        return Filter.LICENCE
    if view.version is not None and not in_range(view.version, demand.min_version, demand.max_version):
        return Filter.VERSION
    if view.node_definitions is not None and not demand.node_definitions <= view.node_definitions:
        return Filter.NODE_DEFINITIONS
    if view.max_nodes is not None and demand.nodes > view.max_nodes:
        return Filter.NODE_LIMIT
    capacity = capacity_of(view)
    if any(need > have for need, have in zip(amounts, capacity, strict=True)):
        return Filter.SIZE
    return None
