"""How a soak is run: what is kept for a day or longer is kept so briefly that the warm-up sees all of it go."""

import pytest

from lablet_local.soak.run import Plan
from lablet_local.soak.verdict import WARM_UP


@pytest.mark.parametrize("seconds", [60.0, 1620.0, 7200.0, 86400.0])
def test_what_has_ended_is_gone_well_within_the_warm_up(seconds: float) -> None:
    plan = Plan(seconds, speed=150.0)
    settings = {name: float(value) for name, value in plan.settings.items()}
    kept = seconds * WARM_UP / 2
    assert plan.kept_seconds <= kept
    assert settings["ARCHIVE_AFTER_HOURS"] * 3600 / plan.speed <= kept
    assert settings["ARTIFACT_RETENTION_DAYS"] * 86400 / plan.speed <= kept
    assert settings["GATEWAY_REQUEST_RETENTION_HOURS"] * 3600 <= kept
    assert settings["GATEWAY_HISTORY_MINUTES"] * 60 <= kept
    assert settings["ARTIFACT_SWEEP_GRACE_MINUTES"] * 60 <= kept
    assert all(value > 0 for value in settings.values())


def test_streams_remember_for_as_long_as_they_know_repeats() -> None:
    assert Plan(60.0).stream_seconds == 120.0
    assert Plan(7200.0).stream_seconds == 360.0
