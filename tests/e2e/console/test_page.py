"""The page itself: signing in, a lost connection, every view for everybody."""

from typing import Any

import pytest
from playwright.async_api import BrowserContext, expect

from lablet_common.testing.issuer import Provider

from .conftest import BARS, DESK, MARKS, Screen

pytestmark = MARKS
SCHEMES: tuple[Any, ...] = ("light", "dark")
VIEWS = (
    "Calendar", "Reservations", "Series", "My lab", "Instances", "Workers", "Definitions", "Events", "Health", "Usage",
)  # fmt: skip


async def test_an_unknown_token_is_refused_with_the_reason(door: Any, context: BrowserContext) -> None:
    screen = Screen(await context.new_page(), door.url)
    await screen.sign_in("lablet_nobody")
    await expect(screen.page.get_by_role("alert")).to_contain_text("unknown or has expired")
    await screen.picture("refused")


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
