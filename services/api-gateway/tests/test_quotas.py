"""Limits: set by the fleet's admins, with the ETag of what they are meant for."""

from typing import Any

from lablet_common.quotas import Ledger, Quota, Usage
from lablet_common.resources.kinds import ledger_key, quota_key

PATH = "/api/v1/quotas/acme"


async def test_limits_are_set_and_read_with_what_is_in_use(world: Any) -> None:
    client = world.client()
    assert (await client.get(PATH)).json() == {"tenant": "acme", "limits": {"tenant": {}, "owner": {}}, "owners": {}}
    answer = await client.put(PATH, json={"tenant": {"openSeats": 5}, "owner": {"longestSlotMinutes": 60}})
    assert answer.status_code == 200
    stored = Quota.model_validate_json((await world.store.get(quota_key("acme"))).value)
    assert (stored.tenant.open_seats, stored.owner.longest_slot_minutes) == (5, 60)
    ledger = Ledger(owners={"ann": Usage(seats=2, seat_minutes=120)})
    await world.store.put(ledger_key("acme"), ledger.to_json())
    assert (await client.get(PATH)).json()["used"] == {"seats": 2, "seatMinutes": 120}


async def test_a_change_needs_the_etag_of_the_present_limits(world: Any) -> None:
    client = world.client()
    etag = (await client.put(PATH, json={"tenant": {"openSeats": 5}})).headers["etag"]
    assert (await client.put(PATH, json={})).status_code == 428
    assert (await client.put(PATH, json={}, headers={"If-Match": '"1"'})).status_code == 412
    assert (await client.put(PATH, json={}, headers={"If-Match": etag})).status_code == 200


async def test_a_limit_below_zero_and_an_unknown_one_are_refused(world: Any) -> None:
    client = world.client()
    for body, path in (({"tenant": {"openSeats": -1}}, "tenant.openSeats"), ({"owner": {"beer": 1}}, "owner.beer")):
        answer = await client.put(PATH, json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["path"] == path
