"""Settings come from the environment, secrets also from files, and a bad value names its variable."""

import logging

import pytest
from pydantic import ValidationError

from lablet_common import service
from lablet_common.resources.kinds import Service
from lablet_common.settings import CommonSettings, EtcdSettings, NatsSettings, StorageSettings


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in (
        "ETCD_HOST",
        "ETCD_PORT",
        "ETCD_ENDPOINTS",
        "ETCD_PASSWORD",
        "ETCD_PASSWORD_FILE",
        "NATS_PASSWORD_FILE",
    ):
        monkeypatch.delenv(name, raising=False)


def test_endpoints_win_over_host_and_port(monkeypatch):
    monkeypatch.setenv("ETCD_HOST", "a")
    monkeypatch.setenv("ETCD_PORT", "1234")
    assert EtcdSettings().addresses == ["a:1234"]
    monkeypatch.setenv("ETCD_ENDPOINTS", "b:1, c:2")
    assert EtcdSettings().addresses == ["b:1", "c:2"]


def test_a_secret_may_come_from_a_file_and_does_not_print(monkeypatch, tmp_path):
    (tmp_path / "password").write_text("hunter2\n")
    monkeypatch.setenv("NATS_PASSWORD_FILE", str(tmp_path / "password"))
    settings = NatsSettings()
    assert settings.password is not None
    assert settings.password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings)


def test_a_secret_file_that_cannot_be_read_names_the_variable(monkeypatch):
    monkeypatch.setenv("NATS_PASSWORD_FILE", "/nowhere/at/all")
    with pytest.raises(ValueError, match="NATS_PASSWORD_FILE names /nowhere/at/all"):
        NatsSettings()


def test_a_bad_value_names_its_field(monkeypatch):
    monkeypatch.setenv("ETCD_TIMEOUT", "soon")
    with pytest.raises(ValidationError, match="timeout"):
        EtcdSettings()


def test_an_endpoint_without_a_scheme_gets_one(monkeypatch):
    monkeypatch.setenv("ARTIFACT_STORAGE_ENDPOINT", "minio:9000")
    assert StorageSettings().url == "http://minio:9000"
    monkeypatch.setenv("ARTIFACT_STORAGE_USE_SSL", "true")
    assert StorageSettings().url == "https://minio:9000"


def test_every_replica_has_a_name_without_being_given_one():
    assert CommonSettings().replica_id


async def test_a_service_asks_nats_to_keep_as_many_copies_as_it_was_told(monkeypatch):
    monkeypatch.setenv("NATS_REPLICAS", "3")
    asked = {}

    class Enough(Exception):
        pass

    def bus(settings, service_name, **more):
        asked.update(more)
        raise Enough

    monkeypatch.setattr(service, "Bus", bus)
    with pytest.raises(Enough):
        await service._live(Service.SCHEDULER, CommonSettings(), lambda _: None, logging.getLogger(), 0.0)
    assert asked == {"replicas": 3}
