"""What strangers may send in place of what is asked for: depth, numbers without end, moments beyond the calendar, halves of
characters. Each is refused with the field named, and nothing of it is kept."""

import base64
import json
from typing import Any

import pytest

from lablet_common.agents import Answer
from lablet_common.resources.instance import InstancePhase, LabRef

API = "/api/v1"
TOPOLOGY = b"lab:\n  title: x\nnodes: []\nlinks: []\n"
TOO_DEEP = ["[" * 1500, '{"a":' * 1500, "[" * 400 + "]" * 400, '{"a":' * 101 + "1" + "}" * 101]
IDS = ["past the parser's end", "objects", "past what can be written", "past what is taken"]
HALF = "\\ud800"


def cursor_of(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def paths(answer: Any) -> list[str]:
    return [error["path"] for error in answer.json()["errors"]]


@pytest.mark.parametrize("deep", TOO_DEEP, ids=IDS)
@pytest.mark.parametrize("form", ["{}", '["2027-03-01",{}]', "[{},1]"])
@pytest.mark.parametrize("archived", ["true", "false"])
async def test_a_cursor_nested_too_deep_is_damaged(world: Any, deep: str, form: str, archived: str) -> None:
    asked = {"cursor": cursor_of(form.replace("{}", deep)), "archived": archived}
    for kind in ("reservations", "instances"):
        answer = await world.client().get(f"{API}/{kind}", params=asked)
        assert (answer.status_code, paths(answer)) == (422, ["cursor"])


@pytest.mark.parametrize("place", [[2**63, "/reservations/x"], [1, "/reservations/default/\ud800"]])
async def test_a_cursor_that_no_store_could_look_up_is_refused(world: Any, place: Any) -> None:
    answer = await world.client().get(f"{API}/reservations", params={"cursor": cursor_of(json.dumps(place))})
    assert (answer.status_code, paths(answer)) == (422, ["cursor"])


@pytest.mark.parametrize("deep", TOO_DEEP, ids=IDS)
@pytest.mark.parametrize("form", ["{}", '{"description":{}}'])
async def test_a_definition_part_nested_too_deep_is_refused(world: Any, deep: str, form: str) -> None:
    answer = await publish(world, form.replace("{}", deep, 1) if form == "{}" else f'{{"description":{deep}}}')
    assert (answer.status_code, paths(answer)) == (422, ["definition"])


@pytest.mark.parametrize("part", [f'{{"description": "{HALF}"}}', '{"a": NaN}', '{"a": 1e999}', "9" * 5000, "\xff"])
async def test_a_definition_part_that_cannot_be_kept_is_refused(world: Any, part: str) -> None:
    answer = await publish(world, part.encode("latin-1"))
    assert (answer.status_code, paths(answer)) == (422, ["definition"])


async def publish(world: Any, part: str | bytes) -> Any:
    files = {"topology": ("lab.yaml", TOPOLOGY), "definition": ("d.json", part)}
    return await world.client().post(f"{API}/definitions", params={"name": "a", "version": "1.0.0"}, files=files)


@pytest.mark.parametrize("digits", ["9" * 5000, str(2**64), "501"])
async def test_a_place_beyond_the_event_stream_is_no_cursor_of_the_audit(world: Any, digits: str) -> None:
    epoch = (await world.log.bounds()).epoch
    answer = await world.client().get(f"{API}/audit", params={"cursor": f"{epoch}-{digits}"})
    assert (answer.status_code, paths(answer)) == (422, ["cursor"])


@pytest.mark.parametrize("digits", ["9" * 5000, "9" * 40, "²", ""])
async def test_an_event_id_that_no_stream_has_is_a_place_that_is_lost(world: Any, digits: str) -> None:
    hub = world.parts.hub
    place = await hub.place(f"{hub.epoch}-{digits}")
    assert (place.epoch, place.lost) == (hub.epoch, True)


@pytest.mark.parametrize(
    ("path", "asked", "field"),
    [
        ("audit", {"to": "0001-01-01T00:00:00Z"}, "to"),
        ("usage", {"to": "0001-01-01T00:00:00Z"}, "to"),
        ("usage", {"from": "9999-12-31T00:00:00Z", "to": "9999-12-31T01:00:00Z"}, "from"),
        ("pools/default/calendar", {"from": "9999-12-31T23:59:59Z"}, "from"),
        ("workers/default-001/calendar", {"from": "9999-12-31T23:59:59Z"}, "from"),
        ("reservations", {"archived": "true", "to": "0001-01-05"}, "to"),
        ("reservations", {"archived": "true", "from": "9999-12-31", "to": "9999-12-31"}, "from"),
        ("instances", {"archived": "true", "to": "0001-01-01"}, "to"),
    ],
)
async def test_a_moment_beyond_the_calendar_is_refused(world: Any, path: str, asked: Any, field: str) -> None:
    answer = await world.client().get(f"{API}/{path}", params=asked)
    assert answer.status_code == 422
    assert field in paths(answer)


async def test_a_slot_that_would_end_beyond_the_calendar_is_refused(world: Any) -> None:
    body = {"definition": "ospf-basics", "start": "9999-12-31T23:00:00Z", "durationMinutes": 527_040}
    answer = await world.client().post(f"{API}/reservations", json=body)
    assert (answer.status_code, paths(answer)) == (422, ["start"])


@pytest.mark.parametrize("data", ["[" * 1500, '{"a":' * 600 + "1" + "}" * 200])
async def test_data_said_to_be_text_and_nested_too_deep_is_refused(world: Any, data: str) -> None:
    headers = {"content-type": "text/plain", "ce-id": "a", "ce-source": "/x", "ce-specversion": "1.0",
               "ce-type": "io.lablet.reservation.requested.v1"}  # fmt: skip
    answer = await world.client().post(f"{API}/events", content=data.encode(), headers=headers)
    assert (answer.status_code, paths(answer)) == (422, ["data"])


@pytest.mark.parametrize(
    "score", ['{"a":' * 101 + "1" + "}" * 101, f'{{"a": "{HALF}"}}', '{"a": NaN}', '{"a":' * 300 + "1" + "}" * 300]
)
async def test_a_score_that_nobody_could_read_again_is_refused(world: Any, score: str) -> None:
    booking = world.reservation("rsv-a")
    await world.add(booking, world.instance(booking))
    event = {"specversion": "1.0", "id": "a", "source": "/x", "type": "io.lablet.assessment.grading.completed.v1",
             "subject": "instance/ins-a-1", "data": {}}  # fmt: skip
    text = json.dumps(event).replace('"data": {}', f'"data": {{"passed": true, "score": {score}}}')
    answer = await world.client().post(
        f"{API}/events", content=text.encode(), headers={"content-type": "application/cloudevents+json"}
    )
    assert answer.status_code == 422, answer.text
    assert any(path.startswith("data.score") for path in paths(answer)), answer.text


async def test_an_attribute_whose_name_is_no_text_is_refused_in_words_that_can_be_sent(world: Any) -> None:
    text = f'{{"specversion": "1.0", "id": "a", "source": "/x", "type": "t", "{HALF}": "x"}}'
    answer = await world.client().post(
        f"{API}/events", content=text.encode(), headers={"content-type": "application/cloudevents+json"}
    )
    assert (answer.status_code, paths(answer)) == (422, ["body"])


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "workers/default-001/drain", f'{{"message": "{HALF}"}}'),
        ("POST", "workers/default-001/uncordon", f'{{"reason": "{HALF}"}}'),
        ("POST", "keys", f'{{"name": "a", "scopes": ["{HALF}"]}}'),
        ("POST", "subscriptions", f'{{"name": "a", "sink": "https://x.example.org", "tenant": "{HALF}"}}'),
    ],
)
async def test_a_body_that_could_not_be_kept_is_refused(world: Any, method: str, path: str, body: str) -> None:
    headers = {"content-type": "application/json", "if-match": "*"}
    answer = await world.client().request(method, f"{API}/{path}", content=body.encode(), headers=headers)
    assert answer.status_code == 422, answer.text
    assert paths(answer)


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "workers/default-001/drain", {"deadlineMinutes": 10**12}, "deadlineMinutes"),
        ("POST", "workers/default-001/replace", {"deadlineMinutes": 10**12}, "deadlineMinutes"),
        ("POST", "pools/default/replace", {"deadlineMinutes": 10**12}, "deadlineMinutes"),
        (
            "PUT",
            "pools/p",
            {"spec": {"template": "simulated", "max": 1, "cooldownMinutes": 10**12}},
            "spec.cooldownMinutes",
        ),
        ("PUT", "quotas/default", {"retentionDays": 1e300}, "retentionDays"),
    ],
)
async def test_a_time_that_no_clock_could_count_is_refused(
    world: Any, method: str, path: str, body: Any, field: str
) -> None:
    answer = await world.client().request(method, f"{API}/{path}", json=body)
    assert (answer.status_code, paths(answer)) == (422, [field])


