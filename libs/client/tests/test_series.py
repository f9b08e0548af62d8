"""A term of classes from the command line and the SDK: shown before it is booked, changed and cancelled by date."""

import json

import httpx
import pytest

from lablet_common.resources.series import Series
from lablet_common.terms import SeriesCreate

TERM = ("reserve", "ospf-basics", "-n", "2", "-s", "2027-03-23 09:00", "-d", "2h", "--repeat", "FREQ=WEEKLY;COUNT=2",
        "--timezone", "Europe/Berlin")  # fmt: skip
SLOTS = {"2027-03-23": ("2027-03-23T08:00:00Z", "2027-03-23T10:00:00Z"),
         "2027-03-30": ("2027-03-30T07:00:00Z", "2027-03-30T09:00:00Z")}  # fmt: skip


def dates(**more):
    return [{"date": date, "start": start, "end": end, **more} for date, (start, end) in SLOTS.items()]


def series(phase="Placed", **status):
    placed = [one | {"reservation": f"rsv-{one['date']}", "pool": "default", "state": "placed"} for one in dates()]
    return {
        "kind": "Series",
        "metadata": {"id": "ser-a", "uid": "u", "createdAt": "2027-03-01T08:00:00Z", "resourceVersion": "7"},
        "spec": {
            "rule": "FREQ=WEEKLY;COUNT=2",
            "timezone": "Europe/Berlin",
            "first": "2027-03-23T08:00:00Z",
            "template": {"definition": "ospf-basics@1.0.0", "seats": 2, "durationMinutes": 120},
        },
        "status": {"phase": phase, "pool": "default", "occurrences": placed} | status,
    }


def rehearsal(fits=(True, True)):
    told = [one | {"fits": fit, "pool": "default", "reason": "needs 8 cpu, 4 are free"}
            for one, fit in zip(dates(), fits, strict=True)]  # fmt: skip
    return {"dates": told, "granted": all(fits), "workerHoursAdded": 5.0, "costAddedUsd": 2.5}


@pytest.fixture
def booking(lablet, scripted):
    """The command; the dry run and the booking are answered as `rehearsal` and `series` say."""
    lablet.rehearsed = rehearsal()

    def answer(request: httpx.Request) -> httpx.Response:
        dry = request.url.params.get("dryRun") == "true"
        return httpx.Response(200, json=lablet.rehearsed) if dry else httpx.Response(201, json=series())

    scripted.on("POST", "/series", answer)
    scripted.on("GET", "/clock", {"now": "2027-03-01T08:00:00Z", "speed": 1})
    return lablet


def test_every_date_is_shown_with_its_fit_before_the_term_is_booked(booking, scripted):
    shown = booking(*TERM, "--except", "2027-04-06", stdin="y\n")
    assert "Tue 23 Mar 2027 09:00–11:00" in shown
    assert "Tue 30 Mar 2027 09:00–11:00" in shown, "at nine after the clocks have changed"
    assert "2 of 2 fit" in shown
    assert "+5 worker-hours" in shown
    assert "rsv-2027-03-30" in shown
    asked, booked = (json.loads(request.content) for request in scripted.sent("POST", "/series"))
    assert asked == booked
    assert (booked["start"], booked["durationMinutes"], booked["exceptDates"], booked["mode"]) == (
        "2027-03-23T08:00:00Z", 120, ["2027-04-06"], "all",
    )  # fmt: skip


@pytest.mark.parametrize("typed", ["n\n", ""])
def test_whoever_does_not_say_yes_books_nothing(booking, scripted, typed):
    booking(*TERM, stdin=typed, code=1)
    assert len(scripted.sent("POST", "/series")) == 1


def test_yes_books_without_asking(booking, scripted):
    booking(*TERM, "--yes", "-o", "json")
    (request,) = scripted.sent("POST", "/series")
    assert "dryRun" not in request.url.params


def test_a_date_that_does_not_fit_is_named_and_how_to_book_the_others(booking, scripted):
    booking.rehearsed = rehearsal((True, False))
    shown = booking(*TERM, code=1)
    assert "needs 8 cpu, 4 are free" in shown
    assert "1 of 2 dates do not fit; --fits books the others" in booking.stderr
    assert len(scripted.sent("POST", "/series")) == 1


