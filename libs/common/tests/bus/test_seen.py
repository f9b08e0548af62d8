"""The drop rule."""

from collections.abc import Callable

from lablet_common.bus import Seen
from lablet_common.events import CloudEvent, Outgoing

Make = Callable[..., Outgoing]


def test_an_event_at_or_below_the_last_sequence_is_old(make: Make) -> None:
    seen = Seen()
    seen.note(make(sequence=5, state=True).event)
    assert not seen.is_new(make(sequence=5, state=True).event)
    assert not seen.is_new(make(sequence=4, state=True).event)
    assert seen.is_new(make(sequence=6, state=True).event)


def test_subjects_do_not_hide_each_other(make: Make) -> None:
    seen = Seen()
    seen.note(make("rsv-1", 9, state=True).event)
    assert seen.is_new(make("rsv-2", 3, state=True).event)


def test_two_events_of_one_commit_do_not_hide_each_other(make: Make) -> None:
    seen = Seen()
    attributes = {"id": "1", "source": "/s", "subject": "worker/w", "sequence": "7"}
    worker = CloudEvent(attributes | {"type": "io.lablet.worker.ready.v1"})
    scaling = CloudEvent(attributes | {"type": "io.lablet.scaling.up.completed.v1"})
    seen.note(worker)
    assert seen.is_new(scaling)


def test_intents_are_never_dropped(make: Make) -> None:
    seen = Seen()
    seen.note(make(sequence=9).event)
    assert seen.is_new(make(sequence=9).event)


def test_an_event_without_a_sequence_is_always_new() -> None:
    seen = Seen()
    event = CloudEvent({"id": "1", "source": "/s", "type": "t", "subject": "a/b"})
    seen.note(event)
    assert seen.is_new(event)


def test_memory_is_bounded_and_forgets_the_oldest_first(make: Make) -> None:
    seen = Seen(limit=2)
    for name in ("a", "b", "c"):
        seen.note(make(name, 1, state=True).event)
    assert seen.is_new(make("a", 1, state=True).event)
    assert not seen.is_new(make("c", 1, state=True).event)


def test_kinds_do_not_push_each_other_out() -> None:
    def of(kind: str, name: str) -> CloudEvent:
        return CloudEvent(
            {"id": "1", "source": "/s", "subject": f"{kind}/{name}", "sequence": "7", "type": f"io.lablet.{kind}.x.v1"}
        )

    seen = Seen(limit=2)
    seen.note(of("pool", "p"))
    for name in ("a", "b", "c"):
        seen.note(of("worker", name))
    assert not seen.is_new(of("pool", "p"))
