"""The verdict on a soak: planted leaks are found, noise is not, and nothing passes because nobody thought of it."""

import math
import random
from collections.abc import Callable

import pytest

from lablet_local.soak.limits import LIMITS, MIB, Limit, limit_of
from lablet_local.soak.record import Recorded, Sample
from lablet_local.soak.verdict import Verdict, broken, by_limit, judge, summary

HOURS = 7200.0
GOOD = {"source": "clients", "claim": "nothing was lost", "lookedAt": 3, "broken": []}


def memory(at: float, chance: random.Random) -> float:
    """As a service's: it grows into its work, is noisy, and falls back now and then."""
    return MIB * (150 + 40 * (1 - math.exp(-at / 400)) + chance.gauss(0, 2) + 3 * math.sin(at / 200))


def soaked(
    more: Callable[[float], dict[str, float]] = lambda _: {}, seconds: float = HOURS, ended: bool = True
) -> Recorded:
    chance = random.Random(3)
    samples = []
    for at in range(0, int(seconds), 15):
        steady = {
            "rss_bytes/scheduler-1": memory(at, chance), "fds/scheduler-1": 23.0 + chance.randint(-2, 2),
            "tasks/scheduler-1": 380.0 + chance.randint(-3, 3), "nats_consumers/all": 10.0 + chance.randint(-3, 5),
            "load/deeds": at * 1.25,
        }  # fmt: skip
        samples.append(Sample(float(at), steady | more(float(at))))
    end = {"checks": [GOOD], "requests": 9, "labs": 4, "lost": 0} if ended else {}
    return Recorded({"seconds": seconds, "speed": 150.0, "rate": 75.0, "every": 15.0}, samples, end)


def named(verdict: Verdict) -> list[str]:
    return [one.name for one in verdict.too_much]


def test_noise_and_growing_into_the_work_are_no_leak() -> None:
    verdict = judge(soaked())
    assert verdict.judged
    assert broken(verdict) == []
    assert verdict.ok


@pytest.mark.parametrize("minute", [0.25 * MIB, 1 * MIB])
def test_a_leak_of_memory_is_found_and_named(minute: float) -> None:
    chance = random.Random(4)
    verdict = judge(soaked(lambda at: {"rss_bytes/worker-controller-1": memory(at, chance) + minute * at / 60}))
    assert named(verdict) == ["rss_bytes/worker-controller-1"]
    assert not verdict.ok
    assert "rss_bytes/worker-controller-1 grew by" in broken(verdict)[0]
    assert summary(verdict).startswith("soak: FAILED")