def test_a_dry_run_books_nothing(booking, scripted):
    assert json.loads(booking(*TERM, "--dry-run", "-o", "json"))["granted"] is True
    assert len(scripted.sent("POST", "/series")) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [(("--timezone", "Europe/Nowhere"), "there is no zone"), (("--wait",), "--repeat needs --start and goes without"),
     (("--except", "next tuesday"), "--except: 'next tuesday' is no date"),
     (("--roster", "/dev/null", "--label", "a=" + "b" * 300), "labels.a")],
)  # fmt: skip
def test_what_makes_no_sense_is_said_before_anything_is_sent(booking, scripted, more, said):
    booking(*TERM, *more, code=2)
    assert said in booking.stderr
    assert not scripted.sent("POST", "/series")


def request(answer):
    meta = {"id": "req-1", "uid": "u", "createdAt": "2027-03-01T08:00:00Z"}
    spec = {"type": "t", "subject": "series/ser-a", "data": {}, "eventId": "e", "service": "scheduler", "shard": "default",
            "digest": "d", "principal": "ina", "receivedAt": "2027-03-01T08:00:00Z"}  # fmt: skip
    return {"kind": "Request", "metadata": meta, "spec": spec, "status": {"phase": "Decided", "answer": answer}}


def test_the_following_dates_are_moved_on_the_wall_clock_of_the_series(lablet, scripted):
    scripted.on("GET", "/series/ser-a", series())
    scripted.on("GET", "/clock", {"now": "2027-03-01T08:00:00Z", "speed": 1})
    done = request({"changed": 1, "kept": {"2027-03-30": "it does not fit"}})
    scripted.on("PATCH", "/series/ser-a", httpx.Response(202, json=done))
    scripted.on("GET", "/requests/req-1", done)
    shown = lablet("series", "change", "ser-a", "--date", "2027-03-23", "--following", "-s", "2027-03-23 10:30")
    assert "1 date changed" in shown
    assert "2027-03-30 stays: it does not fit" in shown
    (sent,) = scripted.sent("PATCH", "/series/ser-a")
    assert json.loads(sent.content) == {"scope": "following", "date": "2027-03-23", "start": "2027-03-23T09:30:00Z"}
    assert sent.headers["if-match"] == '"7"'


@pytest.mark.parametrize(
    ("typed", "params"),
    [(("cancel", "ser-a"), {"scope": "all"}), (("cancel", "series", "ser-a"), {"scope": "all"}),
     (("cancel", "ser-a", "--date", "2027-03-30"), {"scope": "this", "date": "2027-03-30"}),
     (("series", "cancel", "ser-a", "--date", "2027-03-30", "--following", "--reason", "ill"),
      {"scope": "following", "date": "2027-03-30", "reason": "ill"})],
)  # fmt: skip
def test_a_series_is_cancelled_as_a_whole_or_by_date(lablet, scripted, typed, params):
    scripted.on("GET", "/series/ser-a", series("Cancelled"))
    scripted.on("DELETE", "/series/ser-a", httpx.Response(202, json=request({"cancelled": 2, "kept": {}})))
    scripted.on("GET", "/requests/req-1", request({"cancelled": 2, "kept": {}}))
    assert "2 dates cancelled" in lablet(*typed)
    (sent,) = scripted.sent("DELETE", "/series/ser-a")
    assert dict(sent.url.params) == params


def test_a_series_is_listed_and_shown_with_what_has_become_of_each_date(lablet, scripted, reservation):
    scripted.on("GET", "/series", {"items": [series()], "resourceVersion": "7"})
    scripted.on("GET", "/series/ser-a", series())
    scripted.on("GET", "/clock", {"now": "2027-03-24T08:00:00Z", "speed": 1})
    first = reservation("Completed")
    first["metadata"]["id"] = "rsv-2027-03-23"
    first["spec"] |= {"series": "ser-a", "occurrence": "2027-03-23"}
    scripted.on("GET", "/reservations", {"items": [first], "resourceVersion": "7"})
    scripted.on("GET", "/events", [])
    listed = lablet("get", "series")
    assert "2/2" in listed
    for command in (("series", "show", "ser-a"), ("describe", "series", "ser-a")):
        shown = lablet(*command)
        lines = [line for line in shown.splitlines() if line.startswith("2027-03-")]
        assert ["Completed" in line for line in lines] == [True, False], shown


async def test_the_sdk_gives_a_series_back_as_one(client, scripted):
    scripted.on("POST", "/series", httpx.Response(201, json=series()))
    body = SeriesCreate.model_validate(
        {
            "definition": "ospf-basics",
            "start": "2027-03-23T08:00:00Z",
            "durationMinutes": 120,
            "rule": "FREQ=DAILY;COUNT=2",
        }
    )
    async with client:
        found = await client.series.create(body)
    assert isinstance(found, Series)
    assert [one.date for one in found.status.occurrences] == list(SLOTS)
