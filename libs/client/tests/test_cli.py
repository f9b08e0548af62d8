"""The command: what people type, what they read, and how it ends."""

import inspect
import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from lablet_client.cli import calendar
from lablet_client.cli.access import opener
from lablet_client.cli.definition import name_of
from lablet_client.cli.tables import COLUMNS, KINDS, STYLES, kind_word
from lablet_client.instances import Port
from lablet_common.resources.kinds import KINDS as RESOURCES
from lablet_common.resources.kinds import SUBSCRIPTION
from lablet_common.version import __version__

# -- usage and exit codes ----------------------------------------------------------------------------------------------


def test_nobody_there_ends_with_3_and_says_how_to_start_a_mesh(lablet, scripted):
    scripted.on("GET", "/workers", httpx.ConnectError("refused"))
    lablet("get", "workers", code=3)
    assert "no answer from http://lablet.test" in lablet.stderr
    assert "lablet up" in lablet.stderr


def test_something_else_at_the_address_ends_with_3(lablet, scripted):
    scripted.on("GET", "/workers", httpx.Response(200, text="<html>", headers={"content-type": "text/html"}))
    lablet("get", "workers", code=3)
    assert "what answers there is not Lablet's API" in lablet.stderr
    assert "set LABLET_URL" in lablet.stderr


def test_no_mesh_known_ends_with_3(lablet):
    lablet.session = lambda: None
    lablet("get", "workers", code=3)
    assert "no mesh is known here" in lablet.stderr


def test_an_expired_token_ends_with_1_and_says_where_tokens_come_from(lablet, scripted, problem):
    scripted.on("GET", "/workers", problem(401, "the token is unknown or has expired"))
    lablet("get", "workers", code=1)
    assert "the system does not know this token (the token is unknown or has expired)" in lablet.stderr
    assert "LABLET_TOKEN_FILE" in lablet.stderr
    assert lablet.stdout == ""


def test_a_part_that_is_down_ends_with_3_and_is_named(lablet, scripted, problem):
    scripted.on("GET", "/workers", problem(503, "no answer", dependency="etcd"))
    lablet("get", "workers", code=3)
    assert "etcd is down" in lablet.stderr


def test_a_refusal_ends_with_1_and_shows_field_and_remedy(lablet, scripted, problem):
    fault = {"path": "pool", "message": "there is no pool defalt", "remedy": "did you mean default?"}
    scripted.on("POST", "/reservations", problem(422, "pool: …", slug="Invalid request", errors=[fault]))
    lablet("reserve", "ospf-basics", "-d", "1h", "-p", "defalt", code=1)
    assert "pool: there is no pool defalt" in lablet.stderr
    assert "→ did you mean default?" in lablet.stderr


