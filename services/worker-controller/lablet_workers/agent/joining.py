"""How an agent joins: it tells the gateway what its host has, with the token that names the worker it may be.

A refusal is final and ends the agent, with the mesh's own words; a gateway that does not answer is asked again. An agent
that was registered before does not wait for this: its heartbeats go on while the gateway is away.
"""

import asyncio
import logging
from pathlib import Path

import httpx

from lablet_common.intents import WorkerRegister

log = logging.getLogger("lablet.agent")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
_WAIT_SECONDS = 10
_LATER = (408, 425, 429)


class JoinRefused(Exception):
    """The mesh does not take this host as it is; the message says why."""


def read_token(path: Path) -> str:
    """Raises `JoinRefused` naming the file."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise JoinRefused(f"the token file {path} cannot be read: {error.strerror}") from error
    if not token:
        raise JoinRefused(f"the token file {path} is empty")
    return token


async def join(url: str, token: str, worker: str, registration: WorkerRegister) -> None:
    """Returns once the worker is registered. Raises `JoinRefused`."""
    headers = {"Authorization": f"Bearer {token}", "Prefer": f"wait={_WAIT_SECONDS}"}
    pause = _FIRST_PAUSE
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=_WAIT_SECONDS + 5, trust_env=False) as http:
        while True:
            try:
                answer = await http.post(f"/api/v1/workers/{worker}/register", json=registration.to_dict())
            except httpx.HTTPError as error:
                said = f"{type(error).__name__} {error}"
            else:
                if answer.is_success and answer.status_code != httpx.codes.ACCEPTED:
                    log.info("registered", extra={"worker": worker, "pool": registration.pool})
                    return
                said = f"{answer.status_code} {_words(answer)}"
                if answer.is_client_error and answer.status_code not in _LATER:
                    raise JoinRefused(f"{url} refuses the worker {worker}: {said}")
            log.warning("not registered yet: trying again", extra={"url": url, "cause": said})
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _words(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
