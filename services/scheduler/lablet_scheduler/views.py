"""Resources as the engine sees them, and the engine's answers as resources: the border between the two languages.

Everything here is a pure mapping. Times become whole minutes on the way in (starts rounded down, ends up) and instants
again on the way out.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from lablet_common.process_lab import RUNTIME
from lablet_common.resources.definition import Definition
from lablet_common.resources.instance import Instance, InstancePhase, instance_id
from lablet_common.resources.reservation import Explanation, Reservation, SeatPlacement, SeatState, Slot, Suggestion
from lablet_common.resources.worker import MOST_LEAD_MINUTES, Worker, WorkerPhase, WorkerPool
from lablet_scheduler import engine

ENDED_INSTANCE = InstancePhase.TERMINATED


def policy_of(pool: WorkerPool, licence: str | None) -> engine.PoolPolicy:
    """The engine's policy of a pool; `licence` is the kind its workers hold."""
    spec = pool.spec
    limits: Mapping[str, int] = {}
    if spec.allowed_licenses is not None and licence is not None:
        limits = {licence: spec.allowed_licenses}
    return engine.PoolPolicy(
        pool=pool.id,
        turnaround=_lead(spec.turnaround_minutes),
        grace=_lead(spec.scale_down_grace_minutes),
        preparation=_lead(spec.preparation_minutes),
        reserve=None if spec.boot_reserve_minutes is None else _lead(spec.boot_reserve_minutes),
        spreading=engine.Spreading(spec.policy),
        licence_limits=limits,
    )


def _lead(minutes: int) -> int:
    """No more than the calendar can look around; whoever asks for more now is refused."""
    return min(minutes, MOST_LEAD_MINUTES)


def _version(text: str | None) -> str | None:
    """As it stands, where it can be compared; what cannot is as good as not known, and refuses nobody."""
    if not text:
        return None
    try:
        engine.parse_version(text)
    except ValueError:
        return None
    return text


def worker_view(worker: Worker) -> engine.WorkerView:
    """One logical worker. A failed one takes nothing until its clean-up has made it Offline again."""
    spec, status = worker.spec, worker.status
    on_since = None
    if worker.is_on and status.phase is not WorkerPhase.DRAINING and status.machine is not None:
        on_since = engine.minute_floor(status.machine.launched_at)
    cordon = spec.unschedulable
    return engine.WorkerView(
        name=worker.id,
        pool=spec.pool,
        cpu_cores=spec.capacity.cpu_cores,
        memory_gb=spec.capacity.memory_gb,
        storage_gb=spec.capacity.storage_gb,
        max_nodes=worker.nodes,
        licence=spec.license,
        port_start=spec.port_range.start,
        port_end=spec.port_range.end,
        labels=worker.metadata.labels,
        version=_version(status.version) or _version(spec.runtime_version),
        node_definitions=frozenset(spec.node_definitions) or None,
        unschedulable=cordon is not None,
        unschedulable_until=engine.minute_ceil(cordon.until) if cordon is not None and cordon.until else None,
        maintenance=tuple(
            engine.Span(engine.to_minute(span.frm), engine.to_minute(span.to))
            for span in spec.maintenance
            if span.frm < span.to
        ),
        runtime=spec.runtime,
        failed=status.phase in (WorkerPhase.FAILED, WorkerPhase.TERMINATING) or _is_away(worker),
        boot_minutes=_lead(spec.boot_minutes),
        on_since=on_since,
    )


def _is_away(worker: Worker) -> bool:
    """An agent's host that nobody can switch on from here: it takes nothing before it has come back by itself."""
    return worker.spec.runtime == RUNTIME and not worker.is_on


def demand_of(definition: Definition, selector: Mapping[str, str]) -> engine.Demand:
    """What one seat of the definition needs."""
    spec = definition.spec
    needs = spec.requirements
    return engine.Demand(
        cpu_cores=needs.cpu_cores,
        memory_gb=needs.memory_gb,
        storage_gb=needs.storage_gb,
        nodes=needs.node_count,
        ports=tuple(dict.fromkeys(port.name for port in spec.ports)),
        licences=frozenset(str(kind) for kind in spec.licenses),
        min_version=_version(spec.runtime.min_version),
        max_version=_version(spec.runtime.max_version),
        node_definitions=frozenset(spec.runtime.node_definitions),
        runtime=spec.runtime.name,
        selector=tuple(sorted(selector.items())),
    )


