"""Publishing the manifest of a process lab: inferred needs, faults with their places, approval, and a seat's form."""

import json
import time
from typing import Any

import pytest

from lablet_artifacts import manifests
from lablet_artifacts.manifests import fill, is_manifest, read_manifest
from lablet_artifacts.publishing import infer_spec
from lablet_artifacts.topology import LabFileError
from lablet_common.resources.kinds import DEFINITION

MANIFEST = b"""\
kind: ProcessLab
title: Two
nodes:
  - name: web
    command: [serve, "${PORT_WEB}"]
    ports: [web]
    resources: {cpu: 0.5, memory: 512Mi}
  - name: probe
    command: curl http://127.0.0.1:${PORT_WEB}/
    dependsOn: [web]
"""


def refusal(text: str) -> list[tuple[int | None, str | None, str, str]]:
    with pytest.raises(LabFileError) as caught:
        read_manifest(text.encode())
    return [(one.line, one.node, one.field, one.message) for one in caught.value.problems]


def test_a_manifest_says_what_its_definition_needs() -> None:
    spec = infer_spec("two", "1.0.0", MANIFEST, {})
    assert (spec.topology.format, spec.runtime.name, spec.title) == ("process", "process", "Two")
    assert (spec.requirements.cpu_cores, spec.requirements.memory_gb, spec.requirements.node_count) == (0.6, 0.75, 2)
    assert [port.name for port in spec.ports] == ["web"]
    assert not spec.until_completed
    assert infer_spec("two", "1.0.0", MANIFEST + b"until: completed\n", {}).until_completed
    assert infer_spec("two", "1.0.0", MANIFEST, {"requirements": {"cpuCores": 2}}).requirements.cpu_cores == 2


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("key", ["title", "zzz"])
def test_a_manifest_written_as_json_is_one_wherever_its_kind_stands(indent: int | None, key: str) -> None:
    lab = {"title": "Two", "nodes": [{"name": "a", "command": ["x", "{kind: Other}"]}], "kind": "ProcessLab"}
    text = json.dumps(dict(sorted(lab.items(), key=lambda item: item[0] != key)), indent=indent).encode()
    assert is_manifest(text)
    spec = infer_spec("two", "1.0.0", text, {})
    assert (spec.topology.format, spec.title) == ("process", "Two")
    assert read_manifest(text) == read_manifest(json.dumps(lab).encode())


@pytest.mark.parametrize(
    "text",
    [
        b"{kind: ProcessLab, nodes: []}",
        b'\xef\xbb\xbf{"kind":"ProcessLab"}',
        b'# mine\n---\n{ "title": "a: b, {kind", "kind" : "ProcessLab" }',
        b'{"nodes": [{"kind": "a"}], "kind": "ProcessLab", "broken": [',
    ],
)
def test_flow_style_and_broken_ones_are_manifests_too(text: bytes) -> None:
    assert is_manifest(text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"lab": {"kind": "ProcessLab"}, "nodes": []}',
        b'{"lab": {"title": "kind: ProcessLab"}, "nodes": [{"label": "kind", "configuration": "ProcessLab"}]}',
        b'{"nodes": [{"x": "\\"}, kind: ProcessLab"}]}',
        b'["kind", "ProcessLab"]',
        b'{"kind": {"kind": "ProcessLab"}}',
        b'lab: {title: a}\nnotes: "{kind: ProcessLab}"\n',
    ],
)
def test_the_words_inside_a_lab_file_do_not_make_it_a_manifest(text: bytes) -> None:
    assert not is_manifest(text)


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (b'{"x": ProcessLab "', b'\\"'),
        (b'{x: ProcessLab "', b'a\\"'),
        (b'{"x": ProcessLab ', b"'\""),
        (b"ProcessLab ", b'\\"'),
    ],
)
def test_a_text_that_never_ends_takes_no_time_that_grows_with_its_square(begin: bytes, again: bytes) -> None:
    def took(times: int) -> float:
        data, best = begin + again * times, 60.0
        for _ in range(3):
            began = time.process_time()
            assert not is_manifest(data)
            best = min(best, time.process_time() - began)
        return best

    assert took(16_000) < 10 * took(2_000), "8 times as long; 64 times if it is tried again at each quote"


def test_of_what_stands_in_no_braces_one_word_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    words = manifests._WORD
    spied = type(
        "Words", (), {"finditer": lambda _, data: (read.append(one[0]) or one for one in words.finditer(data))}
    )
    monkeypatch.setattr(manifests, "_WORD", spied())
    assert not is_manifest(b"lab: {}\nnotes: a ProcessLab\n" + b"- a\n" * 1000)
    assert read == [b"lab"]


