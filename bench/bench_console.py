"""The console with 200 workers and some 3,000 seats over seven days, in headless Chromium against a real mesh.

Everything goes through the public API: the seats are booked there, the page is the one that the gateway serves. A picture
counts as drawn two frames after the change is in the document. `open` is a reload of a signed-in tab until the
week's bars are drawn; `week` and `day` are a click until the bars of that span are drawn, with the API's answer in
them; `update` is an event that has arrived until its bar is drawn; `told` is a reservation's answer from the API until
that, the way over bridge and event stream included. Frames are measured while the wheel turns through all workers.

Not measured: a slow network, a telephone's processor, a graphics card (Chromium draws in software here).
"""

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import httpx
from playwright.async_api import Page, async_playwright
from report import options as common
from report import report
from subject import DEFINITION, WORKERS, measured_mesh

RESERVATIONS = 1_000
SEATS = 3
DAYS = 7
ROUNDS = 7
AT_ONCE = 24
AHEAD = timedelta(hours=12)
"""No machine is to be started while this measures."""
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
HOOKS = """
window.drawn = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))));
window.until = async (wanted) => {
  while (!wanted()) await new Promise((done) => requestAnimationFrame(done));
  return drawn();
};
window.updates = [];
const dispatch = EventTarget.prototype.dispatchEvent;
EventTarget.prototype.dispatchEvent = function (event) {
  const began = performance.now();
  const kept = dispatch.call(this, event);
  if (event.type === "change" && event.detail?.one?.kind === "Reservation") {
    const id = event.detail.one.metadata.id;
    void drawn().then((at) => updates.push({ id, ms: at - began, at: performance.timeOrigin + at }));
  }
  return kept;
};
"""
FRAMES = """async () => {
  const rows = document.querySelector(".rows");
  const gaps = [];
  let last = await new Promise((done) => requestAnimationFrame(done));
  const most = rows.scrollHeight - rows.clientHeight;
  for (let step = 0; step < 150; step += 1) {
    rows.scrollTop = (most * step) / 150;
    const at = await new Promise((done) => requestAnimationFrame(done));
    gaps.push(at - last);
    last = at;
  }
  rows.scrollTop = 0;
  return gaps;
}"""


async def book(http: httpx.AsyncClient) -> int:
    """Fills the week. Returns how many seats have a place."""
    random = Random(8)
    begin = (datetime.now(UTC) + AHEAD).replace(minute=0, second=0, microsecond=0)
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> int:
        start = begin + timedelta(minutes=random.randrange(0, DAYS * 24 * 60 - 720, 15))
        body = {
            "definition": DEFINITION,
            "seats": SEATS,
            "start": start.isoformat(),
            "labels": {"course": f"c-{number % 9}"},
        }
        async with room:
            made = await http.post(
                "/reservations",
                json=body | {"durationMinutes": random.choice((60, 90, 120, 180))},
                headers={"prefer": "wait=20"},
            )
        made.raise_for_status()
        return len(made.json()["status"]["placement"])

    return sum(await asyncio.gather(*(one(number) for number in range(RESERVATIONS))))


CLICKED = """async (name) => {
  const nameOf = (one) => one.getAttribute("aria-label") ?? one.textContent;
  const plot = document.querySelector(".plot");
  const before = plot.dataset.shown;
  const began = performance.now();
  [...document.querySelectorAll("button")].find((one) => nameOf(one) === name).click();
  return (await until(() => plot.dataset.shown !== before)) - began;
}"""
TOLD = """async (id) => {
  const found = () => updates.find((one) => one.id === id);
  await until(found);
  return found().at;
}"""


async def clicked(page: Page, name: str) -> float:
    """ms from a click until the bars of the span are drawn that it asks for."""
    return float(await page.evaluate(CLICKED, name))


async def repeated(work: Callable[[], Awaitable[float]]) -> list[float]:
    return [await work() for _ in range(ROUNDS)]


