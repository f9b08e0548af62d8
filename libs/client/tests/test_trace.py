"""The waterfall of a reservation: chapters, trees, bars."""

from typing import Any

from lablet_client.cli.trace import chapters, lines, told


def span(trace: str, name: str, start: int, end: int, parent: str | None = None, **more: Any) -> dict[str, Any]:
    return {"traceId": trace, "spanId": name, "parentId": parent, "name": name, "service": "scheduler",
            "start": start * 1_000_000, "end": end * 1_000_000, **more}  # fmt: skip


def test_traces_are_chapters_in_the_order_in_which_they_began_and_spans_stand_below_their_parents() -> None:
    found = chapters([span("b", "later", 50, 60), span("a", "child", 12, 18, "root"), span("a", "root", 10, 20)])
    assert [chapter.title for chapter in found] == ["root", "later"]
    assert [(row.span["name"], row.depth) for row in found[0].rows] == [("root", 0), ("child", 1)]


def test_a_span_whose_parent_is_not_known_is_shown_all_the_same() -> None:
    (chapter,) = chapters([span("a", "orphan", 1, 2, "gone")])
    assert [row.depth for row in chapter.rows] == [0]


def test_bars_share_the_chapters_scale_and_a_failed_span_is_marked() -> None:
    (chapter,) = chapters([span("a", "root", 0, 100), span("a", "half", 50, 100, "root", error=True)])
    whole, half = lines(chapter, width=10)
    assert whole.count("█") == 10
    assert half.count("█") == 5
    assert "!" in half
    assert half.endswith("50.0 ms")


def test_a_single_span_takes_one_line() -> None:
    (chapter,) = chapters([span("a", "publish lablet.event.{tenant}.worker.{pool}.{id}", 0, 3)])
    (line,) = told(chapter)
    assert line.endswith("scheduler: publish lablet.event.{tenant}.worker.{pool}.{id}, 3.0 ms")