@pytest.mark.parametrize("address", ["pools/default", "templates/simulated"])
@pytest.mark.parametrize(
    ("body", "told"),
    [(f'{{"{HALF}": 1}}', "surrogate"), ('{"spec":' + '{"a":' * 500 + "1" + "}" * 501, "nested deeper")],
)
async def test_a_patch_that_could_not_be_laid_over_anything_is_refused(
    world: Any, address: str, body: str, told: str
) -> None:
    headers = {"content-type": "application/json", "if-match": "*"}
    answer = await world.client().patch(f"{API}/{address}", content=body.encode(), headers=headers)
    assert (answer.status_code, paths(answer)) == (422, ["body"])
    assert told in answer.json()["detail"]


@pytest.mark.parametrize(
    "data", [{}, {"start": "x", "data": "", "over": False}, {"start": -1, "data": "", "over": False},
             {"start": 0, "data": "%", "over": True}, {"start": 0, "data": [], "over": True}],
)  # fmt: skip
async def test_an_agent_that_answers_nonsense_is_an_agent_that_cannot_be_asked(world: Any, data: Any) -> None:
    booking = world.reservation("rsv-a")
    made = world.instance(booking)
    lab = LabRef(id="ins-a-1", worker="host-1", machine="m")
    await world.add(
        booking,
        made.model_copy(
            update={
                "spec": made.spec.model_copy(update={"worker": "host-1"}),
                "status": made.status.model_copy(update={"phase": InstancePhase.RUNNING, "lab": lab}),
            }
        ),
    )

    class Nonsense:
        async def ask(self, *_: Any, **__: Any) -> Answer:
            return Answer(data=data)

    object.__setattr__(world.parts, "line", Nonsense())
    answer = await world.client().get(f"{API}/instances/ins-a-1/output", params={"node": "web"})
    assert (answer.status_code, answer.json()["dependency"]) == (503, "agent")
