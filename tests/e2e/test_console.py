"""The web console in a real browser: what instructors, learners and operators do there, against a running mesh.

Each test keeps a picture of what it saw under `build/console/` as an artefact.
"""

import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import nats
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect

from lablet_common.testing.issuer import AUDIENCE, CLIENT, Provider, serving

CHROMIUM = os.environ.get("CHROMIUM_BIN") or shutil.which("chromium") or ""
PICTURES = Path(__file__).resolve().parents[2] / "build" / "console"
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
BARS = ".bar:not(.foreign)"
ACCESSIBLE = Path(__file__).with_name("accessible.js").read_text()
SCHEMES: tuple[Any, ...] = ("light", "dark")
VIEWS = (
    "Calendar", "Reservations", "Series", "My lab", "Instances", "Workers", "Definitions", "Events", "Health", "Usage",
)  # fmt: skip

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


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def early(door: Any) -> dict[str, Any]:
    """A short reservation that runs and ends while the first tests do."""
    made = await door.reserve({"definition": await door.publish("ospf-basics"), **await door.slot(8, 20)})
    found: dict[str, Any] = made.json()
    return found


@pytest_asyncio.fixture(loop_scope="module")
async def screen(desk: Screen) -> AsyncIterator[Screen]:
    """The desk's tab at the calendar, connected, without an open dialog."""
    desk.complaints.clear()
    await desk.page.evaluate("document.querySelectorAll('dialog').forEach((box) => box.close())")
    await desk.page.goto(f"{desk.url}/#/calendar")
    await expect(desk.page.locator(".state")).to_have_text("Live")
    yield desk
    assert not desk.complaints


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
    lit = screen.page.locator(f".bar.fresh[data-bar*='{made.json()['metadata']['id']}']")
    await expect(lit).not_to_have_count(0)
    await expect(screen.page.locator(BARS)).not_to_have_count(before)
    await expect(lit).to_have_count(0)
    bar = screen.page.locator(BARS, has_text="ospf").last
    await bar.press("Enter")  # in one: what is drawn anew in between would lose the focus
    details = screen.page.get_by_role("complementary", name="Details")
    await expect(details).to_contain_text(definition)
    await screen.picture("calendar")
    await screen.page.get_by_role("button", name="As a table").click()
    await expect(screen.page.get_by_role("table")).to_contain_text(definition)
    await screen.is_accessible()
    await screen.page.get_by_role("button", name="As a table").click()
    await expect(screen.page.locator(".plot")).to_be_visible()


async def test_what_an_event_tells_the_calendar_is_what_the_server_says_a_moment_later(
    door: Any, screen: Screen
) -> None:
    definition = await door.publish("ospf-basics")
    slot = await door.slot(60 * 24 * 5, 90)
    made = (await door.reserve({"definition": definition, "seats": 7, **slot})).json()
    calendar = await door.get(f"/pools/default/calendar?from={slot['start'][:19]}Z&to={slot['end'][:19]}Z")
    said = {
        worker["worker"]: sorted((one["seat"], one["start"], one["end"], one["phase"]) for one in mine)
        for worker in calendar["workers"]
        if (mine := [one for one in worker["bookings"] if one.get("reservation") == made["metadata"]["id"]])
    }
    script = """async (booking) => {
      const { bookingsOf } = await import("/console/rows.js");
      return [...bookingsOf(booking, () => undefined, Date.now())];
    }"""
    told = await screen.page.evaluate(script, made)
    assert {
        name: sorted((one["seat"], one["start"], one["end"], one["phase"]) for one in mine) for name, mine in told
    } == said
    assert sum(map(len, said.values())) == 7


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
    await screen.page.get_by_role("button", name="Change", exact=True).click()
    change = screen.page.get_by_role("dialog")
    await change.get_by_role("spinbutton", name="Seats").fill("3")
    await change.get_by_label("Roster").fill("ann, bob")
    await screen.is_accessible()
    await change.get_by_role("button", name="Change", exact=True).click()
    await expect(change).to_have_count(0)
    changed = await door.get(f"/reservations/{name.group()}")
    assert changed["spec"]["seats"] == 3
    assert [entry["user"] for entry in changed["spec"]["roster"]] == ["ann", "bob"]
    await expect(screen.page.get_by_role("table", name="Seats")).to_contain_text("bob")
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


