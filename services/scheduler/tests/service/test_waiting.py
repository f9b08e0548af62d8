"""The wait list in lines of like requests, against one sorted list."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from lablet_common.resources.reservation import Reservation
from lablet_scheduler.waiting import WaitList, likeness_of, order_of

SEVEN = datetime(2027, 3, 1, 7, 0, tzinfo=UTC)
LIMITS = {"job@1.0.0": 2, "gone@1.0.0": 0, "lab@1.0.0": None}


def waiting(number: int, definition: str, since: int, priority: int) -> Reservation:
    return Reservation.model_validate(
        {
            "metadata": {"id": f"rsv-{number:02d}", "uid": str(number), "createdAt": SEVEN},
            "spec": {"definition": definition, "durationMinutes": 10, "asap": True, "priority": priority},
            "status": {"phase": "Waitlisted", "waitingSince": SEVEN + timedelta(seconds=since)},
        }
    )


def heads_of(wanted: list[Reservation]) -> tuple[list[str], int]:
    """By looking at everybody: the first of each kind, and how many come before the first that is left out."""
    seen: Counter[object] = Counter()
    front: list[str] = []
    cut: int | None = None
    for one in sorted(wanted, key=order_of):
        limit = LIMITS[one.spec.definition]
        seen[likeness_of(one)] += 1
        if limit == 0:
            continue
        if limit is not None and seen[likeness_of(one)] > limit:
            cut = len(front) if cut is None else cut
            continue
        front.append(one.id)
    return front, len(front) if cut is None else cut


one = st.builds(
    waiting, st.integers(0, 30), st.sampled_from(sorted(LIMITS)), st.integers(0, 9), st.sampled_from([-1, 0, 5])
)


@settings(deadline=None)
@given(changes=st.lists(st.one_of(one, st.integers(0, 30)), max_size=60))
def test_the_heads_of_the_lines_are_the_first_of_each_kind_in_the_order_of_the_whole_list(
    changes: list[Reservation | int],
) -> None:
    line, kept = WaitList(), dict[str, Reservation]()
    for change in changes:
        if isinstance(change, int):
            line.drop(f"rsv-{change:02d}")
            kept.pop(f"rsv-{change:02d}", None)
        else:
            line.put(change)
            kept[change.id] = change
    found, cut = line.heads(lambda reservation: LIMITS[reservation.spec.definition])
    assert ([one.id for one in found], cut) == heads_of(list(kept.values()))
    asks = waiting(31, "lab@1.0.0", 5, 0)
    ahead = {one.id for one in line.ahead_of(order_of(asks), lambda first: None)}
    assert ahead == {one.id for one in kept.values() if order_of(one) < order_of(asks)}
    assert len(line) == len(kept)


def test_the_last_of_those_that_ask_for_the_same_is_found() -> None:
    line = WaitList()
    first, last, other = (waiting(n, d, n, 0) for n, d in ((1, "job@1.0.0"), (2, "job@1.0.0"), (3, "lab@1.0.0")))
    for one in (last, other, first):
        line.put(one)
    assert line.last_like(waiting(9, "job@1.0.0", 9, 0)) is last
    assert line.last_like(waiting(9, "job@1.0.0", 9, 5)) is None, "another priority stands elsewhere"
    line.drop(last.id)
    assert line.last_like(waiting(9, "job@1.0.0", 9, 0)) is first
