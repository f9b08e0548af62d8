"""Clients that ask for things all the time, as patient people do: the same idempotency key again until there is an answer.

What they saw is what the checker holds the mesh to. They go to every gateway in turn, by HTTP alone.
"""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

_AGAIN_SECONDS = 0.15
_UNANSWERED = (429, 500, 502, 503, 504)
"""After which the same is asked again; those that are a server's own error are kept."""
_SAID = 200
"""Characters of such an answer."""
_AWAY = (503, 504)
"""Whom the gateway needs is not there just now."""
_WORKERS = 4
"""Clients at once."""
_SOON_MINUTES = 10
_ENOUGH_RAN = 4
_MAKE_UP_SECONDS = 20.0
"""For one deed: after so long some lab runs, if any ever does."""
DEEDS = (("reserve",), ("extend", "change-series"), ("cancel",), ("series",), ("drain",), ("publish",), ("collect",))
"""What clients ask for; of several names one is enough to have shown it."""
JOBS = (*DEEDS, ("run",))
"""With agents."""


@dataclass(slots=True)
class Asked:
    """One request as its client saw it."""

    what: str
    key: str
    status: int = 0
    """The answer's; 0: none came before the end."""
    request: str = ""
    """Path of the request, where it was accepted and not decided at once."""
    resource: str = ""
    """Id of what was made."""
    tries: int = 0
    route: str = ""
    """`METHOD /path`, to which the key belongs."""
    event: str = ""
    """Id of the request's event, where whoever asked has made it."""


@dataclass(slots=True)
class Seen:
    """Everything that clients saw."""

    asked: list[Asked] = field(default_factory=list)
    longest_unavailable: float = 0.0
    """Real seconds without one read that was answered, at any gateway itself."""
    longest_unwritable: float = 0.0
    """Real seconds without one POST that was accepted, while clients asked for things."""
    answers: Counter[int] = field(default_factory=Counter)
    """Every answer that anybody got, to reads and to each try, by its status."""
    server_errors: list[str] = field(default_factory=list)
    """Answers by which a gateway says that it failed itself, in words."""

    def note(self, asked: str, answer: httpx.Response) -> None:
        """One answer. A gateway without etcd, NATS or the object store says 503; whatever else of 500 and above it says is
        a defect."""
        status = answer.status_code
        self.answers[status] += 1
        if status >= httpx.codes.INTERNAL_SERVER_ERROR and status not in _AWAY:
            self.server_errors.append(f"{asked}: {status} {' '.join(answer.text.split())[:_SAID]}")

    @property
    def by_class(self) -> Counter[str]:
        """Answers by class of their status; from 500 on each by itself."""
        found: Counter[str] = Counter()
        for status, count in self.answers.items():
            found[str(status) if status >= httpx.codes.INTERNAL_SERVER_ERROR else f"{status // 100}xx"] += count
        return found

    @property
    def accepted(self) -> list[Asked]:
        return [one for one in self.asked if 200 <= one.status < 300]

    def shows(self, names: Sequence[str]) -> bool:
        """Whether a deed of one of these names was accepted."""
        return any(one.what in names for one in self.accepted)

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(f"{one.what} {one.status or 'unanswered'}" for one in self.asked)


