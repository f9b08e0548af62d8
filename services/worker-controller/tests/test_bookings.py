"""The calendar by worker, kept: whatever comes and goes, it says what counting everything anew would say."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from lablet_workers.bookings import Bookings
from lablet_workers.needs import Need

MORNING = datetime(2027, 3, 1, 7, 0, tzinfo=UTC)
needs = st.tuples(st.integers(0, 3), st.integers(1, 2)).map(
    lambda pair: Need(MORNING + timedelta(hours=pair[0]), MORNING + timedelta(hours=sum(pair)))
)
seats = st.lists(st.tuples(st.sampled_from(["p-001", "p-002", "p-003"]), needs), max_size=4)
changes = st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), seats), max_size=12)


def counted(booked: dict[str, list[tuple[str, Need]]]) -> dict[str, list[Need]]:
    found: dict[str, set[Need]] = {}
    for entries in booked.values():
        for worker, need in entries:
            found.setdefault(worker, set()).add(need)
    return {worker: sorted(of) for worker, of in found.items()}


@given(changes)
def test_it_says_what_counting_all_reservations_would_say_and_which_workers_changed(
    told: list[tuple[str, list[tuple[str, Need]]]],
) -> None:
    bookings, booked = Bookings(), dict[str, list[tuple[str, Need]]]()
    for name, entries in told:
        before = counted(booked)
        booked[name] = entries
        after = counted(booked)
        changed = bookings.enter(name, entries)
        assert {worker: list(of) for worker, of in bookings.needs.items() if of} == after
        really = {worker for worker in before.keys() | after.keys() if before.get(worker) != after.get(worker)}
        assert really <= changed


def test_a_second_seat_in_the_same_span_changes_nothing() -> None:
    bookings = Bookings()
    need = Need(MORNING, MORNING + timedelta(hours=1))
    assert bookings.enter("a", [("p-001", need), ("p-001", need)]) == {"p-001"}
    assert bookings.enter("b", [("p-001", need)]) == set()
    assert bookings.enter("a") == set()
    assert bookings.enter("b") == {"p-001"}
