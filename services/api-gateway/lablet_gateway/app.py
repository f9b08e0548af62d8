"""Wiring of the gateway: the application from its parts, and the process around it.

Every replica serves the API; the bridge for requests, their expiry, what comes in over NATS and the
compaction of etcd's history run on the one replica that owns them.
"""

import asyncio
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from lablet_common.bridge import Bridge
from lablet_common.bus.line import NatsLine
from lablet_common.compaction import Compactor
from lablet_common.objects import S3ObjectStore
from lablet_common.ownership import Fence, Ownership
from lablet_common.references import follow_uses
from lablet_common.resources.kinds import (
    ARTIFACT,
    DEFINITION,
    INSTANCE,
    KEY,
    KINDS,
    POOL,
    REQUEST,
    RESERVATION,
    SERIES,
    SUBSCRIPTION,
    TEMPLATE,
    WORKER,
    Service,
    owned_by,
)
from lablet_common.secrets import SecretBox
from lablet_common.service import Runtime, run
from lablet_common.store import Store
from lablet_common.store.cache import Caches
from lablet_common.tasks import together
from lablet_common.telemetry.health import EmbeddedServer
from lablet_common.version import __version__
from lablet_gateway import console, faults
from lablet_gateway.api import (
    artifacts,
    audit,
    claims,
    dead_letters,
    definitions,
    events,
    instances,
    keys,
    pools,
    quotas,
    requests,
    reservations,
    schemas,
    series,
    subscriptions,
    system,
    templates,
    usage,
    workers,
)
from lablet_gateway.expiry import Expiry
from lablet_gateway.graveyard import Graveyard
from lablet_gateway.identity.keys import KeyCare
from lablet_gateway.identity.sources import Identities
from lablet_gateway.jetstream import JetStreamDeadLetters, JetStreamLog
from lablet_gateway.mailbox import NatsIngress
from lablet_gateway.middleware import Authentication, BodyLimit, RequestContext
from lablet_gateway.parts import Parts
from lablet_gateway.reference.openapi import complete
from lablet_gateway.rights import OPEN, PREFIX, RIGHTS
from lablet_gateway.settings import GatewaySettings
from lablet_gateway.shortcut import Shortcut
from lablet_gateway.streams import Hub
from lablet_gateway.throttle import Buckets, RateLimit
from lablet_gateway.underway import Places
from lablet_gateway.webhooks.dispatcher import Dispatcher
from lablet_gateway.webhooks.preset import Preset, check_secret
from lablet_gateway.webhooks.sender import HttpSender

CACHED = (RESERVATION, INSTANCE, WORKER, POOL, TEMPLATE, DEFINITION, ARTIFACT, KEY, SUBSCRIPTION, SERIES)
_BRIDGE = "bridge-"
_COMPACTOR = "compactor"
_INGRESS = "ingress"
_PRESET = "webhooks"
_WEBHOOK = "webhook-"
_STOP_SECONDS = 3.0
"""Real seconds that requests under way get to end when the process stops."""
_DESCRIPTION = """Reserve seats of network labs, follow them, and run the fleet that hosts them.

Whatever changes something is accepted as a *request* and decided by its owner: 202 with the address of the outcome, or
with `Prefer: wait=N` the outcome itself. Reads come straight from etcd unless `?consistency=cache` says otherwise.
Errors are problem documents (RFC 9457). Times are RFC 3339 in UTC, in lab time."""


def create_app(parts: Parts) -> FastAPI:
    """The application. Raises `LookupError` for a route without a row in the rights table: it could serve nobody."""
    app = FastAPI(
        title="Lablet",
        version=__version__,
        description=_DESCRIPTION,
        docs_url="/api/docs",
        redoc_url=None,
        openapi_url="/api/docs/openapi.json",
        generate_unique_id_function=lambda route: route.name,
        telemetry={"operation_spans": False, "metrics": False, "logs": False},  # ours say the rest
    )
    app.state.parts = parts
    faults.install(app)
    for module in (
        requests, reservations, claims, series, definitions, instances, artifacts, workers, pools, templates, events,
        dead_letters, quotas, keys, subscriptions, schemas, audit, usage, system,
    ):  # fmt: skip
        check_rights(module.router.routes)
        app.include_router(module.router)
    app.include_router(system.health)
    app.include_router(schemas.docs)
    app.router.routes.extend(console.routes(console.policy(parts.settings.oidc)))
    _describe(app)
    settings = parts.settings
    uploads = {("POST", f"{PREFIX}/definitions"): settings.gateway_max_upload_bytes}
    app.add_middleware(Shortcut)
    app.add_middleware(BodyLimit, limit=settings.gateway_max_body_bytes, larger=uploads)
    app.add_middleware(Places, most=settings.gateway_max_underway)
    if settings.gateway_rate_limit:
        app.add_middleware(RateLimit, buckets=Buckets(settings.gateway_rate_limit, settings.gateway_rate_burst))
    app.add_middleware(Authentication, verifier=parts.proof)
    app.add_middleware(RequestContext)
    return app


