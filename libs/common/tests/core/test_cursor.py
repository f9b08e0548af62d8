"""How far back a bridge can go, and from where it must."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lablet_common.cursor import Cursor, Latest, Mark, Present, thinned
from lablet_common.events import Outgoing

DISTANCES = (16, 128, 1024, 8192)


class Stream:
    """The messages of one subject, of which the last may be lost."""

    def __init__(self, last: int, *, first: int = 1, epoch: str = "e", forgets: bool = True) -> None:
        self.session = 0
        self._present = Present(epoch, first, forgets)
        self._last = last
        self.asked = 0

    async def publish(self, outgoing: Outgoing, *, session: int | None = None) -> int:
        raise NotImplementedError

    async def present(self) -> Present:
        return self._present

    async def last(self, subject: str) -> Latest:
        assert subject == "s"
        self.asked += 1
        return Latest(self._last)


def marked(*revisions: int) -> Cursor:
    """With message 10 for revision 1, 20 for 2 and so on."""
    return Cursor(tuple(Mark(one, 10 * one, "s" if one else "") for one in revisions), "e")


@given(st.lists(st.integers(1, 12), min_size=1, max_size=400))
def test_for_each_distance_a_mark_is_kept_that_is_about_so_far_back(steps: list[int]) -> None:
    marks: tuple[Mark, ...] = (Mark(0),)
    for step in steps:
        marks = thinned((*marks, Mark(marks[-1].revision + step)))
        newest = marks[-1].revision
        for distance in DISTANCES:
            if newest >= distance:
                nearest = max(mark.revision for mark in marks if mark.revision <= newest - distance)
                assert newest - nearest <= 2 * distance + 12
    assert len(marks) <= 19
    assert list(marks) == sorted(marks, key=lambda mark: mark.revision)


def test_a_mark_is_never_alone_once_there_were_two() -> None:
    """Nobody could go back from it."""
    assert thinned((Mark(0), Mark(10**6, 5, "s"))) == (Mark(0), Mark(10**6, 5, "s"))


def test_the_mark_before_the_last_and_the_safe_one_are_kept() -> None:
    marks = tuple(Mark(one) for one in (0, 16, 23, 24, 25, 26))
    assert thinned(marks, 23) == tuple(Mark(one) for one in (0, 16, 23, 25, 26))
    assert thinned(marks, 24) == tuple(Mark(one) for one in (0, 16, 24, 25, 26))


def test_safe_never_goes_back_by_moving_and_is_no_further_than_what_stands() -> None:
    cursor = marked(0, 3).moved(Mark(7, 70, "s"), safe=3)
    assert cursor.safe == 3
    assert cursor.moved(Mark(9, 90, "s")).safe == 3
    assert Cursor.from_json(cursor.to_json()) == cursor
    assert Cursor.from_json(b'{"revision": 12}').safe == 12


def test_safe_is_only_what_a_mark_says() -> None:
    """One that was given up cannot be gone back to."""
    cursor = Cursor((Mark(0), Mark(1024, 5, "s"), Mark(2176, 9, "s")), "e")
    assert cursor.moved(Mark(2220, 10, "s"), safe=1620).safe == 1024
    assert cursor.moved(Mark(2220, 10, "s"), safe=2220).safe == 2220


def test_an_older_message_says_as_much_of_a_revision_and_is_lost_less_easily() -> None:
    cursor = Cursor((Mark(29, 29, "s"), Mark(30, 30, "s")), "e")
    assert cursor.moved(Mark(30, 330, "s")).marks == cursor.marks
    assert cursor.probing(Mark(30, 330, "s")).marks == (*cursor.marks, Mark(30, 330, "s"))


def test_marks_of_one_message_do_not_push_out_the_one_before() -> None:
    marks: tuple[Mark, ...] = (Mark(0), Mark(2999, 2999, "s"), Mark(3000, 3000, "s"))
    for revision in range(3100, 200_000, 1000):
        marks = thinned((*marks, Mark(revision, 3000, "s")), revision)
    assert Mark(2999, 2999, "s") in marks


async def test_where_nothing_is_forgotten_everything_stands() -> None:
    stream = Stream(0, forgets=False)
    assert await marked(0, 3, 7).standing(stream) == marked(0, 3, 7)
    assert not stream.asked


def test_it_is_read_as_it_was_written_and_as_it_was_before_there_were_marks() -> None:
    cursor = marked(0, 3, 7)
    assert Cursor.from_json(cursor.to_json()) == cursor
    assert json.loads(cursor.to_json())["revision"] == 7
    assert Cursor.from_json(b'{"revision": 12}') == Cursor((Mark(12),), safe=12)


@pytest.mark.parametrize(
    ("last", "stands"),
    [(70, (0, 3, 7)), (99, (0, 3, 7)), (69, (0, 3)), (30, (0, 3)), (29, (0,)), (0, (0,))],
)
async def test_the_newest_mark_whose_message_is_there_stands(last: int, stands: tuple[int, ...]) -> None:
    assert await marked(0, 3, 7).standing(Stream(last)) == marked(*stands)


async def test_where_none_stands_the_oldest_says_where_to_begin() -> None:
    assert await marked(3, 7).standing(Stream(5)) == Cursor((Mark(3),), "e")


async def test_what_was_purged_or_is_too_old_had_been_there() -> None:
    stream = Stream(0, first=71)
    assert await marked(0, 3, 7).standing(stream) == marked(0, 3, 7)
    assert not stream.asked
    assert await marked(0, 3, 7).standing(Stream(0, first=31)) == marked(0, 3)


async def test_in_a_stream_made_anew_nothing_is_missed() -> None:
    assert await marked(0, 3, 7).standing(Stream(0, epoch="f")) == Cursor((Mark(7),), "f", 7)
