"""Seats and terms: seen in the calendar, reserved, changed, given back."""

import re
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from playwright.async_api import expect

from .conftest import BARS, DESK, MARKS, Screen

pytestmark = MARKS


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
