"""The command against the real gateway: a morning's work as it is typed."""

import json
import threading
import time

import pytest

pytestmark = pytest.mark.integration


@pytest.fixture
def definition(typed, tmp_path):
    file = tmp_path / "OSPF basics.yaml"
    file.write_text("nodes: []\n")
    return lambda: typed("definition", "publish", str(file))


def test_a_lab_is_published_booked_extended_explained_and_cancelled(typed, definition):
    assert "Published ospf-basics@" in definition()
    booked = json.loads(typed("reserve", "ospf-basics", "-n", "3", "-s", "tomorrow 09:00", "-d", "2h", "-o", "json"))
    name = booked["metadata"]["id"]
    assert booked["status"]["phase"] == "Scheduled"
    assert name in typed("get", "reservations", "-f", "status.phase=Scheduled")
    assert "09:00–11:30" in typed("extend", name, "--by", "30m")
    assert f"{name} asks for 3 seats" in typed("explain", name)
    assert "scheduled  Scheduled" in typed("events", "history", name)
    assert "scheduled" in typed("describe", "rsv", name).partition("EVENT")[2]
    assert "Cancelled" in typed("cancel", name, "--reason", "ill")
    typed("extend", name, "--by", "30m", code=1)


def test_a_hold_is_confirmed(typed, definition):
    definition()
    held = json.loads(typed("reserve", "ospf-basics", "-d", "1h", "--hold", "30m", "-o", "json"))
    assert held["status"]["phase"] == "Held"
    assert "Scheduled" in typed("confirm", held["metadata"]["id"])


def test_the_calendar_draws_what_is_booked(typed, definition):
    definition()
    typed("reserve", "ospf-basics", "-n", "5", "-s", "in 1h", "-d", "2h")
    drawn = typed("calendar", "default", "--to", "6h")
    lines = [line for line in drawn.splitlines() if line.startswith("default-0")]
    assert len(lines) == 4
    assert any("█" in line for line in lines)
    assert any("█" not in line for line in lines)
    assert "licensed nodes free" in drawn


def test_workers_are_cordoned_by_a_role_that_may(typed):
    typed("--as", "learner", "worker", "cordon", "default-003", code=1)
    assert "not allowed" in typed.stderr
    assert "cordoned: dust" in typed("worker", "cordon", "default-003", "-m", "dust")
    assert "takes new seats" in typed("worker", "uncordon", "default-003")


def test_a_drain_is_rehearsed_and_asks_for_nothing(typed, definition):
    definition()
    booked = json.loads(typed("reserve", "ospf-basics", "-s", "in 1h", "-d", "2h", "-o", "json"))
    said = typed("worker", "drain", "default-001", "--deadline", "90m", "--dry-run")
    assert "default-001 would be emptied from" in said
    assert any(booked["metadata"]["id"] in line and "moves to another worker" in line for line in said.splitlines())
    plan = json.loads(typed("worker", "drain", "default-001", "--dry-run", "-o", "json"))
    assert booked["metadata"]["id"] in {seat["reservation"] for seat in plan["seats"]}
    assert "takes new seats" in typed("worker", "uncordon", "default-001"), "nothing was drained"
    typed("worker", "drain", "default-001", "--force", "--deadline", "1h", "--dry-run", code=2)
    assert "give --force or --deadline" in typed.stderr


def test_apply_twice_changes_nothing_the_second_time(typed, definition, tmp_path):
    definition()
    (tmp_path / "lab.yaml").write_text("nodes: []\n# vlan\n")
    file = tmp_path / "all.yml"
    file.write_text(
        "kind: WorkerPool\nmetadata: {name: exam}\nspec: {template: simulated, max: 3}\n---\n"
        "kind: Definition\nmetadata: {name: vlan}\ntopology: lab.yaml\n---\n"
        "kind: Reservation\nmetadata: {name: class}\n"
        "spec: {definition: ospf-basics, seats: 2, asap: true, durationMinutes: 60}\n"
    )
    assert "pool exam would be created" in typed("apply", "-f", str(file), "--dry-run")
    first = typed("apply", "-f", str(file))
    assert "pool exam created" in first
    assert "vlan published as vlan@1.0.0" in first
    second = typed("apply", "-f", str(file))
    assert "pool exam unchanged" in second
    assert "vlan unchanged" in second
    assert first.splitlines()[-1] == second.splitlines()[-1]
    file.write_text("kind: pool\nmetadata: {name: exam}\nspec: {template: simulated, max: 5}\n")
    changed = typed("apply", "-f", str(file))
    assert "-  max: 3" in changed
    assert "+  max: 5" in changed


