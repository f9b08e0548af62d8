"""Tables fit the terminal: ids, slots and phases whole, words shortened, the least needed left out; never a line too wide."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lablet_client.cli.fitting import Measure, fit
from lablet_client.cli.tables import COLUMNS

measures = st.builds(
    lambda natural, part, rank: Measure(natural, max(1, natural * part // 100), rank),
    st.integers(1, 60),
    st.integers(1, 100),
    st.integers(0, 9),
)


@given(st.lists(measures, min_size=1, max_size=12), st.integers(1, 300))
def test_what_is_shown_fits_and_is_no_narrower_than_it_may_be(columns, room):
    columns = [Measure(columns[0].natural, columns[0].least, 0), *columns[1:]]
    widths = fit(columns, room)
    kept = [at for at, width in enumerate(widths) if width]
    assert {at for at, column in enumerate(columns) if column.rank == 0} <= set(kept)
    assert all(columns[at].least <= widths[at] <= columns[at].natural for at in kept)
    least = sum(column.least + 2 for column in columns if column.rank == 0)
    assert sum(widths) + 2 * len(kept) <= max(room, least)


@given(st.lists(measures, min_size=1, max_size=12))
def test_where_there_is_room_everything_is_shown_whole(columns):
    assert fit(columns, 10_000) == [column.natural for column in columns]


def test_the_least_needed_goes_first_and_of_equals_the_rightmost():
    columns = [Measure(10, 10), Measure(10, 10, 5), Measure(10, 10, 7), Measure(10, 10, 5)]
    assert fit(columns, 48) == [10, 10, 10, 10]
    assert fit(columns, 47) == [10, 10, 0, 10]
    assert fit(columns, 30) == [10, 10, 0, 0]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("form", ["table", "wide"])
def test_a_list_fits_the_terminal_and_no_id_is_cut(lablet, scripted, reservation, width, form):
    name = "rsv-tyvxvcdqazm77g7q4apbkuxgja"
    long = reservation(message="90 seats can never fit in pool default: of 6 workers, together they hold 36 seats.")
    long["metadata"] = long["metadata"] | {"id": name, "labels": {"course": "ccna-1", "group": "b"}}
    scripted.on("GET", "/reservations", {"items": [long], "nextCursor": None, "resourceVersion": "9"})
    made = lablet.session
    lablet.session = lambda: replace(made(), width=width)
    lines = lablet("get", "reservations", "-o", form).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[1].startswith(name)
    assert "Scheduled" in lines[1] or width < 44
    if width >= 80:
        assert "09:00–11:00" in lines[1]


def test_every_kind_has_at_most_what_a_row_is_known_by_that_cannot_be_left_out():
    from lablet_client.cli.fitting import KEPT

    for kind, columns in COLUMNS.items():
        assert len([column for column in columns[1:] if column.title in KEPT]) <= 1, kind


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_calendar_fits_the_terminal(lablet, scripted, width):
    booked = {"start": "2027-03-01T09:00:00Z", "end": "2027-03-01T11:00:00Z", "seats": 12}
    worker = {"phase": "Provisioning", "schedulable": False, "bookings": [booked]}
    pool = {
        "pool": "default", "start": "2027-03-01T08:00:00Z", "end": "2027-03-02T08:00:00Z", "now": "2027-03-01T08:00:00Z",
        "workers": [{"worker": f"default-00{number}", **worker} for number in (1, 2)], "steps": [],
    }  # fmt: skip
    scripted.on("GET", "/pools/default/calendar", pool)
    made = lablet.session
    lablet.session = lambda: replace(made(), width=width)
    lines = lablet("calendar", "default").splitlines()
    (drawn,) = [line for line in lines if line.startswith("default-001")]
    assert drawn.endswith(", cordoned")
    assert max(len(line) for line in lines) <= width


def test_a_line_by_itself_keeps_the_columns_of_the_list_that_it_belongs_to():
    from rich.console import Console

    from lablet_client.cli.fitting import fitted
    from lablet_client.cli.output import plain_table

    def list_of(*names):
        table = plain_table("NAME", "POOL", "ERROR")
        for name in names:
            table.add_row(name, "default", "")
        return table

    def shown(table, **how):
        with console.capture() as said:
            console.print(fitted(table, console, **how))
        return said.get().splitlines()

    console = Console(width=80)
    titles, *_ = shown(list_of("a-very-long-worker", "w-1"))
    assert titles.split() == ["NAME", "POOL"], "what is empty everywhere is left out"
    (line,) = shown(list_of("w-1", "a-very-long-worker"), first_row_only=True)
    assert line.index("default") == titles.index("POOL")
