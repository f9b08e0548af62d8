"""Publishing a lab file: versions, what is inferred, what an author may say, and how a refusal names its place."""

from pathlib import Path
from typing import Any

import pytest

from lablet_artifacts.publishing import infer_spec, next_version
from lablet_artifacts.topology import NodeType
from lablet_common.objects import digest_of
from lablet_common.resources.artifact import object_key
from lablet_common.resources.kinds import DEFINITION

LABS = Path(__file__).resolve().parents[4] / "shared" / "labs"


def said(request: Any) -> tuple[str, str | None]:
    problem = request.status.problem
    if problem is not None:
        return problem.type.rpartition("/")[2], problem.errors[0].get("path") if problem.errors else None
    return request.status.reason, request.status.resource


def fields(request: Any) -> list[dict[str, str]]:
    return list(request.status.problem.errors)


async def test_a_file_becomes_a_definition_with_what_it_needs(shelf: Any, small: bytes) -> None:
    assert said(await shelf.publish("small", small)) == ("Published", "definition/small@1.0.0")
    made = await shelf.all(DEFINITION).require("small@1.0.0")
    assert made.spec.title == "Small"
    assert made.spec.requirements.node_count == 1
    assert made.spec.requirements.cpu_cores > 0
    assert [(port.name, port.protocol) for port in made.spec.ports] == [("r1", "serial")]
    assert made.spec.runtime.node_definitions == ("iosv",)
    assert made.metadata.owner == "ada"
    assert shelf.objects.objects[object_key("default", digest_of(small))] == small
    assert await shelf.files("definition/small@1.0.0") == {("topology", "small.yaml"): digest_of(small)}


async def test_the_same_content_is_the_same_version(shelf: Any, small: bytes) -> None:
    await shelf.publish("small", small)
    published = await shelf.all(DEFINITION).require("small@1.0.0")
    assert said(await shelf.publish("small", small)) == ("AlreadyPublished", "definition/small@1.0.0")
    assert (await shelf.all(DEFINITION).require("small@1.0.0")).revision == published.revision, "nothing to tell of"
    assert said(await shelf.publish("small", small, "1.0.0")) == ("AlreadyPublished", "definition/small@1.0.0")
    assert len((await shelf.all(DEFINITION).list()).items) == 1


async def test_other_content_is_the_next_patch(shelf: Any, small: bytes) -> None:
    await shelf.publish("small", small)
    changed = small.replace(b"Small", b"Larger")
    assert said(await shelf.publish("small", changed)) == ("Published", "definition/small@1.0.1")
    assert said(await shelf.publish("small", small)) == ("AlreadyPublished", "definition/small@1.0.0")
    assert said(await shelf.publish("small", small + b"# x\n", "2.0.0")) == ("Published", "definition/small@2.0.0")
    assert said(await shelf.publish("small", small + b"# y\n")) == ("Published", "definition/small@2.0.1")


def test_versions_are_compared_as_versions() -> None:
    assert next_version(["1.0.9", "1.0.10"]) == "1.0.11"
    assert next_version(["1.10.0", "1.9.9"]) == "1.10.1"
    assert next_version([]) == "1.0.0"


async def test_a_version_is_never_given_other_content_or_other_needs(shelf: Any, small: bytes) -> None:
    await shelf.publish("small", small, "1.0.0")
    assert said(await shelf.publish("small", small + b"# x\n", "1.0.0")) == ("version-taken", "version")
    other_needs = await shelf.publish("small", small, "1.0.0", overrides={"maxDurationMinutes": 60})
    assert said(other_needs) == ("version-taken", "version")


async def test_what_the_author_gives_wins_and_the_rest_stays_inferred(shelf: Any, small: bytes) -> None:
    overrides = {"requirements": {"cpuCores": 11}, "collect": ["configurations"], "maxDurationMinutes": 90}
    assert said(await shelf.publish("small", small, overrides=overrides))[0] == "Published"
    spec = (await shelf.all(DEFINITION).require("small@1.0.0")).spec
    assert (spec.requirements.cpu_cores, spec.requirements.node_count) == (11, 1)
    assert (spec.collect, spec.max_duration_minutes) == (("configurations",), 90)


async def test_the_same_content_with_the_same_overrides_is_the_same_version_too(shelf: Any, small: bytes) -> None:
    await shelf.publish("small", small)
    assert said(await shelf.publish("small", small, overrides={"warmDepth": 2}))[1] == "definition/small@1.0.1"
    assert said(await shelf.publish("small", small, overrides={"warmDepth": 2})) == (
        "AlreadyPublished",
        "definition/small@1.0.1",
    )
    assert said(await shelf.publish("small", small)) == ("AlreadyPublished", "definition/small@1.0.0")


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        ({"colour": "red"}, "colour"),
        ({"requirements": {"gpus": 1}}, "requirements.gpus"),
        ({"requirements": {"cpuCores": -1}}, "requirements.cpuCores"),
        ({"licenses": ["GOLD"]}, "licenses.0"),
        ({"version": "9.9.9"}, "version"),
        ({"topology": {}}, "topology"),
        ({"ports": []}, "ports"),
        ({"ports": [{"name": "r1"}, {"name": "r2"}]}, "ports"),
    ],
)
async def test_an_override_that_cannot_be_is_refused_by_name(
    shelf: Any, small: bytes, overrides: dict[str, Any], path: str
) -> None:
    refused = await shelf.publish("small", small, overrides=overrides)
    assert refused.phase == "Refused"
    assert said(refused)[1] == path
    assert (await shelf.all(DEFINITION).list()).items == ()


