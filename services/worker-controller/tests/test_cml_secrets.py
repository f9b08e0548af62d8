"""A controller that repeats a refused secret does not bring it into a log."""

from typing import Any

import httpx
import pytest

from lablet_workers.runtimes.cml import CmlRuntime
from lablet_workers.runtimes.port import RuntimeFault

TOKEN = "_a-licence-token-that-is-refused"


async def test_a_refused_licence_token_is_not_in_what_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = CmlRuntime("http://127.0.0.1:9", "admin", "secret")

    async def answer(method: str, path: str, **_: Any) -> httpx.Response:
        if path == "/licensing/registration":
            return httpx.Response(400, json={"code": 400, "description": f"body.token: '{TOKEN}' does not match"})
        return httpx.Response(200, json={"transport": {}} if method == "GET" else "token")

    monkeypatch.setattr(runtime, "_raw", answer)
    with pytest.raises(RuntimeFault, match="does not match") as refused:
        await runtime.register("CML_Enterprise", TOKEN)
    assert TOKEN not in str(refused.value)
    assert refused.value.__suppress_context__
