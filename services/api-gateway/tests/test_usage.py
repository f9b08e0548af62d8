"""The usage report: the part of each slot in the span, what of a worker a seat takes, and what that costs."""

import csv
import io
from typing import Any

import pytest

from lablet_common import archive
from lablet_common.resources.definition import Requirements
from lablet_common.resources.kinds import RESERVATION, TEMPLATE, WORKER
from lablet_common.resources.worker import Capacity
from lablet_common.store.repository import Repository
from lablet_gateway.usage import share_of

URL = "/api/v1/usage"
DAY = {"from": "2027-03-01T00:00:00Z", "to": "2027-03-02T00:00:00Z"}


async def _priced(world: Any, price: float = 2.0) -> None:
    """The template costs; a seat of ospf-basics takes a quarter of a worker (5 of 20 nodes)."""
    templates: Repository[Any] = Repository(world.store, TEMPLATE)
    template = await templates.require("simulated")
    await templates.update(template.respecified(cost_per_hour_usd=price))


@pytest.mark.parametrize(
    ("needs", "share"),
    [
        ({"cpu_cores": 8, "memory_gb": 4, "storage_gb": 1, "node_count": 1}, 0.5),
        ({"cpu_cores": 1, "memory_gb": 48, "storage_gb": 1, "node_count": 1}, 0.75),
        ({"cpu_cores": 1, "memory_gb": 4, "storage_gb": 1, "node_count": 20}, 1.0),
        ({"cpu_cores": 1, "memory_gb": 4, "storage_gb": 500, "node_count": 1}, 1.0),
    ],
)
def test_a_seat_takes_what_its_scarcest_dimension_says(needs: dict[str, float], share: float) -> None:
    capacity = Capacity(cpu_cores=16, memory_gb=64, storage_gb=200)
    assert share_of(Requirements(**needs), capacity, 20) == pytest.approx(share)


async def test_hours_and_cost_follow_from_seats_and_template(world: Any) -> None:
    await _priced(world)
    await world.add(world.reservation("rsv-a"), world.reservation("rsv-b", phase="Cancelled"))
    told = (await world.client().get(URL, params=DAY)).json()
    assert told["reservations"] == {"Cancelled": 1, "Scheduled": 1}
    assert (told["seats"], told["seatHours"], told["workerHours"], told["costUsd"]) == (2, 4.0, 1.0, 2.0)
    assert told["definitions"] == [
        {"definition": "ospf-basics@1.0.0", "reservations": 1, "seats": 2, "seatHours": 4.0, "workerHours": 1.0,
         "costUsd": 2.0}
    ]  # fmt: skip


async def test_only_the_part_of_the_slot_in_the_span_counts(world: Any) -> None:
    await _priced(world)
    await world.add(world.reservation("rsv-a"))  # 09:00 to 11:00
    half = {"from": "2027-03-01T10:00:00Z", "to": "2027-03-01T12:00:00Z"}
    told = (await world.client().get(URL, params=half)).json()
    assert (told["seatHours"], told["costUsd"]) == (2.0, 1.0)


async def test_what_is_archived_counts_and_what_stands_in_both_counts_once(world: Any) -> None:
    await _priced(world)
    gone, both = (world.reservation(name, phase="Completed").at_revision(7) for name in ("rsv-gone", "rsv-both"))
    files = [gone, both]
    await world.objects.put(archive.file_key(RESERVATION, files), archive.pack(files), archive.MEDIA_TYPE)
    await world.add(world.reservation("rsv-both", phase="Completed"))
    told = (await world.client().get(URL, params=DAY)).json()
    assert told["reservations"] == {"Completed": 2}
    assert told["costUsd"] == 4.0
    assert (await world.client("admin@acme").get(URL, params=DAY)).json()["reservations"] == {}


async def test_seats_on_workers_that_are_not_known_any_more_are_told_apart(world: Any) -> None:
    await world.add(world.reservation("rsv-a"))
    workers: Repository[Any] = Repository(world.store, WORKER)
    await workers.delete(await workers.require("default-001"))
    told = (await world.client().get(URL, params=DAY)).json()
    assert (told["seatHours"], told["unpricedSeatHours"], told["costUsd"]) == (4.0, 4.0, 0.0)


async def test_the_same_report_as_a_table_for_a_spreadsheet(world: Any) -> None:
    await _priced(world)
    await world.add(world.reservation("rsv-a"))
    answer = await world.client().get(URL, params=DAY | {"format": "csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="usage-default-20270301-20270302.csv"'
    one, total = csv.DictReader(io.StringIO(answer.text))
    assert (one["definition"], one["seatHours"], one["costUsd"]) == ("ospf-basics@1.0.0", "4.0", "2.0")
    assert (total["definition"], total["reservations"], total["workerHours"]) == ("", "1", "1.0")


async def test_a_span_that_is_empty_or_too_long_is_refused(world: Any) -> None:
    client = world.client()
    for query, field in (
        ({"from": DAY["to"], "to": DAY["from"]}, "to"),
        ({**DAY, "from": "2025-01-01T00:00:00Z"}, "from"),
    ):
        answer = await client.get(URL, params=query)
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, field)
    assert (await client.get(URL, params={"format": "xml"})).status_code == 422
