"""The pod description: one seat's lab for a system that looks into it. Devices and interfaces come from the lab file, host
and ports from the instance.

Which port leads to which device is read off the rendered file, where the real numbers stand in the devices' tags. Before
that file is there, and for a port that stands at no device, a port is listed for the pod as a whole only.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

from lablet_common.resources.definition import Definition
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import DEFINITION, INSTANCE
from lablet_common.resources.model import Instant, Model
from lablet_gateway import problems, reads, topologies, uses
from lablet_gateway.parts import Parts
from lablet_gateway.rights import PUBLIC_TENANT

_NUMBER = re.compile(r"(?<![0-9])[0-9]{1,5}(?![0-9])")


class PodPort(Model):
    """A named port: connect to `host`:`port` with `protocol`."""

    name: str
    protocol: str
    host: str | None = None
    port: int


class PodInterface(Model):
    label: str
    type: str = ""
    slot: int | None = None
    network: str | None = None
    """Label of the link that it is on; None: not connected."""


class PodDevice(Model):
    id: str
    label: str
    definition: str
    """Its node definition."""
    state: str | None = None
    interfaces: tuple[PodInterface, ...] = ()
    ports: tuple[PodPort, ...] = ()


class Pod(Model):
    """Ports answer while `phase` is Running, Collecting or Grading."""

    instance: str
    reservation: str
    seat: int
    definition: str
    phase: str
    attempt: int
    host: str | None = None
    start: Instant
    end: Instant
    now: Instant
    devices: tuple[PodDevice, ...] = ()
    ports: tuple[PodPort, ...] = ()


async def describe(parts: Parts, instance: Instance) -> Pod:
    """The pod of an instance that the caller may see. Raises 404 when its definition is gone, 502 for a damaged file."""
    definition = await _definition(parts, instance)
    digest, owner = await _rendered(parts, instance), instance.tenant
    if digest is None:
        digest, owner = definition.spec.topology.digest, definition.tenant
    topology = await topologies.read(parts, owner, digest)
    protocols = {port.name: port.protocol for port in definition.spec.ports}
    host = instance.status.host
    ports = {
        number: PodPort(name=name, protocol=protocols.get(name, "tcp"), host=host, port=number)
        for name, number in sorted(instance.spec.ports.items())
    }
    states = {node.label: node.state for node in instance.status.nodes}
    return Pod(
        instance=instance.id,
        reservation=instance.spec.reservation,
        seat=instance.spec.seat,
        definition=definition.id,
        phase=str(instance.phase),
        attempt=instance.status.attempt,
        host=host,
        start=instance.spec.start,
        end=instance.spec.end,
        now=parts.clock.now(),
        devices=tuple(devices_of(topology, ports, states)),
        ports=tuple(ports.values()),
    )


def devices_of(topology: Mapping[str, Any], ports: Mapping[int, PodPort], states: Mapping[str, str]) -> list[PodDevice]:
    """The devices of a lab file; `ports` by number, found where a device's tags name them."""
    networks = _networks(topology)
    devices = []
    for node in topology.get("nodes") or ():
        label = str(node.get("label", ""))
        numbers = {int(found) for tag in node.get("tags") or () for found in _NUMBER.findall(str(tag))}
        interfaces = [
            PodInterface(
                label=str(interface.get("label", "")),
                type=str(interface.get("type", "")),
                slot=interface.get("slot"),
                network=networks.get((str(node.get("id")), str(interface.get("id")))),
            )
            for interface in node.get("interfaces") or ()
        ]
        devices.append(
            PodDevice(
                id=str(node.get("id", "")),
                label=label,
                definition=str(node.get("node_definition", "")),
                state=states.get(label),
                interfaces=tuple(interfaces),
                ports=tuple(port for number, port in ports.items() if number in numbers),
            )
        )
    return devices


def _networks(topology: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Node and interface → the label of its link. Older files call the ends differently."""
    found = {}
    for link in topology.get("links") or ():
        for node, interface in (("n1", "i1"), ("n2", "i2"), ("node_a", "interface_a"), ("node_b", "interface_b")):
            if node in link or interface in link:
                label = str(link.get("label") or link.get("id") or "")
                found[str(link.get(node)), str(link.get(interface))] = label
    return found


async def _definition(parts: Parts, instance: Instance) -> Definition:
    for tenant in dict.fromkeys((instance.tenant, PUBLIC_TENANT)):
        found = await reads.get(parts, DEFINITION, instance.spec.definition, tenant)
        if found is not None:
            return cast("Definition", found)
    raise problems.unknown(DEFINITION.name, instance.spec.definition)


async def _rendered(parts: Parts, instance: Instance) -> str | None:
    """Digest of the file that the present attempt was imported from."""
    subject = f"{INSTANCE.name}/{instance.id}"

    found = (
        use.artifact.id
        for use in await uses.of_subject(parts, subject, instance.tenant)
        if use.reference.role == "rendered" and use.reference.attempt == instance.status.attempt
    )
    return next(found, None)