def check_rights(routes: Iterable[BaseRoute]) -> None:
    """Every route has its row."""
    for route in routes:
        if not isinstance(route, APIRoute):
            continue
        for method in route.methods or ():
            if (method, route.path) not in RIGHTS and (method, route.path) not in OPEN:
                raise LookupError(f"{method} {route.path} has no row in the rights table")


def _describe(app: FastAPI) -> None:
    """Completes the schema with problem documents and examples, once."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = complete(generate())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema


def caches_of(store: Store) -> Caches:
    """What a gateway keeps in memory."""
    caches = Caches(store, list(CACHED))
    follow_uses(caches)
    return caches


class Gateway:
    """One replica."""

    def __init__(self, runtime: Runtime, settings: GatewaySettings) -> None:
        check_secret(settings)
        self._runtime = runtime
        self._settings = settings
        self._objects = S3ObjectStore(settings.storage)
        self._identities = Identities(settings)
        log = JetStreamLog(runtime.bus)
        self._line = NatsLine(runtime.bus.connection, Service.GATEWAY, runtime.replica)
        self._caches = caches_of(runtime.store)
        self._parts = Parts(
            settings=settings,
            store=runtime.store,
            objects=self._objects,
            clock=runtime.clock,
            caches=self._caches,
            verifier=self._identities.verifier,
            events=log,
            hub=Hub(log, settings.gateway_stream_buffer),
            dead_letters=JetStreamDeadLetters(runtime.bus),
            line=self._line,
            health=runtime.health,
            secrets=SecretBox.from_file(settings.secrets_key_file) if settings.secrets_key_file else None,
        )
        self._sender = HttpSender(ca_cert=settings.webhook_ca_cert)
        self._dispatcher = Dispatcher(self._parts, runtime.bus, self._sender, self._parts.real_time)

    async def run(self) -> None:
        """Serves until the process is asked to stop."""
        ownership = Ownership(
            self._runtime.store,
            Service.GATEWAY,
            self._runtime.replica,
            ttl_seconds=self._settings.ownership_lease_ttl_seconds,
            shards=self._shards,
        )
        self._runtime.health.add("s3", self._objects.ensure_bucket, required=False)
        self._identities.watch_over(self._runtime.health)
        try:
            async with self._caches, self._sender:
                await self._caches.wait_synced()
                await self._line.open()
                self._caches[SUBSCRIPTION].subscribe(lambda *_: ownership.refresh())
                care = KeyCare(self._parts.store, self._caches, self._parts.key_uses)
                self._runtime.spawn("keys", care.run())
                self._runtime.spawn("events", self._parts.hub.run())
                self._runtime.spawn("ownership", ownership.run(self._own))
                await self._serve()
        finally:
            await self._identities.close()
            await self._objects.close()

    def _shards(self) -> list[str]:
        bridges = [f"{_BRIDGE}{kind.name}" for kind in owned_by(Service.GATEWAY)]
        webhooks = [f"{_WEBHOOK}{subscription.id}" for subscription in self._caches[SUBSCRIPTION].items()]
        return [_COMPACTOR, _INGRESS, _PRESET, *bridges, *webhooks]

    async def _serve(self) -> None:
        config = uvicorn.Config(
            create_app(self._parts),
            host=self._settings.gateway_host,
            port=self._settings.gateway_port,
            http="httptools",
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(_STOP_SECONDS),
        )
        server = EmbeddedServer(config)
        serving = asyncio.create_task(server.serve(), name="http")
        try:
            while not server.started and not serving.done():
                await asyncio.wait({serving}, timeout=0.02)
            self._runtime.health.started = server.started
            await asyncio.shield(serving)
            raise OSError(f"the server at {config.host}:{config.port} has ended by itself")
        finally:
            self._parts.hub.close()
            server.should_exit = True
            await asyncio.wait({serving}, timeout=_STOP_SECONDS + 1)

    async def _own(self, shard: str, fence: Fence) -> None:
        if shard == _COMPACTOR:
            history = self._settings.gateway_history_minutes * 60
            store = self._runtime.store
            await Compactor(store, fence, KINDS.values(), history_seconds=history, clock=time.monotonic).run()
            return
        if shard == _INGRESS:
            await NatsIngress(self._parts, self._runtime.bus, self._runtime.source).run()
            return
        if shard == _PRESET:
            await together(Preset(self._parts).keep(), Graveyard(self._parts.dead_letters).count_for_ever())
            return
        if shard.startswith(_WEBHOOK):
            await self._dispatcher.serve(shard.removeprefix(_WEBHOOK), fence)
            return
        kind = KINDS[shard.removeprefix(_BRIDGE)]
        runtime = self._runtime
        bridge = Bridge(runtime.store, kind, fence, runtime.bus, source=runtime.source)
        retention = timedelta(hours=self._settings.gateway_request_retention_hours)
        expiry = [Expiry(runtime.store, runtime.clock, fence, bridge, retention).run()] if kind is REQUEST else []
        await together(bridge.run(), *expiry)


def main() -> None:
    """Runs the gateway until SIGTERM."""
    settings = GatewaySettings()

    async def live(runtime: Runtime) -> None:
        await Gateway(runtime, settings).run()

    run(Service.GATEWAY, settings, live, drain_seconds=settings.gateway_drain_seconds)
