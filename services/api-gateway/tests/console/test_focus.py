"""What somebody is at stays, while everything around changes."""

from playwright.async_api import Page

from .conftest import MARKS, Open

DOM = """
import { h, render } from "/console/dom.js";
const button = (name) => h("button", { key: name, id: name }, name);
window.show = (...names) => render(document.querySelector("main"), h("p", { key: "all" }, ...names.map(button)));
window.moves = 0;
show("a");
const count = (seen) => { moves += seen.flatMap((one) => [...one.addedNodes]).length; };
new MutationObserver(count).observe(document.querySelector("p"), { childList: true });
"""
CALENDAR = """
import { render } from "/console/dom.js";
import { calendar } from "/console/views/calendar.js";
import { iso, now } from "/console/time.js";
const hour = (number) => iso(now() + 3_600_000 * number);
const plain = { start: hour(0), definition: "lab@1", seat: 1, phase: "Scheduled" };
const booking = ([worker, reservation, length]) => ({ ...plain, worker, reservation, end: hour(length) });
const idle = { phase: "Ready", schedulable: true, maintenance: [], powerSpans: [] };
const live = { find: () => undefined, of: () => [], quiet: () => true, isFresh: () => false };
const view = calendar({ live, draw: () => draw() });
const draw = () => { render(document.querySelector("main"), view.draw()); view.drawn(); };
window.show = async (...bookings) => {
  const of = (name) => bookings.map(booking).filter((one) => one.worker === name);
  const worker = (name) => ({ ...idle, worker: name, bookings: of(name) });
  window.answer = { start: hour(0), end: hour(24), steps: [], workers: ["w-1", "w-2"].map(worker) };
  view.changed(new Set(["worker"]), null);
};
"""
API = """
export class Problem extends Error {}
export const get = async () => window.answer ?? { start: 0, end: 0, steps: [], workers: [] };
"""

pytestmark = MARKS


async def opened(open_page: Open, script: str) -> Page:
    """A page with this script, which gives it a `show`."""
    document = f'<!doctype html><main></main><script type="module">{script}</script>'
    page = await open_page(document, {"api.js": API})
    await page.wait_for_function("typeof show === 'function'")
    return page


async def shown(page: Page, names: str) -> str:
    """Draws these; what is there then."""
    await page.evaluate("names => show(...names)", list(names))
    return str(await page.evaluate("document.querySelector('p').textContent"))


async def test_the_focus_stays_while_others_come_go_and_change_places(open_page: Open) -> None:
    page = await opened(open_page, DOM)
    assert await shown(page, "abcde") == "abcde"
    await page.focus("#c")
    for names in ("bcde", "bce", "xbce", "cbxe", "ecbx", "ec", "c", "abc"):
        assert await shown(page, names) == names
        assert await page.evaluate("document.activeElement.id") == "c", names


async def test_what_goes_moves_nothing_that_stays(open_page: Open) -> None:
    page = await opened(open_page, DOM)
    await shown(page, "abcdefgh")
    await page.evaluate("moves = 0")
    await shown(page, "bcdfgh")
    assert await page.evaluate("moves") == 0


async def at(page: Page, *bookings: tuple[str, str, int], reservation: str) -> None:
    """Waits until the focus is on what the reservation takes, once these (worker, reservation, hours) are drawn."""
    await page.evaluate("bookings => show(...bookings)", list(bookings))
    await page.wait_for_function(
        "([count, id]) => document.querySelectorAll('.bar').length === count"
        " && document.activeElement.dataset.bar?.startsWith(`${id}|`)",
        arg=[len(bookings), reservation],
    )


async def test_whoever_is_at_a_booking_stays_at_it_and_goes_on_from_the_first_when_it_ends(open_page: Open) -> None:
    page = await opened(open_page, CALENDAR)
    await page.evaluate("bookings => show(...bookings)", [("w-1", "a", 1), ("w-1", "b", 2), ("w-2", "c", 1)])
    await page.focus(".bar[data-bar^='b|']")
    await page.keyboard.press("ArrowDown")
    await at(page, ("w-1", "a", 1), ("w-1", "b", 2), ("w-2", "c", 1), reservation="c")
    await at(page, ("w-1", "b", 2), ("w-2", "c", 1), reservation="c")
    await at(page, ("w-1", "b", 2), ("w-2", "d", 3), ("w-2", "c", 2), reservation="c")
    await at(page, ("w-1", "b", 2), ("w-2", "d", 3), reservation="b")
