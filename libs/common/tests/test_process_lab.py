"""The manifest of a process lab: what it means, what it refuses, and a seat's rendered form."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lablet_common.process_lab import ProcessLab, RestartPolicy, SeatLab, render


def node(name: str = "web", **more: Any) -> dict[str, Any]:
    return {"name": name, "command": ["true"]} | more


def lab(*nodes: dict[str, Any], **more: Any) -> ProcessLab:
    return ProcessLab.model_validate({"kind": "ProcessLab", "nodes": list(nodes), **more})


def faults(*nodes: dict[str, Any], **more: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        lab(*nodes, **more)
    return "; ".join(one["msg"] for one in caught.value.errors())


def test_sizes_and_spans_may_be_written_as_people_write_them() -> None:
    made = (
        lab(node(resources={"memory": "64Mi", "disk": "1.5Gi", "time": "1h30m", "cpuTime": "90s"})).nodes[0].resources
    )
    assert (made.memory, made.disk, made.time, made.cpu_time) == (64 * 2**20, 3 * 2**29, 5400, 90)
    assert "no size" in faults(node(resources={"memory": "64 megs"}))
    assert "no size" in faults(node(resources={"memory": "64" * 200}))
    assert "no span" in faults(node(resources={"time": "1" * 400 + "h"}))
    assert "no span" in faults(node(resources={"time": "soon"}))


def test_what_one_seat_books_is_the_sum_of_what_its_nodes_may_take() -> None:
    needs = lab(
        node("a", resources={"cpu": 0.5, "memory": "512Mi", "disk": 0}),
        node("b", resources={"cpu": 1, "memory": "1536Mi", "disk": "1Gi"}),
    ).requirements
    assert (needs.cpu_cores, needs.memory_gb, needs.storage_gb, needs.node_count) == (1.5, 2.0, 1.0, 2)


def test_a_text_is_run_by_the_shell_and_a_list_as_it_is() -> None:
    made = lab(node("a", command="echo $HOME"), node("b", command=["echo", "$HOME"]))
    assert [one.argv for one in made.nodes] == [("/bin/sh", "-c", "echo $HOME"), ("echo", "$HOME")]


@pytest.mark.parametrize(
    ("nodes", "more", "said"),
    [
        ([node("a"), node("a")], {}, "two nodes a"),
        ([node("a", ports=["x"]), node("b", ports=["x"])], {}, "two ports x"),
        ([node("a", dependsOn=["b"])], {}, "there is no node b"),
        ([node("a", dependsOn=["b"]), node("b", dependsOn=["a"])], {}, "wait for each other: a, b"),
        ([node("a"), node("b", dependsOn=[{"node": "a", "condition": "healthy"}])], {}, "no health check"),
        (
            [node("a", restart="always"), node("b", dependsOn=[{"node": "a", "condition": "completed"}])],
            {},
            "never comp",
        ),
        ([node("a", restart="always")], {"until": "completed"}, "no node ever ends"),
        ([node("a", command="x ${PORT_WEB}")], {}, "no port for ${PORT_WEB}"),
        ([node("a", health={"tcp": "web"})], {}, "no port web"),
        ([node("a", health={})], {}, "give one of tcp, http and command"),
        ([node("a", command=" ")], {}, "command is empty"),
        ([node("a", env={"A": "x\0y"})], {}, "pattern"),
        ([node("a", root=True)], {}, "Extra inputs"),
        ([], {}, "at least 1 item"),
    ],
)
def test_what_cannot_run_is_refused(nodes: list[dict[str, Any]], more: dict[str, Any], said: str) -> None:
    assert said in faults(*nodes, **more)


def test_rendering_puts_ports_everywhere_and_nothing_else() -> None:
    made = lab(
        node(
            command="serve ${PORT_WEB} ${HOME} $PORT_WEB",
            env={"URL": "http://h:${PORT_WEB}/"},
            ports=["web"],
            health={"http": {"port": "web", "path": "/${PORT_WEB}"}},
        )
    )
    seat = render(made, {"web": 2001}, seat=3, user="ada; rm -rf /", worker="w1")
    one = seat.lab.nodes[0]
    assert one.command == "serve 2001 ${HOME} $PORT_WEB"
    assert one.health is not None
    assert one.health.http is not None
    assert one.health.http.path == "/2001"
    assert seat.environment(one) == {
        "PORT_WEB": "2001",
        "LABLET_SEAT": "3",
        "LABLET_USER": "ada; rm -rf /",
        "LABLET_WORKER": "w1",
        "URL": "http://h:2001/",
    }
    assert SeatLab.model_validate_json(seat.to_json()) == seat
    with pytest.raises(ValueError, match="not those of the manifest: web"):
        render(made, {}, seat=1, user="", worker="")


@pytest.mark.parametrize(
    ("policy", "code", "restarts", "wanted"),
    [
        ("never", 1, 0, False),
        ("on-failure", 0, 0, False),
        ("on-failure", 1, 1, True),
        ("on-failure", 1, 2, False),
        ("always", 0, 1, True),
        ("always", 0, 2, False),
    ],
)
def test_restarts_follow_policy_and_bound(policy: str, code: int, restarts: int, wanted: bool) -> None:
    made = lab(node(restart={"policy": policy, "max": 2})).nodes[0].restart
    assert made.wants(code, restarts) is wanted
    assert lab(node(restart=policy)).nodes[0].restart.policy is RestartPolicy(policy)


def test_the_published_schema_is_the_model() -> None:
    kept = Path(__file__).parents[3] / "docs" / "schemas" / "process-lab.json"
    assert json.loads(kept.read_text(encoding="utf-8")) == ProcessLab.model_json_schema(by_alias=True)