class Load:
    """Runs until `stop`; then no new request begins, and those under way are carried to their answer."""

    name = "chaos"
    """Of the lab that everything is about, and what idempotency keys begin with."""
    dates: tuple[int, ...] = (2, 3)
    """How many a series has."""

    def __init__(
        self,
        gateways: list[str],
        token: str,
        seed: int,
        speed: float,
        lab_file: bytes,
        job: Callable[[str], bytes] | None = None,
        *,
        watched: Sequence[str] = (),
    ) -> None:
        """`job`: the manifest of a job by its name, where there are agents to run it. `watched`: the gateways themselves,
        where clients reach them through something else: what stands between is not the mesh's to answer for."""
        self._gateways = gateways
        self._headers = {"Authorization": f"Bearer {token}"}
        self._seed = seed
        self._speed = speed
        self._lab_file = lab_file
        self._job = job
        self._turn = itertools.count()
        self._watched = tuple(watched) or tuple(gateways)
        self._numbers = itertools.count()
        self._stopping = asyncio.Event()
        self._booked: list[str] = []
        self._terms: list[str] = []
        self._accepted_at: float | None = None
        """When a POST was accepted last, or the load began; monotonic."""
        self.seen = Seen()

    async def run(self) -> None:
        self._accepted_at = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for number in range(_WORKERS):
                tasks.create_task(self._client(random.Random(self._seed * 31 + number)))
            tasks.create_task(self._watch_availability())

    async def publish_first(self) -> None:
        """The lab that everything is about."""
        await self._publish(random.Random(self._seed))

    def stop(self) -> None:
        self._stopping.set()

    async def make_up(self) -> None:
        """Faults are over: of each deed that was never accepted, because nothing was there for it to be done to, or nobody
        drew it, one is asked for now, so that the run says something of all."""
        rng = random.Random(f"made up {self._seed}")
        deeds: dict[str, Callable[[random.Random], Any]] = {
            "reserve": self._reserve, "extend": self._extend, "cancel": self._cancel, "series": self._book_series,
            "drain": self._drain, "publish": self._publish, "collect": self._collect, "run": self._run_job,
        }  # fmt: skip
        for names in DEEDS if self._job is None else JOBS:
            deadline = time.monotonic() + _MAKE_UP_SECONDS
            while not self.seen.shows(names) and time.monotonic() < deadline:
                await deeds[names[0]](rng)
                await asyncio.sleep(_AGAIN_SECONDS)

    async def wind_up(self) -> None:
        """Faults are over: terms go no further than what has begun of them, and where enough labs have run to be judged,
        whoever has booked for later than `_SOON_MINUTES` from now goes home. What is left ends in its own time."""
        now = await self._now()
        for term in self._terms:
            await self._ask("cancel-series", "DELETE", f"/series/{term}")
        found = [one for one in [await self._read(f"/reservations/{name}") for name in self._booked] if one]
        ran = sum(one["status"]["phase"] in ("Active", "Completed") for one in found)
        if now is None or ran < _ENOUGH_RAN:
            return
        late = now + timedelta(minutes=_SOON_MINUTES)
        room = asyncio.Semaphore(_WORKERS)
        async with asyncio.TaskGroup() as tasks:
            for one in found:
                if (
                    one["status"]["phase"] == "Scheduled"
                    and datetime.fromisoformat(one["status"]["slot"]["start"]) > late
                ):
                    tasks.create_task(self._go_home(str(one["metadata"]["id"]), room))

    async def _go_home(self, booked: str, room: asyncio.Semaphore) -> None:
        async with room:
            await self._ask("cancel", "DELETE", f"/reservations/{booked}")

    async def _client(self, rng: random.Random) -> None:
        deeds: list[tuple[int, Callable[[random.Random], Any]]] = [
            (10, self._reserve), (2, self._extend), (2, self._cancel), (1, self._drain), (1, self._publish),
            (1, self._collect), (1, self._book_series), (1, self._change_series),
        ]  # fmt: skip
        if self._job is not None:
            deeds.append((3, self._run_job))
        while not self._stopping.is_set():
            (deed,) = rng.choices([one for _, one in deeds], weights=[weight for weight, _ in deeds])
            await deed(rng)
            try:
                async with asyncio.timeout(rng.uniform(0.05, 0.5)):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    async def _reserve(self, rng: random.Random) -> None:
        now = await self._now()
        if now is None:
            return
        start = (now + timedelta(minutes=rng.randint(30, 50))).replace(second=0, microsecond=0)
        body = {
            "definition": self.name, "seats": rng.choice((1, 1, 2, 3)), "start": start.isoformat(),
            "durationMinutes": rng.choice((10, 15, 20)),
        }  # fmt: skip
        asked = await self._ask("reserve", "POST", "/reservations", body)
        if asked is not None and asked.status in (200, 201, 202):
            self._booked.append(asked.resource)

    async def _extend(self, rng: random.Random) -> None:
        found = await self._read(f"/reservations/{rng.choice(self._booked)}") if self._booked else None
        slot = found and found["status"].get("slot")
        if not found or not slot:
            return
        end = datetime.fromisoformat(slot["end"]) + timedelta(minutes=5)
        version = f'"{found["metadata"]["resourceVersion"]}"'
        path = f"/reservations/{found['metadata']['id']}"
        await self._ask("extend", "PATCH", path, {"end": end.isoformat()}, {"If-Match": version})

    async def _cancel(self, rng: random.Random) -> None:
        if self._booked:
            await self._ask("cancel", "DELETE", f"/reservations/{rng.choice(self._booked)}")

    async def _drain(self, rng: random.Random) -> None:
        worker = f"default-{rng.randint(1, 6):03d}"
        await self._ask("drain", "POST", f"/workers/{worker}/drain", {"message": "chaos", "deadlineMinutes": 30})
        await self._ask(
            "cancel-drain", "POST", f"/workers/{worker}/cancel-drain", {}, route=f"POST /workers/{worker}/drain-cancel"
        )

    async def _publish(self, rng: random.Random) -> None:
        text = self._lab_file + f"# {rng.random()}\n".encode()
        await self._ask("publish", "POST", f"/definitions?name={self.name}", text, {"Content-Type": "application/yaml"})

    async def _collect(self, rng: random.Random) -> None:
        page = await self._read("/instances?limit=100&fieldSelector=status.phase=Running")
        if page and page["items"]:
            instance = rng.choice(page["items"])["metadata"]["id"]
            await self._ask("collect", "POST", f"/instances/{instance}/collect", {})

    async def _book_series(self, rng: random.Random) -> None:
        """A date today and one or two on the days after; all of them, or those that fit."""
        now = await self._now()
        if now is None:
            return
        start = (now + timedelta(minutes=rng.randint(30, 45))).replace(second=0, microsecond=0)
        body = {
            "definition": self.name, "seats": rng.choice((1, 2)), "start": start.isoformat(), "durationMinutes": 15,
            "rule": f"FREQ=DAILY;COUNT={rng.choice(self.dates)}", "mode": rng.choice(("all", "fits")),
        }  # fmt: skip
        asked = await self._ask("series", "POST", "/series", body)
        if asked is not None and asked.status in (201, 202):
            self._terms.append(asked.resource)

    async def _change_series(self, rng: random.Random) -> None:
        """The last date comes a little later."""
        found = await self._read(f"/series/{rng.choice(self._terms)}") if self._terms else None
        dates = (found or {}).get("status", {}).get("occurrences") or []
        if not found or not dates:
            return
        start = datetime.fromisoformat(dates[-1]["start"]) + timedelta(minutes=rng.choice((5, 10, 30)))
        body = {"scope": "this", "date": dates[-1]["date"], "start": start.isoformat()}
        version = f'"{found["metadata"]["resourceVersion"]}"'
        await self._ask("change-series", "PATCH", f"/series/{found['metadata']['id']}", body, {"If-Match": version})

    async def _run_job(self, rng: random.Random) -> None:
        """As soon as a host has room; each job is a definition of its own, so that its processes can be told apart."""
        assert self._job is not None
        name = f"job-{next(self._numbers)}"
        yaml = {"Content-Type": "application/yaml"}
        published = await self._ask("publish", "POST", f"/definitions?name={name}", self._job(name), yaml)
        if published is None or published.status not in (200, 201):
            return
        body = {"definition": name, "pool": "agents", "asap": True, "durationMinutes": rng.choice((20, 30))}
        await self._ask("run", "POST", "/reservations", body)

    async def _now(self) -> datetime | None:
        clock = await self._read("/clock")
        return datetime.fromisoformat(clock["now"]).astimezone(UTC) if clock else None

    async def _read(self, path: str) -> Any:
        """None where no gateway has an answer just now."""
        for _ in self._gateways:
            try:
                answer = await self._once("GET", path)
            except httpx.HTTPError:
                continue
            return answer.json() if answer.status_code == 200 else None
        return None

    async def _ask(
        self,
        what: str,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        route: str = "",
    ) -> Asked | None:
        """Until there is an answer that is one; None where none came for a minute. `route`: what the key belongs to, where
        that is not the method and the path."""
        key = f"{self.name}-{self._seed}-{next(self._numbers)}"
        asked = Asked(what, key, route=route or f"{method} {path.partition('?')[0]}")
        self.seen.asked.append(asked)
        sent = {"Idempotency-Key": asked.key, "Prefer": "wait=2", **(headers or {})}
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            asked.tries += 1
            try:
                answer = await self._once(method, path, body, sent)
            except httpx.HTTPError:
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            if answer.status_code in _UNANSWERED:
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            asked.status = answer.status_code
            if method == "POST" and answer.is_success and not self._stopping.is_set():
                self._was_writable()
            document = answer.json() if answer.content else {}
            if document.get("kind") == "Request":
                asked.request = answer.headers.get("location", "")
                asked.resource = str(document["spec"]["subject"]).partition("/")[2]
            elif "metadata" in document:
                asked.resource = str(document["metadata"]["id"])
            return asked
        return None

    async def _once(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        base = self._gateways[next(self._turn) % len(self._gateways)]
        async with _http(base) as http:
            given = {"content": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
            answer = await http.request(method, f"/api/v1{path}", headers=self._headers | (headers or {}), **given)
        self.seen.note(f"{method} {path}", answer)
        return answer

    async def _watch_availability(self) -> None:
        """How long nobody could read anything, at any gateway."""
        last = time.monotonic()
        turn = itertools.cycle(self._watched)
        while not self._stopping.is_set():
            if await self._readable(next(turn)):
                self.seen.longest_unavailable = max(self.seen.longest_unavailable, time.monotonic() - last)
                last = time.monotonic()
            await asyncio.sleep(0.1)
        self.seen.longest_unavailable = max(self.seen.longest_unavailable, time.monotonic() - last)
        self._was_writable()

    def _was_writable(self) -> None:
        """Until now, or never again."""
        now = time.monotonic()
        if self._accepted_at is not None:
            self.seen.longest_unwritable = max(self.seen.longest_unwritable, now - self._accepted_at)
            self._accepted_at = now

    async def _readable(self, base: str) -> bool:
        try:
            async with _http(base) as http:
                answer = await http.get("/api/v1/pools", headers=self._headers)
        except httpx.HTTPError:
            return False
        self.seen.note("GET /pools", answer)
        return answer.status_code == httpx.codes.OK


@asynccontextmanager
async def _http(base: str) -> AsyncIterator[httpx.AsyncClient]:
    """A connection of its own each time: a killed gateway must not poison the next request."""
    async with httpx.AsyncClient(base_url=base, timeout=6, trust_env=False) as http:
        yield http
