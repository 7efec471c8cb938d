"""Which root secret makes new things.

A new one that was put in front only verifies at first. `secret.rollout` after a process first knew it, all of them turn
to it at the same moment: by then each was started with it, so that nothing is made which another one refuses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from usermgmt.root_secrets import queries
from usermgmt.runtime import Runtime

REFRESH_INTERVAL = timedelta(seconds=5)
ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
"""Since when the secrets are known with which a deployment begins: there is nobody yet to wait for."""

log = structlog.get_logger("usermgmt.secrets")


@dataclass(frozen=True, slots=True)
class Root:
    """A configured root secret: its name, from when it makes (if it is the first such one), and whether it does now.

    The one that is known longest makes from when it was first seen: there is no other.
    """

    key_id: str
    makes_from: datetime
    is_making: bool


async def note_roots(runtime: Runtime) -> None:
    """Note that this process knows its root secrets, and let the right one make. Before anything is made."""
    known = await _list_known(runtime)
    missing = [each for each in runtime.secrets.root_ids if each not in known]
    if missing:
        first_seen_at = runtime.clock.now() if known else ALWAYS
        async with runtime.database.begin() as session:
            for key_id in missing:
                await queries.insert_root(session, key_id, first_seen_at=first_seen_at)
        known = await _list_known(runtime)
    _choose(runtime, known)


async def are_strangers(runtime: Runtime) -> bool:
    """Whether the database knows root secrets, and none of those that are configured."""
    known = await _list_known(runtime)
    return bool(known) and not any(key_id in known for key_id in runtime.secrets.root_ids)


async def choose_root(runtime: Runtime) -> None:
    """Let the right one make, as of now."""
    if len(runtime.secrets.root_ids) > 1:
        _choose(runtime, await _list_known(runtime))


async def list_roots(runtime: Runtime) -> Sequence[Root]:
    """The configured root secrets, in their order."""
    known, now = await _list_known(runtime), runtime.clock.now()
    rollout, ids = runtime.settings.secret.rollout, runtime.secrets.root_ids
    making = _position(ids, known, settled_before=now - rollout)
    seen = [known.get(key_id, now) for key_id in ids]
    oldest = seen.index(min(seen))
    begins = [at if at == ALWAYS or i == oldest else at + rollout for i, at in enumerate(seen)]
    return [Root(key_id, begins[i], i == making) for i, key_id in enumerate(ids)]


async def _list_known(runtime: Runtime) -> Mapping[str, datetime]:
    async with runtime.database.read() as session:
        return await queries.list_roots(session)


def _choose(runtime: Runtime, known: Mapping[str, datetime]) -> None:
    settled_before = runtime.clock.now() - runtime.settings.secret.rollout
    position = _position(runtime.secrets.root_ids, known, settled_before=settled_before)
    if position != runtime.secrets.making:
        runtime.make_with_root(position)
        log.info("root_secret_chosen", key=runtime.secrets.root_ids[position])


def _position(ids: Sequence[str], known: Mapping[str, datetime], *, settled_before: datetime) -> int:
    """The first that everybody knows; without any, the one that was known first."""
    settled = [i for i, key_id in enumerate(ids) if key_id in known and known[key_id] <= settled_before]
    if settled:
        return settled[0]
    seen = [(key_id not in known, known.get(key_id, ALWAYS)) for key_id in ids]
    return seen.index(min(seen))