async def test_a_bad_file_is_refused_with_line_node_and_field_of_everything(shelf: Any, small: bytes) -> None:
    wrong = small.replace(b"    node_definition: iosv\n", b"").replace(b"    x: 0\n", b"    x: left\n")
    refused = await shelf.publish("small", wrong)
    assert said(refused)[0] == "invalid-topology"
    assert len(fields(refused)) >= 2
    assert all({"path", "message", "remedy", "line"} <= set(fault) for fault in fields(refused))
    assert any(fault.get("node") == "R1" for fault in fields(refused))


async def test_a_file_that_no_seat_could_ever_be_rendered_from_is_refused_now(shelf: Any, small: bytes) -> None:
    refused = await shelf.publish("small", small.replace(b"${NAME}", b"${TEACHER}"))
    assert said(refused)[0] == "invalid-topology"
    assert "TEACHER" in fields(refused)[0]["message"]


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"a: [", b"- 1", b"lab: {}"])
async def test_what_is_no_lab_file_is_refused_and_not_a_crash(shelf: Any, data: bytes) -> None:
    assert said(await shelf.publish("small", data))[0] == "invalid-topology"


async def test_an_upload_that_is_gone_or_another_one_is_refused(shelf: Any, small: bytes) -> None:
    body = {"name": "small", "staging": "staging/none", "digest": digest_of(small), "bytes": len(small)}
    assert said(await shelf.decided(await shelf.ask("publish", "small", body)))[0] == "upload-missing"
    await shelf.objects.put("staging/none", b"something else")
    assert said(await shelf.decided(await shelf.ask("publish", "small", body)))[0] == "digest-mismatch"


async def test_tenants_do_not_see_each_others_versions(shelf: Any, small: bytes) -> None:
    await shelf.publish("small", small, tenant="blue")
    assert said(await shelf.publish("small", small + b"# x\n", tenant="red")) == ("Published", "definition/small@1.0.0")
    assert (await shelf.all(DEFINITION).get("small@1.0.0", "blue")).spec.topology.digest == digest_of(small)
    body = {"reason": "old"}
    assert said(await shelf.decided(await shelf.ask("deprecate", "small@1.0.0", body)))[0] == "unknown-definition"
    assert (await shelf.all(DEFINITION).get("small@1.0.0", "blue")).phase == "Published"


async def test_a_definition_is_deprecated_once(shelf: Any, small: bytes) -> None:
    await shelf.publish("small", small)
    assert said(await shelf.decided(await shelf.ask("deprecate", "small@1.0.0", {})))[0] == "Deprecated"
    assert said(await shelf.decided(await shelf.ask("deprecate", "small@1.0.0", {})))[0] == "AlreadyDeprecated"
    assert (await shelf.all(DEFINITION).require("small@1.0.0")).phase == "Deprecated"


def _labs() -> list[Any]:
    return [pytest.param(path, id=path.stem) for path in sorted(LABS.glob("*.yaml"))] or [
        pytest.param(None, marks=pytest.mark.skip(reason=f"no lab files at {LABS}"))
    ]


@pytest.mark.parametrize("path", _labs())
async def test_every_lab_file_at_hand_publishes_and_renders(shelf: Any, path: Path) -> None:
    assert said(await shelf.publish("given", path.read_bytes()))[0] == "Published"
    made = await shelf.all(DEFINITION).require("given@1.0.0")
    await shelf.keep()
    ports = {port.name: 2000 + n for n, port in enumerate(made.spec.ports)}
    await shelf.instance(definition="given@1.0.0", ports=ports)
    await shelf.has("rendered", "lab.yaml")
    text = shelf.objects.objects[object_key("default", (await shelf.files())["rendered", "lab.yaml"])].decode()
    assert "${PORT_" not in text
    assert all(str(number) in text for number in ports.values())


def test_an_installations_own_table_wins_over_the_shipped_one_and_the_author_over_both(small: bytes) -> None:
    ours = {"iosv": NodeType(cpus=7, ram_mb=2048)}
    assert infer_spec("small", "1.0.0", small, {}, ours).requirements.cpu_cores == 7
    given = {"requirements": {"cpuCores": 3}}
    spec = infer_spec("small", "1.0.0", small, given, ours)
    assert (spec.requirements.cpu_cores, spec.requirements.memory_gb) == (3, 2)


async def test_a_body_full_of_faults_is_refused_with_the_first_of_them(shelf: Any, small: bytes) -> None:
    """All of them would be more than is stored under one key, and a refusal that cannot be stored holds up all others."""
    decided = await shelf.publish("small", small, overrides={"ports": [{}] * 10_000})
    assert decided.phase == "Refused"
    assert decided.status.problem.errors[0]["path"] == "ports.0.name"
    assert len(decided.status.problem.errors) <= 50


async def test_a_lab_file_whose_definition_could_not_be_stored_is_refused_and_holds_up_nobody(shelf: Any) -> None:
    tags = ", ".join(f'"${{PORT_{"N" * 57}{number:06}}}"' for number in range(6000))
    large = (
        "lab:\n  title: Large\n  version: 0.2.2\nnodes:\n  - id: n0\n    label: R1\n    node_definition: iosv\n"
        f"    x: 0\n    y: 10\n    tags: [{tags}]\n    interfaces: []\nlinks: []\n"
    )
    decided = await shelf.publish("large", large.encode())
    assert decided.phase == "Refused"
    assert "large" in decided.status.problem.detail.lower()
