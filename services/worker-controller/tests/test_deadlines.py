"""How long a lab's steps may take, by the settings and the speed of lab time."""

from types import SimpleNamespace
from typing import Any

from lablet_workers.labs import Labs
from lablet_workers.settings import WorkerControllerSettings


def test_deadlines_follow_the_speed_of_lab_time() -> None:
    clock = SimpleNamespace(speed=1.0)
    estate: Any = SimpleNamespace(settings=WorkerControllerSettings(), clock=clock, poll=None)
    labs = Labs(estate, lambda _: None, lambda _: None)
    slow = labs._times()
    assert labs._times() is slow
    clock.speed = 60.0
    assert labs._times().watch == 60 * slow.watch
    assert labs._times().stop == slow.stop