async def measure(url: str, token: str, http: httpx.AsyncClient) -> dict[str, Any]:
    chromium = os.environ.get("CHROMIUM_BIN") or shutil.which("chromium")
    if not chromium:
        sys.exit("no Chromium on this machine (Debian's package chromium, or CHROMIUM_BIN)")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = await browser.new_page(viewport={"width": 1440, "height": 900})
        await page.add_init_script(HOOKS)
        await page.goto(f"{url}/")
        await page.get_by_label("Token").fill(token)
        await page.get_by_role("button", name="Sign in", exact=True).click()
        await page.wait_for_selector(".state.live")

        async def opened() -> float:
            await page.reload(wait_until="commit")
            found = float(await page.evaluate("until(() => document.querySelectorAll('.bar').length > 100)"))
            await page.wait_for_selector(".state.live")
            return found

        await clicked(page, "week")
        opens = await repeated(opened)
        await clicked(page, "day")
        weeks, days = [], []
        for _ in range(ROUNDS):
            weeks.append(await clicked(page, "week"))
            days.append(await clicked(page, "day"))
        await clicked(page, "week")
        frames = sorted(float(gap) for gap in await page.evaluate(FRAMES))
        told = []
        for number in range(ROUNDS):
            start = (datetime.now(UTC) + AHEAD + timedelta(hours=number)).replace(minute=30, second=0, microsecond=0)
            body = {"definition": DEFINITION, "seats": 1, "start": start.isoformat(), "durationMinutes": 60}
            made = await http.post("/reservations", json=body, headers={"prefer": "wait=20"})
            answered = time.time() * 1000
            at = await page.evaluate(TOLD, made.json()["metadata"]["id"])
            told.append(float(at) - answered)
        updates = [float(one["ms"]) for one in await page.evaluate("updates")]
        bars = await page.evaluate("document.querySelectorAll('.bar').length")
        heap = await page.evaluate("performance.memory.usedJSHeapSize / 1e6")
        await browser.close()
    return {
        "open_ms": statistics.median(opens),
        "open_worst_ms": max(opens),
        "week_ms": statistics.median(weeks),
        "week_worst_ms": max(weeks),
        "day_ms": statistics.median(days),
        "update_ms": statistics.median(updates),
        "update_worst_ms": max(updates),
        "told_ms": statistics.median(told),
        "frame_p50_ms": frames[len(frames) // 2],
        "frame_p95_ms": frames[int(len(frames) * 0.95)],
        "frame_worst_ms": frames[-1],
        "bars_in_document": bars,
        "heap_mb": heap,
    }


async def main(file: Path | None) -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lablet-bench-") as folder:
        async with measured_mesh(Path(folder)) as mesh:
            token = mesh.token()
            async with httpx.AsyncClient(
                base_url=f"{mesh.url}/api/v1", headers={"authorization": f"Bearer {token}"}, timeout=60, trust_env=False
            ) as http:
                seats = await book(http)
                path = f"/pools/default/calendar?from={datetime.now(UTC):%Y-%m-%dT00:00:00Z}"
                path += f"&to={datetime.now(UTC) + timedelta(days=DAYS):%Y-%m-%dT00:00:00Z}"
                answers = []
                for _ in range(ROUNDS):
                    asked = time.perf_counter()
                    answer = await http.get(path)
                    answers.append(1000 * (time.perf_counter() - asked))
                figures: dict[str, Any] = {
                    "calendar_api_ms": statistics.median(answers),
                    "calendar_kb": len(answer.content) / 1000,
                }
                figures |= await measure(mesh.url, token, http)
    told = {name: f"{value:.1f}" if isinstance(value, float) else value for name, value in figures.items()}
    size = {"workers": WORKERS, "days": DAYS, "seats": seats}
    report("console", size | told | {"seconds": f"{time.monotonic() - began:.0f}"}, file)


if __name__ == "__main__":
    parser = common(argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    asyncio.run(main(parser.parse_args().json))
