"""The web console in a real browser: what instructors, learners and operators do there, against a running mesh.

Each test keeps a picture of what it saw under `build/console/` as an artefact. Each file has a mesh of its own.
"""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect

from lablet_common.testing.issuer import AUDIENCE, CLIENT, Provider, serving

CHROMIUM = os.environ.get("CHROMIUM_BIN") or shutil.which("chromium") or ""
ROOT = Path(__file__).resolve().parents[3]
PICTURES = ROOT / "build" / "console"
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
ACCESSIBLE = (ROOT / "tests" / "e2e" / "accessible.js").read_text()
BARS = ".bar:not(.foreign)"

MARKS = [
    pytest.mark.mesh,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine (Debian's package chromium, or CHROMIUM_BIN)"),
]
"""Of every module here."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield opened
        await opened.close()


@pytest.fixture(scope="module")
def issuer() -> Iterator[Provider]:
    """The identity provider that the mesh trusts."""
    with serving() as server:
        server.provider.people = {"ina": {"roles": ["instructor"]}, "kim": {"roles": []}}
        yield server.provider


@pytest.fixture(scope="module")
def mesh_environment(issuer: Provider) -> dict[str, str]:
    return {"OIDC_ISSUER": issuer.issuer, "OIDC_AUDIENCE": AUDIENCE, "OIDC_CONSOLE_CLIENT_ID": CLIENT}


class Screen:
    """A signed-in page; whatever the browser complains about fails the test."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._hear)

    def _hear(self, line: ConsoleMessage) -> None:
        refused = line.text.startswith("Failed to load resource")  # a problem document, which the page shows
        if line.type == "error" and not refused:
            self.complaints.append(line.text)

    async def sign_in(self, token: str) -> None:
        await self.page.goto(f"{self.url}/")
        await self.page.get_by_label("Token").fill(token)
        await self.page.get_by_role("button", name="Sign in", exact=True).click()

    async def to(self, view: str) -> None:
        await self.page.get_by_role("navigation").get_by_role("link", name=view, exact=True).click()
        await expect(self.page.get_by_role("heading", level=1)).to_have_text(view)

    async def is_accessible(self, place: str = "") -> None:
        wrong = await self.page.evaluate(ACCESSIBLE)
        assert not wrong, f"{place}: " + "\n".join(wrong)

    async def picture(self, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=PICTURES / f"{name}.png")


DESK: Any = {"viewport": {"width": 1440, "height": 850}, "locale": "en-GB", "timezone_id": "Europe/Berlin"}


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    opened = await browser.new_context(**DESK)
    opened.set_default_timeout(15_000)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(door: Any, browser: Browser) -> AsyncIterator[Screen]:
    """A tab in which the door's own principal, an admin, stays signed in."""
    context = await browser.new_context(**DESK)
    context.set_default_timeout(15_000)
    opened = Screen(await context.new_page(), door.url)
    await opened.sign_in(door.token)
    yield opened
    await context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def screen(desk: Screen) -> AsyncIterator[Screen]:
    """The desk's tab at the calendar, connected, without an open dialog."""
    desk.complaints.clear()
    await desk.page.evaluate("document.querySelectorAll('dialog').forEach((box) => box.close())")
    await desk.page.goto(f"{desk.url}/#/calendar")
    await expect(desk.page.locator(".state")).to_have_text("Live")
    yield desk
    assert not desk.complaints
