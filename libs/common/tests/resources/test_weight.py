"""What a resource weighs in memory, and that nothing else tells a light one from another."""

import copy
import gc
import json
import sys
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from lablet_common.resources import weight
from lablet_common.resources.model import Model
from lablet_common.resources.reservation import Reservation
from lablet_common.resources.weight import lighten

SENTENCE = "1 seat placed; 200 workers had room. default-001 takes seat 1: it adds 78 minutes of power."


def stored(number: int = 1, **labels: str) -> bytes:
    """A placed reservation, as most are."""
    at, worker = "2027-03-01T07:00:00.123456Z", f"default-{number % 50:03}"
    slot = {"start": "2027-03-01T08:00:00Z", "end": "2027-03-01T09:00:00Z"}
    message = f"{SENTENCE} {number}"
    return json.dumps(
        {
            "kind": "Reservation",
            "metadata": {
                "id": f"rsv-{number:030}",
                "uid": f"{number:036}",
                "owner": "teacher",
                "labels": labels or {"course": "ccna-1"},
                "createdAt": at,
                "correlationId": f"req-{number:030}",
            },
            "spec": {"definition": "ospf-basics@1.0.0", "durationMinutes": 60, **slot},
            "status": {
                "phase": "Scheduled",
                "message": message,
                "history": [{"from": "Pending", "to": "Scheduled", "at": at, "by": "/lablet", "reason": "Placed"}],
                "lastFact": {"name": "scheduled", "serial": 1},
                "pool": "default",
                "slot": slot,
                "placement": [{"seat": 1, "worker": worker, "ports": {"r1": 2000, "r2": 2001}, "instance": "ins-1"}],
                "explanation": {"summary": message, "considered": 200, "chosen": {worker: {"seats": [1], "late": 0}}},
            },
        }
    ).encode()


def decoded(value: bytes) -> Reservation:
    return Reservation.model_validate_json(value)


def light(value: bytes) -> Reservation:
    made = decoded(value)
    lighten(made)
    return made


def bytes_each(make: Callable[[bytes], Reservation]) -> float:
    values = [stored(number) for number in range(500)]
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept = [make(value) for value in values]
        return (tracemalloc.get_traced_memory()[0] - before) / len(kept)
    finally:
        tracemalloc.stop()


def test_a_light_reservation_takes_little_more_than_a_third_of_the_memory() -> None:
    light(stored())
    assert bytes_each(light) < bytes_each(decoded) * 0.4


def test_a_light_one_is_equal_and_is_written_alike() -> None:
    plain, made = decoded(stored()), light(stored())
    assert made == plain
    assert made.to_json() == plain.to_json()
    assert made.to_dict() == plain.to_dict()
    assert made.moved("Active", at=datetime(2027, 3, 1, tzinfo=UTC), by="/x", reason="R").phase == "Active"
    assert made.respecified(seats=2).spec.seats == 2


def test_it_becomes_light_in_place_with_all_its_parts() -> None:
    made = decoded(stored())
    parts = (made.metadata, made.status, made.status.placement[0], made.status.history[0])
    heavy = [sys.getsizeof(vars(part)) for part in parts]
    lighten(made)
    assert all(one is other for one, other in zip(parts[:2], (made.metadata, made.status), strict=True))
    assert all(sys.getsizeof(vars(part)) < 0.7 * size for part, size in zip(parts, heavy, strict=True))


def test_names_are_shared_however_many_were_made_before() -> None:
    class Fields(Model):
        one: int
        two: int
        three: int
        four: int

    made = [Fields(one=1, two=2, three=3, four=4) for _ in range(100)]
    heavy = sys.getsizeof(vars(made[0]))
    lighten(made[0])
    assert sys.getsizeof(vars(made[0])) < 0.7 * heavy


def test_what_is_equal_is_one_object() -> None:
    one, other = light(stored(1)), light(stored(51))
    assert one.spec.start is not None
    assert one.status.slot is not None
    assert one.spec.start is other.spec.start is one.status.slot.start
    assert one.metadata.labels is other.metadata.labels
    assert one.status.placement[0].ports is other.status.placement[0].ports
    assert one.status.explanation is not None
    assert one.status.message is one.status.explanation.summary


@pytest.mark.parametrize("field", ["labels", "annotations"])
def test_what_is_shared_refuses_to_be_changed(field: str) -> None:
    shared: dict[str, str] = getattr(light(stored()).metadata, field)
    for change in (
        lambda: shared.update(a="b"), lambda: shared.__setitem__("a", "b"), lambda: shared.pop("course", None),
        lambda: shared.setdefault("a", "b"), shared.clear, shared.popitem, lambda: shared.__ior__({"a": "b"}),
    ):  # fmt: skip
        with pytest.raises(TypeError, match="more than one resource"):
            change()
    assert type(shared | {"a": "b"}) is dict
    assert copy.deepcopy(shared) == shared


def test_numbers_that_only_look_equal_are_not_mixed_up() -> None:
    class Holder(Model):
        what: dict[str, Any]

    for value in (1, True, 1.0, "1"):
        made = Holder(what={"a": value})
        lighten(made)
        assert type(made.what["a"]) is type(value)


def test_only_so_much_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight, "_REMEMBERED", 20)
    for number in range(100):
        light(stored(number, name=f"n-{number}"))
        assert len(weight._same) <= max(20, 1)
