"""A steady, moderate load of every kind: so many deeds a minute, whatever the answers take.

The deeds are those of the fault runs, and what long-lived meshes see besides: lists, event streams whose clients come and go,
webhooks, and reads of what has been archived. What was asked is remembered, so that the end can be held to it.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import httpx

from lablet_local.chaos.load import Asked, Load

_RECENT = 30
"""Bookings and series that are still changed."""
_TEXTS = 6
"""Versions of the lab file that are published in turn: authors do not write without end."""
_LISTS = (
    "/reservations?limit=50",
    "/instances?limit=50",
    "/workers",
    "/definitions",
    "/series?limit=20",
    "/reservations?limit=20&archived=true",
    "/usage",
    "/audit?limit=20",
)
_DECIDED = ("Decided", "Refused")
_OUTCOME_SECONDS = 60.0
_ASK_AGAIN_SECONDS = 0.25
_PATIENT_TRIES = 5
_IDLE_SECONDS = 2.0
"""A gateway closes connections that rest for five: one that is about to be closed must not be taken for the next call."""


class SteadyLoad(Load):
    """Runs until `stop`."""

    name = "soak"
    dates = (2,)

    def __init__(
        self, gateways: list[str], token: str, seed: int, speed: float, lab_file: bytes, rate: float, sink: str
    ) -> None:
        """`rate`: deeds a minute in the mean. `sink`: where webhooks are sent."""
        super().__init__(gateways, token, seed, speed, lab_file)
        self._rng = random.Random(seed)
        self._mean = 60.0 / rate
        self._sink = sink
        limits = httpx.Limits(keepalive_expiry=_IDLE_SECONDS)
        self._clients = [
            httpx.AsyncClient(base_url=url, timeout=10, trust_env=False, limits=limits) for url in gateways
        ]
        self._subscribed: str | None = None
        self._heard = ""
        self.deeds: Counter[str] = Counter()
        self.outcomes: dict[str, str] = {}
        """Idempotency key of a request that was answered with 202 → what it came to; empty while it waits."""
        self.faults: Counter[str] = Counter()
        """Reads that were not answered as they should be."""

    async def run(self) -> None:
        """One deed after another begins; none waits for another."""
        kinds = self._kinds()
        async with asyncio.TaskGroup() as tasks:
            while not self._stopping.is_set():
                (deed,) = self._rng.choices([one for _, one in kinds], weights=[weight for weight, _ in kinds])
                self.deeds[deed.__name__.lstrip("_")] += 1
                tasks.create_task(self._do(deed))
                try:
                    async with asyncio.timeout(self._rng.uniform(0.2, 1.8) * self._mean):
                        await self._stopping.wait()
                except TimeoutError:
                    continue

    async def _do(self, deed: Callable[[random.Random], Coroutine[Any, Any, None]]) -> None:
        """One that fails must not end the others: it is counted, and the end is held to it."""
        try:
            await deed(self._rng)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted and shown
            self.faults[f"{deed.__name__.lstrip('_')} {type(error).__name__}: {error}"[:120]] += 1

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()

    def _kinds(self) -> list[tuple[int, Callable[[random.Random], Coroutine[Any, Any, None]]]]:
        return [
            (20, self._reserve), (4, self._extend), (4, self._cancel), (1, self._drain), (1, self._publish),
            (2, self._collect), (2, self._book_series), (2, self._change_series), (8, self._list), (8, self._look),
            (3, self._listen), (2, self._look_back), (1, self._subscribe),
        ]  # fmt: skip

    async def _reserve(self, rng: random.Random) -> None:
        await super()._reserve(rng)
        del self._booked[:-_RECENT]

    async def _book_series(self, rng: random.Random) -> None:
        await super()._book_series(rng)
        del self._terms[:-_RECENT]

    async def _publish(self, rng: random.Random) -> None:
        text = self._lab_file + f"# {rng.randrange(_TEXTS)}\n".encode()
        await self._ask("publish", "POST", f"/definitions?name={self.name}", text, {"Content-Type": "application/yaml"})

    async def _list(self, rng: random.Random) -> None:
        await self._want(rng.choice(_LISTS))

    async def _look(self, rng: random.Random) -> None:
        if self._booked:
            name = rng.choice(self._booked)
            await self._want(f"/reservations/{name}")
            await self._want(f"/events?subject=reservation/{name}")

    async def _look_back(self, rng: random.Random) -> None:
        """Something that has been archived by now, if the run is old enough."""
        if self.made:
            await self._want(f"/reservations/{rng.choice(self.made)}")

    async def _listen(self, rng: random.Random) -> None:
        """A client of the event stream comes, anew or where another left off, reads for a while and goes."""
        client = self._clients[next(self._turn) % len(self._clients)]
        resume = {"Last-Event-ID": self._heard} if self._heard and rng.random() < 0.5 else {}
        try:
            async with asyncio.timeout(rng.uniform(3, 20)):
                async with client.stream("GET", "/api/v1/events/stream", headers=self._headers | resume) as answer:
                    if answer.status_code != 200:
                        self.faults[f"stream {answer.status_code}"] += 1
                        return
                    async for line in answer.aiter_lines():
                        if line.startswith("id:"):
                            self._heard = line.removeprefix("id:").strip()
                        if self._stopping.is_set():
                            return
        except TimeoutError:
            return
        except httpx.HTTPError as error:
            self.faults[f"stream {type(error).__name__}"] += 1

    async def _subscribe(self, _: random.Random) -> None:
        """A webhook's subscription is made or, where there is one, taken away."""
        if self._subscribed is None:
            name = f"soak-{next(self._numbers)}"
            self._subscribed = name
            body = {"name": name, "sink": self._sink, "types": ["io.lablet.reservation."]}
            await self._ask("subscribe", "POST", "/subscriptions", body)
        else:
            name, self._subscribed = self._subscribed, None
            await self._ask("unsubscribe", "DELETE", f"/subscriptions/{name}")

    async def _want(self, path: str) -> Any:
        """What is read must be there."""
        try:
            answer = await self._once("GET", path)
        except httpx.HTTPError as error:
            self.faults[f"{path.partition('?')[0].split('/')[1]} {type(error).__name__}"] += 1
            return None
        if answer.status_code != 200:
            self.faults[f"{path.partition('?')[0].split('/')[1]} {answer.status_code}"] += 1
            return None
        return answer.json()

    async def _ask(
        self,
        what: str,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        route: str = "",
    ) -> Asked | None:
        """As the fault runs do; what was accepted for later is followed to its outcome."""
        asked = await super()._ask(what, method, path, body, headers, route)
        if asked is not None and asked.status == 202 and asked.request:
            self.outcomes[asked.key] = ""
            deadline = time.monotonic() + _OUTCOME_SECONDS
            while time.monotonic() < deadline:
                found = await self._read(asked.request.removeprefix("/api/v1"))
                if found and found["status"]["phase"] in _DECIDED:
                    self.outcomes[asked.key] = str(found["status"]["phase"])
                    break
                await asyncio.sleep(_ASK_AGAIN_SECONDS)
        return asked

    async def _decided_since(self, asked: Asked) -> bool:
        """Whom its client has not waited for. Only what is decided expires, so one that is gone has been."""
        path = asked.request.removeprefix("/api/v1")
        for _ in range(_PATIENT_TRIES):
            with contextlib.suppress(httpx.HTTPError):
                answer = await self._once("GET", path)
                if answer.status_code == 404 or (
                    answer.status_code == 200 and answer.json()["status"]["phase"] in _DECIDED
                ):
                    return True
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
        return False

    async def _there(self, path: str) -> bool:
        """A read that is late is not a reservation that is lost."""
        for _ in range(_PATIENT_TRIES):
            with contextlib.suppress(httpx.HTTPError):
                answer = await self._once("GET", path)
                if answer.status_code in (200, 404):
                    return answer.status_code == 200
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
        return False

    async def _once(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """By lasting connections: nobody is killed here, and new ones cost more than the call."""
        client = self._clients[next(self._turn) % len(self._clients)]
        given = {"content": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        return await client.request(method, f"/api/v1{path}", headers=self._headers | (headers or {}), **given)

    @property
    def made(self) -> list[str]:
        """Reservations that were accepted and not refused afterwards."""
        return [
            one.resource
            for one in self.seen.accepted
            if one.what == "reserve" and one.resource and self.outcomes.get(one.key, "Decided") == "Decided"
        ]

    async def lost(self) -> list[str]:
        """What was accepted and never decided, and reservations that are nowhere now, neither alive nor archived."""
        waiting = [
            one for one in self.seen.asked if self.outcomes.get(one.key) == "" and not await self._decided_since(one)
        ]
        broken = [f"{one.key} was accepted and never decided" for one in waiting]
        missing = [name for name in self.made if not await self._there(f"/reservations/{name}")]
        return broken + [f"reservation {name} was accepted and is nowhere" for name in missing]
