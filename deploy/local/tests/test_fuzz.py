"""Hostile input: some thousand cases at every reader, those of hypothesis too, every body of the API among them, and the
runner that would tell."""

import itertools
import json
import resource
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lablet_common.recurrence import InvalidRecurrence
from lablet_gateway.app import create_app
from lablet_gateway.rights import RIGHTS
from lablet_gateway.settings import GatewaySettings
from lablet_local.fuzz import run as fuzzing
from lablet_local.fuzz.record import read_runs, table
from lablet_local.fuzz.run import Report as FuzzReport
from lablet_local.fuzz.run import case_of, give, main, run
from lablet_local.fuzz.targets import TARGETS, Target

MB = 1024 * 1024
ONCE = (
    ("rule", 37), ("rule", 111), ("rule", 1249), ("http-events", 488), ("http-events", 3160),
    ("label-selector", 1919), ("label-selector", 2585), ("field-selector", 651), ("field-selector", 1244), ("time", 1108),
    ("span", 709), ("lab-file", 1_012_182), ("manifest", 1_001_268),
    ("cursor", 1_011_610), ("cursor", 1_034_906), ("cursor", 1_013_234), ("cursor", 1_018_155),
    ("cursor", 1_047_461), ("cursor", 1_055_086),
    ("rule", 1_030_838), ("rule", 1_035_915),
    ("key-create-body", 43), ("nothing-body", 73),
    ("lab-file", 4_000_331), ("lab-file", 4_001_244), ("lab-file", 4_001_725), ("lab-file", 4_006_794),
)  # fmt: skip
"""Target and seed of what found something."""


def test_every_reader_takes_or_refuses_what_strangers_send() -> None:
    report = run(TARGETS, 1_500)
    assert report.findings == []
    assert set(report.by_target) == {target.name for target in TARGETS}
    assert 0 < report.refused < report.cases  # the cases are neither all good nor all hopeless


@pytest.mark.parametrize(("name", "seed"), ONCE)
def test_what_once_broke_a_reader_does_so_no_more(name: str, seed: int) -> None:
    report = FuzzReport()
    give(next(target for target in TARGETS if target.name == name), seed, report)
    assert report.findings == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


def _like(example: Any) -> st.SearchStrategy[Any]:
    """Values of the example's shape, with anything at all in some of its places."""
    if isinstance(example, dict):
        parts = st.fixed_dictionaries({}, optional={name: _like(part) for name, part in example.items()})
        return parts | st.fixed_dictionaries({name: _like(part) for name, part in example.items()})
    if isinstance(example, list):
        return st.lists(st.one_of(*map(_like, example)), max_size=3) if example else JSON
    return st.just(example) | JSON


def _cases(target: Target) -> st.SearchStrategy[bytes]:
    """Bytes, text, JSON, and where an example is JSON, JSON of its shape."""
    whole = st.binary(max_size=200) | st.text(max_size=200).map(str.encode) | JSON.map(json.dumps).map(str.encode)
    for example in target.examples:
        try:
            whole |= _like(json.loads(example)).map(json.dumps).map(str.encode)
        except ValueError:
            whole |= st.tuples(st.sampled_from(target.examples), st.text(max_size=9)).map(_put_together)
    return whole


def _put_together(parts: tuple[bytes, str]) -> bytes:
    return parts[0] + parts[1].encode()


@pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
def test_hypothesis_finds_nothing_either(target: Target) -> None:
    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(_cases(target))
    def reads(case: bytes) -> None:
        with suppress(*target.refusals):
            target.read(case)

    reads()


def test_every_body_that_a_route_of_the_api_takes_has_a_target() -> None:
    known = {target.body for target in TARGETS if target.body is not None}
    by_hand = {route for target in TARGETS for route in target.routes}
    taken, untold = set(), set()
    for route in _routes():
        (method,) = route.methods
        if route.body_field is not None:
            taken |= {_body_of(route)} - {types.NoneType}
        elif (route.openapi_extra or {}).get("requestBody"):
            untold.add(f"{method} {route.path.removeprefix('/api/v1')}")
    assert {_word(body) for body in taken - known} == set()
    assert untold == by_hand
    assert len(taken) > 15


def _routes() -> list[APIRoute]:
    """Of the whole application; the rights table says how many there must be."""
    parts: Any = types.SimpleNamespace(settings=GatewaySettings(_env_file=None), proof=None)
    found = list(_within(create_app(parts).routes))
    assert {(method, route.path) for route in found for method in route.methods} >= set(RIGHTS)
    return found


