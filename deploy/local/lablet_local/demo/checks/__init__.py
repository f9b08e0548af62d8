"""The verdict: what must hold after the morning, each a function of the evidence alone.

`store` looks at etcd's history, `stream` compares the events with it, `ground` compares both with what the simulators saw,
`story` asks whether the morning was the one that was meant. A check names every case that breaks it.
"""

from lablet_local.demo.checks import ground, store, story, stream
from lablet_local.demo.checks.check import Check
from lablet_local.demo.evidence import Evidence
from lablet_local.demo.scenario import Morning

__all__ = ["Check", "judge"]


def judge(evidence: Evidence, morning: Morning) -> list[Check]:
    """All checks, in the order in which they are shown."""
    return [
        *store.checks(evidence),
        *stream.checks(evidence),
        *ground.checks(evidence),
        *story.checks(evidence, morning),
    ]
