"""The blocking face: the same rooms, the same methods, the same answers."""

import inspect

import pytest

from lablet_client import sync
from lablet_client.connection import Connection
from lablet_client.errors import NotFound

URL = "http://lablet.test"


@pytest.fixture
def blocking(scripted):
    with sync.Client(connection=Connection(URL, "secret"), http=scripted.transport()) as client:
        yield client


def test_calls_block_and_answer(blocking, scripted, reservation):
    scripted.on("GET", "/reservations/rsv-a", reservation())
    assert blocking.reservations.get("rsv-a").phase == "Scheduled"
    with pytest.raises(NotFound):
        blocking.workers.get("nobody")


def test_lists_are_iterators(blocking, scripted, reservation):
    scripted.on("GET", "/reservations", {"items": [reservation(), reservation()], "nextCursor": None})
    assert [booking.id for booking in blocking.reservations.list()] == ["rsv-a", "rsv-a"]


def test_an_iteration_may_be_left_early(blocking, scripted, reservation):
    scripted.on("GET", "/reservations", {"items": [reservation()], "nextCursor": "more"})
    assert next(iter(blocking.reservations.list())).id == "rsv-a"


PURE = {"one", "parse"}
"""What needs no connection, and so no blocking face."""


def rooms(of):
    """The rooms of a client, by name."""
    apart = {"transport", "connection"}
    return {name: room for name, room in vars(of).items() if not name.startswith("_") and name not in apart}


def surface(thing):
    """Public methods with their parameters, as a caller sees them."""
    return {
        name: [(p.name, p.kind, p.default) for p in inspect.signature(member).parameters.values() if p.name != "self"]
        for name, member in inspect.getmembers(thing, callable)
        if not name.startswith("_") and name not in PURE and not inspect.isclass(member)
    }


def test_every_room_has_its_blocking_twin_with_the_same_methods_and_parameters(client, blocking):
    theirs, ours = rooms(client), rooms(blocking)
    assert len(theirs) >= 15
    assert set(theirs) == set(ours)
    for name, room in theirs.items():
        assert surface(ours[name]) == surface(room), name


def test_the_client_itself_has_the_same_methods_and_parameters(client, blocking):
    ours, theirs = surface(blocking), surface(client)
    assert ours == theirs
    assert {"watch", "wait_for", "lab_time", "usage", "usage_csv", "whoami", "version", "close"} <= set(ours)