def occupies(instance: Instance) -> bool:
    """Something of it may still be on its worker: it has not ended, nor failed and been cleaned up."""
    return instance.status.phase is not ENDED_INSTANCE and not (
        instance.status.phase is InstancePhase.FAILED and instance.status.released
    )


def bookings_of(
    reservation: Reservation, demand: engine.Demand, instances: Mapping[str, Instance], now: datetime
) -> list[engine.Booking]:
    """What a reservation occupies on the calendar now: its placed seats while it holds capacity, and afterwards every
    seat whose lab is not proven gone. A seat that is over its end stays booked a few minutes beyond `now`.

    A seat that was moved after its lab had failed is booked where it goes from the moment of the decision, not only once
    its instance has followed."""
    slot = reservation.slot
    if slot is None:
        return []
    start, end = engine.to_minute(slot.start), engine.to_minute(slot.end)
    result = []
    for seat in reservation.status.placement:
        instance = instances.get(seat.instance)
        ended = instance is not None and instance.status.phase is ENDED_INSTANCE
        alive = instance is not None and occupies(instance) and instance.spec.worker == seat.worker
        held = reservation.holds_capacity and seat.state is SeatState.PLACED and not ended
        if not held and not alive:
            continue
        beyond = engine.minute_ceil(now) + OVERRUN_MINUTES if alive and now >= slot.end else None
        result.append(
            engine.Booking(
                reservation=reservation.id,
                seat=seat.seat,
                worker=seat.worker,
                start=start,
                end=end,
                demand=demand,
                ports=tuple((name, seat.ports[name]) for name in demand.ports if name in seat.ports),
                occupied_end=beyond,
                priority=reservation.spec.priority,
                started=instance is not None,
            )
        )
    return result


OVERRUN_MINUTES = 5
"""How far beyond the present an overrunning seat is booked, renewed while it lasts."""


def slot_of(placement: engine.Placement) -> Slot:
    request = placement.request
    return Slot(start=engine.from_minute(request.start), end=engine.from_minute(request.end))


def seats_of(
    placement: engine.Placement, reservation_id: str, attempts: Mapping[int, int] | None = None
) -> tuple[SeatPlacement, ...]:
    """The placed seats as the reservation keeps them."""
    return tuple(
        SeatPlacement(
            seat=seat.seat,
            worker=seat.worker,
            ports=dict(seat.ports),
            instance=instance_id(reservation_id, seat.seat),
            attempt=(attempts or {}).get(seat.seat, 1),
        )
        for seat in placement.seats
    )


def explanation_of(answer: engine.Placement | engine.Refusal, earliest: engine.Minute | None = None) -> Explanation:
    """The engine's reasons in the resource's form; `earliest` adds the first slot that would fit."""
    said = answer.explanation
    suggestion = None
    if earliest is not None:
        begin = engine.from_minute(earliest)
        suggestion = Suggestion(start=begin, end=begin + timedelta(minutes=answer.request.minutes))
    nearest = said.nearest
    chosen = None
    if said.choices:
        chosen = {
            choice.worker: {
                "seats": list(choice.seats),
                "addedOnMinutes": choice.added_on_minutes,
                "lateMinutes": choice.late_minutes,
                "fullness": round(choice.fullness, 3),
            }
            for choice in said.choices
        }
    return Explanation(
        summary=said.summary,
        considered=said.considered,
        removed={str(name): count for name, count in said.removed.items()},
        binding=said.binding,
        nearest_miss=None
        if nearest is None
        else {
            "worker": nearest.worker,
            "dimension": nearest.dimension,
            "needed": nearest.needed,
            "free": nearest.free,
        },
        earliest=suggestion,
        chosen=chosen,
    )
