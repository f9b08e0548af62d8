"""The side door `/sim`: faults in, the witness's account out. Not part of any real controller.

Answers only callers on this machine, without login: it belongs to whoever runs the simulation.
"""

from __future__ import annotations

from typing import Any

from .. import shapes
from .call import Call, Table

Json = dict[str, Any]


def state(call: Call) -> Json:
    shown = call.controller.snapshot()
    shown["openPorts"] = call.controller.open_ports()
    if not call.flag("history", default=True):
        del shown["history"]
    return shown


def faults(call: Call) -> Json:
    return call.controller.faults.as_json()


def change(call: Call) -> Json:
    """PATCH: sets the named switches."""
    call.controller.faults.change(call.body(shapes.ANYTHING))
    return _applied(call)


def replace(call: Call) -> Json:
    """PUT: all switches off but the named ones."""
    wanted = call.body(shapes.ANYTHING)
    kept = call.controller.faults.as_json()
    call.controller.faults.clear()
    try:
        call.controller.faults.change(wanted)
    except Exception:
        call.controller.faults.change(kept)
        raise
    return _applied(call)


def clear(call: Call) -> Json:
    """DELETE: all switches off."""
    call.controller.faults.clear()
    return _applied(call)


def _applied(call: Call) -> Json:
    call.controller.launcher.apply_faults(call.controller.labs.all())
    return faults(call)


def register(table: Table) -> None:
    """Adds this room's routes."""
    table.add("GET", "/state", state)
    table.add("GET", "/faults", faults)
    table.add("PUT", "/faults", replace)
    table.add("PATCH", "/faults", change)
    table.add("DELETE", "/faults", clear)
