"""Saving worker-hours on request: the question goes to the owner of the pool's calendar, and its answer stands in the
request's outcome. The pool itself is another service's and is not written.
"""

from lablet_common.intents import INTENTS, OptimiseRequested, PoolOptimise
from lablet_common.requests import digest_of
from lablet_common.resources.kinds import POOL, TEMPLATE
from lablet_common.resources.request import Request
from lablet_common.resources.worker import WorkerPool, WorkerTemplate
from lablet_gateway import problems, reads
from lablet_gateway.asking import Ask, Asking
from lablet_gateway.caller import Caller
from lablet_gateway.parts import Parts

_ASKED = INTENTS["io.lablet.pool.optimise.requested.v1"]


async def ask(parts: Parts, caller: Caller, asked: Ask, name: str, body: PoolOptimise) -> Request:
    """Opens the request. Raises 404."""
    pool = await reads.get(parts, POOL, name)
    if not isinstance(pool, WorkerPool):
        raise problems.unknown(POOL.name, name)
    data = OptimiseRequested(**body.model_dump(), cost_per_hour_usd=await cost_of(parts, pool))
    digest = digest_of({"pool": name, "body": body.to_dict()})
    return await Asking(parts, caller, asked).accept(_ASKED, name, data, name, digest)


async def cost_of(parts: Parts, pool: WorkerPool) -> float:
    """Of an hour of one of its workers, in USD; 0 where its template is gone."""
    template = await reads.get(parts, TEMPLATE, pool.spec.template)
    return template.spec.cost_per_hour_usd if isinstance(template, WorkerTemplate) else 0.0
