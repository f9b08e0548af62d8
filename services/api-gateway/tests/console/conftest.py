"""A real browser with the console's own files, against a server that is the test's: no mesh, no gateway."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files

import pytest
from playwright.async_api import Browser, Page, Route, async_playwright

from lablet_gateway.console import load

CHROMIUM = os.environ.get("CHROMIUM_BIN") or shutil.which("chromium") or ""
HOST = "http://console.test"
ASSETS = load(files("lablet_gateway.console") / "assets")
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")

MARKS = [
    pytest.mark.integration,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine (Debian's package chromium, or CHROMIUM_BIN)"),
]
"""Of every module here."""

Open = Callable[..., Awaitable[Page]]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        yield opened
        await opened.close()


@pytest.fixture
def open_page(browser: Browser) -> Open:
    """Opens this document (HTML); scripts are the console's, but for those that are given (name → text)."""

    async def open_page(document: str, scripts: dict[str, str] | None = None) -> Page:
        async def serve(route: Route) -> None:
            name = route.request.url.removeprefix(f"{HOST}/console/")
            asset = ASSETS.get(name)
            if name in (scripts or {}):
                await route.fulfill(body=(scripts or {})[name], content_type="text/javascript")
            elif asset is None:
                await route.fulfill(body=document, content_type="text/html")
            else:
                await route.fulfill(body=asset.data, content_type=asset.media_type)

        page = await browser.new_page()
        page.set_default_timeout(15_000)
        await page.route("**/*", serve)
        await page.goto(f"{HOST}/")
        return page

    return open_page
