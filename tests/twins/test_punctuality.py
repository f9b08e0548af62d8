"""Labs are Running before their slot, although some machines boot late or not at all."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "bench_punctuality.py"


@pytest.fixture
def bench() -> Any:
    spec = importlib.util.spec_from_file_location("bench_punctuality", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_punctuality"] = module
    spec.loader.exec_module(module)
    return module


async def test_a_day_of_classes_is_on_time_and_what_is_late_is_explained(bench: Any) -> None:
    on_time = await bench.live(1, 1, 15)
    assert (on_time.labs, on_time.late) == (43, [])
    assert len(on_time.boots) >= 3


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_month_in_which_boots_exceed_and_fail_has_99_of_100_labs_running_before_their_slot(bench: Any) -> None:
    month = await bench.live(28, 31, 15)
    assert month.labs > 800
    assert any(boot.fails for boot in month.boots), "the draw has what the test is about"
    assert any(boot.minutes > bench.BOOT_MINUTES for boot in month.boots)
    assert month.on_time >= 0.99, month.late
    assert all("boot at" in told for told in month.late), month.late
