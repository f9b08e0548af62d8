"""Systems beside Lablet: the pod they look into, what they tell about it, and their way in over NATS."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from cloudevents.core.bindings.http import to_structured_event
from cloudevents.core.v1.event import CloudEvent

from lablet_common.bus import MemoryBus
from lablet_common.bus.connection import TooLarge
from lablet_common.bus.streams import INGRESS
from lablet_common.events import data_of
from lablet_common.store import StoreUnavailable
from lablet_gateway.ingress import take
from lablet_gateway.mailbox import PATIENCE, NatsIngress

LAB = b"""
lab: {title: OSPF basics}
nodes:
  - {id: n0, label: R1, node_definition: iosv, tags: ["serial:2001"],
     interfaces: [{id: i0, label: Loopback0, type: loopback}, {id: i1, slot: 0, label: Gi0/0, type: physical}]}
  - {id: n1, label: SW1, node_definition: unmanaged_switch, interfaces: [{id: i0, slot: 0, label: p0, type: physical}]}
links:
  - {id: l0, label: segment, n1: n0, i1: i1, n2: n1, i2: i0}
"""
GRADED = "io.lablet.assessment.grading.completed.v1"


async def seat(world: Any, phase: str = "Grading", rendered: bool = True) -> None:
    reservation = world.reservation("rsv-a", owner="ina")
    await world.add(reservation, world.instance(reservation, phase=phase))
    if rendered:
        await world.add(await world.artifact(LAB, "instance/ins-a-1", role="rendered"))


async def test_a_pod_names_devices_interfaces_and_where_each_port_answers(world: Any) -> None:
    await seat(world)
    answer = await world.client("machine@default").get("/api/v1/instances/ins-a-1/pod")
    assert answer.status_code == 200, answer.text
    pod = answer.json()
    assert (pod["instance"], pod["phase"], pod["host"]) == ("ins-a-1", "Grading", "127.9.0.1")
    router, switch = pod["devices"]
    assert (router["label"], router["definition"]) == ("R1", "iosv")
    assert [(one["label"], one.get("network")) for one in router["interfaces"]] == [
        ("Loopback0", None),
        ("Gi0/0", "segment"),
    ]
    assert router["ports"] == [{"name": "r1_serial", "protocol": "tcp", "host": "127.9.0.1", "port": 2001}]
    assert switch["ports"] == []


async def test_before_the_lab_is_rendered_the_pod_has_its_ports_without_devices(world: Any) -> None:
    await seat(world, "Pending", rendered=False)
    pod = (await world.client("ina").get("/api/v1/instances/ins-a-1/pod")).json()
    assert [port["name"] for port in pod["ports"]] == ["r1_serial"]
    assert pod["devices"] == []
    assert (await world.client("ann").get("/api/v1/instances/ins-a-1/pod")).status_code == 403


def grading(event_id: str = "g-1", instance: str = "ins-a-1", **data: Any) -> Any:
    attributes = {"id": event_id, "source": "/grader", "type": GRADED, "specversion": "1.0",
                  "subject": f"instance/{instance}", "datacontenttype": "application/json"}  # fmt: skip
    return to_structured_event(CloudEvent(attributes, data or {"passed": True}))


async def test_a_score_is_taken_over_http_in_every_phase_and_for_known_instances_only(world: Any) -> None:
    await seat(world, "Terminated")
    machine = world.client("machine@default")

    async def post(client: Any, message: Any) -> int:
        status: int = (await client.post("/api/v1/events", content=message.body, headers=message.headers)).status_code
        return status

    assert await post(machine, grading()) == 202
    assert await post(machine, grading()) == 202
    (asked,) = await world.inbox("worker-controller")
    assert (asked.spec.type, asked.spec.subject, asked.spec.data["passed"]) == (GRADED, "instance/ins-a-1", True)
    assert await post(machine, grading("g-2", "ins-none-1")) == 404
    assert await post(machine, grading("g-3", score=5)) == 422
    assert await post(machine, grading("g-4", passed=True, instance_="x")) == 422
    assert await post(world.client("ann"), grading("g-5")) == 403
    assert await post(world.client("machine@acme"), grading("g-6")) == 404


@asynccontextmanager
async def taking(world: Any) -> AsyncIterator[MemoryBus]:
    bus = MemoryBus("api-gateway")
    task = asyncio.create_task(NatsIngress(world.parts, bus, "/lablet/api-gateway").run())
    await asyncio.sleep(0)
    try:
        yield bus
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def put(bus: MemoryBus, message: Any, tenant: str = "default") -> None:
    headers = {"Content-Type": "application/cloudevents+json"}
    await bus.put(f"lablet.ingress.{tenant}.instance", headers, bytes(message.body))
    await bus.settle()


async def test_an_event_over_nats_is_one_request_of_its_subjects_tenant(world: Any) -> None:
    await seat(world)
    async with taking(world) as bus:
        await put(bus, grading())
        await put(bus, grading())
        (asked,) = await world.inbox("worker-controller")
        assert (asked.tenant, asked.spec.principal, asked.spec.type) == ("default", "ingress", GRADED)
        assert (bus.told, bus.dead) == ([], [])


async def test_a_refusal_is_told_on_the_tenants_result_subject_and_not_tried_again(world: Any) -> None:
    await seat(world)
    async with taking(world) as bus:
        await put(bus, grading("g-9"), tenant="acme")
        (told,) = bus.told
        assert told.subject == "lablet.ingress-result.acme"
        assert told.event.get_type() == "io.lablet.ingress.refused.v1"
        said = data_of(told.event)
        assert (said["eventId"], said["problem"]["status"]) == ("g-9", 404)
        assert bus.dead == []
        assert await world.inbox("worker-controller") == []


async def test_a_refusal_repeats_no_more_than_helps_to_find_the_fault(world: Any) -> None:
    await seat(world)
    unknown = {f"field-{number:05}": 1 for number in range(10_000)}
    named = {"id": "g-1", "source": "/grader", "specversion": "1.0", "subject": "instance/ins-a-1"}
    async with taking(world) as bus:
        await put(bus, grading("g-1", **unknown))
        await put(bus, to_structured_event(CloudEvent(named | {"type": "x" * 350_000}, {})))
        for told in bus.told:
            assert len(json.dumps(data_of(told.event))) < 64 * 1024
        many, long = (data_of(told.event)["problem"] for told in bus.told)
        assert len(many["errors"]) == 21
        assert many["errors"][-1]["message"].startswith("there are 99")
        assert long["detail"].endswith("…")


async def test_a_refusal_that_cannot_be_told_is_no_reason_to_handle_the_event_again(
    world: Any, monkeypatch: Any
) -> None:
    tried: list[Any] = []

    async def tell(answer: Any) -> None:
        tried.append(answer)
        raise TooLarge("more than NATS takes")

    await seat(world)
    async with taking(world) as bus:
        monkeypatch.setattr(bus, "tell", tell)
        await put(bus, grading("g-9"), tenant="acme")
        assert len(tried) == 1
        assert bus.dead == []


async def test_what_is_no_event_and_what_breaks_the_gateway_ends_in_the_dead_letters(
    world: Any, monkeypatch: Any
) -> None:
    async def broken(*_: Any) -> Any:
        raise ZeroDivisionError("a defect")

    async with taking(world) as bus:
        await bus.put("lablet.ingress.default.instance", {}, b"not an event")
        await bus.settle()
        assert len(bus.dead) == 1
        (told,) = bus.told
        assert (told.subject, told.event.get_type()) == (
            "lablet.ingress-result.default",
            "io.lablet.ingress.refused.v1",
        )
        assert data_of(told.event)["problem"]["status"] == 422
        monkeypatch.setattr("lablet_gateway.mailbox.take", broken)
        await put(bus, grading())
        assert len(bus.dead) == 2
        assert "a defect" in bus.dead[1].reason
        assert json.loads(bus.dead[1].payload)["id"] == "g-1"
        assert "a defect" in data_of(bus.told[1].event)["problem"]["detail"]


@pytest.mark.parametrize("headers", [{"ce-source": "%FF"}, {"ce-id": "%FF", "ce-type": "%FF"}, {"x": "%C3"}])
async def test_no_header_that_cannot_be_read_ends_the_way_in(world: Any, headers: dict[str, str]) -> None:
    await seat(world)
    async with taking(world) as bus:
        await bus.put("lablet.ingress.default.instance", headers, b"not an event")
        await put(bus, grading())
        assert len(await world.inbox("worker-controller")) == 1
        (told,) = bus.told
        assert data_of(told.event)["eventId"] == headers.get("ce-id", "")
        assert len(bus.dead) == 1


async def test_a_dependency_that_is_away_is_waited_for_and_the_event_is_then_taken(
    world: Any, monkeypatch: Any
) -> None:
    failed: list[str] = []

    async def away_for_long(parts: Any, caller: Any, inbound: Any) -> Any:
        if len(failed) < 20:
            failed.append(inbound.id)
            raise StoreUnavailable("no endpoint answered")
        return await take(parts, caller, inbound)

    await seat(world)
    monkeypatch.setattr("lablet_gateway.mailbox.take", away_for_long)
    async with taking(world) as bus:
        await put(bus, grading())
        assert failed == ["g-1"] * 20
        (asked,) = await world.inbox("worker-controller")
        assert (asked.spec.type, asked.spec.subject) == (GRADED, "instance/ins-a-1")
        assert (bus.told, bus.dead) == ([], [])


def test_an_event_is_tried_for_a_day_and_kept_for_longer() -> None:
    patience = timedelta(seconds=sum(PATIENCE.pauses))
    assert timedelta(days=1) <= patience <= timedelta(days=1, minutes=1)
    assert patience < timedelta(days=INGRESS.max_age_days)
