"""What an assessment system says about an instance: decided in whatever order, phase and number it comes.

A score is kept as long as the instance is stored, also after its deadline and its end; the latest one counts. Neither kind
moves the phase: an instance in Grading sees the score at its next look. A score that came before Grading began counts too,
so an assessment that outruns the collection costs no wait. Not guaranteed: that a score is of the present attempt.
"""

import logging
from datetime import datetime

from lablet_common.intake import Decision, verb_of
from lablet_common.intents import AssessmentCompleted
from lablet_common.requests import Undecided
from lablet_common.resources.instance import Instance, Score

_log = logging.getLogger("lablet.workers")
COLLECTED = "AssessmentCollected"
"""Condition: the assessment system has taken from the lab what it needs."""


def decide_assessment(instance: Instance, undecided: Undecided, now: datetime) -> Decision:
    """`grading.completed` stores the score (fact `graded`), `collection.completed` sets a condition. The same once more
    changes nothing."""
    _, verb = verb_of(undecided)
    said = AssessmentCompleted.model_validate(undecided.request.spec.data)
    cause = undecided.request.spec.event_id
    if verb == "collection.completed":
        known = instance.status.condition(COLLECTED)
        if known is not None and known.status:
            return Decision("AlreadyCollected")
        conditions = instance.with_condition(COLLECTED, True, at=now, reason="Reported", message=said.message or None)
        return Decision(COLLECTED, instance.observed(cause=cause, conditions=conditions))
    score = Score(passed=bool(said.verdict), points=said.points, maximum=said.maximum)
    if instance.status.score == score:
        return Decision("AlreadyGraded")
    if instance.is_final:
        _log.info("a score came after the end", extra={"instance": instance.id})
    return Decision("Graded", instance.observed("graded", cause=cause, score=score))
