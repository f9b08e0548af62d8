"""The web console in a real browser: what instructors, learners and operators do there, against a running mesh.

Each test keeps a picture of what it saw under `build/console/` as an artefact.
"""

import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect

CHROMIUM = os.environ.get("CHROMIUM_BIN") or shutil.which("chromium") or ""
PICTURES = Path(__file__).resolve().parents[2] / "build" / "console"
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
BARS = ".bar:not(.foreign)"

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine (Debian's package chromium, or CHROMIUM_BIN)"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield opened
        await opened.close()


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
        await self.page.get_by_role("button", name="Sign in").click()

    async def to(self, view: str) -> None:
        await self.page.get_by_role("navigation").get_by_role("link", name=view, exact=True).click()
        await expect(self.page.get_by_role("heading", level=1)).to_have_text(view)

    async def picture(self, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=PICTURES / f"{name}.png")


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    opened = await browser.new_context(
        viewport={"width": 1440, "height": 850}, locale="en-GB", timezone_id="Europe/Berlin"
    )
    opened.set_default_timeout(15_000)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(loop_scope="module")
async def screen(door: Any, context: BrowserContext) -> AsyncIterator[Screen]:
    """Signed in as the door's own principal, an admin."""
    opened = Screen(await context.new_page(), door.url)
    await opened.sign_in(door.token)
    await expect(opened.page.locator(".state")).to_have_text("Live")
    yield opened
    assert not opened.complaints


async def test_an_unknown_token_is_refused_with_the_reason(door: Any, context: BrowserContext) -> None:
    screen = Screen(await context.new_page(), door.url)
    await screen.sign_in("lablet_nobody")
    await expect(screen.page.get_by_role("alert")).to_contain_text("unknown or has expired")
    await screen.picture("refused")


async def test_a_booking_made_elsewhere_appears_in_the_calendar_and_tells_about_itself(
    door: Any, screen: Screen
) -> None:
    definition = await door.publish("ospf-basics")
    await expect(screen.page.get_by_role("heading", level=1)).to_have_text("Calendar")
    await screen.page.get_by_role("button", name="week", exact=True).click()
    before = await screen.page.locator(BARS).count()
    slot = await door.slot(240, 120)
    made = await door.reserve({"definition": definition, "seats": 3, **slot})
    assert made.status_code == 201
    await expect(screen.page.locator(BARS)).not_to_have_count(before)
    bar = screen.page.locator(BARS, has_text="ospf").last
    await bar.focus()
    await screen.page.keyboard.press("Enter")
    details = screen.page.get_by_role("complementary", name="Details")
    await expect(details).to_contain_text(definition)
    await screen.picture("calendar")
    await screen.page.get_by_role("button", name="As a table").click()
    await expect(screen.page.get_by_role("table")).to_contain_text(definition)


async def test_seats_are_reserved_with_the_fit_told_while_typing_and_then_cancelled(door: Any, screen: Screen) -> None:
    definition = await door.publish("ospf-basics")
    await screen.to("Reservations")
    await screen.page.get_by_role("button", name="Reserve seats").first.click()
    form = screen.page.get_by_role("dialog")
    await form.get_by_label("Definition").fill(definition)
    await form.get_by_label("Starts").fill("in 30h")
    fit = form.locator(".fit")
    await expect(fit).to_contain_text("Fits:")
    await form.get_by_label("Lasts").fill("soon")
    await expect(fit).to_contain_text('"soon" is no length of time')
    await form.get_by_label("Lasts").fill("45m")
    await form.get_by_role("spinbutton", name="Seats").fill("2")
    await expect(fit).to_contain_text("Fits:")
    await screen.picture("reserve")
    await form.get_by_role("button", name="Reserve", exact=True).click()
    heading = screen.page.get_by_role("heading", level=1)
    await expect(heading).to_contain_text("Scheduled")
    name = re.search(r"rsv-\w+", await heading.inner_text())
    assert name is not None
    made = await door.get(f"/reservations/{name.group()}")
    assert made["spec"]["seats"] == 2
    assert made["spec"]["durationMinutes"] == 45
    await screen.page.get_by_role("button", name="+30 min").click()
    longer = await door.until(f"/reservations/{name.group()}", lambda one: one["status"]["extendedMinutes"] == 30)
    assert longer["status"]["slot"]["end"] > made["status"]["slot"]["end"]
    await expect(screen.page.locator(".why")).to_contain_text("placed")
    await screen.picture("reservation")
    await screen.page.get_by_role("button", name="Cancel", exact=True).click()
    await screen.page.get_by_role("dialog").get_by_role("button", name="Cancel the reservation").click()
    await expect(heading).to_contain_text("Cancelled")
    await expect(screen.page.locator(".story")).to_contain_text("cancelled")


async def test_what_cannot_be_placed_is_explained_with_the_earliest_slot_to_take(door: Any, screen: Screen) -> None:
    definition = await door.publish("ospf-basics")
    filler = await door.slot(60 * 50, 240)
    crowded = [await door.reserve({"definition": definition, "seats": 36, **filler})]
    assert crowded[0].status_code == 201
    assert crowded[0].json()["status"]["phase"] == "Scheduled"
    await screen.to("Reservations")
    await screen.page.get_by_role("button", name="Reserve seats").first.click()
    form = screen.page.get_by_role("dialog")
    await form.get_by_label("Definition").fill(definition)
    await form.get_by_role("spinbutton", name="Seats").fill("20")
    await form.get_by_label("Starts").fill(filler["start"])
    fit = form.locator(".fit")
    await expect(fit).to_contain_text("it would wait")
    await expect(fit).to_contain_text("The earliest slot that fits")
    await screen.picture("explained")
    await fit.get_by_role("button", name="Use").click()
    await expect(fit).to_contain_text("Fits:")
    await form.get_by_role("button", name="Back").click()
    await door.call("DELETE", f"/reservations/{crowded[0].json()['metadata']['id']}", headers={"prefer": "wait=10"})


async def test_a_lab_file_is_published_and_drawn(screen: Screen) -> None:
    await screen.to("Definitions")
    await screen.page.get_by_role("button", name="Publish a lab file").click()
    form = screen.page.get_by_role("dialog")
    await form.get_by_label("Lab file").set_input_files(
        {"name": "broken.yaml", "mimeType": "application/yaml", "buffer": b"nodes: [\n"}
    )
    await form.get_by_role("button", name="Publish", exact=True).click()
    await expect(form.get_by_role("alert")).to_be_visible()
    labs = Path(__file__).resolve().parents[2] / "examples" / "labs"
    await form.get_by_label("Lab file").set_input_files(labs / "ospf-basics.yaml")
    await form.get_by_label("Name").fill("drawn")
    await form.get_by_role("button", name="Publish", exact=True).click()
    await expect(screen.page.get_by_role("heading", level=1)).to_contain_text("drawn@1.0.0")
    drawn = screen.page.locator(".topology")
    await expect(drawn.locator("circle")).to_have_count(3)
    await expect(drawn.locator("line")).to_have_count(2)
    await screen.picture("definition")


async def test_an_operator_cordons_a_worker_and_takes_it_back(door: Any, screen: Screen) -> None:
    await screen.to("Workers")
    row = screen.page.get_by_role("row", name="default-006")
    await row.get_by_role("button", name="Cordon").click()
    form = screen.page.get_by_role("dialog")
    await form.get_by_label("Reason").fill("a fan is loud")
    await form.get_by_role("button", name="Cordon", exact=True).click()
    await expect(row).to_contain_text("Cordoned")
    worker = await door.get("/workers/default-006")
    assert worker["spec"]["unschedulable"]["reason"] == "a fan is loud"
    await screen.picture("workers")
    await row.get_by_role("button", name="Uncordon").click()
    await expect(row).not_to_contain_text("Cordoned")


async def test_a_learner_sees_own_seats_with_consoles_and_time_left(door: Any, context: BrowserContext) -> None:
    if door.mesh is None:
        pytest.skip("a learner's token is known for a local mesh only")
    definition = await door.publish("ospf-basics")
    token = door.mesh.token("learner")
    who = await door.call("GET", "/whoami", headers={"authorization": f"Bearer {token}"})
    slot = await door.slot(20, 240)
    made = await door.reserve({"definition": definition, "roster": [{"seat": 1, "user": who.json()["name"]}], **slot})
    reservation = made.json()["metadata"]["id"]
    screen = Screen(await context.new_page(), door.url)
    await screen.sign_in(token)
    card = screen.page.locator("article", has_text="ospf-basics").first
    await expect(screen.page.get_by_role("heading", level=1)).to_have_text("My lab")
    await expect(screen.page.get_by_role("link", name="Workers")).to_have_count(0)
    await door.until_phase(f"/reservations/{reservation}", "Active", seconds=90)
    await expect(card).to_contain_text("left")
    await expect(card.locator(".doors")).to_contain_text("r1_serial")
    await expect(card.get_by_role("button", name="Copy").first).to_be_visible()
    await screen.picture("mylab")
    assert not screen.complaints


async def test_a_lost_connection_is_told_and_caught_up(door: Any, context: BrowserContext) -> None:
    definition = await door.publish("ospf-basics")
    screen = Screen(await context.new_page(), door.url)
    await screen.sign_in(door.token)
    await expect(screen.page.locator(".state")).to_have_text("Live")
    await screen.to("Reservations")
    await screen.page.route("**/events/stream*", lambda route: route.abort())
    await context.set_offline(True)
    await screen.page.evaluate("dispatchEvent(new Event('offline'))")
    await expect(screen.page.get_by_role("alert")).to_contain_text("Connection lost")
    made = await door.reserve({"definition": definition, **await door.slot(60 * 70, 60)})
    reservation = made.json()["metadata"]["id"]
    await screen.picture("lost")
    await expect(screen.page.get_by_text(reservation)).to_have_count(0)
    await context.set_offline(False)
    await screen.page.unroute("**/events/stream*")
    await expect(screen.page.locator(".state")).to_have_text("Live")
    await expect(screen.page.get_by_text(reservation)).to_be_visible()


async def test_a_reservation_is_followed_through_the_services_as_a_waterfall(door: Any, screen: Screen) -> None:
    if door.mesh is None:
        pytest.skip("recent spans are kept by a local mesh")
    definition = await door.publish("ospf-basics")
    made = (await door.reserve({"definition": definition, **await door.slot(10, 15)})).json()
    path = f"/reservations/{made['metadata']['id']}"
    await door.until_phase(path, "Completed", seconds=90)
    wanted = {
        "POST /api/v1/reservations", "Txn etcd", "decide reservation.requested", "commit decisions",
        "publish lablet.intent.scheduler.{pool}.reservation.{id}", "process lablet.intent.scheduler.{pool}.reservation.{id}",
        "publish lablet.event.{tenant}.reservation.{pool}.{id}", "worker Provisioning", "POST provider",
        "render lab", "instance Instantiating", "POST CML", "put S3",
    }  # fmt: skip
    trace = await door.until(
        f"{path}/trace", lambda found: {span["name"] for span in found["spans"]} >= wanted, seconds=30
    )
    services = {span["service"] for span in trace["spans"]}
    assert services >= {"api-gateway", "scheduler", "worker-controller", "artifact-service"}
    later = [span for span in trace["spans"] if span["name"] in ("instance Instantiating", "worker Provisioning")]
    assert all(span["traceId"] != trace["traceId"] for span in later)
    assert all(link["traceId"] == trace["traceId"] for span in later for link in span["links"])
    told = door.cli("trace", made["metadata"]["id"])
    assert told.returncode == 0, told.stderr
    assert "decide reservation.requested" in told.stdout
    await screen.page.goto(f"{screen.url}/#{path}")
    await screen.page.get_by_role("button", name="Show what each service did").click()
    drawn = screen.page.locator(".waterfall")
    await expect(drawn).to_contain_text("instance Instantiating")
    await screen.picture("trace")


async def test_health_shows_services_owners_and_that_nothing_lies_dead(screen: Screen) -> None:
    await screen.to("Health")
    for service in ("api-gateway", "scheduler", "worker-controller", "artifact-service"):
        await expect(screen.page.get_by_role("table", name="Services")).to_contain_text(service)
    await expect(screen.page.get_by_role("table", name="Owners of shards")).to_contain_text("scheduler · default")
    await expect(screen.page.get_by_text("every message has been dealt with")).to_be_visible()
    await screen.picture("health")


async def test_every_view_opens_in_the_dark_too(screen: Screen) -> None:
    await screen.page.get_by_role("button", name="Light or dark").click()
    for view in (
        "Calendar",
        "Reservations",
        "My lab",
        "Instances",
        "Workers",
        "Definitions",
        "Events",
        "Health",
        "Usage",
    ):
        await screen.to(view)
        await screen.picture(f"dark-{view.lower().replace(' ', '-')}")