def test_a_rejection_gives_the_scheduler_s_reasons(lablet, scripted, problem):
    why = {
        "summary": "No worker fits.",
        "considered": 4,
        "removed": {"capacity": 3, "nodeLimit": 1},
        "binding": "memoryGb",
        "nearestMiss": {"worker": "default-001", "dimension": "memoryGb", "needed": 84.0, "free": 64.0},
        "earliest": {"start": "2030-03-01T14:00:00Z", "end": "2030-03-01T15:00:00Z"},
    }
    scripted.on("POST", "/reservations", problem(409, "No worker fits.", explanation=why))
    lablet("reserve", "ospf-basics", "-d", "1h", code=1)
    assert lablet.stderr.count("No worker fits") == 1
    assert "3 full at that time and 1 with too small a node limit" in lablet.stderr
    assert "default-001 has 64 of 84 GB of memory" in lablet.stderr
    assert "The earliest slot that fits is Fri 01 Mar 2030" in lablet.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["get", "wrokers"], "did you mean workers"),
        (["get", "reservaton"], "did you mean reservations?"),
        (["get", "nonsense-kind"], "known are reservation"),
        (["get", "requests"], "one by one"),
        (["reserve", "x"], "how long?"),
        (["reserve", "x", "-s", "soonish", "-d", "1h"], "--start: 'soonish'"),
        (["reserve", "x", "-s", "tomorow 9:00", "-d", "1h"], "did you mean tomorrow?"),
        (["reserve", "x", "-s", "tomorrow 9:00", "-d", "long"], "--duration: 'long'"),
        (["reserve", "x", "-s", "tomorrow 9:00", "-e", "tomorrow 8:00"], "would end before it begins"),
        (["reserve", "x", "-s", "9:00", "-e", "10:00", "-d", "1h"], "one of the two"),
        (["extend", "rsv-a"], "--by or --end"),
        (["definition", "deprecate", "ospf"], "ospf@1.0.0"),
        (["definition", "approve", "ospf"], "ospf@1.0.0"),
        (["dlq", "replay"], "say which"),
        (["events", "publish", "x", "-d", "{"], "--data is no JSON"),
        (["calendar", "default", "--to", "yesterday 09:00"], "--to must be after"),
        (["reserve", "x", "-d", "999d"], "duration minutes: "),
        (["reserve", "x", "-d", "1h", "-p", "A B"], "pools.0: "),
        (["reserve", "x", "-s", "9999-12-31T23:59", "-d", "1h"], "start: "),
        (["subscription", "create", "BAD NAME", "http://x"], "name: "),
        (["pool", "optimise", "default", "--max-moves", "99999999"], "max moves: "),
        (["pool", "replace", "default", "--deadline", "3000d"], "deadline minutes: "),
        (["events", "publish", "x", "-d", "@/nowhere/data.json"], "/nowhere/data.json: No such file"),
        (["key", "create", "x", "--file", "/nowhere/token"], "/nowhere/token: No such file"),
        (["subscription", "create", "x", "http://x", "--secret-file", "/nowhere/s"], "/nowhere/s: No such file"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_meant(lablet, arguments, said):
    lablet(*arguments, code=2)
    assert said in lablet.stderr


def test_an_empty_folder_is_nothing_to_apply(lablet, tmp_path):
    lablet("apply", "-f", str(tmp_path), code=2)
    assert f"no .yaml or .yml file in {tmp_path}" in lablet.stderr


def test_an_error_of_no_file_that_was_named_keeps_its_traceback(lablet, monkeypatch):
    def broken(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("lablet_client.cli.session.Session.run", broken)
    with pytest.raises(OSError, match="Too many"):
        lablet("get", "workers")


def test_an_answer_that_is_not_understood_keeps_its_traceback(lablet, scripted):
    """That is a defect, of the command or of what answers, and no wrong usage."""
    scripted.on("GET", "/reservations/rsv-a", {"kind": "Reservation"})
    with pytest.raises(ValidationError, match="Reservation"):
        lablet("explain", "rsv-a")


def test_no_secret_is_made_that_cannot_be_kept(lablet, scripted):
    """It is shown once: asked for before the file is open, it would be lost."""
    lablet("key", "create", "x", "--file", "/nowhere/token", code=2)
    lablet("subscription", "create", "x", "http://x", "--secret-file", "/nowhere/s", code=2)
    lablet("subscription", "rotate-secret", "x", "--secret-file", "/nowhere/s", code=2)
    assert scripted.seen == []


def test_a_file_for_a_secret_is_as_it_was_where_none_comes(lablet, scripted, problem, tmp_path):
    scripted.on("POST", "/keys", problem(403, "has no right to this"))
    scripted.on("POST", "/subscriptions/x/rotate-secret", problem(403, "has no right to this"))
    lablet("key", "create", "x", "--file", str(tmp_path / "token"), code=1)
    assert not (tmp_path / "token").exists()
    old = tmp_path / "secret"
    old.write_text("whsec_old\n")
    lablet("subscription", "rotate-secret", "x", "--secret-file", str(old), code=1)
    assert old.read_text() == "whsec_old\n"


def test_the_version_is_told_without_a_mesh(lablet):
    assert lablet("--version").strip() == f"lablet {__version__}"


@pytest.mark.parametrize("command", [("get",), ("audit",), ("dlq", "replay"), ("cancel",), ("artifact", "list")])
def test_what_may_be_left_out_or_repeated_is_marked_once(lablet, command):
    (usage,) = [line for line in lablet(*command, "--help").splitlines() if "Usage:" in line]
    assert "[[" not in usage
    assert "…" not in usage


def test_unknown_options_end_with_2(lablet):
    lablet("get", "workers", "--colour", code=2)
    lablet("frobnicate", code=2)


def test_the_mesh_commands_are_hinted_at_where_they_are_not_installed(lablet, monkeypatch):
    from lablet_client.cli.main import app

    others = [command for command in app.registered_commands if command.callback.__module__ != "lablet_local.cli"]
    monkeypatch.setattr(app, "registered_commands", others)
    lablet("up", code=2)
    assert "pip install lablet-local" in lablet.stderr


# -- answers for programs ----------------------------------------------------------------------------------------------

NO_DOCUMENT = {
    "artifact get": "files",
    "definition topology": "a file, byte by byte",
    "run": "what the job writes",
}
"""Commands that have nothing to say but this; those of a mesh on this machine (`lablet_local`) are not among these."""


def commands(app, *above):
    """Every command with its options, below groups too."""
    for command in app.registered_commands:
        function = command.callback
        if function.__module__.startswith("lablet_client") and not command.hidden:
            name = command.name or function.__name__.replace("_", "-")
            yield " ".join((*above, name)), inspect.signature(function).parameters
    for group in app.registered_groups:
        yield from commands(group.typer_instance, *above, group.name)


def test_every_command_has_an_answer_for_programs():
    from lablet_client.cli.main import app

    found = dict(commands(app))
    assert len(found) > 60
    assert {name for name, options in found.items() if "output" not in options} == set(NO_DOCUMENT)


def test_what_a_change_came_to_is_a_document(lablet, scripted, worker, reservation):
    scripted.on("GET", "/workers/default-001", worker)
    scripted.on("POST", "/workers/default-001/cordon", worker)
    assert json.loads(lablet("worker", "cordon", "default-001", "-o", "json"))["status"]["phase"] == "Ready"
    scripted.on("POST", "/workers/default-001/drain", worker)
    assert json.loads(lablet("worker", "drain", "default-001", "-o", "json"))["metadata"]["id"] == "default-001"
    scripted.on("GET", "/reservations/rsv-a", reservation())
    scripted.on("PATCH", "/reservations/rsv-a", reservation())
    assert json.loads(lablet("extend", "rsv-a", "--by", "30m", "-o", "json"))["kind"] == "Reservation"


def test_what_was_done_before_a_refusal_is_told_to_programs_as_well(lablet, scripted, reservation, problem):
    scripted.on("GET", "/reservations/rsv-a", reservation())
    scripted.on("DELETE", "/reservations/rsv-a", reservation("Cancelled"))
    scripted.on("DELETE", "/reservations/rsv-b", problem(404, "no such reservation"))
    told = json.loads(lablet("cancel", "rsv-a", "rsv-b", "-o", "json", code=1))
    assert [one["metadata"]["id"] for one in told["items"]] == ["rsv-a"]
    assert "no such reservation" in lablet.stderr


def test_a_dead_letter_that_cannot_be_sent_again_holds_nobody_up(lablet, scripted, problem):
    scripted.on("GET", "/dead-letters", {"items": [{"id": 1}, {"id": 2}, {"id": 3}]})
    scripted.on("POST", "/dead-letters/1/replay", {"id": 1})
    scripted.on("POST", "/dead-letters/2/replay", problem(409, "the subscription lms is gone"))
    scripted.on("POST", "/dead-letters/3/replay", {"id": 3})
    said = lablet("dlq", "replay", "--all", code=1)
    assert said == "1 was sent again\n3 was sent again\n"
    assert lablet.stderr == "✗ 2: the subscription lms is gone\n"
    told = json.loads(lablet("dlq", "replay", "2", "3", "-o", "json", code=1))
    assert told == {"replayed": ["3"], "refused": {"2": "the subscription lms is gone"}}


def test_nobody_is_asked_where_a_program_reads_the_answer(lablet, scripted):
    term = ("reserve", "x", "-s", "tomorrow 9:00", "-d", "1h", "--repeat", "FREQ=WEEKLY;COUNT=2", "-o", "json")
    lablet(*term, code=2)
    assert "--yes" in lablet.stderr
    assert scripted.sent("POST", "/series") == []


def test_the_code_of_a_link_need_not_stand_on_the_command_line(lablet, scripted, reservation):
    """Where every user of the machine can read it."""
    scripted.on("POST", "/claims/abc", reservation())
    scripted.on("GET", "/whoami", {"name": "ada", "role": "learner", "tenant": "default"})
    told = lablet("claim", "-o", "json", stdin="https://lablet.test/#/claims/abc\n")
    assert json.loads(told)["reservation"]["metadata"]["id"] == "rsv-a"
    assert "abc" not in lablet.stdout + lablet.stderr
    lablet("claim", stdin="\n", code=2)
    assert "which code?" in lablet.stderr


# -- what others have written ----------------------------------------------------------------------------------------

BRACKETS = "[/x] 1 error: data [type=missing, input_value={}] [red]"
"""Reasons and titles look so; taken for markup, they would vanish in part or end the command."""


def test_dead_letters_are_shown_as_they_are(lablet, scripted):
    letter = {"id": 1, "consumer": "scheduler-default", "subject": "a.b", "attempts": 3, "reason": BRACKETS}
    scripted.on("GET", "/dead-letters", {"items": [letter]})
    shown = " ".join(lablet("dlq", "list").split())
    assert "[type=missing, input_value={}]" in shown
    assert "[red]" in shown


ORDER = "\x1b]0;mine\x07\x1b[2J\x9b2J\r"
"""To a terminal: another title, and everything gone."""


def test_no_terminal_is_given_orders_by_others(lablet, scripted, reservation):
    letter = {"id": 1, "consumer": "x", "subject": "a.b", "attempts": 3, "reason": f"bad{ORDER}end", "payload": ORDER,
              "headers": {"a": ORDER}, "at": "2027-03-01T07:00:00Z"}  # fmt: skip
    scripted.on("GET", "/dead-letters", {"items": [letter]})
    scripted.on("GET", "/dead-letters/1", letter)
    moves = [{"from": "Pending", "to": "Scheduled", "at": "2027-03-01T07:00:00Z", "by": ORDER, "reason": ORDER}]
    booking = reservation(message=ORDER, reason=ORDER, history=moves)
    booking["metadata"] |= {"owner": ORDER, "labels": {"a": ORDER}}
    scripted.on("GET", "/reservations/rsv-a", booking)
    scripted.on("GET", "/reservations/rsv-a/explanation", {"summary": ORDER})
    scripted.on("GET", "/reservations", {"items": [booking], "nextCursor": None, "resourceVersion": "7"})
    scripted.on("GET", "/events", [])
    commands = [
        "dlq list",
        "dlq show 1",
        "get reservations -o wide",
        "describe rsv rsv-a",
        "explain rsv-a",
        "open rsv-a",
    ]
    for command in commands:
        said = lablet(*command.split()) + lablet.stderr
        assert not set(said) & set("\x1b\x07\x9b\r"), command
    assert "bad␛]0;mine␇␛[2J�2J␍end" in lablet("dlq", "list")
    assert lablet("dlq", "list", "-o", "json").count("\\u001b") == 6, "programs get what there is"


def test_the_audit_is_shown_as_it_is(lablet, scripted):
    entry = {"at": "2027-03-01T07:00:00Z", "principal": "[/p]", "action": "worker.cordon", "subject": "worker/x",
             "outcome": "refused", "message": BRACKETS, "request": "req-1", "data": {"reason": BRACKETS}}  # fmt: skip
    scripted.on("GET", "/audit", {"items": [entry], "nextCursor": None})
    assert "[/p]" in lablet("audit")
    change = {"path": "spec.reason", "before": None, "after": BRACKETS}
    scripted.on("GET", "/audit/req-1", {"entry": entry, "changes": [change]})
    assert lablet("audit", "req-1").count("[type=missing") == 3


def test_the_title_of_a_lab_is_shown_as_it_is(lablet, scripted, tmp_path):
    spec = {"name": "x", "version": "1.0.0", "topology": {"digest": "a" * 64, "bytes": 1}, "title": "[CCNA] OSPF [/x]",
            "requirements": {"cpuCores": 1, "memoryGb": 1, "storageGb": 1, "nodeCount": 1}}  # fmt: skip
    meta = {"id": "x@1.0.0", "uid": "u", "createdAt": "2027-03-01T07:00:00Z", "resourceVersion": "5"}
    found = {"kind": "Definition", "metadata": meta, "spec": spec, "status": {"phase": "Published"}}
    scripted.on("POST", "/definitions", httpx.Response(201, json=found))
    (tmp_path / "x.yaml").write_text("nodes: []\n")
    assert "Published x@1.0.0  [CCNA] OSPF [/x]\n" in lablet("definition", "publish", str(tmp_path / "x.yaml"))


def test_why_an_event_was_refused_is_shown_as_it_is(lablet, scripted):
    problem = {"title": "no", "detail": BRACKETS, "errors": [{"remedy": BRACKETS}]}
    scripted.on("POST", "/events", httpx.Response(207, json={"results": [{"id": "1", "problem": problem}]}))
    assert lablet("events", "publish", "x", code=1).count("[type=missing") == 2


def test_moves_and_notes_of_a_booking_are_shown_as_they_are(lablet, scripted, reservation):
    scripted.on("GET", "/events", [])
    moves = [{"from": "Pending", "to": "Scheduled", "at": "2027-03-01T07:00:00Z", "by": "x", "message": BRACKETS}]
    scripted.on("GET", "/reservations/rsv-a", reservation(message=BRACKETS, history=moves))
    assert lablet("describe", "reservation", "rsv-a").count("[type=missing") == 2


# -- looking -----------------------------------------------------------------------------------------------------------


def test_a_table_fits_and_leaves_out_empty_columns(lablet, scripted, reservation):
    scripted.on("GET", "/reservations", {"items": [reservation()], "nextCursor": None, "resourceVersion": "9"})
    title, line = lablet("get", "rsv").splitlines()
    assert title.split() == ["ID", "DEFINITION", "SEATS", "SLOT", "PHASE", "POOL"]
    assert line.split()[:3] == ["rsv-a", "ospf-basics@1.0.0", "2"]
    assert max(len(title), len(line)) <= 110


def test_json_is_what_the_server_wrote_and_nothing_else(lablet, scripted, reservation):
    document = reservation() | {"somethingNew": {"a": 1}}
    scripted.on("GET", "/reservations/rsv-a", document)
    assert json.loads(lablet("get", "reservation", "rsv-a", "-o", "json")) == document
    assert lablet.stderr == ""


def test_yaml_is_the_same_document(lablet, scripted, reservation):
    document = reservation() | {"somethingNew": {"a": 1}}
    scripted.on("GET", "/reservations/rsv-a", document)
    assert YAML(typ="safe").load(lablet("get", "reservation", "rsv-a", "-o", "yaml")) == document
    assert lablet.stderr == ""


def watched(scripted, reservation, problem):
    """One that is listed, one change of it, and then a token that is not known any more."""
    scripted.on("GET", "/reservations", {"items": [reservation()], "nextCursor": None, "resourceVersion": "7"})
    event = {
        "specversion": "1.0",
        "id": "reservation/u-1/8",
        "source": "/lablet/scheduler",
        "type": "io.lablet.reservation.active.v1",
        "subject": "reservation/rsv-a",
        "sequence": f"{8:020}",
        "data": reservation("Active", revision=8),
    }
    change = httpx.Response(
        200, text=f"id: e1-8\ndata: {json.dumps(event)}\n\n", headers={"content-type": "text/event-stream"}
    )
    scripted.on("GET", "/events/stream", change, problem(401, "the token is unknown or has expired"))


def test_watching_shows_what_is_then_what_changes_and_ends_with_the_token(lablet, scripted, reservation, problem):
    watched(scripted, reservation, problem)
    lablet("get", "rsv", "-w", code=1)
    lines = lablet.stdout.splitlines()
    assert [line.split()[0] for line in lines if line.strip()] == ["ID", "rsv-a", "rsv-a"]
    assert "Scheduled" in lines[1]
    assert "Active" in lines[-1]
    assert "does not know this token" in lablet.stderr
    assert len(scripted.sent("GET", "/events/stream")) == 2


def test_a_worker_is_described_with_what_its_machine_uses(lablet, scripted, worker, problem):
    load = {
        "worker": "default-001", "at": "2027-03-01T07:59:30Z", "nodes": 7, "cpuCores": {"used": 12, "total": 48},
        "memoryGb": {"used": 50, "total": 200}, "storageGb": {"used": 225, "total": 250},
    }  # fmt: skip
    scripted.on("GET", "/workers/default-001", worker)
    scripted.on("GET", "/events", [])
    scripted.on("GET", "/workers/default-001/load", {"worker": "default-001", "load": load})
    shown = lablet("describe", "worker", "default-001")
    assert "disk           90% (225 of 250 GB)" in shown
    assert "running nodes  7" in shown
    assert json.loads(lablet("describe", "worker", "default-001", "-o", "json"))["load"]["nodes"] == 7
    scripted.on("GET", "/workers/default-001/load", {"worker": "default-001"})
    assert "not known: it is off" in lablet("describe", "worker", "default-001")
    scripted.on("GET", "/workers/default-001/load", problem(404, "there is no such address"))
    assert "not known: it is off" in lablet("describe", "worker", "default-001"), "a gateway of an earlier release"


def test_the_nodes_of_a_worker_are_those_that_its_licence_allows(lablet, scripted, worker):
    worker["status"]["lastLicense"] = {"status": "IN_COMPLIANCE", "nodeQuota": 8, "seenAt": "2027-03-01T07:00:00Z"}
    scripted.on("GET", "/workers/default-001", worker)
    assert " 8 " in lablet("get", "worker", "default-001")


@pytest.mark.parametrize(
    ("form", "read"),
    [("json", lambda text: [json.loads(line) for line in text.splitlines()]), ("yaml", YAML(typ="safe").load_all)],
)
def test_a_program_that_watches_gets_documents_only(lablet, scripted, reservation, problem, form, read):
    watched(scripted, reservation, problem)
    lablet("get", "rsv", "-w", "-o", form, code=1)
    assert [one["status"]["phase"] for one in read(lablet.stdout)] == ["Scheduled", "Active"]


def test_no_rows_is_said_aside_so_that_pipes_stay_empty(lablet, scripted):
    scripted.on("GET", "/instances", {"items": [], "nextCursor": None, "resourceVersion": "9"})
    assert lablet("get", "instances") == ""
    assert "no instances" in lablet.stderr


def test_a_misspelt_name_gets_the_nearest(lablet, scripted, reservation):
    worker = {"metadata": {"id": "default-001"}}
    scripted.on("GET", "/workers", {"items": [worker], "nextCursor": None, "resourceVersion": "9"})
    lablet("get", "worker", "defualt-001", code=1)
    assert "did you mean default-001?" in lablet.stderr


def test_what_a_lab_left_behind_is_listed(lablet, scripted):
    file = {
        "name": "r1.cfg",
        "role": "collected",
        "digest": "ab" * 32,
        "bytes": 912,
        "mediaType": "text/plain",
        "attempt": 1,
    }
    scripted.on("GET", "/instances/ins-a-1/artifacts", {"items": [file]})
    assert lablet("get", "artifacts", "ins-a-1").splitlines()[1].split() == [
        "r1.cfg",
        "collected",
        "912",
        "abababababab",
    ]


def test_what_degrades_a_reservation_stands_beside_its_phase_and_notices_do_not(lablet, scripted, reservation):
    since = "2027-03-01T08:00:00Z"
    conditions = [{"type": "Degraded", "since": since}, {"type": "StartingSoon", "since": since}]
    body = {"items": [reservation(conditions=conditions)], "nextCursor": None, "resourceVersion": "9"}
    scripted.on("GET", "/reservations", body)
    assert "Scheduled, Degraded  " in lablet("get", "rsv")


def test_describe_shows_what_was_wanted_what_is_and_what_happened(lablet, scripted, reservation):
    scripted.on("GET", "/reservations/rsv-a", reservation("Active", passed=("Scheduled",)))
    event = {"id": "1", "source": "/lablet/scheduler", "type": "io.lablet.reservation.active.v1", "sequence": "000012"}
    scripted.on("GET", "/events", [event])
    shown = lablet("describe", "reservation", "rsv-a")
    for part in ("course=ccna-1", "definition: ospf-basics@1.0.0", "r1_serial 2000", "Scheduled", "active  12"):
        assert part in shown


def test_describe_goes_on_without_the_events(lablet, scripted, reservation, problem):
    scripted.on("GET", "/reservations/rsv-a", reservation())
    scripted.on("GET", "/events", problem(403, "not for you"))
    assert "ospf-basics" in lablet("describe", "reservation", "rsv-a")
    assert "the events cannot be shown" in lablet.stderr


def test_explain_reads_like_an_answer(lablet, scripted, reservation):
    why = {"summary": "2 seats placed; 3 workers had room.", "considered": 4, "removed": {"unschedulable": 1}}
    scripted.on("GET", "/reservations/rsv-a", reservation())
    scripted.on("GET", "/reservations/rsv-a/explanation", {"reservation": "rsv-a", "explanation": why})
    said = lablet("explain", "rsv-a")
    assert "rsv-a asks for 2 seats of ospf-basics@1.0.0 for today 09:00–11:00." in said
    assert "It is Scheduled: placed; begins in 1 h." in said
    assert "4 workers were looked at: 1 cordoned." in said


def test_explain_of_an_undecided_one_says_so(lablet, scripted, reservation):
    scripted.on("GET", "/reservations/rsv-a", reservation("Pending"))
    scripted.on("GET", "/reservations/rsv-a/explanation", {"reservation": "rsv-a", "phase": "Pending"})
    assert "has not decided yet" in " ".join(lablet("explain", "rsv-a").split())


# -- booking -----------------------------------------------------------------------------------------------------------


def test_a_drain_is_taken_back_and_the_worker_shown_as_it_is_then(lablet, scripted, worker):
    scripted.on("POST", "/workers/default-001/cancel-drain", worker | {"status": {"phase": "Draining"}})
    scripted.on("GET", "/workers/default-001", worker)
    assert lablet("worker", "cancel-drain", "default-001") == "default-001 is Ready, takes new seats\n"
    (sent,) = scripted.sent("POST", "/workers/default-001/cancel-drain")
    assert (sent.content, "idempotency-key" in sent.headers) == (b"", True)


def test_times_are_meant_in_the_mesh_s_own_time(lablet, scripted, reservation):
    scripted.on("GET", "/clock", {"now": "2031-05-05T10:20:30Z", "speed": 60})
    scripted.on("POST", "/reservations", httpx.Response(201, json=reservation()))
    lablet("reserve", "ospf-basics", "-n", "2", "-s", "in 10m", "-d", "45m", "-l", "a=b", "-p", "x", "-p", "y")
    body = json.loads(scripted.sent("POST", "/reservations")[0].content)
    assert body["start"] == "2031-05-05T10:31:00Z"
    assert (body["durationMinutes"], body["pools"], body["labels"]) == (45, ["x", "y"], {"a": "b"})


def test_a_booking_can_be_asked_for_again_under_its_key(lablet, scripted, reservation):
    """A script that heard nothing asks again, and has one booking."""
    scripted.on("POST", "/reservations", httpx.Response(201, json=reservation()))
    for _ in range(2):
        lablet("reserve", "x", "-s", "2027-03-02T09:00Z", "-d", "1h", "--key", "course-7-monday")
    first, second = scripted.sent("POST", "/reservations")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"] == "course-7-monday"
    assert first.content == second.content


def test_without_a_start_it_is_as_soon_as_possible(lablet, scripted, reservation):
    scripted.on("POST", "/reservations", httpx.Response(201, json=reservation()))
    shown = lablet("reserve", "ospf-basics", "-d", "45m")
    assert json.loads(scripted.sent("POST", "/reservations")[0].content)["asap"] is True
    assert "seats 1–2 on default-003" in shown


def test_a_roster_seats_people_in_order_and_names_a_bad_line(lablet, scripted, reservation, tmp_path):
    scripted.on("POST", "/reservations", httpx.Response(201, json=reservation()))
    roster = tmp_path / "class.txt"
    roster.write_text("# monday\nada\n\ngrace\n")
    lablet("reserve", "x", "-n", "2", "-d", "1h", "--roster", str(roster))
    body = json.loads(scripted.sent("POST", "/reservations")[0].content)
    assert body["roster"] == [{"seat": 1, "user": "ada"}, {"seat": 2, "user": "grace"}]
    lablet("reserve", "x", "-n", "1", "-d", "1h", "--roster", str(roster), code=2)
    assert "grace would sit on seat 2" in lablet.stderr


def test_a_roster_from_a_spreadsheet_is_read_without_its_mark_and_other_encodings_are_named(
    lablet, scripted, reservation, tmp_path
):
    scripted.on("POST", "/reservations", httpx.Response(201, json=reservation()))
    roster = tmp_path / "class.csv"
    roster.write_bytes("seat,user\r\n2,zoë\r\n".encode("utf-8-sig"))
    lablet("reserve", "x", "-n", "2", "-d", "1h", "--roster", str(roster))
    assert json.loads(scripted.sent("POST", "/reservations")[0].content)["roster"] == [{"seat": 2, "user": "zoë"}]
    roster.write_bytes("ada\nzoë\n".encode("latin-1"))
    lablet("reserve", "x", "-n", "2", "-d", "1h", "--roster", str(roster), code=2)
    assert f"{roster}:2: this is no UTF-8" in lablet.stderr


def test_wait_tells_each_move_and_ends_when_it_runs(lablet, scripted, reservation):
    scripted.on("POST", "/reservations", httpx.Response(201, json=reservation(revision=1)))
    scripted.on("GET", "/reservations/rsv-a", reservation("Active", revision=2, message="2 of 2 seats run"))
    shown = lablet("reserve", "x", "-d", "1h", "--wait")
    assert "Active" in lablet.stderr
    assert "rsv-a  Active" in shown


def test_wait_ends_with_1_when_it_can_run_no_more(lablet, scripted, reservation):
    scripted.on("POST", "/reservations", httpx.Response(201, json=reservation(revision=1)))
    scripted.on("GET", "/reservations/rsv-a", reservation("Failed", revision=2, message="no seat ran"))
    lablet("reserve", "x", "-d", "1h", "--wait", code=1)
    assert "rsv-a is Failed: no seat ran" in lablet.stderr


def test_open_shows_how_to_reach_each_console(lablet, scripted, reservation):
    scripted.on("GET", "/reservations/rsv-a", reservation("Active", passed=("Scheduled",)))
    access = {
        "instance": "ins-a-1",
        "reservation": "rsv-a",
        "seat": 1,
        "phase": "Running",
        "usable": True,
        "start": "2027-03-01T07:00:00Z",
        "end": "2027-03-01T09:00:00Z",
        "now": "2027-03-01T08:15:00Z",
        "host": "127.3.0.1",
        "ports": [{"name": "r1_serial", "host": "127.3.0.1", "port": 2000}],
    }
    scripted.on("GET", "/instances/ins-a-1/access", access)
    shown = lablet("open", "rsv-a")
    assert "seat 1  Running  ins-a-1, 45 min left" in shown
    assert "telnet 127.3.0.1 2000" in shown
    assert "seat 2" not in shown.partition("placed")[2].partition("\n")[2]


def test_shortening_sends_an_earlier_end(lablet, scripted, reservation):
    scripted.on("GET", "/reservations/rsv-a", reservation())
    scripted.on("PATCH", "/reservations/rsv-a", reservation())
    lablet("extend", "rsv-a", "--by=-30m")
    assert json.loads(scripted.sent("PATCH", "/reservations/rsv-a")[0].content) == {"end": "2027-03-01T10:30:00Z"}


# -- parts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("port", "command"),
    [
        (Port(name="r1_serial", host="h", port=1), "telnet h 1"),
        (Port(name="pc_vnc", host="h", port=2), "vnc://h:2"),
        (Port(name="web", host="h", port=3, protocol="https"), "https://h:3"),
        (Port(name="srv_ssh", host="h", port=4), "ssh -p 4 h"),
        (Port(name="odd", host="h", port=5), ""),
    ],
)
def test_each_protocol_has_its_opener(port, command):
    assert opener(port) == command


def test_every_kind_and_alias_is_understood():
    assert [kind_word(f"{kind}s") for kind in KINDS] == list(KINDS)
    assert kind_word("RSV") == "reservation"
    assert kind_word("thing") is None


def test_every_phase_of_every_kind_shown_has_a_style():
    for kind in COLUMNS:
        assert (RESOURCES | {"subscription": SUBSCRIPTION})[kind].model.machine.phases <= STYLES.keys() | {
            "Active",
            "Deleting",
        }


def test_a_file_name_becomes_a_name(tmp_path):
    assert name_of(tmp_path / "OSPF basics (v2).yaml") == "ospf-basics-v2"


NINE = datetime(2027, 3, 1, 9, tzinfo=UTC)


def booking(start: int, end: int) -> dict[str, str]:
    return {"start": (NINE + timedelta(minutes=start)).isoformat(), "end": (NINE + timedelta(minutes=end)).isoformat()}


def test_a_cell_shows_the_fullest_moment_in_it():
    bookings = [booking(0, 60), booking(10, 20), booking(20, 30), booking(95, 100)]
    assert list(calendar.cells(bookings, NINE, timedelta(minutes=30), 4, {})) == [2, 1, 0, 1]


def test_bars_rise_with_the_share_and_never_hide_a_booking():
    assert [calendar.block(share) for share in (0, 0.01, 0.5, 1)] == ["·", "▁", "▄", "█"]


def test_steps_are_round_and_fill_the_width():
    assert calendar.step_for(timedelta(days=1), 100) == timedelta(minutes=15)
    assert calendar.step_for(timedelta(days=7), 80) == timedelta(hours=3)


def test_a_history_shows_the_moves_that_no_event_tells_any_more(lablet, scripted, reservation):
    def event(revision, document, **more):
        return {
            "specversion": "1.0", "id": f"reservation/u/{revision}", "source": "/lablet/scheduler",
            "type": "io.lablet.reservation.completed.v1", "subject": "reservation/rsv-a", "time": "2027-03-01T11:00:00Z",
            "sequence": f"{revision:020}", "data": document, **more,
        }  # fmt: skip

    document = reservation("Completed", passed=("Scheduled", "Active"))
    scripted.on("GET", "/events", [event(9, document, replayed="true")])
    lines = [line.split() for line in lablet("events", "history", "rsv-a").splitlines()[1:]]
    assert [line[-3] for line in lines[:2]] == ["Scheduled", "Active"]
    assert "completed" in lines[2]
    assert len(lines) == 3
    scripted.on("GET", "/events", [event(9, document)])
    assert len(lablet("events", "history", "rsv-a").splitlines()) == 1 + 3 + 1, (
        "moves before the first event that is left"
    )
