"""The blocking face: the same rooms, the same methods, the same answers."""

import inspect

import pytest

from lablet_client import client as asynchronous
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


@pytest.mark.parametrize(
    "room",
    [
        *("reservations", "definitions", "instances", "workers", "pools", "templates"),
        *("requests", "artifacts", "dead_letters", "events", "keys", "audit"),
    ],
)
def test_every_public_method_has_its_blocking_twin(room, client, blocking):
    skipped = {"one", "parse", "document", "documents", "page"}
    theirs = {
        name for name, member in inspect.getmembers(getattr(client, room), inspect.ismethod) if not name.startswith("_")
    }
    ours = {name for name, _ in inspect.getmembers(getattr(blocking, room), inspect.ismethod)}
    assert theirs - skipped <= ours


def test_the_client_itself_has_no_method_without_a_twin():
    theirs = {name for name in vars(asynchronous.Client) if not name.startswith("_")} - {"collections"}
    assert theirs <= {name for name in vars(sync.Client) if not name.startswith("_")}
