"""Settings come from the environment, secrets also from files, and a bad value names its variable."""

import logging

import pytest
from pydantic import ValidationError

from lablet_common import service
from lablet_common.resources.kinds import Service
from lablet_common.settings import CommonSettings, EtcdSettings, NatsSettings, StorageSettings
from lablet_common.testing.authority import Authority


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in (
        "ETCD_HOST",
        "ETCD_PORT",
        "ETCD_ENDPOINTS",
        "ETCD_PASSWORD",
        "ETCD_PASSWORD_FILE",
        "NATS_PASSWORD_FILE",
        "ETCD_CERT_CERT",
        "ETCD_CERT_KEY",
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


@pytest.mark.parametrize("group", [EtcdSettings, NatsSettings, StorageSettings])
def test_a_file_of_authorities_that_cannot_be_read_or_holds_none_names_the_variable(monkeypatch, tmp_path, group):
    path = tmp_path / "ca.pem"
    variable = f"{group.model_config['env_prefix']}CA_CERT"
    monkeypatch.setenv(variable, str(path))
    with pytest.raises(ValidationError, match=f"{variable} names {path}, which cannot be read: No such file"):
        group()
    path.write_text("words")
    with pytest.raises(ValidationError, match=f"{variable} names {path}, which holds no certificate"):
        group()
    path = Authority(tmp_path, "authority").cert
    monkeypatch.setenv(variable, str(path))
    assert group().ca_cert == path


def test_a_clients_certificate_and_its_key_are_given_together_and_belong_together(monkeypatch, tmp_path):
    authority = Authority(tmp_path, "authority")
    cert, key = authority.issue("client")
    _, other = authority.issue("other")
    monkeypatch.setenv("ETCD_CERT_CERT", str(cert))
    with pytest.raises(ValidationError, match="takes both: ETCD_CERT_CERT and ETCD_CERT_KEY"):
        EtcdSettings()
    for wrong in (other, tmp_path / "missing", cert):
        monkeypatch.setenv("ETCD_CERT_KEY", str(wrong))
        with pytest.raises(ValidationError, match=f"ETCD_CERT_CERT and ETCD_CERT_KEY name {cert} and {wrong}"):
            EtcdSettings()
    monkeypatch.setenv("ETCD_CERT_KEY", str(key))
    assert EtcdSettings().cert_key == key


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
