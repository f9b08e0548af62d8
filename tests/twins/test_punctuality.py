"""Labs are Running before their slot, although some machines boot late or not at all."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "bench_punctuality.py"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH.parent))  # its neighbours, as where it runs as a script
    spec = importlib.util.spec_from_file_location("bench_punctuality", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_punctuality"] = module
    spec.loader.exec_module(module)
    return module


async def test_a_day_whose_first_boot_fails_late_is_on_time_with_the_reserve_that_pools_have(bench: Any) -> None:
    day = await bench.live(1, 97, failing=0.2)
    assert [boot.fails for boot in day.boots[:2]] == [True, False], "the draw has what the test is about"
    assert day.boots[0].minutes > 0.8 * bench.BOOT_MINUTES
    assert (day.labs, day.late) == (43, [])


async def test_without_the_reserve_the_same_day_begins_late_and_each_lab_is_explained(bench: Any) -> None:
    day = await bench.live(1, 97, failing=0.2, boot_reserve_minutes=0)
    assert len(day.late) == 12
    assert all("failed after 17 of 20 minutes" in told for told in day.late), day.late


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_month_in_which_boots_exceed_and_fail_has_99_of_100_labs_running_before_their_slot(bench: Any) -> None:
    month = await bench.live(28, 31)
    assert month.labs > 800
    assert any(boot.fails for boot in month.boots), "the draw has what the test is about"
    assert any(boot.minutes > bench.BOOT_MINUTES for boot in month.boots)
    assert month.on_time >= 0.99, month.late
    assert all("boot at" in told for told in month.late), month.late