async def test_an_operator_drains_a_worker_under_a_running_lab_and_takes_that_back(door: Any, screen: Screen) -> None:
    definition = await door.publish("ospf-basics")
    made = (await door.reserve({"definition": definition, **await door.slot(8, 240)})).json()
    (seat,) = (await door.until_phase(f"/reservations/{made['metadata']['id']}", "Active"))["status"]["placement"]
    await screen.to("Workers")
    row = screen.page.get_by_role("row", name=seat["worker"])
    await row.get_by_role("button", name="Drain", exact=True).click()
    form = screen.page.get_by_role("dialog")
    await form.get_by_label("Until").fill("in 3h")
    await form.get_by_label("Message").fill("a new disk")
    await expect(form.locator(".fit")).to_contain_text("running to their end")
    await screen.picture("drain")
    await form.get_by_role("button", name="Drain", exact=True).click()
    await expect(row.get_by_role("progressbar", name=f"Drain of {seat['worker']}")).to_be_visible()
    await expect(row).to_contain_text("still on it")
    drained = (await door.get(f"/workers/{seat['worker']}"))["spec"]
    assert [span["reason"] for span in drained["maintenance"]] == ["drain"]
    assert drained["unschedulable"]["reason"] == "a new disk"
    await screen.picture("draining")
    await row.get_by_role("button", name="Cancel drain").click()
    await expect(row.get_by_role("progressbar")).to_have_count(0)
    await expect(row.get_by_role("button", name="Drain", exact=True)).to_be_visible()
    back = await door.until_phase(f"/workers/{seat['worker']}", "Ready")
    assert back["spec"]["maintenance"] == []
    assert back["spec"].get("unschedulable") is None
    assert (await door.get(f"/instances/{seat['instance']}"))["status"]["phase"] == "Running"


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


async def test_a_link_gives_its_seat_to_the_learner_who_opens_it_first(
    door: Any, screen: Screen, context: BrowserContext
) -> None:
    if door.mesh is None:
        pytest.skip("a learner's token is known for a local mesh only")
    definition = await door.publish("ospf-basics")
    made = (await door.reserve({"definition": definition, "seats": 2, **await door.slot(60 * 24, 60)})).json()
    path = f"/reservations/{made['metadata']['id']}"
    await screen.page.goto(f"{door.url}/#{path}")
    await screen.page.get_by_role("button", name="Links for free seats").click()
    links = screen.page.get_by_role("dialog").locator("code")
    await expect(links).to_have_count(2)
    await screen.is_accessible()
    address = await links.first.inner_text()
    await screen.page.get_by_role("button", name="Done").click()
    learner = Screen(await context.new_page(), door.url)
    await learner.page.goto(address)
    await learner.page.get_by_label("Token").fill(door.mesh.token("learner"))
    await learner.page.get_by_role("button", name="Sign in", exact=True).click()
    await expect(learner.page.get_by_role("heading", level=1)).to_have_text("My lab")
    await expect(learner.page.get_by_role("main")).to_contain_text("ospf-basics")
    roster = (await door.get(path))["spec"]["roster"]
    assert [(entry["seat"], entry["user"]) for entry in roster] == [(1, "local-learner")]
    await learner.page.goto(f"{door.url}/#/claim/nothing")
    await expect(learner.page.get_by_role("alert")).to_contain_text("the link is not known here")


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


