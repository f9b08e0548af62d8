"""The price of one more slot: the minutes for which a worker has to be on for it, beside what it is on for anyway."""

import pytest

from lablet_scheduler.engine.model import Span
from lablet_scheduler.engine.power import added_power

LEAD, SLOT = 45, 62
DUTY = Span(600, 700)


def price(start: int, bridge: int) -> int:
    return sum(span.end - span.start for span in added_power([DUTY], start, start + SLOT, LEAD, bridge))


@pytest.mark.parametrize("grace", [0, 30, 120])
def test_a_slot_within_the_lead_of_a_duty_costs_less_than_any_power_on(grace: int) -> None:
    """So a worker that is up for another reason, such as its pool's cooldown, is taken for such a slot anyway (ADR 0034)."""
    bridge = max(grace, LEAD)
    power_on = price(DUTY.end + 1440, bridge)
    assert power_on == LEAD + SLOT
    for rest in range(LEAD):
        assert price(DUTY.end + rest, bridge) == rest + SLOT < power_on
    assert price(DUTY.end + bridge + 1, bridge) == power_on
