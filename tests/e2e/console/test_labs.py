"""Labs and what they run on: published, followed, ended; workers, learners, health."""

import json
from typing import Any

import nats
import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, expect

from .conftest import MARKS, ROOT, Screen

pytestmark = MARKS


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def early(door: Any) -> dict[str, Any]:
    """A short reservation that runs and ends while the first tests do."""
    made = await door.reserve({"definition": await door.publish("ospf-basics"), **await door.slot(8, 20)})
    found: dict[str, Any] = made.json()
    return found


async def test_a_lab_file_is_published_and_drawn(screen: Screen) -> None:
    await screen.to("Definitions")
    await screen.page.get_by_role("button", name="Publish a lab file").click()
    form = screen.page.get_by_role("dialog")
    await form.get_by_label("Lab file").set_input_files(
        {"name": "broken.yaml", "mimeType": "application/yaml", "buffer": b"nodes: [\n"}
    )
    await form.get_by_role("button", name="Publish", exact=True).click()
    await expect(form.get_by_role("alert")).to_be_visible()
    labs = ROOT / "examples" / "labs"
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


async def test_health_shows_services_owners_and_that_nothing_lies_dead(screen: Screen) -> None:
    await screen.to("Health")
    for service in ("api-gateway", "scheduler", "worker-controller", "artifact-service"):
        await expect(screen.page.get_by_role("table", name="Services")).to_contain_text(service)
    await expect(screen.page.get_by_role("table", name="Owners of shards")).to_contain_text("scheduler · default")
    await expect(screen.page.get_by_text("every message has been dealt with")).to_be_visible()
    await screen.picture("health")


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
