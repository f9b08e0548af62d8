"""The moments at which something is looked at."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from lablet_scheduler.looks import Looks

START = datetime(2027, 3, 1, tzinfo=UTC)


def at(minutes: int) -> datetime:
    return START + timedelta(minutes=minutes)


steps = st.lists(
    st.tuples(st.just("plan"), st.sampled_from("abcd"), st.integers(0, 20))
    | st.tuples(st.just("drop"), st.sampled_from("abcd"), st.just(0))
    | st.tuples(st.just("due"), st.just(""), st.integers(0, 20)),
    max_size=60,
)


@given(steps)
def test_it_is_a_table_of_moments_that_tells_the_soonest(steps: list[tuple[str, str, int]]) -> None:
    looks, table = Looks(), dict[str, datetime]()
    for what, name, minutes in steps:
        if what == "plan":
            looks.plan(name, at(minutes))
            table[name] = at(minutes)
        elif what == "drop":
            looks.drop(name)
            table.pop(name, None)
        else:
            due = {name for name, moment in table.items() if moment <= at(minutes)}
            assert set(looks.due(at(minutes))) == due
            for name in due:
                del table[name]
        assert looks.soonest == min(table.values(), default=None)
        assert len(looks) == len(table)


def test_moments_that_move_again_and_again_do_not_pile_up() -> None:
    looks = Looks()
    for minutes in range(10_000):
        looks.plan("a", at(minutes))
    assert len(looks._heap) < 200
    assert looks.due(at(10_000)) == ["a"]