def test_the_runtime_of_a_file_cannot_be_talked_over(small: bytes) -> None:
    with pytest.raises(LabFileError, match=r"runtime\.name"):
        infer_spec("two", "1.0.0", MANIFEST, {"runtime": {"name": "cml"}})
    with pytest.raises(LabFileError, match=r"runtime\.name"):
        infer_spec("small", "1.0.0", small, {"runtime": {"name": "process"}})


@pytest.mark.parametrize("version", ["latest", "", "9" * 5000, "2."])
def test_a_runtime_version_that_could_not_be_compared_is_refused(small: bytes, version: str) -> None:
    with pytest.raises(LabFileError, match=r"runtime\.maxVersion"):
        infer_spec("small", "1.0.0", small, {"runtime": {"maxVersion": version}})
    assert infer_spec("small", "1.0.0", small, {"runtime": {"maxVersion": "2.9.0+build.6"}}).runtime.max_version


def test_a_port_is_named_once() -> None:
    ports = [port.to_dict() for port in infer_spec("two", "1.0.0", MANIFEST, {}).ports]
    with pytest.raises(LabFileError, match="name each port once"):
        infer_spec("two", "1.0.0", MANIFEST, {"ports": [*ports, ports[0]]})


def test_every_fault_is_told_with_line_node_and_field() -> None:
    text = "kind: ProcessLab\nnodes:\n  - name: web\n    command: 5\n    cpu: 1\n  - name: db\n    restart: sometimes\n"
    found = refusal(text)
    assert (4, "web", "nodes[0].command") in [one[:3] for one in found]
    assert (5, "web", "nodes[0].cpu", "there is no field 'cpu' here") in found
    assert (6, "db", "nodes[1].command", "the field 'command' is missing") in found
    assert (7, "db", "nodes[1].restart") in [one[:3] for one in found]
    assert len(found) == 4


def test_a_fault_between_nodes_stands_at_one_of_them() -> None:
    text = MANIFEST.decode() + "  - name: late\n    command: [x]\n    dependsOn:\n      - web\n      - dbb\n"
    ((line, node, field, message),) = refusal(text)
    assert (line, node, field) == (15, "late", "nodes[2].dependsOn[1]")
    assert "there is no node dbb" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: ProcessLab\nnodes: [", "not valid YAML"),
        ("- kind: ProcessLab\n", "a mapping is expected"),
        ("kind: ProcessLab\nnodes: []\n#" + "x" * 270_000, "more than 262,144"),
        ("kind: ProcessLab\nx: " + "[" * 13 + "]" * 13, "nested deeper"),
        ("kind: ProcessLab\nx: " + "[" * 60 + "]" * 60, "deep"),
        ("kind: ProcessLab\nnodes: [{name: a, command: [x], resources: {cpu: .nan}}]", "valid number"),
        ("kind: ProcessLab\nnodes: [{name: a, command: [x], env: {A: 5}}]", "string"),
    ],
)
def test_hostile_and_broken_manifests_are_refused(text: str, said: str) -> None:
    assert said in "; ".join(message for *_, message in refusal(text))


def test_aliases_cannot_blow_it_up() -> None:
    lines = ["kind: ProcessLab", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert refusal("\n".join(lines))


def test_a_seat_gets_its_ports_and_stays_what_it_was() -> None:
    made = json.loads(fill(read_manifest(MANIFEST), {"web": 2005}, seat=2, user="ada", worker="host-1"))
    assert made["lab"]["nodes"][0]["command"] == ["serve", "2005"]
    assert made["lab"]["nodes"][1]["command"] == "curl http://127.0.0.1:2005/"
    assert (made["ports"], made["seat"], made["user"], made["worker"]) == ({"web": 2005}, 2, "ada", "host-1")
    with pytest.raises(LabFileError, match="ports"):
        fill(read_manifest(MANIFEST), {}, seat=1, user="", worker="")


async def test_an_operators_word_lets_agents_run_it_and_nobody_elses(shelf: Any) -> None:
    await shelf.publish("two", MANIFEST)
    made = await shelf.all(DEFINITION).require("two@1.0.0")
    assert not made.may_run
    await shelf.decided(await shelf.ask("approve", "two@1.0.0", {}))
    approved = await shelf.all(DEFINITION).require("two@1.0.0")
    assert approved.may_run
    assert approved.status.approved.by == "ada"
    assert approved.status.last_fact.name == "approved"
    again = await shelf.decided(await shelf.ask("approve", "two@1.0.0", {}))
    assert again.status.reason == "AlreadyApproved"
    missing = await shelf.decided(await shelf.ask("approve", "nothing@1.0.0", {}))
    assert missing.status.problem.status == 404


async def test_a_lab_for_cml_needs_no_approval(shelf: Any, small: bytes) -> None:
    await shelf.publish("small", small)
    assert (await shelf.all(DEFINITION).require("small@1.0.0")).may_run
