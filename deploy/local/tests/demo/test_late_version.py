"""A server that is late with its version is asked again: a fault run lost its verdict by that (seed 52, 1 December 2026)."""

from typing import Any

import etcd3
import pytest

from lablet_local.demo import evidence


def test_a_server_that_is_late_with_its_version_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def client(host: str, port: int, **_: Any) -> str:
        tries.append(f"{host}:{port}")
        if len(tries) < 3:
            raise AttributeError("'Client' object has no attribute 'server_version_sem'")
        return "client"

    monkeypatch.setattr(evidence, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(etcd3, "Client", client)
    assert evidence._client("127.0.0.1:2379") == "client"
    assert tries == ["127.0.0.1:2379"] * 3


def test_one_that_never_tells_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def client(*_: Any, **__: Any) -> None:
        raise AttributeError("'Client' object has no attribute 'server_version_sem'")

    monkeypatch.setattr(evidence, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(etcd3, "Client", client)
    with pytest.raises(AttributeError):
        evidence._client("127.0.0.1:2379")
