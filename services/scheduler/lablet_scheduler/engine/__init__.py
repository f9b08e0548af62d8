"""The placement engine: a pure library that books seats on workers over time, and explains itself.

No I/O, no clock of its own (callers pass `now`), deterministic: the same input gives the same output. Times are whole
minutes (`to_minute`, `from_minute`), spans half-open.

    calendar = Calendar([PoolPolicy("default")], [WorkerView("w-1", "default", 8, 32, 100)])
    decision = place(calendar, PlacementRequest("rsv-1", "default", Demand(cpu_cores=2), start, end, seats=2, now=now))
    if isinstance(decision, Placement):
        calendar.book_all(decision.bookings())

**Calendar** — `Calendar(policies, workers)`: `put_worker(view)`, `remove_worker(name)`, `put_policy(policy)`,
`book(booking)`, `book_all(bookings)` (ValueError when a booking does not fit and `force` is False), `release(reservation,
seat=None)`, `replace(booking)`, `booking(reservation, seat)`, `of(reservation)`, `on_worker(name, start, end)`, `copy()`.
**Deciding** — `place(calendar, request) -> Placement | Refusal`; `earliest(calendar, request, after, horizon) ->
Minute | None` (and `place_earliest(…) -> Placement | Refusal`); `explain(calendar, request, horizon) -> Explanation`.
**Changing** — `extend(calendar, reservation, new_end) -> Extension`, `shorten(calendar, reservation, new_end)`,
`move(calendar, reservation, start, end, now) -> Placement | Refusal`, `overrun(calendar, reservation, seat, until, now)
-> Overrun`.
**Healing** — `heal(calendar, lost_workers, now) -> Plan`, `vacate(calendar, worker, span, now) -> Plan`, `Plan.apply(calendar)`.
**Waiting** — `retry(calendar, waiting, now) -> list[Retried]`.
**Power** — `power_spans(calendar, worker) -> list[Span]`.

What it does not do: it keeps no history, reads no quotas and writes nothing anywhere.
"""
