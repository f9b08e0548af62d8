"""What a controller's `/system_stats` says, when it is of another shape than known: no load, and no failed step."""

from typing import Any

import pytest

from lablet_workers.runtimes.cml import CmlRuntime


class _Answer:
    def __init__(self, document: Any) -> None:
        self._document = document

    def json(self) -> Any:
        return self._document


@pytest.mark.parametrize(
    "document",
    [
        {"all": {"cpu": {}}, "computes": {"a": {"stats": {}}}},
        {"all": {"cpu": {"count": "many"}, "memory": {}, "disk": {}}, "computes": {"a": {"stats": {}}}},
        {"all": [], "computes": {"a": {"stats": {}}}},
        {"all": None, "computes": {"a": {"stats": {}}}},
        {"computes": ["a"]},
        [],
    ],
)
async def test_statistics_of_another_shape_are_no_load(document: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answered(*_: Any, **__: Any) -> _Answer:
        return _Answer(document)

    monkeypatch.setattr(CmlRuntime, "_send", answered)
    runtime = CmlRuntime("http://127.0.0.1:1", username="admin", password="x")
    assert await runtime.load() is None
