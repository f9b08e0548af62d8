"""What is asked of workers, instances, pools and templates: decided once, from what is true, and the same when repeated."""

from typing import Any

from lablet_common.resources.kinds import POOL, RESERVATION, TEMPLATE, WORKER, inbox_key
from lablet_common.resources.reservation import ReservationPhase

SHAPE = {
    "instanceType": "sim",
    "capacity": {"cpuCores": 8, "memoryGb": 16, "storageGb": 100},
    "license": "ENTERPRISE",
    "maxNodes": 20,
}


async def outcome(fleet: Any, *arguments: Any, **more: Any) -> tuple[str, str]:
    request = await fleet.ask(*arguments, **more)
    problem = request.status.problem
    return str(request.phase), problem.type.rpartition("/")[2] if problem else request.status.reason


async def test_a_cordon_stands_until_it_is_taken_away_and_twice_is_once(fleet: Any) -> None:
    assert await outcome(fleet, "worker", "cordon", "default-001", {"reason": "disk"}) == ("Decided", "Cordoned")
    cordoned = await fleet.worker()
    assert (cordoned.spec.unschedulable.reason, cordoned.spec.unschedulable.by) == ("disk", "op")
    again = await outcome(fleet, "worker", "cordon", "default-001", {"reason": "disk"})
    assert again == ("Decided", "AlreadyCordoned")
    assert (await fleet.worker()).revision == cordoned.revision
    assert await outcome(fleet, "worker", "uncordon", "default-001") == ("Decided", "Uncordoned")
    assert await outcome(fleet, "worker", "uncordon", "default-001") == ("Decided", "NotCordoned")
    assert (await fleet.worker()).spec.unschedulable is None


async def test_a_drain_books_a_span_and_cordons_and_its_cancel_undoes_both(fleet: Any) -> None:
    assert await outcome(fleet, "worker", "drain", "default-001", {"deadlineMinutes": 30}) == ("Decided", "DrainBooked")
    assert await outcome(fleet, "worker", "drain", "default-001", {"deadlineMinutes": 30}) == (
        "Decided",
        "AlreadyDraining",
    )
    drained = await fleet.worker()
    (span,) = drained.spec.maintenance
    assert (span.to - span.frm).total_seconds() == 1800
    assert drained.spec.unschedulable is not None
    assert await outcome(fleet, "worker", "drain-cancel", "default-001") == ("Decided", "DrainCancelled")
    assert (await fleet.worker()).spec.maintenance == ()
    assert await outcome(fleet, "worker", "drain-cancel", "default-001") == ("Decided", "NotDraining")


async def test_a_drain_later_does_not_cordon_now(fleet: Any) -> None:
    later = {"at": "2027-03-01T20:00:00Z", "until": "2027-03-01T22:00:00Z"}
    await fleet.ask("worker", "drain", "default-001", later)
    assert (await fleet.worker()).spec.unschedulable is None
    assert len((await fleet.worker()).spec.maintenance) == 1


async def test_a_span_that_ends_before_it_begins_is_refused(fleet: Any) -> None:
    wrong = {"at": "2027-03-01T20:00:00Z", "until": "2027-03-01T19:00:00Z"}
    assert await outcome(fleet, "worker", "drain", "default-001", wrong) == ("Refused", "invalid-span")


async def test_what_does_not_exist_is_refused_by_name(fleet: Any) -> None:
    assert await outcome(fleet, "worker", "cordon", "default-009", {"reason": "x"}) == ("Refused", "unknown-worker")
    assert await outcome(fleet, "instance", "stop", "ins-none-1") == ("Refused", "unknown-instance")


