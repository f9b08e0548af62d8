"""The schemas that events point to, for everybody who gets one."""

from typing import Any
from urllib.parse import urlsplit

import jsonschema

from lablet_common.events import EVENTS, data_of, derive
from lablet_common.events.catalogue import SCHEMA_BASE
from lablet_common.resources.kinds import RESERVATION


async def test_the_schema_of_an_event_is_read_at_its_address_without_a_token(world: Any) -> None:
    (out,) = derive(RESERVATION, None, world.reservation(), 7, source="/lablet/scheduler")
    address = out.event.get_dataschema()
    assert address is not None
    assert urlsplit(address).scheme == "https", "an absolute URI, as CloudEvents wants it"
    answer = await world.client(None).get(f"/api/v1/schemas/{address.removeprefix(SCHEMA_BASE)}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/schema+json")
    assert answer.json()["$id"] == address
    jsonschema.validate(data_of(out.event), answer.json())


async def test_all_schemas_are_listed_and_a_misspelt_one_gets_its_neighbours(world: Any) -> None:
    client = world.client(None)
    assert (await client.get("/api/v1/schemas")).json()["items"] == sorted(EVENTS)
    answer = await client.get("/api/v1/schemas/io.lablet.reservation.sheduled.v1.json")
    assert answer.status_code == 404
    assert "io.lablet.reservation.scheduled.v1" in answer.json()["detail"]
    assert (await client.post("/api/v1/schemas")).status_code == 405


async def test_asyncapi_is_served_beside_openapi(world: Any) -> None:
    answer = await world.client(None).get("/api/docs/asyncapi.json")
    assert answer.json()["asyncapi"] == "3.0.0"
