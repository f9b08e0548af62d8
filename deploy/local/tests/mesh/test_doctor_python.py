"""What `lablet doctor` says of the Python that runs it."""

from collections import namedtuple

import pytest

from lablet_local import doctor
from lablet_local.findings import Verdict

Version = namedtuple("Version", "major minor micro")


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ((3, 10, 12), Verdict.FAULT),
        ((3, 11, 2), Verdict.OK),
        ((3, 13, 9), Verdict.OK),
        ((3, 14, 0), Verdict.WARNING),
    ],
)
def test_too_old_is_a_fault_and_newer_than_tried_is_said(monkeypatch, version, verdict):
    monkeypatch.setattr(doctor.sys, "version_info", Version(*version))
    found = doctor._python()
    assert found.verdict is verdict
    assert bool(found.remedy) is (verdict is not Verdict.OK)
