"""Spans of phases: each that begins comes to its end, so that none is kept for what has ended."""

from collections import Counter
from typing import Any

import pytest
from opentelemetry import trace

from lablet_common.telemetry import spans


@pytest.fixture
def open_spans(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Spans that have begun and not ended, by name."""
    found: Counter[str] = Counter()

    class Open(trace.NonRecordingSpan):
        def __init__(self, name: str, *_: Any) -> None:
            super().__init__(trace.INVALID_SPAN_CONTEXT)
            self.name = name
            found[name] += 1

        def end(self, *_: Any) -> None:
            found[self.name] -= 1

    monkeypatch.setattr(spans, "tracing", lambda: True)
    monkeypatch.setattr(spans, "_begun", Open)
    return found


async def test_no_span_is_kept_for_a_seat_that_has_ended(fleet: Any, open_spans: Counter[str]) -> None:
    await fleet.book("a", 30, 60)
    await fleet.at(50)
    assert +open_spans == {"instance Running": 1, "worker Ready": 1}
    await fleet.at(130)
    assert await fleet.phase() == "Terminated"
    assert +open_spans == {"worker Offline": 1}


async def test_whoever_gives_a_pool_up_ends_what_was_under_way(fleet: Any, open_spans: Counter[str]) -> None:
    await fleet.book("a", 30, 60)
    await fleet.at(50)
    await fleet.crash()
    assert not +open_spans