async def test_a_reservation_is_followed_through_the_services_as_a_waterfall(
    door: Any, screen: Screen, early: dict[str, Any]
) -> None:
    if door.mesh is None:
        pytest.skip("recent spans are kept by a local mesh")
    path = f"/reservations/{early['metadata']['id']}"
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
    assert not [span["name"] for span in trace["spans"] if span["name"].startswith("fastapi.")], "of no use to a reader"
    services = {span["service"] for span in trace["spans"]}
    assert services >= {"api-gateway", "scheduler", "worker-controller", "artifact-service"}
    later = [span for span in trace["spans"] if span["name"] in ("instance Instantiating", "worker Provisioning")]
    assert all(span["traceId"] != trace["traceId"] for span in later)
    assert all(link["traceId"] == trace["traceId"] for span in later for link in span["links"])
    told = door.cli("trace", early["metadata"]["id"])
    assert told.returncode == 0, told.stderr
    assert "decide reservation.requested" in told.stdout
    await screen.page.goto(f"{screen.url}/#{path}")
    await screen.page.get_by_role("button", name="Show what each service did").click()
    drawn = screen.page.locator(".waterfall")
    await expect(drawn).to_contain_text("instance Instantiating")
    await screen.picture("trace")


async def test_an_ended_lab_has_its_files_its_story_and_its_hours(
    door: Any, screen: Screen, early: dict[str, Any]
) -> None:
    name = early["metadata"]["id"]
    ended = await door.until_phase(f"/reservations/{name}", "Completed", seconds=90)
    instance = ended["status"]["placement"][0]["instance"]
    collected = await door.until(f"/instances/{instance}/artifacts", lambda found: found["items"])
    page = screen.page
    heading = page.get_by_role("heading", level=1)
    await page.goto(f"{door.url}/#/instances/{instance}")
    await expect(heading).to_contain_text(instance)
    await expect(heading).to_contain_text("Terminated")
    files = page.get_by_role("table", name="Files of the instance")
    for file in collected["items"]:
        await expect(files).to_contain_text(file["name"])
    await screen.picture("ended")
    await page.goto(f"{door.url}/#/events/reservation%2F{name}")
    await expect(heading).to_have_text(f"reservation/{name}")
    told = page.get_by_role("list", name=f"Events of reservation/{name}").locator(".what")
    await expect(told.get_by_text("completed", exact=True)).to_have_count(1)
    steps = ("scheduled", "active", "completed")
    assert tuple(fact for fact in await told.all_inner_texts() if fact in steps) == steps
    await screen.picture("story")
    await screen.to("Usage")
    used = page.get_by_role("table", name="Usage by definition").get_by_role("row", name=early["spec"]["definition"])
    await expect(used).to_be_visible()
    cells = await used.get_by_role("cell").all_inner_texts()
    assert min(float(cell) for cell in cells[:3]) > 0, f"reservations, seats, seat-hours: {cells}"
    await screen.picture("usage")


async def test_now_is_a_line_in_the_calendar_of_today_alone(door: Any, screen: Screen) -> None:
    page = screen.page
    await page.get_by_role("button", name="day", exact=True).click()
    await page.get_by_role("button", name="Today", exact=True).click()
    line = page.locator(".plot .nowline")
    await expect(line).to_have_count(1)
    share = await line.evaluate("node => node.getAttribute('x1') / node.ownerSVGElement.getAttribute('width')")
    clock = (await door.now()).astimezone(ZoneInfo(DESK["timezone_id"]))
    assert share == pytest.approx((clock.hour + clock.minute / 60) / 24, abs=0.02)
    await page.get_by_role("button", name="Later", exact=True).click()
    await expect(page.locator(".plot")).to_be_visible()
    await expect(line).to_have_count(0)


async def test_health_shows_services_owners_and_that_nothing_lies_dead(screen: Screen) -> None:
    await screen.to("Health")
    for service in ("api-gateway", "scheduler", "worker-controller", "artifact-service"):
        await expect(screen.page.get_by_role("table", name="Services")).to_contain_text(service)
    await expect(screen.page.get_by_role("table", name="Owners of shards")).to_contain_text("scheduler · default")
    await expect(screen.page.get_by_text("every message has been dealt with")).to_be_visible()
    await screen.picture("health")


