"""How the tests share a machine: `make test` spreads them over a few processes, whole files at a time.

Most of a test's time is waiting for a server, so a second process pays even beside a busy one. A file stays in one process,
since its tests share servers. Whatever starts a whole mesh is one unit, which begins first: a mesh at several hundred times
the speed of life wants its deadlines met, so two of them never run beside each other, and the longest chain begins early.
"""

import pytest
from hypothesis import HealthCheck, settings

# How long a crowded machine takes for an example, or to make one, says nothing about what is tested.
settings.register_profile("lablet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lablet")

MESHES = "meshes"


def _of_a_mesh(path: str) -> bool:
    return path.startswith(("tests/e2e/", "deploy/local/tests/mesh/test_real_services"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The meshes first; otherwise in their order."""
    items.sort(key=lambda item: not _of_a_mesh(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """What runs where, when there are several processes."""
    from xdist.scheduler import LoadFileScheduling  # only here: without -n, nothing of it is needed

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = super()._split_scope(nodeid)
            return MESHES if _of_a_mesh(path) else path

    return ByFile(config, log)
