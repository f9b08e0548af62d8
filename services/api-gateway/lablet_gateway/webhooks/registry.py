"""The subscriptions as they lie in etcd: made, changed, marked for deletion. What is sent is the dispatcher's business.

A name is unique over all tenants, since it names a consumer. The secret is made here, stored encrypted, and returned
once; the same idempotency key gets it again. A subscription is deleted by whoever serves it, after its consumers.
"""

from datetime import timedelta
from typing import Any
from uuid import uuid4

from lablet_common.requests import request_key
from lablet_common.resources.kinds import SUBSCRIPTION
from lablet_common.resources.model import Metadata
from lablet_common.resources.subscription import (
    EVERY_TENANT,
    Beginning,
    Subscription,
    SubscriptionChange,
    SubscriptionCreate,
    SubscriptionPhase,
    SubscriptionSpec,
    SubscriptionStatus,
)
from lablet_common.secrets import SecretBox, SecretError
from lablet_common.store import Conflict, Transaction
from lablet_common.store.changes import create_in, update_in
from lablet_common.store.repository import Repository
from lablet_common.store.selectors import LabelSelector, SelectorError
from lablet_gateway import problems
from lablet_gateway.caller import Caller
from lablet_gateway.deeds import SOURCE, deed_in
from lablet_gateway.parts import Parts
from lablet_gateway.webhooks import signing
from lablet_gateway.webhooks.addresses import SinkRefused, check_sink

PRESET = "cloudevents-sink"
"""The subscription of CLOUDEVENTS_SINK_URL."""
OVERLAP = timedelta(days=1)
"""Real time for which a replaced secret still signs."""
_ROUTE = "POST /subscriptions"


def secret_context(name: str) -> str:
    """What a sealed secret is bound to."""
    return f"subscription/{name}"


