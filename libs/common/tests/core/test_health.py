"""Readiness: what is required, what only degrades, and checks that come while somebody looks."""

from lablet_common.telemetry.health import Health


async def well() -> None:
    return None


async def ill() -> None:
    raise ConnectionError("no moon")


async def test_a_required_check_that_fails_makes_unready_and_another_only_degrades() -> None:
    health = Health()
    health.started = True
    health.add("etcd", well)
    health.add("nats", ill, required=False)
    assert (await health.readiness()).ready
    health.add("s3", ill)
    state = await health.readiness()
    assert not state.ready
    assert state.checks == {
        "etcd": "ok",
        "nats": "degraded: ConnectionError: no moon",
        "s3": "failed: ConnectionError: no moon",
    }


async def test_a_check_added_while_somebody_looks_counts_from_the_next_look_on() -> None:
    health = Health()
    health.started = True

    async def adds_another() -> None:
        health.add("late", ill)

    health.add("first", adds_another)
    assert (await health.readiness()).checks == {"first": "ok"}
    assert "late" in (await health.readiness()).checks
