"""OpenStack Blazar: its manager's `create_lease` with its own host plugin and its own tables.

Runs in an environment of its own (`bench_peers.py --prepare`), reads a workload on stdin and prints its figures. Blazar's
code is used as it is, from the call that its RPC server would make to the commit in SQL: dates, candidates, enforcement,
lease, reservation, allocation, events. The database is SQLite in a file with Blazar's defaults (`synchronous=FULL`: each
commit is on the disk before the answer). What lies beyond its border answers at once instead of another service: the
Keystone trust, the service catalogue, Nova's aggregate. RPC and notifications go nowhere, so no message costs anything.
What stands before is put into the tables as rows.

The environment has none of Lablet's packages.
"""

import json
import sys
import tempfile
import time
import warnings
from datetime import datetime
from pathlib import Path

warnings.simplefilter("ignore")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from blazar import config, context, status  # noqa: E402, F401 - the first registers options
from blazar.db.sqlalchemy import api, facade_wrapper, models  # noqa: E402
from blazar.notification import notifier  # noqa: E402
from blazar.utils import trusts  # noqa: E402
from blazar.utils.openstack import base, nova  # noqa: E402
from oslo_config import cfg  # noqa: E402
from sqlalchemy import text  # noqa: E402

from peers.workload import Ask, Workload, one_after_the_other  # noqa: E402

CONFIG = """\
[DEFAULT]
transport_url = fake:/
[database]
connection = sqlite:///{folder}/blazar.sqlite
[manager]
plugins = physical.host.plugin
[oslo_messaging_notifications]
driver = noop
"""
HOST = {
    "vcpus": 16,
    "cpu_info": "{}",
    "hypervisor_type": "QEMU",
    "hypervisor_version": 1,
    "memory_mb": 65536,
    "local_gb": 1000,
    "status": "up",
    "availability_zone": "nova",
    "trust_id": "trust",
}


class Aggregate:
    """What Nova would answer."""

    id = 1


def answer_at_once() -> None:
    """Puts an answer where Blazar would ask Keystone or Nova."""
    trusts.create_ctx_from_trust = lambda _trust: context.BlazarContext(
        user_id="user", project_id="project", service_catalog=[{"type": "compute"}]
    )
    base.url_for = lambda *_, **__: "http://127.0.0.1:9"
    nova.ReservationPool.create = lambda *_, **__: Aggregate()


def put_hosts(count: int) -> list[str]:
    return [
        api.host_create({**HOST, "hypervisor_hostname": f"host-{n:04d}", "service_name": f"host-{n:04d}"})["id"]
        for n in range(count)
    ]


def put_before(work: Workload, hosts: list[str]) -> None:
    """The rows that `create_lease` leaves."""
    with facade_wrapper.session_for_write() as session:
        for ask in work.before:
            start, end = parsed(ask.start), parsed(ask.end)
            lease = models.Lease(
                id=f"lease-{ask.name}",
                name=ask.name,
                user_id="user",
                project_id="project",
                trust_id="trust",
                start_date=start,
                end_date=end,
                status=status.lease.PENDING,
            )
            reservation = models.Reservation(
                id=f"reservation-{ask.name}",
                lease_id=lease.id,
                resource_id=f"host-{ask.name}",
                resource_type="physical:host",
                status="pending",
            )
            session.add_all(
                [
                    lease,
                    reservation,
                    models.ComputeHostReservation(
                        id=f"host-{ask.name}",
                        reservation_id=reservation.id,
                        aggregate_id=1,
                        resource_properties="",
                        hypervisor_properties="",
                        count_range="1-1",
                        before_end="default",
                    ),
                    models.ComputeHostAllocation(compute_host_id=hosts[ask.host], reservation_id=reservation.id),
                    models.Event(lease_id=lease.id, event_type="start_lease", time=start, status="UNDONE"),
                    models.Event(lease_id=lease.id, event_type="end_lease", time=end, status="UNDONE"),
                    models.Event(lease_id=lease.id, event_type="before_end_lease", time=start, status="UNDONE"),
                ]
            )


def parsed(moment: str) -> datetime:
    return datetime.strptime(moment, "%Y-%m-%dT%H:%M")  # noqa: DTZ007 - Blazar's are naive and UTC


def main() -> None:
    work = Workload.from_json(sys.stdin.read())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "blazar.conf"
        path.write_text(CONFIG.format(folder=folder), encoding="utf-8")
        cfg.CONF(["--config-file", str(path)], project="blazar")
        answer_at_once()
        api.setup_db()
        notifier.init()
        from blazar.manager import exceptions, service  # needs the configuration

        manager = service.ManagerService()
        put_before(work, put_hosts(work.hosts))
        with facade_wrapper.session_for_read() as session:
            synchronous = session.execute(text("pragma synchronous")).scalar()

        def make(ask: Ask) -> bool:
            reservation = {"resource_type": "physical:host", "min": 1, "max": 1}
            lease = {
                "name": ask.name,
                "user_id": "user",
                "trust_id": "trust",
                "start_date": ask.start.replace("T", " "),
                "end_date": ask.end.replace("T", " "),
                "reservations": [{**reservation, "hypervisor_properties": "", "resource_properties": ""}],
            }
            try:
                made = manager.create_lease(lease)
            except exceptions.NotEnoughHostsAvailable:
                return False
            return bool(made["status"] == status.lease.PENDING)

        cpu = time.process_time()
        with context.BlazarContext(user_id="user", project_id="project"):
            figures = one_after_the_other(work, make)
        cpu = time.process_time() - cpu
    print(json.dumps({**figures.to_json(), "synchronous": synchronous, "cpu_seconds": cpu}))


if __name__ == "__main__":
    main()
