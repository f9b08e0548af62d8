"""One call: what is sent, what is tried again, and what an answer becomes."""

import httpx
import pytest

from lablet_client import errors
from lablet_client.client import Client
from lablet_client.connection import Connection
from lablet_client.retry import Retry, retry_after
from lablet_client.transport import Transport


async def test_a_call_carries_the_token_and_a_change_its_own_key(client, scripted, worker):
    scripted.on("POST", "/workers/default-001/uncordon", worker)
    scripted.on("GET", "/workers/default-001", worker)
    await client.workers.uncordon("default-001")
    await client.workers.uncordon("default-001")
    first, second = scripted.sent("POST", "/workers/default-001/uncordon")
    assert first.headers["authorization"] == "Bearer secret"
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]
    assert "idempotency-key" not in scripted.sent("GET", "/workers/default-001")[0].headers


async def test_a_lost_answer_is_asked_for_again_under_the_same_key(client, scripted, problem, worker):
    scripted.on(
        "POST",
        "/workers/default-001/uncordon",
        httpx.ReadError("connection reset"),
        problem(503, "etcd does not answer", dependency="etcd"),
        problem(429, "slowly", {"retry-after": "0"}),
        httpx.Response(200, json=worker),
    )
    scripted.on("GET", "/workers/default-001", worker)
    await client.workers.uncordon("default-001")
    tries = scripted.sent("POST", "/workers/default-001/uncordon")
    assert len(tries) == 4
    assert len({request.headers["idempotency-key"] for request in tries}) == 1


async def test_what_is_refused_is_not_tried_again(client, scripted, problem):
    scripted.on("GET", "/workers/x", problem(403, "learners may not see workers"))
    with pytest.raises(errors.Forbidden):
        await client.workers.get("x")
    assert len(scripted.sent("GET", "/workers/x")) == 1


async def test_nobody_at_the_address_is_unreachable_and_names_it(client, scripted):
    scripted.on("GET", "/workers/x", httpx.ConnectError("connection refused"))
    with pytest.raises(errors.Unreachable, match=r"http://lablet\.test: connection refused"):
        await client.workers.get("x")
    assert len(scripted.seen) > 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(200, text="<html>sign in</html>", headers={"content-type": "text/html"}), "not Lablet's API"),
        (
            httpx.Response(301, headers={"location": "https://lablet.test/api"}),
            "sends callers to https://lablet.test/api",
        ),
        (httpx.Response(307), "sends callers to another address"),
    ],
)
async def test_something_else_at_the_address_is_told_and_no_defect(client, scripted, answer, said):
    scripted.on("GET", "/workers", answer)
    with pytest.raises(errors.Unreachable, match=rf"http://lablet\.test: .*{said}"):
        [one async for one in client.workers.list()]
    scripted.on("GET", "/events/stream", httpx.Response(302, headers={"location": "/login"}))
    with pytest.raises(errors.Unreachable, match="sends callers to /login"):
        async with client.transport.stream("/events/stream"):
            raise AssertionError("a page is no stream")


async def test_a_proxys_page_is_told_in_words(client, scripted):
    page = httpx.Response(404, text="<html>nginx</html>", headers={"content-type": "text/html"})
    scripted.on("GET", "/workers/x", page)
    with pytest.raises(errors.NotFound, match="HTTP 404 with a page: this is not Lablet's API"):
        await client.workers.get("x")


async def test_a_dependency_that_stays_away_is_named(client, scripted, problem):
    scripted.on("GET", "/workers/x", problem(503, "etcd does not answer", dependency="etcd"))
    with pytest.raises(errors.Unavailable) as caught:
        await client.workers.get("x")
    assert caught.value.dependency == "etcd"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.Unauthorized),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (410, errors.Gone),
        (412, errors.Stale),
        (422, errors.Invalid),
        (428, errors.Stale),
        (500, errors.ServerFault),
        (418, errors.Refused),
    ],
)
async def test_each_refusal_has_its_own_exception(client, scripted, problem, status, kind):
    scripted.on("GET", "/workers/x", problem(status, "no"))
    with pytest.raises(errors.Refused) as caught:
        await client.workers.get("x")
    assert type(caught.value) is kind
    assert caught.value.detail == "no"


async def test_a_refusal_names_the_fields_with_their_remedies(client, scripted, problem):
    fault = {"path": "spec.seats", "message": "too many", "remedy": "at most 100"}
    scripted.on("GET", "/workers/x", problem(422, "spec.seats: too many", errors=[fault]))
    with pytest.raises(errors.Invalid) as caught:
        await client.workers.get("x")
    assert caught.value.errors == (errors.FieldError("spec.seats", "too many", "at most 100"),)


async def test_an_error_page_that_is_no_problem_document_is_still_an_error(client, scripted):
    scripted.on("GET", "/workers/x", httpx.Response(500, text="<h1>upstream broke</h1>"))
    with pytest.raises(errors.ServerFault, match="upstream broke"):
        await client.workers.get("x")


async def test_waits_grow_and_end_when_patience_does(scripted):
    now = [0.0]
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    scripted.on("GET", "/workers/x", httpx.ConnectError("refused"))
    transport = Transport(
        Connection("http://lablet.test"),
        retry=Retry(initial=1, maximum=4, patience=20),
        http=scripted.transport(),
        sleep=sleep,
        clock=lambda: now[0],
    )
    with pytest.raises(errors.Unreachable):
        await transport.call("GET", "/workers/x")
    assert sum(pauses) <= 20
    assert 0.5 <= pauses[0] <= 1
    assert all(2 <= pause <= 4 for pause in pauses[2:])


def test_the_server_s_own_wish_for_a_wait_is_kept_to():
    assert Retry().pause(1, 0.0, asked=7.0) == 7.0
    assert Retry(patience=5).pause(1, 0.0, asked=7.0) is None
    assert retry_after("2.5") == 2.5
    assert retry_after("never") is None


async def test_a_newer_server_s_fields_are_passed_over(client, scripted, worker):
    scripted.on("GET", "/workers/default-001", {**worker, "allocated": {"seats": 3}})
    assert (await client.workers.get("default-001")).id == "default-001"


async def test_a_list_is_walked_over_all_pages(client, scripted, worker):
    def item(number: int) -> dict[str, object]:
        return {**worker, "metadata": {**worker["metadata"], "id": f"default-{number:03}"}}

    scripted.on(
        "GET",
        "/workers",
        {"items": [item(1), item(2)], "nextCursor": "abc", "resourceVersion": "9"},
        {"items": [item(3)], "nextCursor": None, "resourceVersion": "9"},
    )
    names = [one.id async for one in client.workers.list(labels="rack=a", page_size=2)]
    assert names == ["default-001", "default-002", "default-003"]
    first, second = scripted.sent("GET", "/workers")
    assert dict(first.url.params) == {"labelSelector": "rack=a", "limit": "2"}
    assert second.url.params["cursor"] == "abc"


async def test_a_token_is_never_shown(client: Client):
    assert "secret" not in repr(client.connection)