class Registry:
    """Changes by a caller leave their trace, as those of every kind do; those by a setting do not."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._kept: Repository[Subscription] = Repository(parts.store, SUBSCRIPTION)

    async def get(self, name: str) -> Subscription | None:
        """None also for one that is being deleted."""
        found = await self._kept.get(name)
        return None if found is None or found.phase == SubscriptionPhase.DELETING else found

    async def create(self, caller: Caller, body: SubscriptionCreate, key: str | None) -> tuple[Subscription, str]:
        """The subscription and its secret. Raises `Refused`."""
        tenant = body.tenant or caller.tenant
        if tenant != caller.tenant:
            raise problems.FORBIDDEN(f"tenant: {tenant} is another tenant; a token of {caller.tenant} hears that one's")
        if body.name == PRESET:
            raise problems.invalid("name", f"{PRESET} is the one of CLOUDEVENTS_SINK_URL", "take another name")
        _check_labels(body.label_selector)
        await self._check_sink(body.sink)
        box = self._box()
        root = request_key(tenant, caller.name, _ROUTE, key or uuid4().hex)
        spec = SubscriptionSpec(tenant=tenant, **body.model_dump(exclude={"name", "labels", "tenant"}))
        secret = signing.new_secret()
        sealed = box.seal(secret, secret_context(body.name))
        made = self._new(
            body.name, str(root), tenant, spec, await self._beginning(), owner=caller.name, labels=body.labels
        ).observed("created", secret=sealed, role=str(caller.principal.role))
        txn = Transaction()
        create_in(txn, made)
        self._trace(txn, caller, "create", body.name, body.to_dict(), key=root)
        try:
            return await self._committed(txn, made), secret
        except Conflict:
            return self._again(await self._kept.get(body.name), made, box, had_key=key is not None)

    def _again(
        self, present: Subscription | None, wanted: Subscription, box: SecretBox, *, had_key: bool
    ) -> tuple[Subscription, str]:
        """The same call once more; raises 409 for a name that is taken, 422 for another body under the same key."""
        if present is not None and present.metadata.uid != wanted.metadata.uid:
            raise problems.CONFLICT(
                f"there is a subscription {wanted.id} already",
                errors=[problems.field_error("name", "taken", "take another name, or change that subscription")],
            )
        if present is None or present.spec != wanted.spec or present.status.secret is None:
            if not had_key:
                raise problems.CONFLICT("somebody else was first: repeat")
            raise problems.KEY_REUSED(
                "the Idempotency-Key was used before, for another subscription or one that is gone",
                errors=[problems.field_error("Idempotency-Key", "used before for another body", "take a new key")],
            )
        return present, box.open(present.status.secret, secret_context(present.id))

    async def change(
        self, present: Subscription, body: SubscriptionChange, caller: Caller | None = None
    ) -> Subscription:
        """The subscription as it is afterwards. Raises `Refused`, `Conflict` when it was changed meanwhile. Without a
        caller it is the setting that changes it."""
        given = body.model_dump(exclude_none=True)
        if body.label_selector is not None:
            _check_labels(body.label_selector)
        if body.sink is not None and caller is not None:
            await self._check_sink(body.sink)
        changed = present.respecified(**given) if given else present
        if body.sink is not None and caller is not None:
            changed = changed.observed("changed", role=str(caller.principal.role))
        wants_pause, is_paused = changed.spec.paused, present.phase == SubscriptionPhase.PAUSED
        if wants_pause and not is_paused:
            changed = self._moved(changed, SubscriptionPhase.PAUSED, "Asked")
        elif is_paused and not wants_pause and (body.paused is False or body.sink is not None):
            changed = self._moved(changed, SubscriptionPhase.ACTIVE, "Asked", last_error=None, failing_since=None)
        return await self._update(changed, caller, "change", body.to_dict(), before=present.spec)

    async def rotate(self, present: Subscription, caller: Caller) -> tuple[Subscription, str]:
        """A new secret; the old one signs beside it for a day. Raises `Conflict`."""
        box, secret = self._box(), signing.new_secret()
        changed = present.observed(
            "changed",
            secret=box.seal(secret, secret_context(present.id)),
            previous_secret=present.status.secret,
            previous_until=self._parts.real_time.now() + OVERLAP,
            signed=True,
        )
        return await self._update(changed, caller, "rotate-secret", {}), secret

    async def delete(self, present: Subscription, caller: Caller | None = None) -> None:
        """Marks it; its server removes its consumers and then the key. Raises `Conflict`."""
        marked = present.marked_for_deletion(self._parts.clock.now())
        await self._update(self._moved(marked, SubscriptionPhase.DELETING, "Asked"), caller, "delete", {})

    async def keep_preset(self, sink: str | None) -> None:
        """Makes the preset, points it at `sink`, or takes it away. Raises `Conflict` when another was faster."""
        present = await self._kept.get(PRESET)
        if sink is None:
            if present is not None and present.phase != SubscriptionPhase.DELETING:
                await self.delete(present)
            return
        if present is None:
            spec = SubscriptionSpec(sink=sink, tenant=EVERY_TENANT)
            made = self._new(PRESET, str(uuid4()), "default", spec, await self._beginning())
            txn = Transaction()
            made = made.observed("created", signed=self._parts.settings.cloudevents_sink_secret is not None)
            create_in(txn, made)
            await self._committed(txn, made)
        elif present.spec.sink != sink and present.phase != SubscriptionPhase.DELETING:
            await self.change(present, SubscriptionChange(sink=sink))

    # -- parts of it ------------------------------------------------------------------------------------------------

    def _new(
        self, name: str, uid: str, tenant: str, spec: SubscriptionSpec, beginning: Beginning, **metadata: Any
    ) -> Subscription:
        now = self._parts.clock.now()
        return Subscription(
            metadata=Metadata(id=name, uid=uid, tenant=tenant, created_at=now, **metadata),
            spec=spec,
            status=SubscriptionStatus(phase=SubscriptionPhase.ACTIVE, beginning=beginning),
        )

    def _moved(self, present: Subscription, to: SubscriptionPhase, reason: str, **more: Any) -> Subscription:
        return present.moved(to, at=self._parts.clock.now(), by=SOURCE, reason=reason, **more)

    async def _beginning(self) -> Beginning:
        """From now on: raises `EventLogUnavailable`, since without NATS nobody knows when that is."""
        bounds = await self._parts.events.bounds()
        return Beginning(epoch=bounds.epoch, number=bounds.last)

    async def _check_sink(self, sink: str) -> None:
        try:
            await check_sink(sink, allow_private=self._parts.settings.webhook_allow_private)
        except SinkRefused as error:
            raise problems.invalid("sink", str(error)) from error
        except (OSError, UnicodeError) as error:
            raise problems.invalid("sink", f"{sink} cannot be reached: {error}", "check the host's name") from error

    def _box(self) -> SecretBox:
        if self._parts.secrets is None:
            raise problems.unavailable("secrets key", "SECRETS_KEY_FILE is not set, so that no secret can be kept")
        return self._parts.secrets

    async def _update(
        self,
        changed: Subscription,
        caller: Caller | None,
        verb: str,
        data: dict[str, Any],
        before: SubscriptionSpec | None = None,
    ) -> Subscription:
        txn = Transaction()
        update_in(txn, changed)
        if caller is not None:
            after = None if before is None else changed.spec
            self._trace(txn, caller, verb, changed.id, data, before=before, after=after)
        return await self._committed(txn, changed)

    def _trace(self, txn: Transaction, caller: Caller, verb: str, name: str, data: dict[str, Any], **more: Any) -> None:
        subject = f"{SUBSCRIPTION.name}/{name}"
        deed_in(txn, caller, f"{SUBSCRIPTION.name}.{verb}", subject, data, at=self._parts.clock.now(), **more)

    async def _committed(self, txn: Transaction, value: Subscription) -> Subscription:
        done = await txn.commit(self._parts.store)
        return value.at_revision(done.revision)


def secrets_of(subscription: Subscription, box: SecretBox | None) -> list[tuple[str, bool]]:
    """The secrets that sign, and for each whether it is the replaced one. Raises `SecretError`."""
    sealed = [(subscription.status.secret, False), (subscription.status.previous_secret, True)]
    present = [(secret, old) for secret, old in sealed if secret is not None]
    if present and box is None:
        raise SecretError("SECRETS_KEY_FILE is not set: the signing secret cannot be opened")
    context = secret_context(subscription.id)
    return [(box.open(secret, context), old) for secret, old in present if box is not None]


def _check_labels(selector: str) -> None:
    try:
        LabelSelector.parse(selector)
    except SelectorError as error:
        raise problems.invalid("labelSelector", str(error)) from error
