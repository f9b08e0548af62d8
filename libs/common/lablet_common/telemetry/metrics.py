"""Every metric that a service exports, with the contract's names, in one registry per process.

Labels are from sets that are bounded: kinds, phases, reasons, routes. What is named after something that comes and goes (a
worker, the consumer of a subscription) is taken out with it.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter and histogram
REGISTRY = CollectorRegistry(auto_describe=True)

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_MINUTES = (1, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600)

RESERVATIONS = Gauge("lablet_reservations", "Reservations by phase", ["phase", "pool"], registry=REGISTRY)
INSTANCES = Gauge("lablet_instances", "Instances by phase", ["phase", "pool"], registry=REGISTRY)
WORKERS = Gauge("lablet_workers", "Workers by phase", ["phase", "pool"], registry=REGISTRY)
DECISIONS = Counter("lablet_scheduling_decisions", "Placement decisions", ["result", "reason"], registry=REGISTRY)
DECIDING = Histogram(
    "lablet_scheduling_duration_seconds", "Time the engine took for one decision", buckets=_FAST, registry=REGISTRY
)
CALENDAR_DIFFERENCES = Counter(
    "lablet_calendar_differences",
    "What was found on a pool's calendar, or in a tenant's ledger, that is not as it ought to be",
    ["pool", "what"],
    registry=REGISTRY,
)
DECISION_LATENCY = Histogram(
    "lablet_decision_latency_seconds", "Request committed until decided", buckets=_FAST, registry=REGISTRY
)
AT_RISK = Gauge(
    "lablet_reservations_at_risk",
    "Reservations whose seats cannot stay where they are and have no other place (condition AtRisk)",
    ["pool"],
    registry=REGISTRY,
)
INBOX_DEPTH = Gauge("lablet_inbox_depth", "Undecided requests", ["service", "shard"], registry=REGISTRY)
BRIDGE_LAG_REVISIONS = Gauge("lablet_bridge_lag_revisions", "Revisions not yet published", ["kind"], registry=REGISTRY)
BRIDGE_LAG_SECONDS = Gauge("lablet_bridge_lag_seconds", "Age of the oldest unpublished", ["kind"], registry=REGISTRY)
EVENTS_LEFT_OUT = Counter("lablet_events_left_out", "Events that NATS can never take", ["kind"], registry=REGISTRY)
INSTANTIATION = Histogram(
    "lablet_instantiation_duration_seconds", "Pending until Running, lab time", buckets=_MINUTES, registry=REGISTRY
)
PUNCTUALITY = Histogram(
    "lablet_slot_punctuality_seconds",
    "Running minus slot start, lab time; below zero is early",
    buckets=(-3600, -1800, -600, -300, -60, 0, 60, 300, 600, 1800),
    registry=REGISTRY,
)
WORKER_HOURS = Counter("lablet_worker_hours", "Lab hours that workers were on", ["pool"], registry=REGISTRY)
WORKER_CPU = Gauge("lablet_worker_cpu_ratio", "Busy share of a worker's cores", ["pool", "worker"], registry=REGISTRY)
WORKER_MEMORY = Gauge(
    "lablet_worker_memory_ratio", "Used share of a worker's memory", ["pool", "worker"], registry=REGISTRY
)
WORKER_DISK = Gauge("lablet_worker_disk_ratio", "Used share of a worker's disk", ["pool", "worker"], registry=REGISTRY)
WORKER_NODES = Gauge(
    "lablet_worker_running_nodes", "Nodes of labs that run on a worker", ["pool", "worker"], registry=REGISTRY
)
SCALING = Counter("lablet_scaling_decisions", "Power decisions", ["direction", "rule"], registry=REGISTRY)
STORE_CONFLICTS = Counter("lablet_store_conflicts", "Transactions refused by a comparison", registry=REGISTRY)
STORE_OPERATION = Histogram(
    "lablet_store_operation_duration_seconds", "Calls to etcd", ["op"], buckets=_FAST, registry=REGISTRY
)
EVENT_HANDLING = Histogram(
    "lablet_event_handling_duration_seconds", "Handling of one message", ["consumer"], buckets=_FAST, registry=REGISTRY
)
DEAD_LETTERED = Counter("lablet_events_dead_lettered", "Messages given up on", ["consumer"], registry=REGISTRY)
IS_OWNER = Gauge("lablet_is_owner", "1 where this replica owns the shard", ["service", "shard"], registry=REGISTRY)
API_REQUEST = Histogram(
    "lablet_api_request_duration_seconds",
    "HTTP requests",
    ["method", "route", "status"],
    buckets=_FAST,
    registry=REGISTRY,
)
SHED = Counter(
    "lablet_api_shed",
    "Calls sent away unserved: an inbox is full, too many are under way, etcd is slow, the caller's rate is spent",
    ["reason"],
    registry=REGISTRY,
)
"""`inbox`, `places`, `etcd` or `rate`."""
LOOP_LAG = Gauge(
    "lablet_event_loop_lag_seconds",
    "How late the event loop woke a timer, at worst in half a minute",
    registry=REGISTRY,
)
TASKS = Gauge("lablet_tasks", "Tasks of the event loop that have not ended", registry=REGISTRY)
STEP_FAILURES = Counter("lablet_reconcile_failures", "Failed reconcile steps", ["reconciler"], registry=REGISTRY)
