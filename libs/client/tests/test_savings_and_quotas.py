"""What operators ask of a pool and of a tenant: worker-hours saved, limits shown and set."""

import json

import httpx
import pytest

MOVE = {"reservation": "rsv-a", "seat": 1, "from": "default-002", "to": "default-001",
        "slot": {"start": "2027-03-02T09:00:00Z", "end": "2027-03-02T11:00:00Z"}}  # fmt: skip


def found(**more):
    body = {"pool": "default", "moves": [MOVE], "moved": 1, "workerHoursBefore": 4.0, "workerHoursAfter": 2.7,
            "workerHoursSaved": 1.3, "costSavedUsd": 4.5, "proven": True, "committed": False}  # fmt: skip
    return body | more


def test_a_dry_run_shows_the_moves_and_what_they_save(lablet, scripted):
    scripted.on("GET", "/clock", {"now": "2027-03-01T08:00:00Z", "speed": 1})
    scripted.on("POST", "/pools/default:optimise", found())
    shown = lablet("pool", "optimise", "default", "--dry-run", "--max-moves", "3", "--budget", "2")
    assert "rsv-a" in shown
    assert "1 seat would move" in shown
    assert "1.3 of 4 worker-hours; no plan saves more" in shown
    assert "4.50 USD less" in shown
    (sent,) = scripted.sent("POST", "/pools/default:optimise")
    assert json.loads(sent.content) == {"dryRun": True, "maxMoves": 3, "budgetSeconds": 2.0}


def test_what_was_done_and_what_needed_nothing_is_said(lablet, scripted):
    scripted.on("GET", "/clock", {"now": "2027-03-01T08:00:00Z", "speed": 1})
    scripted.on("POST", "/pools/default:optimise", found(committed=True, moved=2))
    assert "2 seats moved, 1 not shown" in lablet("pool", "optimise", "default")
    scripted.on("POST", "/pools/default:optimise", found(moves=[], moved=0, workerHoursSaved=0, costSavedUsd=0))
    assert "nothing to move" in lablet("pool", "optimise", "default")


def quota(**limits):
    return {"tenant": "acme", "limits": {"tenant": {"openSeats": 50} | limits, "owner": {}},
            "used": {"seats": 12, "seatMinutes": 1440}, "owners": {"ina": {"seats": 12, "seatMinutes": 1440}}}  # fmt: skip


def test_limits_are_shown_with_what_is_open(lablet, scripted):
    scripted.on("GET", "/quotas/acme", quota())
    shown = lablet("quota", "get", "acme")
    assert [line.split() for line in shown.splitlines() if line.startswith("open seats")] == [
        ["open", "seats", "50", "–"]
    ]
    assert [line.split() for line in shown.splitlines() if line.startswith("ina")] == [["ina", "12", "24"]]


def test_how_long_work_is_kept_is_shown_where_it_is_set(lablet, scripted):
    scripted.on("GET", "/quotas/acme", quota() | {"limits": {"tenant": {}, "owner": {}, "retentionDays": 400}})
    assert "collected work is kept for 400 days" in lablet("quota", "get", "acme")


def test_one_limit_is_set_and_the_others_stay(lablet, scripted):
    scripted.on("GET", "/quotas/acme", httpx.Response(200, json=quota(), headers={"ETag": '"7"'}))
    scripted.on("PUT", "/quotas/acme", quota(longestSlotMinutes=240))
    lablet("quota", "set", "acme", "--longest", "4h", "--ahead", "30d")
    lablet("quota", "set", "acme", "--per-owner", "--open-seats", "5")
    lablet("quota", "set", "acme", "--open-seats", "none")
    lablet("quota", "set", "acme", "--retention", "400d")
    bodies = [json.loads(request.content) for request in scripted.sent("PUT", "/quotas/acme")]
    assert bodies == [
        {"tenant": {"openSeats": 50, "longestSlotMinutes": 240, "furthestAheadDays": 30}, "owner": {}},
        {"tenant": {"openSeats": 50}, "owner": {"openSeats": 5}},
        {"tenant": {}, "owner": {}},
        {"tenant": {"openSeats": 50}, "owner": {}, "retentionDays": 400},
    ]
    assert {request.headers["if-match"] for request in scripted.sent("PUT", "/quotas/acme")} == {'"7"'}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ((), "nothing to set"),
        (("--retention", "30d", "--per-owner"), "as a whole"),
        (("--retention", "1h"), "a day"),
        (("--open-seats", "-3"), "is no number"),
        (("--longest", "soon"), "is no length of time"),
    ],
)
def test_what_makes_no_sense_is_said(lablet, typed, said):
    lablet("quota", "set", "acme", *typed, code=2)
    assert said in lablet.stderr
