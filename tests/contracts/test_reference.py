"""docs/reference is what the code says: a contract changes only where somebody means it to."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lablet_common.events import EVENTS, data_of, derive, schemas
from lablet_common.intents import INTENTS
from lablet_common.resources import Metadata, WorkerPool
from lablet_common.resources.kinds import POOL
from lablet_common.resources.worker import PoolSpec, PoolStatus
from lablet_gateway.reference import files
from lablet_gateway.rights import OPEN

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"


@cache
def made() -> dict[str, str]:
    return dict(files.documents())


@cache
def openapi() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(made()["openapi.json"])
    return document


@cache
def asyncapi() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(made()["asyncapi.json"])
    return document


def test_the_stored_documents_are_those_of_the_code() -> None:
    stored = {str(path.relative_to(FOLDER)): path.read_text(encoding="utf-8") for path in FOLDER.rglob("*.json")}
    wanted = made()
    changed = sorted(name for name in stored.keys() | wanted.keys() if stored.get(name) != wanted.get(name))
    assert not changed, (
        f"if the contract was meant to change, run `make reference` and commit: {', '.join(changed[:10])}"
    )


def test_making_them_again_gives_the_same(tmp_path: Path) -> None:
    assert sorted(files.write(tmp_path)) == sorted(made())
    assert files.write(tmp_path) == []
    (tmp_path / "schemas" / "io.lablet.gone.v1.json").write_text("{}")
    assert files.write(tmp_path) == ["schemas/io.lablet.gone.v1.json"]


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, found in openapi()["paths"].items():
        for method, operation in found.items():
            yield f"{method.upper()} {path}", operation


def media(operation: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        yield "body", kind, body
    for status, answer in operation["responses"].items():
        for kind, content in answer.get("content", {}).items():
            yield status, kind, content


def test_every_body_and_answer_has_an_example_that_fits_its_schema() -> None:
    document = openapi()
    components = {"components": {"schemas": document["components"]["schemas"]}}
    wrong = []
    for name, operation in operations():
        for place, kind, content in media(operation):
            if "json" not in kind:
                if place != "body" and not content.keys() & {"example", "examples"}:
                    wrong.append(f"{name} {place} {kind}: no example")
                continue
            examples = [content["example"]] if "example" in content else []
            examples += [_followed(document, one)["value"] for one in content.get("examples", {}).values()]
            if not examples and not (place == "body" and kind == "application/json"):
                wrong.append(f"{name} {place} {kind}: no example")
            validator = jsonschema.Draft202012Validator(content.get("schema", {}) | components)
            wrong += [
                f"{name} {place}: {error.json_path}: {error.message}"
                for example in examples
                for error in validator.iter_errors(example)
            ]
    assert not wrong, "\n".join(wrong)


def test_every_operation_says_what_it_does_what_it_takes_and_how_it_refuses() -> None:
    """Whatever needs a token can be refused for the token, the right, the request, the rate, and a dependency's sake."""
    wrong = []
    for name, operation in operations():
        method, _, path = name.partition(" ")
        missing = {"401", "403", "422", "429", "503"} - set(operation["responses"])
        if (method, path) not in OPEN and missing:
            wrong.append(f"{name}: {', '.join(sorted(missing))} not documented")
        if not operation.get("description"):
            wrong.append(f"{name}: no description")
        wrong += [
            f"{name}: parameter {parameter['name']} has no description"
            for parameter in operation.get("parameters", ())
            if parameter["in"] != "path"
            and not (parameter.get("description") or parameter["schema"].get("description"))
        ]
    assert not wrong, "\n".join(wrong)


def test_every_refusal_names_its_types() -> None:
    for name, operation in operations():
        refusals = [int(status) for status in operation["responses"] if int(status) >= 400]
        for status in refusals:
            content = operation["responses"][str(status)]["content"]
            assert list(content) == ["application/problem+json"] or name == "GET /readyz", (name, status)
            for problem in content.get("application/problem+json", {"examples": {}})["examples"].values():
                assert _followed(openapi(), problem)["value"]["status"] == status
            assert name == "GET /readyz" or content["application/problem+json"]["examples"], (name, status)


def _followed(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in part:
        found: Any = document
        for step in part["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        part = found
    return part


@pytest.mark.parametrize("name", ["openapi.json", "asyncapi.json"])
def test_every_reference_leads_somewhere(name: str) -> None:
    document = json.loads(made()[name])
    for reference in set(re.findall(r'"\$ref": "([^"]+)"', made()[name])):
        assert reference.startswith("#/"), reference
        assert _followed(document, {"$ref": reference}) is not None


def test_asyncapi_has_each_event_on_one_channel_and_each_intent_on_its_ingress() -> None:
    document = asyncapi()
    assert document["asyncapi"] == "3.0.0"
    placed = [message for channel in document["channels"].values() for message in channel["messages"]]
    assert sorted(placed) == sorted(set(placed))
    assert set(placed) == set(document["components"]["messages"])
    assert set(placed) == {name for name, event in EVENTS.items() if not event.intent or name in INTENTS}
    used = {operation["channel"]["$ref"].removeprefix("#/channels/") for operation in document["operations"].values()}
    assert used == set(document["channels"])
    assert document["channels"]["event.reservation"]["address"] == "lablet.event.{tenant}.reservation.{pool}.{id}"


def test_an_event_fits_the_schema_that_it_points_to() -> None:
    pool = WorkerPool(
        metadata=Metadata(id="default", uid="u", created_at=datetime(2027, 3, 1, tzinfo=UTC)),
        spec=PoolSpec(template="simulated", max=2),
        status=PoolStatus(),
    )
    changed = pool.respecified(max=3)
    for before, after in ((None, pool), (pool, changed)):
        (out,) = derive(POOL, before, after, 7, source="/lablet/worker-controller")
        address = out.event.get_dataschema()
        assert address is not None
        stored = json.loads(made()[f"schemas/{address.rpartition('/')[2]}"])
        assert stored["$id"] == address
        jsonschema.Draft202012Validator.check_schema(stored)
        jsonschema.validate(data_of(out.event), stored)


def test_each_stored_schema_is_that_of_its_type() -> None:
    for name, schema in schemas().items():
        assert json.loads(made()[f"schemas/{name}.json"]) == schema
