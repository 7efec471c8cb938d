"""How the record stands, for metrics: whether its end is ours, and what waits to be sealed. Only reads."""

from datetime import timedelta

from usermgmt.audit import queries, seals
from usermgmt.runtime import Runtime
from usermgmt.telemetry import metrics

INTERVAL = timedelta(seconds=15)
MOST_COUNTED = 10_000


async def sample(runtime: Runtime) -> None:
    """Take it now. Every process does, so that each tells it whichever of them seals."""
    now = runtime.clock.now()
    async with runtime.database.read() as session:
        head = await queries.find_head(session)
        if head is None:
            return
        seal = await queries.find_seal(session, head.seq)
        place = (head.sealed_until, head.sealed_until_id)
        waiting, oldest = await queries.count_unsealed(session, after=place, most=MOST_COUNTED)
    message = seals.head_message(head)
    is_ours = seals.judge_signature(runtime.secrets, message, key_id=head.key_id, signature=head.signature)
    metrics.set_gauges(
        {
            metrics.audit_broken: is_ours is not True,
            metrics.audit_unsealed: waiting,
            metrics.audit_unsealed_seconds: (now - oldest).total_seconds() if oldest is not None else 0.0,
            metrics.audit_sealed_at: seal.sealed_at.timestamp() if seal is not None else 0.0,
        }
    )
