"""The page, the picture and the last line: complete, self-contained, and honest about what did not hold."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from lablet_local.demo.books import power_spans
from lablet_local.demo.chart import calendar, palette
from lablet_local.demo.checks import judge
from lablet_local.demo.command import last_lines
from lablet_local.demo.evidence import read_event
from lablet_local.demo.figures import Moment, blocks, figures, spans
from lablet_local.demo.report import render

KILLED = Moment(datetime(2027, 3, 1, 7, 18, tzinfo=UTC), "scheduler killed", "killed")
_SVG = "{http://www.w3.org/2000/svg}"


def test_all_well_ends_with_the_one_line(story: Any, plan: Any) -> None:
    evidence = story.evidence()
    checks = judge(evidence, plan)
    (line,) = last_lines(checks, figures(evidence, checks, 53.51))
    assert line == (
        f"demo: ok reservations=4 placed=42 waitlisted=1 rejected=1 events={len(evidence.events)} lost=0 double_booked=0 "
        "failover_seconds=2.5 worker_hours=2.0 seconds=53.5"
    )


def test_each_check_that_did_not_hold_is_named_before_the_last_line(story: Any, plan: Any) -> None:
    story.machines[0]["state"] = "running"
    evidence = story.evidence()
    checks = judge(evidence, plan)
    lines = last_lines(checks, figures(evidence, checks, 1))
    assert "nothing was left over" in lines[0]
    assert lines[-1].startswith("demo: failed checks=1 ")


def test_what_is_lost_and_what_is_booked_twice_is_counted(story: Any, plan: Any, stored: Any) -> None:
    wrong = stored(story.documents["/reservations/b"])
    wrong["status"]["phase"] = "Scheduled"
    wrong["status"]["placement"][0]["ports"] = {"r1_serial": 2000}
    story.earlier.append(("/reservations/b", wrong))
    evidence = story.evidence()
    missing = replace(evidence, events=evidence.events[1:])
    found = figures(missing, judge(missing, plan), 1)
    assert found.double_booked == 1
    assert found.lost == 1


def test_the_picture_is_well_formed_and_shows_every_seat_where_it_was_placed(story: Any) -> None:
    evidence = story.evidence()
    picture = calendar({"w-1": 200}, blocks(evidence), spans(evidence), [KILLED], palette(["class", "study-group"]))
    root = ET.fromstring(picture.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    titles = [element.text for element in root.iter(f"{_SVG}title")]
    assert "Class: 1 seat on w-1, 08:00 to 09:00" in titles
    assert "Study-Group: 1 seat on w-1, 08:00 to 09:00" in titles
    assert any(element.text == "07:18 scheduler killed" for element in root.iter(f"{_SVG}text"))
    tops = [float(rect.get("y", 0)) for group in root.iter(f"{_SVG}g") for rect in group.iter(f"{_SVG}rect")]
    assert len(tops) == len(set(tops)) == 2, "seats of one time lie one above the other"


def test_nothing_to_draw_gives_no_picture() -> None:
    assert calendar({"w-1": 20}, [], [], [], {}) == ""


def test_a_worker_was_on_from_power_on_to_off(story: Any) -> None:
    (span,) = power_spans(story.evidence())
    assert span.hours == 2.0
    assert span.ready == datetime(2027, 3, 1, 7, 40, tzinfo=UTC)


def test_the_page_stands_alone_and_lets_no_text_become_markup(story: Any, plan: Any) -> None:
    story.documents["/reservations/c"]["status"]["explanation"]["summary"] = "<script>alert(1)</script>"
    evidence = story.evidence()
    checks = judge(evidence, plan)
    page = render(evidence, checks, figures(evidence, checks, 1), [KILLED], plan)
    assert "every check held" in page
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert "src=" not in page


def test_the_page_says_when_a_check_did_not_hold(story: Any, plan: Any) -> None:
    story.machines[0]["state"] = "running"
    evidence = story.evidence()
    checks = judge(evidence, plan)
    page = render(evidence, checks, figures(evidence, checks, 1), [], plan)
    assert "1 checks did not hold" in page
    assert "machine w-1 is running" in page


def test_an_event_is_read_whatever_the_case_of_its_headers() -> None:
    headers = {
        "CE-Subject": "reservation/rsv-1",
        "ce-Type": "io.lablet.reservation.active.v1",
        "ce-sequence": "0000000042",
    }
    told = read_event(headers, b'{"status": {}}', 7)
    assert (told.kind, told.subject, told.sequence, told.place) == ("reservation", "reservation/rsv-1", 42, 7)
    assert not told.replayed
    assert read_event({**headers, "Ce-Replayed": "true"}, b"", 8).replayed