async def test_an_instance_that_is_not_running_cannot_be_collected(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(30)
    assert await outcome(fleet, "instance", "collect", "ins-a-1") == ("Refused", "illegal-transition")


async def test_an_instance_that_waits_can_be_stopped(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(30)
    assert await outcome(fleet, "instance", "stop", "ins-a-1") == ("Decided", "StopRequested")
    assert await fleet.phase() == "Terminated"
    await fleet.at(70)
    assert fleet.provider.power_ons == []


async def test_a_pool_is_made_changed_and_deleted_with_its_workers(fleet: Any) -> None:
    body = {"spec": {"template": "sim", "max": 3}}
    assert await outcome(fleet, "pool", "apply", "lab", body, shard="-") == ("Decided", "Created")
    assert await outcome(fleet, "pool", "apply", "lab", body, shard="-") == ("Decided", "Unchanged")
    bigger = {"spec": {"template": "sim", "max": 5}, "labels": {"site": "b"}}
    assert await outcome(fleet, "pool", "apply", "lab", bigger, shard="-") == ("Decided", "Changed")
    assert (await fleet.all(POOL).get("lab")).metadata.labels == {"site": "b"}
    assert await outcome(fleet, "pool", "delete", "default", shard="-") == ("Decided", "Deleted")
    assert await fleet.all(POOL).get("default") is None
    assert (await fleet.all(WORKER).list()).items == ()
    assert await outcome(fleet, "pool", "delete", "default", shard="-") == ("Decided", "AlreadyDeleted")


async def test_a_pool_with_a_booking_or_a_worker_that_is_on_is_not_deleted(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    assert await outcome(fleet, "pool", "delete", "default", shard="-") == ("Refused", "in-use")
    await fleet.at(50)
    await fleet.cancel("a")
    assert await fleet.all(POOL).get("default") is not None


async def test_a_pool_in_which_somebody_waits_is_not_deleted(fleet: Any) -> None:
    booked = await fleet.book("a", 60, 120)
    waits = booked.model_copy(
        update={"status": booked.status.model_copy(update={"phase": ReservationPhase.WAITLISTED, "placement": ()})}
    )
    kept = await fleet.all(RESERVATION).update(waits)
    assert await outcome(fleet, "pool", "delete", "default", shard="-") == ("Refused", "in-use")
    gone = kept.model_copy(update={"status": kept.status.model_copy(update={"phase": ReservationPhase.CANCELLED})})
    await fleet.all(RESERVATION).update(gone)
    pointer = inbox_key("scheduler", "default", "req-undecided")
    await fleet.store.put(pointer, b"{}")
    assert await outcome(fleet, "pool", "delete", "default", shard="-") == ("Refused", "in-use")
    await fleet.store.delete(pointer)
    assert await outcome(fleet, "pool", "delete", "default", shard="-") == ("Decided", "Deleted")


async def test_a_pool_of_an_unknown_template_is_refused(fleet: Any) -> None:
    body = {"spec": {"template": "nope", "max": 3}}
    assert await outcome(fleet, "pool", "apply", "lab", body, shard="-") == ("Refused", "unknown-template")


async def test_a_template_is_made_changed_and_deleted_unless_a_pool_uses_it(fleet: Any) -> None:
    assert await outcome(fleet, "template", "apply", "big", {"spec": SHAPE}, shard="-") == ("Decided", "Created")
    assert await outcome(fleet, "template", "apply", "big", {"spec": SHAPE}, shard="-") == ("Decided", "Unchanged")
    changed = SHAPE | {"maxNodes": 40}
    assert await outcome(fleet, "template", "apply", "big", {"spec": changed}, shard="-") == ("Decided", "Changed")
    assert await outcome(fleet, "template", "delete", "big", shard="-") == ("Decided", "Deleted")
    assert await fleet.all(TEMPLATE).get("big") is None
    assert await outcome(fleet, "template", "delete", "sim", shard="-") == ("Refused", "in-use")


async def resize(fleet: Any, size: int) -> None:
    pool = await fleet.all(POOL).require("default")
    await fleet.all(POOL).update(pool.respecified(max=size))
    await fleet.settle()


async def test_a_pool_that_grows_gets_workers_and_one_that_shrinks_keeps_those_that_are_booked(fleet: Any) -> None:
    await resize(fleet, 4)
    assert len((await fleet.all(WORKER).list()).items) == 4
    await fleet.book("a", 60, 120, workers=("default-004",))
    before = await fleet.gate()
    await resize(fleet, 1)
    left = {worker.id: worker for worker in (await fleet.all(WORKER).list()).items}
    assert sorted(left) == ["default-001", "default-004"]
    assert left["default-004"].spec.unschedulable.reason == "pool-shrunk"
    assert await fleet.gate() > before
    await fleet.at(70)
    assert await fleet.phase() == "Running", "what was booked still runs"
    await resize(fleet, 4)
    assert (await fleet.worker(4)).spec.unschedulable is None


async def test_a_decision_that_meets_a_change_is_made_again_from_what_is_true_then(fleet: Any) -> None:
    """The worker changes between the look and the write: the cordon is decided again and nothing is lost."""
    real = fleet.store.txn
    met: list[bool] = []

    async def changed_in_between(compares: Any, *parts: Any) -> Any:
        if not met and any(compare.key == "/workers/default-001" for compare in compares):
            met.append(True)
            worker = await fleet.worker()
            await fleet.all(WORKER).update(worker.respecified(boot_minutes=11))
        return await real(compares, *parts)

    fleet.store.txn = changed_in_between
    assert await outcome(fleet, "worker", "cordon", "default-001", {"reason": "x"}) == ("Decided", "Cordoned")
    worker = await fleet.worker()
    assert met
    assert (worker.spec.boot_minutes, worker.spec.unschedulable.reason) == (11, "x")


async def test_a_region_changes_only_while_the_pool_has_no_machine_and_is_one_of_the_templates(fleet: Any) -> None:
    await outcome(
        fleet, "template", "apply", "far", {"spec": SHAPE | {"regions": ["eu-west-1", "us-east-1"]}}, shard="-"
    )
    wrong = {"spec": {"template": "far", "max": 1, "region": "ap-south-1"}}
    assert await outcome(fleet, "pool", "apply", "lab", wrong, shard="-") == ("Refused", "unknown-region")
    pool = await fleet.all(POOL).require("default")
    moved = {"spec": pool.spec.to_dict() | {"region": "us-east-1"}}
    await fleet.book("a", 60, 90)
    await fleet.at(130)
    assert (await fleet.worker()).phase == "Offline"
    assert await outcome(fleet, "pool", "apply", "default", moved, shard="-") == ("Refused", "in-use")
    await fleet.ask("worker", "replace", "default-001")
    await fleet.at(133)
    assert await outcome(fleet, "pool", "apply", "default", moved, shard="-") == ("Decided", "Changed")


async def test_a_template_changes_its_provider_only_while_its_workers_have_no_machine(fleet: Any) -> None:
    template = await fleet.all(TEMPLATE).require("sim")
    other = {"spec": template.spec.to_dict() | {"provider": "static"}}
    await fleet.book("a", 60, 90)
    await fleet.at(70)
    assert await outcome(fleet, "template", "apply", "sim", other, shard="-") == ("Refused", "in-use")
    bigger = {"spec": template.spec.to_dict() | {"instanceType": "bigger"}}
    assert await outcome(fleet, "template", "apply", "sim", bigger, shard="-") == ("Decided", "Changed")


async def test_a_template_is_kept_while_workers_are_made_of_it_although_their_pool_has_another(fleet: Any) -> None:
    await outcome(fleet, "template", "apply", "next", {"spec": SHAPE}, shard="-")
    pool = await fleet.all(POOL).require("default")
    await fleet.all(POOL).update(pool.respecified(template="next"))
    assert await outcome(fleet, "template", "delete", "sim", shard="-") == ("Refused", "in-use")


async def test_a_pool_with_machines_that_are_off_is_not_deleted(fleet: Any) -> None:
    await fleet.book("a", 60, 90)
    await fleet.at(130)
    await fleet.rebook("a", lambda r: r.moved("Active", at=fleet.clock.now(), by="s", reason="x"))
    await fleet.rebook("a", lambda r: r.moved("Completed", at=fleet.clock.now(), by="s", reason="x"))
    request = await fleet.ask("pool", "delete", "default", shard="-")
    assert "default-001" in request.status.problem.detail
    pool = await fleet.all(POOL).require("default")
    await fleet.all(POOL).update(pool.respecified(max=0))
    await fleet.at(140)
    assert fleet.provider.machines["m-1"].state == "terminated"