def test_a_mistake_in_a_file_is_named_with_its_place(typed, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("kind: pool\nmetadata: {name: exam}\nspec: {template: simulated, max: 3, mni: 1}\n")
    typed("apply", "-f", str(file), code=2)
    assert "spec.mni: there is no such field: did you mean min" in typed.stderr
    file.write_text("kind: pool\nmetadata: {name: exam\nspec: x\n")
    typed("apply", "-f", str(file), code=2)
    assert f"{file}:3:5" in typed.stderr.replace("\n", "")


def test_events_are_followed_as_they_happen(typed, definition, mesh):
    definition()
    seen: list[str] = []
    following = threading.Thread(target=lambda: seen.append(typed("events", "tail", "-k", "reservation", "-n", "1")))
    following.start()
    deadline = time.monotonic() + 10
    from lablet_client.sync import Client
    from lablet_common.intents import ReservationCreate

    with Client(mesh.url, mesh.token("admin")) as client:
        while following.is_alive() and time.monotonic() < deadline:
            client.reservations.create(ReservationCreate(definition="ospf-basics", asap=True, duration_minutes=30))
            following.join(0.2)
    following.join(1)
    assert seen
    assert "reservation.scheduled" in seen[0]


def test_an_event_that_asks_is_answered(typed):
    said = typed("events", "publish", "worker.cordon.requested", "-s", "worker/default-004", "-d", '{"reason": "dust"}')
    assert "✓ worker.cordon.requested" in said
    said = typed("events", "publish", "worker.polish.requested", "-s", "worker/default-004", code=1)
    assert "nothing that can be asked" in said


def test_version_tells_who_we_are(typed, mesh):
    assert "a-admin, role admin, tenant default" in typed("version")
    assert json.loads(typed("--as", "learner", "version", "-o", "json"))["me"]["role"] == "learner"


def test_no_dead_letters_is_good_news(typed):
    assert "every message was handled" in typed("dlq", "list")


def test_a_machine_gets_a_key_uses_it_and_loses_it(typed, tmp_path):
    file = tmp_path / "lms.token"
    typed("key", "create", "lms-sync", "--scope", "reservations:write,definitions:read", "--file", str(file))
    token = file.read_text().strip()
    assert file.stat().st_mode & 0o777 == 0o600
    assert token not in typed.stdout + typed.stderr
    shown = typed("key", "list")
    assert "lms-sync" in shown
    assert "definitions:read reservations:write" in shown
    typed("key", "create", "lms-sync", "--file", str(file), code=2)
    assert "not written over" in typed.stderr
    typed("key", "create", "x", "--scope", "reservation:write", code=1)
    assert "did you mean reservations:write" in typed.stderr
    assert typed("key", "create", "other").startswith("lbk_default_")
    typed("key", "revoke", "lms-snyc", code=2)
    assert "did you mean lms-sync" in typed.stderr
    assert "is revoked" in typed("key", "revoke", "lms-sync", "--reason", "moved")
    assert "Revoked" in typed("get", "keys")


def test_the_audit_tells_who_changed_which_field(typed, definition):
    definition()
    booked = json.loads(typed("reserve", "ospf-basics", "-s", "tomorrow 09:00", "-d", "2h", "-o", "json"))
    name = booked["metadata"]["id"]
    typed("--as", "instructor", "extend", name, "--by", "30m")
    entries = json.loads(typed("audit", "--subject", f"reservation/{name}", "-o", "json"))["items"]
    assert [(entry["action"], entry["principal"]) for entry in entries] == [
        ("reservation.create", "a-admin"),
        ("reservation.change", "a-instructor"),
    ]
    shown = typed("audit", "--since", "1h ago", "--who", "a-instructor")
    assert "reservation.change" in shown
    assert entries[1]["request"] in shown
    field = typed("audit", entries[1]["request"])
    assert "status.slot.end" in field
    assert "a-instructor, instructor" in field
    typed("audit", "--since", "soonish", code=2)
    assert "'soonish'" in typed.stderr
    typed("--as", "learner", "audit", code=1)


def test_a_learner_takes_a_seat_by_a_link_and_asks_for_more_time(typed, definition):
    definition()
    typed("--as", "learner", "open")
    assert "no lab is yours" in typed.stderr
    booked = json.loads(
        typed("--as", "instructor", "reserve", "ospf-basics", "-n", "2", "-s", "tomorrow 09:00", "-d", "2h",
              "--extendable", "30m", "-o", "json")
    )  # fmt: skip
    name = booked["metadata"]["id"]
    made = json.loads(typed("--as", "instructor", "claims", name, "-o", "json"))
    first, second = (link["code"] for link in made["links"])
    typed("--as", "learner", "open", name, code=1)
    assert "seat 1 of ospf-basics@1.0.0" in typed("--as", "learner", "claim", first)
    assert "seat 1" in typed("--as", "learner", "claim", second), "who has a seat keeps it"
    mine = typed("--as", "learner", "open")
    assert name in mine
    assert "up to 30 min more may be asked for" in mine
    typed("--as", "learner", "extend", name, "--by", "45m", code=1)
    assert "30 are left" in typed.stderr
    assert "09:00–11:30" in typed("--as", "learner", "extend", name, "--by", "30m")
    typed("--as", "learner", "cancel", name, code=1)
    typed("--as", "instructor", "claims", name, "--withdraw")
    typed("--as", "operator", "claim", second, code=1)
    assert "the link is not known here" in typed.stderr


def test_usage_counts_what_was_booked(typed, definition):
    definition()

    def used():
        told = json.loads(typed("usage", "--until", "in 2 days", "-o", "json"))
        return next((one for one in told["definitions"] if one["definition"] == "ospf-basics@1.0.0"), None)

    before = used() or {"reservations": 0, "seats": 0, "seatHours": 0.0}
    typed("reserve", "ospf-basics", "-n", "3", "-s", "in 1h", "-d", "2h")
    after = used()
    assert after["reservations"] - before["reservations"] == 1
    assert after["seats"] - before["seats"] == 3
    assert after["seatHours"] - before["seatHours"] == pytest.approx(6.0)
    shown = typed("usage", "--since", "today 00:00", "--until", "in 2 days")
    assert "scheduled" in shown
    assert "ospf-basics@1.0.0" in shown
    header, one, total = typed("usage", "--until", "in 2 days", "--csv").splitlines()
    assert header.startswith("tenant,from,to,definition")
    assert f"ospf-basics@1.0.0,{after['reservations']},{after['seats']},{after['seatHours']}" in one
    assert total.endswith(one.split("ospf-basics@1.0.0,")[1])