async def test_the_page_to_sign_in_can_be_read_and_used(door: Any, context: BrowserContext) -> None:
    screen = Screen(await context.new_page(), door.url)
    await screen.page.goto(f"{door.url}/")
    if door.mesh is not None:
        await expect(screen.page.get_by_role("button", name="Sign in at")).to_be_visible()
    for scheme in SCHEMES:
        await screen.page.emulate_media(color_scheme=scheme)
        await screen.is_accessible(f"sign-in, {scheme}")


async def test_every_view_can_be_read_used_and_fits_in_light_and_dark_wide_and_narrow(
    door: Any, screen: Screen
) -> None:
    definition = await door.publish("ospf-basics")
    made = await door.reserve({"definition": definition, "seats": 2, **await door.slot(60 * 30, 60)})
    page = screen.page
    await page.emulate_media(reduced_motion="reduce")
    views = [(view, view) for view in VIEWS]
    views += [(f"reservations/{made.json()['metadata']['id']}", ""), (f"definitions/{definition}", "")]
    for place, title in views:
        if title:
            await screen.to(title)
        else:
            await page.goto(f"{door.url}/#/{place}")
            await expect(page.get_by_role("heading", level=1)).to_contain_text(place.partition("/")[2])
        await expect(page.locator(".waiting")).to_have_count(0)
        if place == "Calendar":
            await page.get_by_role("button", name="week", exact=True).click()
            await expect(page.locator(BARS).first).to_be_visible()
        for width in (1440, 390):
            await page.set_viewport_size({"width": width, "height": 850})
            for scheme in SCHEMES:
                await page.emulate_media(color_scheme=scheme)
                await screen.is_accessible(f"{place}, {scheme}, {width} pixels")
                await screen.picture(f"{scheme}-{width}-{place.partition('/')[0].lower().replace(' ', '-')}")
        await page.set_viewport_size(DESK["viewport"])
    await page.emulate_media(color_scheme="light", reduced_motion="no-preference")


async def test_the_calendar_is_walked_with_the_keyboard_alone(door: Any, screen: Screen) -> None:
    definition = await door.publish("ospf-basics")
    start = await door.slot(60 * 24 * 3, 60)
    for _ in range(2):
        await door.reserve({"definition": definition, "seats": 5, **start})
    page = screen.page
    await page.reload()
    await expect(page.locator(".state")).to_have_text("Live")
    await page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    await expect(skip).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("main")).to_be_focused()
    week = page.get_by_role("button", name="week", exact=True)
    for _ in range(12):
        await page.keyboard.press("Tab")
        if await week.evaluate("node => node === document.activeElement"):
            break
    await page.keyboard.press("Enter")
    await expect(week).to_have_attribute("aria-pressed", "true")
    await expect(page.locator(f"{BARS}[tabindex='0']")).to_have_count(1)
    on_a_bar = "document.activeElement.matches('.bar')"
    for _ in range(20):
        await page.keyboard.press("Tab")
        if await page.evaluate(on_a_bar):
            break
    focused = page.locator(".bar:focus")
    names = [await focused.get_attribute("aria-label")]
    for key in ("ArrowDown", "ArrowUp", "ArrowRight"):
        await page.keyboard.press(key)
        await page.wait_for_function(on_a_bar)
        names.append(await focused.get_attribute("aria-label"))
    assert len(set(names)) > 1, names
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("complementary", name="Details")).to_be_visible()
    await screen.is_accessible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("complementary", name="Details")).to_have_count(0)


