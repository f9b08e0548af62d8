"""What an assessment system says: stored in any order and phase, once, and waited for no longer than the deadline."""

from typing import Any

import pytest

from lablet_common.intents import GradingCompleted

NAME = "ins-a-1"


async def tell(fleet: Any, what: str, **data: Any) -> tuple[str, str]:
    request = await fleet.ask("assessment", f"{what}.completed", data.pop("target", NAME), data)
    problem = request.status.problem
    return str(request.phase), problem.type.rpartition("/")[2] if problem else request.status.reason


@pytest.fixture(name="fleet")
async def graded_fleet(fresh: Any) -> Any:
    """One lab of a definition that is graded runs in its slot, minutes 60 to 120."""
    fleet = fresh()
    await fleet.seed()
    await fleet.define(grade=True, collect=["configurations"])
    await fleet.start()
    await fleet.book("a", 60, 120)
    await fleet.at(61)
    assert await fleet.phase() == "Running"
    return fleet


def reasons(instance: Any) -> list[str]:
    return [move.reason for move in instance.status.history]


async def test_grading_waits_for_the_score_and_goes_on_at_once(fleet: Any) -> None:
    await fleet.at(122)
    assert await fleet.phase() == "Grading"
    assert await tell(fleet, "collection") == ("Decided", "AssessmentCollected")
    assert await fleet.phase() == "Grading", "only a score ends it"
    assert await tell(fleet, "grading", score={"passed": True, "points": 8, "maximum": 10}) == ("Decided", "Graded")
    assert await fleet.phase() != "Grading", "no time has passed, but the score is there"
    await fleet.at(130)
    instance = await fleet.instance()
    assert str(instance.phase) == "Terminated"
    assert (instance.status.score.passed, instance.status.score.points, instance.status.score.maximum) == (True, 8, 10)
    assert instance.status.condition("AssessmentCollected").status
    assert "Graded" in reasons(instance)


async def test_a_score_that_comes_before_the_collection_has_ended_is_kept_and_not_waited_for_again(fleet: Any) -> None:
    assert await tell(fleet, "grading", passed=False, score=3) == ("Decided", "Graded")
    assert await fleet.phase() == "Running"
    assert await tell(fleet, "collection") == ("Decided", "AssessmentCollected")
    await fleet.at(130)
    instance = await fleet.instance()
    assert str(instance.phase) == "Terminated"
    assert (instance.status.score.passed, instance.status.score.points) == (False, 3)


async def test_the_same_score_twice_changes_nothing_and_a_new_one_counts(fleet: Any) -> None:
    await tell(fleet, "grading", passed=True)
    before = (await fleet.instance()).revision
    assert await tell(fleet, "grading", passed=True) == ("Decided", "AlreadyGraded")
    assert (await fleet.instance()).revision == before
    assert await tell(fleet, "grading", passed=False) == ("Decided", "Graded")
    assert (await fleet.instance()).status.score.passed is False
    await tell(fleet, "collection")
    assert await tell(fleet, "collection") == ("Decided", "AlreadyCollected")


async def test_without_a_score_the_deadline_leads_on_and_a_late_one_is_stored_all_the_same(fleet: Any) -> None:
    await fleet.at(200, step=5)
    instance = await fleet.instance()
    assert str(instance.phase) == "Terminated"
    assert "GradingMissed" in reasons(instance)
    assert instance.status.score is None
    assert await tell(fleet, "grading", passed=True) == ("Decided", "Graded")
    late = await fleet.instance()
    assert (str(late.phase), late.status.score.passed) == ("Terminated", True)
    assert late.status.last_fact.name == "graded"


async def test_an_unknown_instance_is_refused_and_not_tried_again(fleet: Any) -> None:
    assert await tell(fleet, "grading", target="ins-none-1", passed=True) == ("Refused", "unknown-instance")
    assert await tell(fleet, "collection", target="ins-none-1") == ("Refused", "unknown-instance")


@pytest.mark.parametrize(
    ("body", "verdict", "points", "maximum"),
    [
        ({"passed": True}, True, None, None),
        ({"passed": False, "score": 4.5}, False, 4.5, None),
        ({"score": {"passed": True, "points": 1, "maximum": 2}}, True, 1, 2),
        ({"score": {"passed": False, "score": 30, "max": 60}}, False, 30, 60),
        ({"passed": True, "score": {"passed": True, "points": 0}}, True, 0, None),
    ],
)
def test_passed_stands_beside_the_score_or_inside_it(
    body: dict[str, Any], verdict: bool, points: float | None, maximum: float | None
) -> None:
    said = GradingCompleted.model_validate(body)
    assert (said.verdict, said.points, said.maximum) == (verdict, points, maximum)


@pytest.mark.parametrize(
    "body",
    [{}, {"score": 5}, {"passed": True, "score": {"passed": False}}, {"passed": True, "score": {"points": "many"}}],
)
def test_a_grading_without_a_clear_verdict_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"passed|number"):
        GradingCompleted.model_validate(body)
