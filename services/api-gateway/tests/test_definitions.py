"""Publishing: the file goes to staging by its digest, the intent names it; reading: newest, by version, to the byte."""

import json
from difflib import get_close_matches
from typing import Any

import pytest

from lablet_common.objects import digest_of
from lablet_common.resources.artifact import object_key
from lablet_gateway import problems

PATH = "/api/v1/definitions"
YAML = {"Content-Type": "application/yaml"}
LAB = b"lab:\n  title: x\nnodes: []\n"


async def test_a_yaml_body_is_staged_and_asked_for_by_its_digest(world: Any) -> None:
    answer = await world.client("ina").post(f"{PATH}?name=vlans&version=1.2.3", content=LAB, headers=YAML)
    assert answer.status_code == 202
    (request,) = await world.inbox("artifact-service", "-")
    body = request.spec.data
    assert request.spec.subject == "definition/vlans@1.2.3"
    assert (body["name"], body["version"], body["digest"], body["bytes"]) == (
        "vlans",
        "1.2.3",
        digest_of(LAB),
        len(LAB),
    )
    assert world.objects.objects[body["staging"]] == LAB
    assert body["staging"].startswith("staging/uploads/default/")


async def test_a_form_carries_the_file_beside_what_the_author_fixes(world: Any) -> None:
    fixed = {"name": "vlans", "maxDurationMinutes": 90, "requirements": {"cpuCores": 1, "memoryGb": 2, "nodeCount": 3}}
    answer = await world.client("ina").post(
        PATH, files={"topology": ("lab.yaml", LAB), "definition": (None, json.dumps(fixed))}
    )
    assert answer.status_code == 202, answer.text
    (request,) = await world.inbox("artifact-service", "-")
    assert request.spec.data["name"] == "vlans"
    assert request.spec.data["overrides"] == {name: value for name, value in fixed.items() if name != "name"}


async def test_a_repeated_upload_under_one_key_is_one_request(world: Any) -> None:
    client = world.client("ina")
    headers = YAML | {"Idempotency-Key": "k"}
    first = await client.post(f"{PATH}?name=vlans", content=LAB, headers=headers)
    assert (await client.post(f"{PATH}?name=vlans", content=LAB, headers=headers)).json() == first.json()
    assert (await client.post(f"{PATH}?name=vlans", content=LAB + b"#", headers=headers)).status_code == 422
    assert len(await world.inbox("artifact-service", "-")) == 1


async def test_what_cannot_be_a_lab_file_is_refused_with_its_place(world: Any) -> None:
    client = world.client("ina")
    cases = [
        (f"{PATH}?name=vlans", b"", YAML, 422, "topology"),
        (f"{PATH}?name=vlans", b"\xff\xfe", YAML, 422, "topology"),
        (PATH, LAB, YAML, 422, "name"),
        (f"{PATH}?name=VLANs", LAB, YAML, 422, "name"),
        (f"{PATH}?name=vlans&version=1.0", LAB, YAML, 422, "version"),
        (f"{PATH}?name=vlans", LAB, {"Content-Type": "text/plain"}, 415, "Content-Type"),
    ]
    for path, content, headers, status, field in cases:
        answer = await client.post(path, content=content, headers=headers)
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (status, field)
    surplus = await client.post(
        f"{PATH}?name=vlans", files={"topology": LAB, "definition": (None, '{"maxDuration": 5}')}
    )
    assert surplus.json()["errors"][0]["path"] == "definition.maxDuration"
    assert "maxDurationMinutes" in surplus.json()["errors"][0]["remedy"]
    assert world.objects.objects.keys() == {object_key("default", world.topology_digest)}


async def test_files_have_a_larger_limit_than_other_bodies_and_still_one(world: Any) -> None:
    client = world.client("ina")
    assert (await client.post(f"{PATH}?name=a", content=b"#" * 6000, headers=YAML)).status_code == 202
    too_large = await client.post(f"{PATH}?name=a", content=b"#" * 9000, headers=YAML)
    assert (too_large.status_code, too_large.json()["type"]) == (413, "https://lablet.io/problems/too-large")
    body = json.dumps({"definition": "x" * 5000})
    answer = await client.post("/api/v1/reservations", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")


async def test_when_the_object_store_is_away_the_answer_is_503_and_names_it(world: Any) -> None:
    world.objects.unavailable = True
    client = world.client("ina")
    for answer in (
        await client.post(f"{PATH}?name=vlans", content=LAB, headers=YAML),
        await client.get(f"{PATH}/ospf-basics/versions/1.0.0/topology"),
    ):
        assert (answer.status_code, answer.json()["dependency"]) == (503, "s3")
    assert await world.inbox("artifact-service", "-") == []


async def test_a_definition_is_read_by_name_by_version_and_to_the_byte(world: Any) -> None:
    await world.add(world.definition(version="1.0.1"), world.definition(version="1.0.2", phase="Deprecated"))
    client = world.client("ina")
    assert (await client.get(f"{PATH}/ospf-basics")).json()["metadata"]["id"] == "ospf-basics@1.0.1"
    assert (await client.get(f"{PATH}/ospf-basics/versions/1.0.2")).json()["status"]["phase"] == "Deprecated"
    file = await client.get(f"{PATH}/ospf-basics/versions/1.0.0/topology")
    assert digest_of(file.content) == world.topology_digest
    missing = await client.get(f"{PATH}/opsf-basics")
    assert missing.status_code == 404
    assert "ospf-basics" in missing.json()["detail"]


async def test_a_file_with_other_bytes_than_its_digest_says_is_never_sent(world: Any) -> None:
    world.objects.objects[object_key("default", world.topology_digest)] = b"tampered"
    answer = await world.client("ina").get(f"{PATH}/ospf-basics/versions/1.0.0/topology")
    assert answer.status_code == 502
    assert b"tampered" not in answer.content


def test_a_misspelt_name_among_very_many_is_compared_with_those_that_begin_like_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Comparing all of them held up everybody's calls for a second."""
    compared: list[int] = []

    def counted(word: str, possibilities: list[str], **more: Any) -> list[str]:
        compared.append(len(possibilities))
        return get_close_matches(word, possibilities, **more)

    monkeypatch.setattr(problems, "get_close_matches", counted)
    many = [f"{course}-{number}@1.0.0" for course in ("acl", "bgp", "ospf", "vpn") for number in range(5000)]
    for wrong, right in (("ospf-4711@1.0.1", "ospf-4711@1.0.0"), ("acl-0@1.0", "acl-0@1.0.0"), ("zzz", "known are")):
        assert right in problems.nearest(wrong, many)
    assert max(compared) <= 200
    assert problems.nearest("gbp-1", ["bgp-1", "ospf-1"]) == "did you mean bgp-1 or ospf-1?", (
        "of few, all are looked at"
    )