async def test_a_term_is_booked_with_every_dates_fit_and_then_changed_and_cancelled(door: Any, screen: Screen) -> None:
    definition = await door.publish("ospf-basics")
    page = screen.page
    await screen.to("Series")
    await page.get_by_role("button", name="Book a series").first.click()
    form = page.get_by_role("dialog")
    await form.get_by_label("Definition").fill(definition)
    await form.get_by_label("Starts").fill("2031-03-04 09:00")
    await form.get_by_role("spinbutton", name="Seats").fill("3")
    await form.get_by_role("spinbutton", name="Dates").fill("5")
    await expect(form.locator(".fit")).to_contain_text("All 5 dates fit")
    await form.get_by_role("button", name="Leave out Tue, 11 Mar 2031").click()
    await expect(form.locator(".fit")).to_contain_text("All 4 dates fit")
    await expect(form.locator(".fit")).to_contain_text("2031-03-11")
    await screen.picture("term")
    await form.get_by_role("button", name="Book the series").click()
    heading = page.get_by_role("heading", level=1)
    await expect(heading).to_contain_text("Placed")
    name = re.search(r"ser-\w+", await heading.inner_text())
    assert name is not None
    made = await door.get(f"/series/{name.group()}")
    days = [one["date"] for one in made["status"]["occurrences"]]
    assert days == ["2031-03-04", "2031-03-18", "2031-03-25", "2031-04-01"]
    # nine in Berlin is an hour earlier by UTC once the clocks have changed
    starts = [one["start"][11:16] for one in made["status"]["occurrences"]]
    assert starts == ["08:00", "08:00", "08:00", "07:00"]
    await screen.is_accessible()

    await page.get_by_role("button", name="Change 2031-03-18").click()
    form = page.get_by_role("dialog")
    await form.get_by_label("this and the following").check()
    await form.get_by_label("New start").fill("2031-03-18 10:30")
    await form.get_by_role("button", name="Change", exact=True).click()
    moved = await door.until(
        f"/series/{name.group()}",
        lambda one: (
            [date["start"][11:16] for date in one["status"]["occurrences"]] == ["08:00", "09:30", "09:30", "08:30"]
        ),
    )
    assert moved["status"]["phase"] == "Placed"
    await expect(page.get_by_role("row", name="2031-03-25")).to_contain_text("10:30")
    await screen.picture("series")
    await page.get_by_role("button", name="Cancel 2031-03-25").click()
    form = page.get_by_role("dialog")
    await form.get_by_role("button", name="Cancel the dates").click()
    await expect(page.get_by_role("row", name="2031-03-25")).to_contain_text("Cancelled")
    await page.get_by_role("button", name="Cancel the series").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel the series").click()
    await expect(heading).to_contain_text("Cancelled")


async def test_a_series_that_does_not_fit_says_which_dates_and_why(door: Any, screen: Screen) -> None:
    definition = await door.publish("ospf-basics")
    filler = {"start": "2031-05-06T07:00:00Z", "end": "2031-05-06T11:00:00Z"}
    full = (await door.reserve({"definition": definition, "seats": 36, **filler})).json()
    page = screen.page
    await screen.to("Series")
    await page.get_by_role("button", name="Book a series").first.click()
    form = page.get_by_role("dialog")
    await form.get_by_label("Definition").fill(definition)
    await form.get_by_role("spinbutton", name="Seats").fill("20")
    await form.get_by_label("Starts").fill("2031-04-29 09:00")
    await form.get_by_role("spinbutton", name="Dates").fill("3")
    fit = form.locator(".fit")
    await expect(fit).to_contain_text("2 of 3 dates fit")
    await expect(fit.locator(".unfit")).to_contain_text("Tue, 6 May 2031")
    await screen.is_accessible()
    await screen.picture("term-unfit")
    await form.get_by_role("button", name="Book the series").click()
    await expect(form.get_by_role("alert")).to_contain_text("2031-05-06")
    await form.get_by_role("button", name="Back").click()
    await door.call("DELETE", f"/reservations/{full['metadata']['id']}", headers={"prefer": "wait=10"})


