"""The lab files that a service keeps at hand are few, and small together."""

import json
import threading
from typing import Any

import pytest

from lablet_artifacts import manifests
from lablet_artifacts.rendering import Renderer
from lablet_common.objects import MemoryObjectStore, digest_of, put_content
from lablet_common.resources.kinds import DEFINITION


class Counting(MemoryObjectStore):
    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    async def get(self, key: str) -> bytes:
        self.read.append(key.rpartition("/")[2])
        return await super().get(key)


async def rendered(shelf: Any, files: list[bytes], order: list[int], **bounds: int) -> list[int]:
    """Renders seats of the labs in that order; which lab was read from the object store each time."""
    objects = Counting()
    definitions = []
    for number, data in enumerate(files):
        await shelf.publish(f"lab{number}", data)
        await put_content(objects, "default", data, "application/yaml")
        definitions.append(await shelf.all(DEFINITION).require(f"lab{number}@1.0.0"))
    seat = await shelf.instance(f"ins-{len(order)}-1")
    renderer = Renderer(objects, **bounds)
    for number in order:
        assert b"serial:2345" in await renderer.render(definitions[number], seat)
    return [[digest_of(data) for data in files].index(digest) for digest in objects.read]


@pytest.fixture
def files(small: bytes) -> list[bytes]:
    """Three labs of some 400 bytes."""
    return [small.replace(b"Small", f"Lab {number}".encode()) for number in range(3)]


async def test_a_lab_file_is_read_once_for_all_its_seats(shelf: Any, files: list[bytes]) -> None:
    assert await rendered(shelf, files, [0, 0, 1, 0, 1]) == [0, 1]


async def test_the_one_that_was_wanted_last_goes_for_a_new_one(shelf: Any, files: list[bytes]) -> None:
    assert await rendered(shelf, files, [0, 1, 0, 2, 0, 1], cached=2) == [0, 1, 2, 1]


async def test_few_large_files_are_kept_and_one_always(shelf: Any, files: list[bytes]) -> None:
    """64 of the largest, each with its text, would be more than a gigabyte."""
    two = len(files[0]) + len(files[1])
    assert await rendered(shelf, files, [0, 1, 0, 2, 0, 1], most_bytes=two) == [0, 1, 2, 1]
    assert await rendered(shelf, files, [0, 0, 1, 1, 0], most_bytes=10) == [0, 1, 0]


async def test_a_manifest_is_read_once_for_all_its_seats_and_beside_the_event_loop(
    shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of 250 KB takes a second: a class of such jobs kept the service from everything else for minutes."""
    data = b'kind: ProcessLab\nnodes:\n  - {name: n, command: [echo, "${PORT_R1}"], ports: [r1]}\n'
    await shelf.publish("job", data)
    await put_content(shelf.objects, "default", data, "application/yaml")
    definition = await shelf.all(DEFINITION).require("job@1.0.0")
    threads: list[int] = []
    read = manifests.read_manifest

    def counted(given: bytes) -> Any:
        threads.append(threading.get_ident())
        return read(given)

    monkeypatch.setattr(manifests, "read_manifest", counted)
    renderer = Renderer(shelf.objects)
    for seat in (1, 2):
        rendered = json.loads(await renderer.render(definition, await shelf.instance(f"ins-a-{seat}", seat=seat)))
        assert (rendered["seat"], rendered["lab"]["nodes"][0]["command"]) == (seat, ["echo", "2345"])
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
