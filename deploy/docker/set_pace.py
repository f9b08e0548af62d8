"""Sets the lab clock's speed before the services start: 1 is real time, 60 is a lab minute in a real second.

Lab time never goes back: an existing clock is re-anchored. A speed at which a take-over would eat more than half of the
lead time is refused with the largest that is allowed (exit 2).
"""

import argparse
import asyncio
import sys

from lablet_common.clock import set_clock
from lablet_common.service import open_store
from lablet_common.settings import CommonSettings
from lablet_local.pace import TooFast, choose_pace


async def _set(speed: float) -> None:
    store = open_store(CommonSettings().etcd)
    try:
        clock = await set_clock(store, speed=speed)
        print(f"lab time is {clock.now().isoformat(timespec='seconds')} at speed {speed:g}")
    finally:
        await store.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speed", type=float, help="lab seconds in one real second")
    speed = parser.parse_args().speed
    settings = CommonSettings()
    try:
        choose_pace(speed, settings.scheduler_lead_time_minutes, settings.ownership_lease_ttl_seconds)
    except TooFast as error:
        print(error, file=sys.stderr)
        return 2
    asyncio.run(_set(speed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
