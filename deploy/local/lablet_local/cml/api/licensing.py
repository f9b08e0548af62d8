"""The licensing routes; only administrators may use them (403)."""

from __future__ import annotations

from typing import Any

from .. import shapes
from .call import Call, Reply, Table


def status(call: Call) -> Any:
    call.admin()
    controller = call.controller
    return controller.licence.status(controller.counted(), controller.host.hostname)


def features(call: Call) -> Any:
    call.admin()
    return call.controller.licence.features(call.controller.counted())


def change_features(call: Call) -> None:
    call.admin()
    call.controller.licence.set_counts(call.body(shapes.LICENCE_FEATURES))


def product(call: Call) -> None:
    call.admin()
    call.controller.licence.set_product(call.body(shapes.PRODUCT_LICENCE), call.controller.counted())


def transport(call: Call) -> None:
    call.admin()
    wanted = call.body(shapes.LICENCE_TRANSPORT)
    call.controller.licence.set_transport(wanted["proxy"], wanted.get("ssms"))


def registration(call: Call) -> None:
    call.admin()
    call.controller.licence.register(call.body(shapes.LICENCE_REGISTRATION).get("reregister", False))


def renew_registration(call: Call) -> None:
    call.admin()
    call.controller.licence.renew_registration()


def renew_authorization(call: Call) -> None:
    call.admin()
    call.controller.licence.renew_authorization()


def deregistration(call: Call) -> Reply:
    call.admin()
    return Reply(call.controller.licence.deregister(call.controller.counted()))


def tech_support(call: Call) -> str:
    call.admin()
    licence = call.controller.licence
    return f"Smart Licensing (simulated)\nregistration {licence.registration}\nauthorization {licence.authorization}\n"


def register(table: Table) -> None:
    """Adds this room's routes."""
    table.add("GET", "/licensing", status)
    table.add("GET", "/licensing/features", features)
    table.add("PATCH", "/licensing/features", change_features)
    table.add("PUT", "/licensing/product_license", product)
    table.add("PUT", "/licensing/transport", transport)
    table.add("POST", "/licensing/registration", registration)
    table.add("PUT", "/licensing/registration/renew", renew_registration)
    table.add("PUT", "/licensing/authorization/renew", renew_authorization)
    table.add("DELETE", "/licensing/deregistration", deregistration)
    table.add("GET", "/licensing/tech_support", tech_support)
