"""Wiring of the artifact-service: one active decider, a bridge per kind, and the object store."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from lablet_artifacts.archive import Archiver
from lablet_artifacts.deleting import Deleter
from lablet_artifacts.keeper import CACHED, Keeper
from lablet_artifacts.leftovers import Leftovers
from lablet_artifacts.patience import with_patience
from lablet_artifacts.publishing import Publisher
from lablet_artifacts.references import References
from lablet_artifacts.rendering import Renderer
from lablet_artifacts.settings import ArtifactSettings
from lablet_artifacts.sweeping import Alone, Sweeper
from lablet_artifacts.topology import NodeType, read_node_types
from lablet_common.bridge import Bridge
from lablet_common.bus import Received, intents_stream
from lablet_common.events import subjects
from lablet_common.intake import Decision, Intake, verb_of
from lablet_common.objects import ObjectStore, S3ObjectStore
from lablet_common.ownership import Fence, Ownership
from lablet_common.references import follow_uses, uses_of
from lablet_common.requests import Undecided
from lablet_common.resources.artifact import Artifact, ArtifactPhase
from lablet_common.resources.kinds import ARTIFACT, KINDS, Service, owned_by
from lablet_common.service import Runtime, run
from lablet_common.store import StoreUnavailable
from lablet_common.store.cache import Caches
from lablet_common.tasks import together

_CENTRAL = "-"
_BRIDGE = "bridge-"


class ArtifactService:
    """What this replica owns, and what all of it shares."""

    def __init__(self, runtime: Runtime, settings: ArtifactSettings, objects: ObjectStore | None = None) -> None:
        self._runtime = runtime
        self._settings = settings
        self._caches = Caches(runtime.store, list(CACHED))
        follow_uses(self._caches)
        self._objects = objects or S3ObjectStore(settings.storage)
        self._leftovers = Leftovers()
        self._alone: Alone = {}
        self._publisher = Publisher(runtime.store, self._objects, _node_types(settings.artifact_node_types_path))
        self._renderer = Renderer(
            self._objects, concurrency=settings.artifact_render_concurrency, cached=settings.artifact_topology_cache
        )
        self._ownership = Ownership(
            runtime.store,
            Service.ARTIFACTS,
            runtime.replica,
            ttl_seconds=settings.ownership_lease_ttl_seconds,
            shards=lambda: [_CENTRAL, *(f"{_BRIDGE}{kind.name}" for kind in owned_by(Service.ARTIFACTS))],
        )

    async def run(self) -> None:
        """Until the process is asked to stop."""
        self._runtime.health.add("s3", self._objects.ensure_bucket)
        try:
            async with self._caches:
                await self._caches.wait_synced()
                await with_patience(self._objects.ensure_bucket)
                self._runtime.health.started = True
                await self._ownership.run(self._serve)
        finally:
            await self._objects.close()

    async def _serve(self, shard: str, fence: Fence) -> None:
        runtime = self._runtime
        if shard.startswith(_BRIDGE):
            kind = KINDS[shard.removeprefix(_BRIDGE)]
            await Bridge(runtime.store, kind, fence, runtime.bus, source=runtime.source).run()
            return
        resync = self._settings.resync_seconds
        keeper = Keeper(
            fence,
            store=runtime.store,
            caches=self._caches,
            objects=self._objects,
            renderer=self._renderer,
            leftovers=self._leftovers,
            clock=runtime.clock,
            resync_seconds=resync,
        )
        artifacts = self._caches[ARTIFACT]
        deleter = Deleter(
            runtime.store,
            References(runtime.store, fence),
            lambda subject: uses_of(self._caches, subject),
            runtime.source,
        )

        async def decide(undecided: Undecided) -> Decision:
            if verb_of(undecided)[0] == ARTIFACT.name:
                await self._caught_up(undecided.pointer.create_revision)
                return await deleter.decide(undecided, runtime.clock.now())
            return await with_patience(lambda: self._publisher.decide(undecided, runtime.clock.now(), runtime.source))

        intake = Intake(
            Service.ARTIFACTS,
            shard,
            fence,
            decide,
            store=runtime.store,
            clock=runtime.clock,
            source=runtime.source,
            resync_seconds=resync,
        )

        archiver = Archiver(
            runtime.store,
            fence,
            self._objects,
            runtime.clock,
            after=timedelta(hours=self._settings.archive_after_hours),
            look_seconds=self._settings.archive_look_seconds,
            settled=keeper.has_settled,
        )
        grace = timedelta(minutes=self._settings.artifact_sweep_grace_minutes)
        sweeper = Sweeper(
            runtime.store,
            fence,
            self._objects,
            runtime.clock,
            by=runtime.source,
            grace=grace,
            retention=timedelta(days=self._settings.artifact_retention_days),
            look_seconds=max(self._settings.archive_look_seconds, grace.total_seconds() / 4),
            alone=self._alone,
            caches=self._caches,
        )

        async def wake(_: Received) -> None:
            intake.wake()

        intents = runtime.bus.consumer(
            intents_stream(Service.ARTIFACTS),
            str(Service.ARTIFACTS),
            [subjects.intent_filter(Service.ARTIFACTS, shard)],
            wake,
        )

        def on_artifact(_: Artifact | None, new: Artifact | None, __: int) -> None:
            if new is not None and new.status.phase is ArtifactPhase.DELETING:
                sweeper.finish(new)

        unsubscribe = artifacts.subscribe(on_artifact)
        try:
            await together(intents.run(), intake.run(), keeper.run(), archiver.run(), sweeper.run())
        finally:
            unsubscribe()

    async def _caught_up(self, revision: int) -> None:
        """Whatever was referred to when a deletion was asked for is in the cache. Raises `StoreUnavailable`."""
        try:
            await self._caches.reached(revision)
        except TimeoutError as error:
            raise StoreUnavailable(f"the cache of artifacts has not come to revision {revision}") from error


def _node_types(path: Path | None) -> Mapping[str, NodeType]:
    """The installation's own table. Raises `TopologyError` naming every entry that is wrong: the service does not start."""
    return {} if path is None else read_node_types(path.read_bytes())


def main() -> None:
    """Runs the artifact-service until SIGTERM."""
    settings = ArtifactSettings()

    async def live(runtime: Runtime) -> None:
        await ArtifactService(runtime, settings).run()

    run(Service.ARTIFACTS, settings, live)
