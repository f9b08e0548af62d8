"""What the console knows, in a real browser, against a server that answers as the test says."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.async_api import Page

from lablet_gateway.api.dead_letters import DeadLetterList, DeadLetterView

from .conftest import MARKS, Open

PAGE = "<!doctype html><title>empty</title><main id=app></main>"
SERVER = """
() => {
  const answers = new Map();
  const nothing = { body: { items: [], nextCursor: null, resourceVersion: "5" }, status: 200 };
  window.asked = [];
  window.answer = (path, body, status = 200) => answers.set(path, { body, status });
  window.streams = [];
  window.fetch = async (address, options) => {
    const path = String(address).replace("/api/v1", "");
    window.asked.push(path);
    if (path === "/events/stream") {
      const { readable, writable } = new TransformStream();
      const writer = writable.getWriter();
      options.signal.addEventListener("abort", () => void writer.abort(options.signal.reason).catch(() => 0));
      window.streams.push({ writer, last: options.headers["Last-Event-ID"] ?? "" });
      return new Response(readable, { status: 200 });
    }
    const name = path.split("?")[0];
    if (answers.get(name)?.wait) await answers.get(name).wait;
    const { body, status } = answers.get(name) ?? nothing;
    return new Response(JSON.stringify(body), { status });
  };
  window.hold = (path) => {
    let go;
    const wait = new Promise((done) => { go = done; });
    const known = answers.get(path);
    answers.set(path, { ...known, wait });
    return () => { answers.set(path, known); go(); };
  };
  window.send = (text, at = window.streams.length - 1) => window.streams[at].writer.write(new TextEncoder().encode(text));
}
"""
"""Puts a server into the page that answers as `answer` says, whose event streams are `streams`."""
OPEN = """
async (staff) => {
  const { Live } = await import("/console/live.js");
  window.live = new Live(staff);
  window.states = [];
  live.addEventListener("state", () => window.states.push(live.state));
  void live.run();
}
"""

pytestmark = MARKS


@pytest.fixture
async def page(open_page: Open) -> Page:
    page = await open_page(PAGE)
    await page.evaluate(SERVER)
    return page


async def until(page: Page, condition: str, seconds: float = 10.0) -> None:
    await page.wait_for_function(condition, timeout=1000 * seconds)


def seat(revision: int, name: str = "rsv-a") -> dict[str, Any]:
    return {
        "kind": "Reservation",
        "metadata": {"id": name, "resourceVersion": str(revision)},
        "spec": {},
        "status": {"phase": "Scheduled"},
    }


def frame(number: int, revision: int, fact: str = "scheduled", name: str = "rsv-a", **more: Any) -> str:
    event = {
        "type": f"io.lablet.reservation.{fact}.v1",
        "subject": f"reservation/{name}",
        "sequence": f"{revision:020}",
    }
    told = event | (more or {"data": seat(revision, name)})
    return f"id: e1-{number}\ndata: {json.dumps(told)}\n\n"


def lists(*items: dict[str, Any], revision: int = 5) -> dict[str, Any]:
    return {"items": list(items), "nextCursor": None, "resourceVersion": str(revision)}


async def sign_in(page: Page, place: str, role: str, tenant: str = "acme", **answers: Any) -> None:
    """Begins the console at `place`, signed in already; `answers` gives what the paths of those names say."""
    bodies = {
        "whoami": {"name": "ada", "role": role, "tenant": tenant},
        "clock": {"now": "2027-03-01T08:00:00Z", "speed": 1},
    } | answers
    await page.evaluate(
        """async ([place, bodies]) => {
          sessionStorage.setItem("lablet-session", JSON.stringify({ access: "t" }));
          document.body.innerHTML = "<div id=app></div>";
          location.hash = `#/${place}`;
          for (const [name, body] of Object.entries(bodies)) answer(`/${name}`, body);
          await import("/console/main.js");
        }""",
        [place, bodies],
    )


async def test_what_goes_while_the_lists_are_read_does_not_come_back(page: Page) -> None:
    await page.evaluate(OPEN, True)
    await page.evaluate("body => answer('/reservations', body)", lists(seat(3), seat(4, "rsv-b")))
    await page.evaluate("window.go = hold('/reservations')")
    await until(page, "streams.length === 1")
    await page.evaluate("text => send(text)", ": still here\nid: e1-1\n\n" + frame(2, 6, "deleted"))
    await until(page, "live.lastId === 'e1-2'")
    await page.evaluate("go()")
    await until(page, "live.state === 'live'")
    assert await page.evaluate("[...live.resources.reservation.keys()]") == ["rsv-b"]


async def test_what_is_too_large_to_be_told_is_read_by_itself(page: Page) -> None:
    """And not everything anew, by every console, for each change of a large class."""
    await page.evaluate(OPEN, True)
    await until(page, "streams.length === 1")
    await page.evaluate("send(': still here\\nid: e1-1\\n\\n')")
    await until(page, "live.state === 'live'")
    await page.evaluate("body => answer('/reservations/rsv-a', body)", seat(9))
    await page.evaluate("asked.length = 0")
    await page.evaluate("text => send(text)", frame(2, 8, dataref="/api/v1/reservations/rsv-a"))
    await until(page, "live.find('reservation', 'rsv-a')?.metadata.resourceVersion === '9'")
    assert await page.evaluate("asked") == ["/reservations/rsv-a"]
    await page.evaluate("text => send(text)", frame(3, 10, "deleted", dataref="/api/v1/reservations/rsv-a"))
    await until(page, "live.resources.reservation.size === 0")


async def test_a_stream_that_the_server_ends_is_taken_up_where_it_was_without_alarm(page: Page) -> None:
    await page.evaluate(OPEN, False)
    await until(page, "streams.length === 1")
    await page.evaluate("send(': still here\\nid: e1-1\\n\\n')")
    await until(page, "live.state === 'live'")
    await page.evaluate("send(': still here\\nid: e1-40\\n\\n')")
    await until(page, "live.lastId === 'e1-40'")
    await page.evaluate("streams[0].writer.close()")
    await until(page, "streams.length === 2")
    assert await page.evaluate("streams[1].last") == "e1-40"
    await page.evaluate("send(': still here\\nid: e1-41\\n\\n')")
    await until(page, "live.lastId === 'e1-41'")
    assert await page.evaluate("states") == ["live"]


async def test_it_is_live_only_when_the_lists_were_read_and_the_stream_stands(page: Page) -> None:
    await page.evaluate(OPEN, False)
    await page.evaluate("answer('/reservations', { title: 'etcd is away' }, 503)")
    await until(page, "streams.length === 1")
    await page.evaluate("send(': still here\\nid: e1-1\\n\\n')")
    await until(page, "live.state === 'lost'")
    await page.evaluate("streams[0].writer.abort('broken')")
    await until(page, "streams.length === 2")
    await page.evaluate("send(': still here\\nid: e1-2\\n\\n')")
    await until(page, "live.lastId === 'e1-2'")
    assert await page.evaluate("live.state") == "lost"
    await page.evaluate("body => answer('/reservations', body)", lists(seat(3)))
    await until(page, "live.state === 'live'")
    await page.evaluate(
        "answer('/reservations', { title: 'over' }, 401); send('event: reset\\nid: e2-1\\ndata: {}\\n\\n')"
    )
    await until(page, "live.state === 'refused'")


async def test_what_was_highlighted_is_not_remembered_for_ever(page: Page) -> None:
    await page.evaluate(OPEN, False)
    await until(page, "streams.length === 1")
    await page.evaluate("text => send(text)", frame(1, 6))
    await until(page, "live.isFresh('reservation', 'rsv-a')")
    await until(page, "live.changed.size === 0")


async def test_how_to_get_in_is_asked_for_again_when_the_server_was_away(page: Page) -> None:
    """A lab that runs does not change any more, and so gave no other occasion."""
    await page.evaluate(OPEN, False)
    await page.evaluate("answer('/instances/ins-a-1/access', { title: 'the store is away' }, 503)")
    lab = {
        "kind": "Instance", "metadata": {"id": "ins-a-1", "resourceVersion": "7"},
        "spec": {"reservation": "rsv-a", "seat": 1}, "status": {"phase": "Running", "nodes": []},
    }  # fmt: skip
    slot = {"start": "2027-03-01T09:00:00Z", "end": "2027-03-01T10:00:00Z"}
    booked = seat(3) | {
        "metadata": {"id": "rsv-a", "resourceVersion": "3", "owner": "ann"},
        "spec": {"definition": "ospf@1.0.0", "roster": [], "seats": 1, **slot},
        "status": {"phase": "Active", "placement": [], "history": [], "conditions": []},
    }
    await page.evaluate(
        """async ([booked, lab]) => {
          const { mylab } = await import("/console/views/mylab.js");
          const { render } = await import("/console/dom.js");
          live.resources.reservation.set("rsv-a", booked);
          live.resources.instance.set("ins-a-1", lab);
          const view = mylab({ live, who: { name: "ann", role: "learner" }, draw: () => draw() });
          window.draw = () => render(document.getElementById("app"), view.draw());
          draw();
        }""",
        [booked, lab],
    )
    await page.get_by_text("the store is away").wait_for()
    port = {"name": "r1", "host": "10.0.0.1", "port": 2000}
    await page.evaluate("port => answer('/instances/ins-a-1/access', { ports: [port] })", port)
    await page.evaluate(
        "performance.now = (before => () => before() + 6_000)(performance.now.bind(performance)); draw()"
    )
    await page.get_by_text("10.0.0.1:2000", exact=True).wait_for()
    assert await page.get_by_text("the store is away").count() == 0


async def test_what_could_not_be_read_while_the_connection_was_lost_is_read_when_it_is_back(page: Page) -> None:
    """No event need come that would give the occasion."""
    await page.evaluate("answer('/usage', { title: 'the store is away' }, 503)")
    await sign_in(page, "usage", "instructor")
    await until(page, "streams.length === 1")
    await page.evaluate("send(': still here\\nid: e1-1\\n\\n')")
    await page.get_by_text("the store is away").wait_for()
    await page.evaluate("streams[0].writer.abort('broken')")
    await until(page, "streams.length === 2")
    usage = {
        "start": "2027-02-01T00:00:00Z", "end": "2027-03-02T00:00:00Z", "seats": 3, "seatHours": 6, "workerHours": 1,
        "costUsd": 1.5, "reservations": {}, "definitions": [],
    }  # fmt: skip
    await page.evaluate("body => answer('/usage', body)", usage)
    await page.evaluate("send(': still here\\nid: e1-2\\n\\n')")
    await page.get_by_text("Nothing was used in this span").wait_for()
    assert await page.get_by_text("the store is away").count() == 0
    asked = await page.evaluate("asked")
    assert not [path for path in asked if path.startswith("/quotas")], "which are for people of the fleet's tenant"


@pytest.mark.parametrize(("following", "words"), [(None, "all 1"), ("17", "all, more than 1")])
async def test_whoever_forgets_all_dead_letters_is_told_how_many_they_are(
    page: Page, following: str | None, words: str
) -> None:
    at = datetime(2027, 3, 1, tzinfo=UTC)
    letter = DeadLetterView(
        sequence=16, subject="s", stream="EVENTS", consumer="webhook-lms", reason="422", attempts=3,
        at=at, headers={}, payload="",
    )  # fmt: skip
    told = DeadLetterList(items=(letter,), next_cursor=following).to_dict()
    mesh: dict[str, Any] = {"services": [], "owners": [], "bridges": []}
    ready: dict[str, Any] = {"status": "ready", "checks": {}}
    await sign_in(page, "health", "admin", "default", mesh=mesh, readyz=ready, **{"dead-letters": told})
    await page.get_by_role("button", name="Forget them …").click(timeout=8000)
    assert words in await page.get_by_label("Of which consumer").locator("option").all_inner_texts()


async def test_a_mangled_address_is_answered_like_one_that_names_nothing(page: Page) -> None:
    await sign_in(page, "reservations/%E0%A4%A", "machine", events=[])
    await page.get_by_text("There is no reservation %E0%A4%A here").wait_for()
    await page.evaluate("location.hash = '#/'")
    await page.get_by_role("heading", name="My lab").wait_for()
