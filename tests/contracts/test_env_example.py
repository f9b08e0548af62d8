"""`.env.example` says everything that can be set, and nothing that cannot."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo

from lablet_artifacts.settings import ArtifactSettings
from lablet_common.settings import Settings
from lablet_gateway.settings import GatewaySettings
from lablet_scheduler.settings import SchedulerSettings
from lablet_workers.settings import WorkerControllerSettings

ROOT = Path(__file__).resolve().parents[2]
SERVICES: tuple[type[Settings], ...] = (
    GatewaySettings,
    SchedulerSettings,
    WorkerControllerSettings,
    ArtifactSettings,
)
ELSEWHERE = frozenset(
    {
        # the catalogue of events, in every service
        "CLOUDEVENTS_SCHEMA_BASE",
        # the command line and `lablet up`
        "LABLET_URL",
        "LABLET_TOKEN",
        "LABLET_TOKEN_FILE",
        "LABLET_CONNECTION",
        "LABLET_HOME",
        "ETCD_BIN",
        "NATS_SERVER_BIN",
        "RCLONE_BIN",
        # docker-compose.yml
        "LABLET_PORT",
        "LABLET_SPEED",
        "LABLET_IMAGE",
        "LABLET_GRAFANA_PORT",
    }
)


@dataclass(frozen=True, slots=True)
class Variable:
    name: str
    default: str | None
    """As it would be written; None where there is none or it is made at run time."""
    described: bool


def written(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def is_secret(field: FieldInfo) -> bool:
    return field.annotation is SecretStr or SecretStr in get_args(field.annotation)


def names_of(name: str, field: FieldInfo, prefix: str) -> list[str]:
    if isinstance(field.validation_alias, AliasChoices):
        return [str(choice).upper() for choice in field.validation_alias.choices]
    return [f"{prefix}{name}".upper()]


def settings_of(group: type[Settings]) -> Iterator[tuple[str, str | None, bool]]:
    """Variable, default, secret: of a group and the groups inside it."""
    for name, field in group.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            yield from settings_of(field.annotation)
            continue
        default = None if field.default_factory else written(field.default)
        for variable in names_of(name, field, str(group.model_config.get("env_prefix", ""))):
            yield variable, default, is_secret(field)


def documented() -> dict[str, Variable]:
    """Every `#NAME=value` line; described means that its own line, or one above it in its block, has words."""
    found: dict[str, Variable] = {}
    words = False
    for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines():
        match = re.fullmatch(r"#?([A-Z][A-Z0-9_]*)=(.*)", line)
        if match is None:
            words = bool(line.strip())
            continue
        assert match[1] not in found, f"{match[1]} stands twice in .env.example"
        found[match[1]] = Variable(match[1], match[2] or None, words)
    return found


@pytest.mark.parametrize("group", SERVICES, ids=lambda group: group.__name__)
def test_every_setting_of_a_service_stands_in_the_example_with_its_default(group: type[Settings]) -> None:
    lines = documented()
    for variable, default, secret in settings_of(group):
        assert variable in lines, f"{variable} ({group.__name__}) is missing in .env.example"
        assert lines[variable].described, f"nothing is said about {variable} in .env.example"
        assert lines[variable].default == default, f"{variable}: another default than in {group.__name__}"
        if secret:
            assert f"{variable}_FILE" in lines, f"{variable} can be given as a file: {variable}_FILE is missing"


def test_the_example_names_nothing_that_no_program_reads() -> None:
    known = set(ELSEWHERE)
    for group in SERVICES:
        for variable, _, secret in settings_of(group):
            known |= {variable, f"{variable}_FILE"} if secret else {variable}
    assert sorted(set(documented()) - known) == []


def test_a_copy_of_the_example_sets_nothing_by_itself() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.strip() and not line.startswith("#")] == []


def test_no_secret_stands_in_the_example() -> None:
    lines = documented()
    for group in SERVICES:
        for variable, _, secret in settings_of(group):
            if secret:
                assert lines[variable].default is None