def _within(routes: Iterable[Any]) -> Iterator[APIRoute]:
    """Routes that an application includes stand in their routers."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif router := getattr(route, "original_router", None):
            yield from _within(router.routes)


def _body_of(route: APIRoute) -> Any:
    """What the route says that it takes, without what stands for no body."""
    assert route.body_field is not None
    said = route.body_field.field_info.annotation
    words = [word for word in typing.get_args(said) if word is not types.NoneType]
    if isinstance(said, types.UnionType) or typing.get_origin(said) is typing.Union:
        (said,) = words
    metadata = route.body_field.field_info.metadata
    return typing.Annotated[said, *metadata] if metadata else said


def _word(body: Any) -> str:
    return getattr(body, "__name__", repr(body))


RECORD = Path(__file__).parents[3] / "bench/records/fuzz.jsonl"


def test_the_page_shows_the_record() -> None:
    page = (Path(__file__).parents[3] / "docs/reliability/hostile-input.md").read_text(encoding="utf-8")
    run = read_runs(RECORD)[-1]
    assert table(run) in page
    assert run.ended[:10] in page
    assert sum(shown.cases for shown in run.targets.values()) == run.cases
    assert set(run.targets) <= {target.name for target in TARGETS}


def test_the_good_examples_are_good() -> None:
    for target in TARGETS:
        for example in target.examples:
            if target.name != "intent-body":  # bodies go to whichever intent the first byte names
                target.read(example)


def _target(read: Callable[[bytes], object]) -> Target:
    return Target("made", (b"example",), read, (InvalidRecurrence,))


def _silent(_: bytes) -> None:
    raise InvalidRecurrence("rule", " ")


def _endless(_: bytes) -> None:
    for _ in itertools.count():
        pass


@pytest.mark.parametrize(
    ("read", "told"),
    [(lambda _: {}["x"], "KeyError"), (_silent, "without words"), (_endless, "not done after")],
)
def test_an_unforeseen_error_an_empty_refusal_and_a_hang_are_findings(
    read: Callable[[bytes], object], told: str
) -> None:
    report = FuzzReport()
    give(_target(read), 1, report)
    assert [told in finding.what for finding in report.findings] == [True]


def _hog(_: bytes) -> None:
    assert len([bytearray(MB) for _ in range(80)]) == 80


def _glutton(_: bytes) -> None:
    """More than the heap of a process that has run many tests has room for between what it holds."""
    assert len([bytearray(MB) for _ in range(2_000)]) == 2_000


def _greedy(_: bytes) -> None:
    bytearray(10**12)


@pytest.mark.parametrize("read", [_glutton, _greedy], ids=["bit by bit", "at once"])
@pytest.mark.parametrize("high_water", [False, True], ids=["", "below an earlier high water"])
def test_a_case_that_takes_too_much_memory_is_a_finding(
    read: Callable[[bytes], object], high_water: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzzing, "MOST_GROWTH_MB", 40)
    before = resource.getrlimit(resource.RLIMIT_AS)
    if high_water:
        _hog(b"")
    report = FuzzReport()
    give(_target(read), 1, report)
    assert [finding.what for finding in report.findings] == ["took more than 40 MB"]
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_the_limit_is_200_mb_and_a_case_may_take_less() -> None:
    assert fuzzing.MOST_GROWTH_MB == 200
    report = FuzzReport()
    give(_target(_hog), 1, report)
    assert report.findings == []


def test_the_runner_fails_for_findings_and_for_memory_that_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left = []

    def leaking(_: bytes) -> None:
        left.append(bytearray(100_000))  # more than what the tests before may have left free for it

    def good(_: bytes) -> None:
        left.clear()

    monkeypatch.setattr(fuzzing, "MOST_GROWTH_MB", 8)
    for read, code, told in (
        (good, 0, "fuzz: ok cases=400 "),
        (lambda _: {}["x"], 1, "fuzz: FAILED cases=400 refused=0 findings=400"),
        (leaking, 1, "fuzz: FAILED cases=400 refused=0 findings=0"),
    ):
        monkeypatch.setattr(fuzzing, "TARGETS", (_target(read),))
        assert main(["--cases", "400"]) == code
        assert told in capsys.readouterr().out
    left.clear()


def test_a_case_is_made_again_from_its_name(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    target = TARGETS[0]
    assert case_of(target, 5) == case_of(target, 5) != case_of(target, 6)
    assert main(["--target", target.name, "--show", "5"]) == 0
    assert capfdbinary.readouterr().out == case_of(target, 5)