def test_a_leak_that_moves_in_steps_is_found() -> None:
    verdict = judge(soaked(lambda at: {"rss_bytes/nats": MIB * (60 + 10 * (at // 1200))}))
    assert named(verdict) == ["rss_bytes/nats"]


@pytest.mark.parametrize(
    ("name", "leak"),
    [
        ("fds/etcd", lambda at: 20 + at / 1000),
        ("tasks/api-gateway-1", lambda at: 350 + at / 300),
        ("nats_consumers/all", lambda at: 10 + at / 600),
        ("stream_bytes/EVENTS", lambda at: MIB * (30 + at / 600)),
        ("etcd_db_bytes/all", lambda at: MIB * (60 + at / 400)),
        ("etcd_keys/reservations", lambda at: 300 + at / 60),
        ("restarts/all", lambda at: at // 2000),
    ],
)
def test_whatever_leaks_is_named(name: str, leak: Callable[[float], float]) -> None:
    assert named(judge(soaked(lambda at: {name: leak(at)}))) == [name]


COUNTED = ("restarts/all", "events_dead_lettered/all", "nats_slow_consumers/all")


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_of_what_may_not_happen_once_is_enough_whenever_it_was(name: str, part: float) -> None:
    verdict = judge(soaked(lambda at: {name: 3.0 + (at >= part * HOURS)}))
    assert named(verdict) == [name]
    assert not verdict.ok


@pytest.mark.parametrize("name", COUNTED)
def test_it_is_enough_in_a_run_too_short_to_judge_growth_and_its_growth_is_not_judged(name: str) -> None:
    verdict = judge(soaked(lambda at: {name: float(at >= 75), "fds/etcd": 20 + at}, seconds=90))
    assert not verdict.judged
    assert named(verdict) == [name]
    assert judge(soaked(lambda _: {name: 3.0}, seconds=90)).ok


def test_a_burst_of_what_may_happen_now_and_then_is_too_much_and_a_counter_that_begins_anew_is_not() -> None:
    assert named(judge(soaked(lambda at: {"bus_rebuilds/all": 3.0 * (at >= 6000)}))) == ["bus_rebuilds/all"]
    assert named(judge(soaked(lambda at: {"reconcile_failures/all": 50.0 * (at >= 6000)}))) == [
        "reconcile_failures/all"
    ]
    assert judge(soaked(lambda at: {"restarts/all": 2.0 * (at < 3000), "bus_rebuilds/all": 2.0 * (at >= 6000)})).ok


def test_a_counter_that_a_sample_lacks_has_counted_nothing_and_one_that_comes_later_has() -> None:
    assert judge(soaked(lambda at: {} if at in (600, 3000) else {"restarts/all": 5.0})).ok
    assert named(judge(soaked(lambda at: {} if at < 6000 else {"restarts/all": 1.0}))) == ["restarts/all"]


def test_the_worst_comes_first() -> None:
    verdict = judge(soaked(lambda at: {"fds/etcd": 20 + at / 1000, "fds/nats": 20 + at / 10}))
    assert named(verdict) == ["fds/nats", "fds/etcd"]


def test_what_may_grow_with_the_deeds_may_do_so_and_no_more() -> None:
    limits = (*LIMITS, Limit("archived/*", "what is archived", deed=1.0))
    verdict = judge(soaked(lambda at: {"archived/all": at * 1.2}), limits)
    assert verdict.ok
    assert named(judge(soaked(lambda at: {"archived/all": at * 1.3}), limits)) == ["archived/all"]


def test_what_is_only_shown_may_grow() -> None:
    assert judge(soaked(lambda at: {"cpu_seconds/etcd": at, "rss_bytes/soak": MIB * at})).ok


def test_a_series_that_nobody_has_thought_of_is_a_finding() -> None:
    verdict = judge(soaked(lambda _: {"surprises/all": 1.0}))
    assert named(verdict) == ["surprises/all"]
    assert by_limit(verdict)[-1][1][0].name == "surprises/all"


def test_a_run_of_minutes_does_not_judge_growth_and_says_so() -> None:
    verdict = judge(soaked(lambda at: {"fds/etcd": at}, seconds=90))
    assert verdict.ok
    assert summary(verdict).endswith("(too short to judge growth)")


def test_a_run_that_was_broken_off_is_not_ok() -> None:
    verdict = judge(soaked(ended=False))
    assert not verdict.ok
    assert "broken off" in broken(verdict)[0]


def test_what_the_end_was_held_to_counts() -> None:
    recorded = soaked()
    recorded.end["checks"].append({**GOOD, "claim": "no lab was left", "broken": ["one"]})
    verdict = judge(recorded)
    assert not verdict.ok
    assert broken(verdict) == ["clients: no lab was left: one"]
    recorded.end["checks"][1] = {**GOOD, "lookedAt": 0}
    assert not judge(recorded).ok


def test_a_kind_without_keys_counts_as_none() -> None:
    """Such as subscriptions that come and go: a series with holes is no shorter one."""
    verdict = judge(soaked(lambda at: {"etcd_keys/subscriptions": 1.0} if at < 3600 else {}))
    (one,) = [one for one in verdict.grown if one.name == "etcd_keys/subscriptions"]
    assert one.growth <= 0


def test_the_last_line_tells_the_figures() -> None:
    line = summary(judge(soaked()))
    assert line.startswith("soak: ok hours=2.00 requests=9 labs=4 lost=0 rss_growth_pct=")
    assert all("=" in part for part in line.split()[2:])


def test_the_first_limit_that_fits_counts() -> None:
    found = limit_of("fds/soak")
    assert found is not None
    assert not found.judged
    assert limit_of("nothing/like-it") is None


def test_the_object_stores_memory_may_grow_with_its_objects_and_nobody_elses() -> None:
    """rclone keeps its tree of files; an hour's and a half's deeds leave some seven thousand."""
    store, service = limit_of("uss_bytes/s3"), limit_of("uss_bytes/api-gateway-1")
    assert store is not None
    assert service is not None
    assert (store.allowed(60 * MIB, 0), store.allowed(60 * MIB, 5760)) == (8 * MIB, 45 * MIB)
    assert service.allowed(150 * MIB, 5760) == 8 * MIB
