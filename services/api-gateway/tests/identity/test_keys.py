"""API keys: shown once, hashed at rest, narrowed, ended by time and by hand, their use noted without a write per call."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from lablet_common.resources.kinds import KEY, key_use_key
from lablet_common.store.repository import Repository
from lablet_gateway.identity.keys import KeyCare, KeyUses, KeyVerifier
from lablet_gateway.rights import KEY_SCOPES

BODY = {"name": "lms-sync", "scopes": ["reservations:write", "definitions:read"]}


@pytest.fixture
def made(world: Any) -> Callable[..., Any]:
    """`await made(name=…, …)`: what the admin gets for a new key."""

    async def create(**body: Any) -> dict[str, Any]:
        answer = await world.client().post("/api/v1/keys", json=BODY | body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    return create


def using(world: Any, token: str) -> httpx.AsyncClient:
    client: httpx.AsyncClient = world.client(None)
    client.headers["Authorization"] = f"Bearer {token}"
    return client


async def test_a_key_is_shown_once_and_its_secret_is_nowhere_in_the_store(world: Any, made: Any) -> None:
    answer = await made()
    token, key = answer["token"], answer["key"]
    assert token.startswith("lbk_default_")
    assert key["spec"]["scopes"] == ["definitions:read", "reservations:write"]
    secret = token.rpartition("_")[2] if token.count("_") == 3 else token.split("_", 3)[3]
    stored = (await world.store.range("/")).items
    assert not any(secret.encode() in kv.value for kv in stored)
    client = world.client()
    shown = [
        (await client.get(f"/api/v1/keys/{key['metadata']['id']}")).json(),
        *(await client.get("/api/v1/keys")).json()["items"],
    ]
    for one in shown:
        assert "sha256" not in one["spec"]
        assert one["metadata"]["owner"] == "admin@default"


async def test_a_key_acts_under_its_own_name_and_only_within_its_scopes(world: Any, made: Any, booking: Any) -> None:
    client = using(world, (await made())["token"])
    me = (await client.get("/api/v1/whoami")).json()
    assert (me["name"], me["role"], me["tenant"]) == ("key:lms-sync", "machine", "default")
    accepted = await client.post("/api/v1/reservations", json=booking())
    assert accepted.status_code == 202
    assert (await client.get(accepted.headers["location"])).json()["spec"]["principal"] == "key:lms-sync"
    assert (await client.get("/api/v1/reservations")).status_code == 200, "who may write may read"
    assert (await client.get("/api/v1/definitions")).status_code == 200
    refused = await client.get("/api/v1/instances")
    assert (refused.status_code, refused.json()["scope"]) == (403, "instances:read")
    event = {"specversion": "1.0", "id": "1", "source": "/x", "type": "io.lablet.reservation.requested.v1",
             "data": booking()}  # fmt: skip
    sent = await client.post("/api/v1/events", json=event, headers={"Content-Type": "application/cloudevents+json"})
    assert sent.json()["scope"] == "events:write"


async def test_an_event_needs_the_scope_of_what_it_asks_for_too(world: Any, made: Any, booking: Any) -> None:
    client = using(world, (await made(scopes=["events:write"]))["token"])
    event = {"specversion": "1.0", "id": "1", "source": "/x", "type": "io.lablet.reservation.requested.v1",
             "data": booking()}  # fmt: skip
    sent = await client.post("/api/v1/events", json=event, headers={"Content-Type": "application/cloudevents+json"})
    assert sent.status_code == 403
    assert "lacks the scope reservations:write" in sent.text


async def test_without_scopes_a_key_has_its_roles_rights_and_no_more(world: Any, made: Any) -> None:
    client = using(world, (await made(scopes=[], role="operator"))["token"])
    assert (await client.post("/api/v1/workers/default-001/uncordon")).status_code == 202
    assert (await client.put("/api/v1/quotas/acme", json={})).status_code == 403


async def test_unknown_scopes_and_scopes_beyond_the_role_are_refused(world: Any) -> None:
    client = world.client()
    for scopes, words in ((["reservation:write"], "reservations:write"), (["workers:write"], "may never use")):
        answer = await client.post("/api/v1/keys", json={"name": "x", "scopes": scopes})
        assert answer.status_code == 422
        assert words in answer.text
    assert {"reservations:read", "reservations:write", "events:write", "instances:read"} <= KEY_SCOPES


async def test_a_key_makes_no_keys(world: Any, made: Any) -> None:
    client = using(world, (await made(role="admin", scopes=[]))["token"])
    assert (await client.get("/api/v1/keys")).status_code == 200
    refused = await client.post("/api/v1/keys", json={"name": "child", "role": "admin"})
    assert (refused.status_code, refused.json()["detail"]) == (403, "a key makes no keys: a person has to")


async def test_a_revoked_key_is_refused_at_once_and_stays_visible(world: Any, made: Any) -> None:
    answer = await made()
    path = f"/api/v1/keys/{answer['key']['metadata']['id']}"
    client, admin = using(world, answer["token"]), world.client()
    assert (await client.get("/api/v1/whoami")).status_code == 200
    revoked = await admin.delete(path, params={"reason": "laptop lost"})
    assert (revoked.status_code, revoked.json()["status"]["phase"]) == (200, "Revoked")
    await world.caught_up()
    refused = await client.get("/api/v1/whoami")
    assert refused.status_code == 401
    assert "has been revoked" in refused.json()["detail"]
    assert (await admin.delete(path)).status_code == 200, "revoking twice is no error"
    assert (await admin.get(path)).json()["status"]["message"] == "laptop lost"


async def test_of_two_who_revoke_a_key_at_once_both_are_told_that_it_has_ended(world: Any, made: Any) -> None:
    path = f"/api/v1/keys/{(await made())['key']['metadata']['id']}"
    answers = await asyncio.gather(*(world.client().delete(path, params={"reason": one}) for one in ("a", "b")))
    assert [(answer.status_code, answer.json()["status"]["phase"]) for answer in answers] == [(200, "Revoked")] * 2


async def test_an_expired_key_is_refused(world: Any, made: Any) -> None:
    token = (await made(days=1))["token"]
    late = KeyVerifier(world.parts.caches, world.parts.lookups, world.parts.key_uses, lambda: time.time() + 86401)
    with pytest.raises(Exception, match="has expired: ask for a new one"):
        await late.verify(token)
    assert await world.parts.proof.verify(token)


async def test_another_secret_another_tenant_and_another_form_prove_nothing(world: Any, made: Any) -> None:
    token = (await made())["token"]
    for wrong in (token[:-1] + ("A" if token[-1] != "A" else "B"), token.replace("default", "acme")):
        assert (await using(world, wrong).get("/api/v1/whoami")).status_code == 401
    assert await world.parts.proof.verify(token[:-1]) is None


async def test_a_key_that_the_cache_lacks_is_looked_up(world: Any, made: Any) -> None:
    token = (await made())["token"]

    class Empty:
        def __getitem__(self, _: Any) -> "Empty":
            return self

        def get(self, *_: Any) -> None:
            return None

    verifier = KeyVerifier(Empty(), world.parts.lookups, world.parts.key_uses)  # type: ignore[arg-type]  # a twin
    assert (await verifier.verify(token)).name == "key:lms-sync"


async def test_the_same_idempotency_key_makes_one_key_and_shows_its_token_once(world: Any) -> None:
    client, headers = world.client(), {"Idempotency-Key": "once"}
    first = (await client.post("/api/v1/keys", json=BODY, headers=headers)).json()
    second = await client.post("/api/v1/keys", json=BODY, headers=headers)
    assert second.json()["key"]["metadata"]["id"] == first["key"]["metadata"]["id"]
    assert "token" not in second.json()
    other = await client.post("/api/v1/keys", json=BODY | {"days": 5}, headers=headers)
    assert (other.status_code, other.json()["type"]) == (422, "https://lablet.io/problems/idempotency-key-reused")


async def test_use_is_noted_without_a_write_per_call(world: Any, made: Any) -> None:
    answer = await made()
    key_id, clock = answer["key"]["metadata"]["id"], [1_800_000_000.0]
    uses = KeyUses(world.store, lambda: clock[0])
    verifier = KeyVerifier(world.parts.caches, world.parts.lookups, uses)
    for _ in range(50):
        await verifier.verify(answer["token"])
        clock[0] += 1
    assert await uses.flush() == 1
    assert (await world.store.get(key_use_key("default", key_id))).value == b"1800000049"
    await verifier.verify(answer["token"])
    assert await uses.flush() == 0, "less than an hour newer"
    clock[0] += 3600
    await verifier.verify(answer["token"])
    assert await uses.flush() == 1
    shown = (await world.client().get(f"/api/v1/keys/{key_id}")).json()
    assert shown["status"]["lastUsedAt"] == "2027-01-15T09:00:50Z"


async def test_keys_that_ended_a_month_ago_go(world: Any, made: Any) -> None:
    kept, gone = await made(days=100), await made(days=10)
    await world.caught_up()
    later = time.time() + timedelta(days=41).total_seconds()
    care = KeyCare(world.store, world.parts.caches, world.parts.key_uses, lambda: later)
    assert await care.sweep() == 1
    left = (await Repository(world.store, KEY).list()).items
    assert [key.id for key in left] == [kept["key"]["metadata"]["id"]]
    assert gone["key"]["metadata"]["id"] not in left
