"""What the API keeps of a subscription and shows to whom: secrets, what is whose, the preset."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
from pydantic import SecretStr

from lablet_gateway.app import Gateway
from lablet_gateway.settings import GatewaySettings
from lablet_gateway.webhooks.preset import Preset, check_secret
from lablet_gateway.webhooks.registry import PRESET
from lablet_gateway.webhooks.signing import new_secret, signature

from .conftest import PATH, Desk, SinkServer, box, until


async def test_the_secret_is_shown_once_and_lies_encrypted(desk: Desk, sink: SinkServer) -> None:
    made = await desk.subscribe(sink.url)
    stored = (await desk.world.store.get("/subscriptions/lms")).value
    assert made["secret"].removeprefix("whsec_").encode() not in stored
    assert box().open(json.loads(stored)["status"]["secret"], "subscription/lms") == made["secret"]
    for path in (PATH, f"{PATH}/lms"):
        shown = (await desk.client().get(path)).text
        assert made["secret"] not in shown
        assert '"secret"' not in shown


async def test_the_same_key_gets_the_same_secret_and_another_body_under_it_is_refused(
    desk: Desk, sink: SinkServer
) -> None:
    client, key = desk.client(), {"Idempotency-Key": "once"}
    body = {"name": "lms", "sink": sink.url}
    first = await client.post(PATH, json=body, headers=key)
    again = await client.post(PATH, json=body, headers=key)
    assert (again.status_code, again.json()["secret"]) == (201, first.json()["secret"])
    other = await client.post(PATH, json=body | {"mode": "binary"}, headers=key)
    assert (other.status_code, other.json()["type"].rpartition("/")[2]) == (422, "idempotency-key-reused")
    taken = await client.post(PATH, json=body)
    assert (taken.status_code, taken.json()["errors"][0]["path"]) == (409, "name")


async def test_a_rotated_secret_signs_beside_the_old_one_for_a_day(desk: Desk, sink: SinkServer) -> None:
    old = (await desk.subscribe(sink.url))["secret"]
    new = (await desk.client().post(f"{PATH}/lms/rotate-secret")).json()["secret"]
    await desk.world.caught_up()
    async with desk.serving():
        await desk.publish(desk.world.reservation("rsv-a"))
        await until(lambda: len(sink.taken) == 1)
        await desk.world.clock.advance(timedelta(hours=25))
        await desk.publish(desk.world.reservation("rsv-b"))
        await until(lambda: len(sink.taken) == 2)
    for at, secrets in enumerate(([new, old], [new])):
        told = sink.headers[at]
        stamp = int(told["webhook-timestamp"])
        wanted = [signature(secret, told["webhook-id"], stamp, sink.bodies[at]) for secret in secrets]
        assert told["webhook-signature"].split() == wanted


async def test_everybody_sees_what_is_theirs(desk: Desk, sink: SinkServer) -> None:
    await desk.subscribe(sink.url, "of-ina", by="ina")
    await desk.subscribe(sink.url, "of-acme", by="admin@acme")
    expected = {
        "admin@default": ["of-ina"], "operator@default": ["of-ina"], "ina": ["of-ina"], "instructor@default": [],
        "admin@acme": ["of-acme"], "machine@acme": [],
    }  # fmt: skip
    for who, names in expected.items():
        client = desk.client(who)
        assert [one["metadata"]["id"] for one in (await client.get(PATH)).json()["items"]] == names, who
        for name in ("of-ina", "of-acme"):
            known = name in names
            assert (await client.get(f"{PATH}/{name}")).status_code == (200 if known else 404)
            if not known:
                assert (await client.delete(f"{PATH}/{name}")).status_code == 404
                assert (await client.post(f"{PATH}/{name}/redeliver")).status_code == 404
    foreign = await desk.client("ina").post(PATH, json={"name": "x", "sink": sink.url, "tenant": "acme"})
    assert foreign.status_code == 403
    every = await desk.client().post(PATH, json={"name": "x", "sink": sink.url, "tenant": "*"})
    assert every.status_code == 403


async def test_without_a_key_file_or_nats_no_subscription_is_made(desk: Desk, sink: SinkServer) -> None:
    desk.world.log.unavailable = True
    answer = await desk.client().post(PATH, json={"name": "lms", "sink": sink.url})
    assert (answer.status_code, answer.json()["dependency"]) == (503, "nats")
    desk.world.log.unavailable = False
    desk.world.app.state.parts = replace(desk.parts, secrets=None)
    answer = await desk.client().post(PATH, json={"name": "lms", "sink": sink.url})
    assert (answer.status_code, answer.json()["dependency"]) == (503, "secrets key")


async def test_the_preset_follows_its_setting_and_hears_every_tenant(desk: Desk, sink: SinkServer) -> None:
    secret = new_secret()
    given = {"cloudevents_sink_url": sink.url, "cloudevents_sink_secret": SecretStr(secret)}
    desk.parts = replace(
        desk.parts, settings=desk.parts.settings.model_copy(update={**given, "webhook_allow_private": False})
    )
    await Preset(desk.parts).look()
    await Preset(desk.parts).look()
    await desk.world.caught_up()
    async with desk.serving(PRESET):
        await desk.publish(desk.world.reservation("rsv-a"), desk.world.reservation("rsv-b", tenant="acme"))
        await until(lambda: len(sink.taken) == 2)
        told = sink.headers[0]
        wanted = signature(secret, told["webhook-id"], int(told["webhook-timestamp"]), sink.bodies[0])
        assert told["webhook-signature"] == wanted
        assert (await desk.client().delete(f"{PATH}/{PRESET}")).status_code == 409
        refused = await desk.client().post(PATH, json={"name": PRESET, "sink": sink.url})
        assert refused.status_code == 422
        off = desk.parts.settings.model_copy(update={"cloudevents_sink_url": None})
        await Preset(replace(desk.parts, settings=off)).look()
        await until(lambda: _preset_gone(desk))


def test_a_secret_that_cannot_sign_is_refused_at_the_start_and_not_told() -> None:
    """Each event would be tried for a day and a half, and become a dead letter."""
    check_secret(GatewaySettings())
    check_secret(GatewaySettings(cloudevents_sink_secret=SecretStr(new_secret())))
    for wrong in ("hunter2-hunter2", "whsec_c2hvcnQ="):
        settings = GatewaySettings(cloudevents_sink_secret=SecretStr(wrong))
        with pytest.raises(ValueError, match="CLOUDEVENTS_SINK_SECRET cannot sign") as refused:
            Gateway(cast("Any", None), settings)
        assert wrong not in str(refused.value)


async def _preset_gone(desk: Desk) -> bool:
    return await desk.world.store.get(f"/subscriptions/{PRESET}") is None
