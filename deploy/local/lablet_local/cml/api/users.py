"""Users, their groups (there are none) and resource pools."""

from __future__ import annotations

from typing import Any

from .. import shapes
from ..accounts import Account
from ..errors import denied, invalid
from .call import Call, Reply, Table

Json = dict[str, Any]


def _shown(call: Call, account: Account) -> Json:
    return account.as_json([lab.id for lab in call.controller.labs.all() if lab.owner == account.id])


def users(call: Call) -> list[Json]:
    return [_shown(call, account) for account in call.controller.accounts.all()]


def create_user(call: Call) -> Reply:
    call.admin()
    return Reply(201, _shown(call, call.controller.accounts.create(call.body(shapes.USER_CREATE))))


def user(call: Call) -> Json:
    return _shown(call, call.controller.accounts.by_id(call.path["user_id"]))


def user_id(call: Call) -> str:
    return call.controller.accounts.by_name(call.path["username"]).id


def change_user(call: Call) -> Json:
    accounts = call.controller.accounts
    account = accounts.by_id(call.path["user_id"])
    return _shown(call, accounts.change(account, call.body(shapes.USER_UPDATE), call.user))


def delete_user(call: Call) -> None:
    accounts = call.controller.accounts
    account = accounts.by_id(call.path["user_id"])
    if any(lab.owner == account.id for lab in call.controller.labs.all()):
        raise invalid("The user owns labs.")
    accounts.delete(account, call.admin())


def pools(call: Call) -> list[Any]:
    every = call.controller.pools.all()
    if not call.user.admin:
        every = [pool for pool in every if pool["id"] == call.user.pool]
    return every if call.flag("data") else [pool["id"] for pool in every]


def create_pool(call: Call) -> Any:
    call.admin()
    wanted = call.body(shapes.POOL_CREATE)
    made = call.controller.pools
    if wanted.get("shared", True) or not wanted.get("users"):
        return made.create(wanted)
    return [made.create({**wanted, "users": [each]}) for each in wanted["users"]]


def pool(call: Call) -> Json:
    if not call.user.admin and call.user.pool != call.path["pool_id"]:
        raise denied()
    return call.controller.pools.describe(call.path["pool_id"])


def change_pool(call: Call) -> Json:
    call.admin()
    return call.controller.pools.change(call.path["pool_id"], call.body(shapes.POOL_UPDATE))


def delete_pool(call: Call) -> None:
    call.admin()
    call.controller.pools.delete(call.path["pool_id"])


def usages(call: Call) -> list[Json]:
    call.admin()
    controller = call.controller
    return [controller.pools.usage(each["id"], controller.labs.all()) for each in controller.pools.all()]


def usage(call: Call) -> Json:
    pool(call)
    return call.controller.pools.usage(call.path["pool_id"], call.controller.labs.all())


def register(table: Table) -> None:
    """Adds this room's routes."""
    table.add("GET", "/users", users)
    table.add("POST", "/users", create_user)
    table.add("GET", "/users/{username}/id", user_id)
    table.add("GET", "/users/{user_id}", user)
    table.add("PATCH", "/users/{user_id}", change_user)
    table.add("DELETE", "/users/{user_id}", delete_user)
    table.add("GET", "/users/{user_id}/groups", lambda _: [])
    table.add("GET", "/groups", lambda _: [])
    table.add("GET", "/resource_pools", pools)
    table.add("POST", "/resource_pools", create_pool)
    table.add("GET", "/resource_pools/{pool_id}", pool)
    table.add("PATCH", "/resource_pools/{pool_id}", change_pool)
    table.add("DELETE", "/resource_pools/{pool_id}", delete_pool)
    table.add("GET", "/resource_pool_usage", usages)
    table.add("GET", "/resource_pool_usage/{pool_id}", usage)
