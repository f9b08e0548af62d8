"""The licence life cycle of one controller: product, transport, registration, authorization, features, deregistration.

As Cisco's own tooling sees it: a registration is accepted at once (204) and completes later, the authorization follows
it, and the answers say so in free text (`IN_PROGRESS`, `COMPLETED`, `EVAL_MODE`, `IN_COMPLIANCE`, …). Dates are written
as the real controller writes them, with a space and without zone. Reservations are not simulated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from .clock import Clock, Timer
from .errors import conflict, invalid
from .faults import Faults
from .model import new_id
from .witness import Witness

Json = dict[str, Any]

REGISTRATION_SECONDS = 8.0
AUTHORIZATION_SECONDS = 4.0
BASE_NODES = {"CML_Enterprise": 20, "CML_Education": 20, "CML_Personal": 20, "CML_Personal40": 40}
NODE_COUNT = "regid.2019-10.com.cisco.CML_NODE_COUNT,1.0_2607650b-6ca8-46d5-81e5-e6688b7383c4"
BASE_FEATURE = "regid.2019-10.com.cisco.CML_ENT_BASE,1.0_3f1b6d0a-51c7-4f0e-9d8e-0a5b6c7d8e9f"
DEFAULT_SSMS = "https://smartreceiver.cisco.com/licservice/license"
MAX_EXTRA_NODES = 500


@dataclass(slots=True)
class Licence:
    """The licensing agent. `evaluation_nodes` run without registration; `base_nodes` overrides the product's."""

    clock: Clock
    faults: Faults
    witness: Witness
    evaluation_nodes: int = 0
    base_nodes: int | None = None
    product: str = "CML_Enterprise"
    registration: str = "NOT_REGISTERED"
    authorization: str = "EVAL_MODE"
    ssms: str = DEFAULT_SSMS
    proxy: Json = field(default_factory=lambda: {"server": None, "port": None})
    counts: dict[str, int] = field(default_factory=lambda: {NODE_COUNT: 0})
    product_uuid: str = field(default_factory=new_id)
    _timer: Timer | None = None
    _registered: Json = field(default_factory=dict)
    _renewed: Json = field(default_factory=dict)
    _authorized: Json = field(default_factory=dict)

    @property
    def licensed(self) -> bool:
        return self.registration == "COMPLETED" and self.authorization == "IN_COMPLIANCE"

    @property
    def quota(self) -> int:
        """How many counted nodes may run now."""
        if not self.licensed:
            return self.evaluation_nodes if self.authorization == "EVAL_MODE" else 0
        base = BASE_NODES[self.product] if self.base_nodes is None else self.base_nodes
        return base + self.counts[NODE_COUNT]

    def set_product(self, product: str, running: int) -> None:
        """Chooses the product; refused (400) for an unknown one, while registered, or while nodes run."""
        if product not in BASE_NODES:
            raise invalid(f"Unknown product license: {product}. Known are {', '.join(BASE_NODES)}.")
        if product != self.product and self.registration == "COMPLETED":
            raise invalid("The product license cannot be changed while the product instance is registered.")
        if product != self.product and running:
            raise invalid("The product license cannot be changed when nodes are running.")
        self.product = product
        if not product.endswith("Enterprise"):
            self.counts[NODE_COUNT] = 0

    def set_transport(self, proxy: Json, ssms: str | None) -> None:
        if self.registration == "COMPLETED":
            raise invalid("The transport cannot be changed while the product instance is registered.")
        self.proxy = {"server": proxy["server"], "port": proxy["port"]}
        self.ssms = ssms or DEFAULT_SSMS

    def register(self, reregister: bool) -> None:
        """Accepts a registration; it completes later. 409 while one is on its way, 400 when there is one already."""
        if self.faults.registration == "conflict" or self.registration == "IN_PROGRESS":
            raise conflict("A registration request is being processed; try again later.")
        if self.registration == "COMPLETED" and not reregister:
            raise invalid("The product instance is already registered.")
        self.registration = "IN_PROGRESS"
        self._registered = self._times("attempted")
        if self.faults.registration != "slow":
            self._plan(REGISTRATION_SECONDS, self._register_ended)

    def _register_ended(self) -> None:
        if self.faults.registration == "failed":
            self.registration = "FAILED"
            self._registered |= {"status": "FAILED", "failure": "The token is not valid.", "success": "FAILED"}
            return
        self.registration = "COMPLETED"
        self._registered |= self._times("succeeded") | {"status": "COMPLETED", "success": "SUCCESS", "failure": "OK"}
        self._renewed = {"scheduled": self._stamp(180), "success": "FAILED", "status": "NOT STARTED"}
        self._plan(AUTHORIZATION_SECONDS, self._authorized_now)

    def _authorized_now(self) -> None:
        if self.faults.authorization == "never":
            return
        if self.faults.authorization == "out-of-compliance":
            self.authorization = "OUT_OF_COMPLIANCE"
            return
        self.authorization = "IN_COMPLIANCE"
        self._authorized = self._times("succeeded") | {"status": "SUCCEEDED", "scheduled": self._stamp(30)}
        self.witness.saw("licence.registered", product=self.product, quota=self.quota)

    def renew_registration(self) -> None:
        self._need_registration()
        self._renewed = self._times("attempted", "succeeded") | {"status": "SUCCEEDED", "success": "SUCCESS"}

    def renew_authorization(self) -> None:
        """Asks for the authorization again: what a fault held back can come right here."""
        self._need_registration()
        self._plan(AUTHORIZATION_SECONDS, self._authorized_now)

    def _need_registration(self) -> None:
        if self.registration == "IN_PROGRESS":
            raise conflict("A registration request is being processed; try again later.")
        if self.registration != "COMPLETED":
            raise invalid("The product instance is not registered.")

    def deregister(self, running: int) -> int:
        """Gives the licence back: 204, or 202 when Cisco's side could not be told. 400 already done, or nodes run."""
        if self.faults.deregistration == "conflict":
            raise conflict("The licensing agent is busy; try again later.")
        if self.registration in ("NOT_REGISTERED", "FAILED"):
            raise invalid("The product instance is already deregistered.")
        if running:
            raise invalid("Cannot de-register when nodes are running.")
        if self._timer is not None:
            self._timer.cancel()
        self.registration, self.authorization = "NOT_REGISTERED", "EVAL_MODE"
        self._registered, self._renewed, self._authorized = {}, {}, {}
        self.counts[NODE_COUNT] = 0
        self.witness.saw("licence.deregistered", product=self.product)
        return 202 if self.faults.deregistration == "unreachable" else 204

    def set_counts(self, wanted: list[Json]) -> None:
        """Sets explicit counts of features; only the node count of an Enterprise product can be set."""
        for item in wanted:
            if item["id"] not in self.counts:
                raise invalid(f"Feature {item['id']} has no explicit count.")
            if self.product != "CML_Enterprise" and item["count"]:
                raise invalid(f"Product {self.product} takes no extra nodes.")
            if item["count"] > MAX_EXTRA_NODES:
                raise invalid(f"Feature count {item['count']} is above {MAX_EXTRA_NODES}.")
        for item in wanted:
            self.counts[item["id"]] = item["count"]

    def features(self, running: int) -> list[Json]:
        status = "IN_COMPLIANCE" if self.licensed else "INIT"
        common = {"version": "1.0", "status": status, "minEndDate": None, "maxEndDate": None}
        base = BASE_NODES[self.product] if self.base_nodes is None else self.base_nodes
        extra = self.counts[NODE_COUNT]
        first = {
            "id": BASE_FEATURE,
            "name": "CML base license",
            "description": f"{self.product} base license, {base} nodes capacity included",
            "in_use": 1 if self.licensed else 0,
            "min": 1,
            "max": 1,
        }
        if self.product != "CML_Enterprise":
            return [{**first, **common}]
        second = {
            "id": NODE_COUNT,
            "name": "CML expansion nodes",
            "description": "Nodes beyond the base capacity",
            "in_use": min(extra, max(0, running - base)),
            "min": 0,
            "max": MAX_EXTRA_NODES,
        }
        return [{**first, **common}, {**second, **common}]

    def status(self, running: int, hostname: str) -> Json:
        """The answer of GET /licensing."""
        registered = self.registration == "COMPLETED"
        return {
            "udi": {"hostname": hostname, "product_uuid": self.product_uuid},
            "registration": {
                "status": self.registration,
                "smart_account": "Simulated Account" if registered else None,
                "virtual_account": "Default" if registered else None,
                "register_time": _filled(self._registered),
                "renew_time": _filled(self._renewed),
                "expires": self._stamp(365) if registered else None,
            },
            "authorization": {
                "status": self.authorization,
                "renew_time": _filled(self._authorized),
                "expires": self._stamp(90) if self.licensed else None,
            },
            "reservation_mode": False,
            "features": self.features(running),
            "product_license": {"active": self.product, "is_enterprise": self.product == "CML_Enterprise"},
            "transport": {"ssms": self.ssms, "proxy": self.proxy, "default_ssms": DEFAULT_SSMS},
        }

    def _plan(self, delay: float, action: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.clock.later(delay, action)

    def _stamp(self, days: int = 0) -> str:
        return (self.clock.wall() + timedelta(days=days)).strftime("%Y-%m-%d %H:%M:%S")

    def _times(self, *names: str) -> Json:
        return dict.fromkeys(names, self._stamp())


def _filled(known: Json) -> Json:
    return {
        "succeeded": None,
        "attempted": None,
        "scheduled": None,
        "status": None,
        "failure": None,
        "success": None,
    } | known