async def test_people_sign_in_at_their_identity_provider_and_stay_signed_in(
    door: Any, context: BrowserContext, issuer: Provider
) -> None:
    if door.mesh is None:
        pytest.skip("the identity provider of a mesh that the tests did not start is not known")
    issuer.redirects = {f"{door.url}/"}
    issuer.life_seconds = 4
    screen = Screen(await context.new_page(), door.url)
    page = screen.page
    await page.goto(f"{door.url}/#/series")
    await page.get_by_role("button", name="Sign in at").click()
    await page.get_by_role("button", name="Nobody").click()
    await expect(page.get_by_role("alert")).to_contain_text("nobody has signed in")
    await page.get_by_role("button", name="Sign in at").click()
    await page.get_by_role("button", name="kim").click()
    await expect(page.get_by_role("alert")).to_contain_text("claim roles")
    await page.get_by_role("button", name="Sign in at").click()
    await page.get_by_role("button", name="ina").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Series")  # where they came from
    await expect(page.locator(".who")).to_contain_text("ina · instructor")
    assert page.url == f"{door.url}/#/series"
    assert await page.evaluate("localStorage.length + document.cookie.length") == 0
    await expect(page.locator(".state")).to_have_text("Live")
    await page.reload()
    await expect(page.locator(".who")).to_contain_text("ina · instructor")
    before = issuer.renewals
    async with page.expect_response("**/token", timeout=15_000):
        pass
    assert issuer.renewals > before
    assert (await page.evaluate("JSON.parse(sessionStorage.getItem('lablet-session')).ends - Date.now()")) > 2_000
    issuer.end_sessions()
    await expect(page.get_by_role("alert")).to_contain_text("Your sign-in has ended")
    await page.get_by_role("button", name="Sign in again").click()
    issuer.life_seconds = 300
    await page.get_by_role("button", name="Sign in at").click()
    await page.get_by_role("button", name="ina").click()
    await expect(page.locator(".state")).to_have_text("Live")
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("button", name="Sign in at")).to_be_visible()
    assert await page.evaluate("sessionStorage.length") == 0
    assert {"revoke", "logout"} <= set(issuer.fetched)
    assert not screen.complaints


async def test_a_stolen_answer_of_the_provider_signs_nobody_in(door: Any, context: BrowserContext) -> None:
    screen = Screen(await context.new_page(), door.url)
    await screen.page.goto(f"{door.url}/?code=stolen&state=unknown")
    await expect(screen.page.get_by_role("alert")).to_contain_text("belongs to no sign-in of this tab")
    assert "stolen" not in screen.page.url


async def test_dead_letters_are_shown_replayed_and_forgotten(door: Any, screen: Screen) -> None:
    if door.mesh is None:
        pytest.skip("the way into NATS is known for a local mesh only")
    user, password = door.mesh.nats_login("outside")
    outside = await nats.connect(door.mesh.nats_url, user=user, password=password)
    for number in range(3):
        await outside.publish("lablet.ingress.default.garbage", json.dumps({"no": number}).encode())
    await outside.flush()
    await outside.close()
    await door.until("/dead-letters", lambda found: len(found["items"]) >= 3)
    await screen.to("Health")
    page = screen.page
    letters = page.get_by_role("table", name="Dead letters")
    await expect(letters.get_by_role("row")).to_have_count(4)
    await letters.get_by_role("button", name="Show").first.click()
    await expect(page.get_by_role("dialog")).to_contain_text('"no": 0')
    await screen.is_accessible()
    await page.get_by_role("dialog").get_by_role("button", name="Back").click()
    await screen.picture("dead-letters")
    await letters.get_by_role("button", name="Forget").first.click()
    await page.get_by_role("dialog").get_by_role("button", name="Forget it").click()
    await expect(letters.get_by_role("row")).to_have_count(3)
    sequence = (await door.get("/dead-letters"))["items"][0]["sequence"]
    await letters.get_by_role("button", name=f"Replay {sequence}").click()
    again = await door.until("/dead-letters", lambda found: found["items"][-1]["sequence"] > sequence + 1)
    assert len(again["items"]) == 2  # it failed anew, as it must
    await page.get_by_role("button", name="Forget them …").click()
    await page.get_by_role("dialog").get_by_role("button", name="Forget them", exact=True).click()
    await expect(page.get_by_text("every message has been dealt with")).to_be_visible()
    assert (await door.get("/dead-letters"))["items"] == []
