"""`usermgmt secrets`: the root secrets, what would be lost without each, and a new one."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise

from usermgmt.operator.configuration import new_secret
from usermgmt.operator.console import Console, to_seconds
from usermgmt.operator.grammar import command, pass_console
from usermgmt.operator.workplace import on_runtime
from usermgmt.root_secrets import service
from usermgmt.root_secrets.service import ALWAYS, Root
from usermgmt.runtime import Runtime
from usermgmt.security.hashing import stored_prefix
from usermgmt.security.keys import sealing_key_id
from usermgmt.security.secrets import Purpose
from usermgmt.sessions.queries import LIVE_SESSIONS
from usermgmt.signing_keys import service as signing_keys
from usermgmt.storage.bounded_reads import find_within
from usermgmt.users.queries import STORED_PASSWORDS

COLUMNS = ("secret", "state", "makes_from", "signing_keys", "sessions", "passwords")
PATIENCE = timedelta(minutes=1)


@command("list")
@on_runtime
async def list_secrets(console: Console, runtime: Runtime) -> None:
    """List the configured root secrets by a name that tells nothing of them, in their order.

    making: new tokens and hashes are made with it; waiting: it only verifies until every process knows it; verifying:
    what was made with it before is still good. "Makes from" is when it began to be made with; `-`: from the first.

    The counts are what needs it: signing keys sealed under it, live sessions that were last refreshed while it made
    (they are signed out without it), and accounts whose password was hashed with it (they need a new one without it;
    a sign-in hashes it anew). `-`: counting took too long. A secret with three zeros can be taken away.
    """
    roots = await service.list_roots(runtime)
    keys = [sealing_key_id(key.private_key) for key in await signing_keys.list_live_keys(runtime)]
    sessions = await _sessions(runtime, roots)
    rows = []
    for place, root in enumerate(roots):
        sealing = runtime.secrets.all(Purpose.SIGNING_KEY_ENCRYPTION)[place].key_id
        pepper = runtime.secrets.all(Purpose.PASSWORD_PEPPER)[place].key_id
        rows.append(
            {
                "secret": root.key_id,
                "state": _state(root, is_before=place < runtime.secrets.making),
                "makes_from": None if root.makes_from == ALWAYS else to_seconds(root.makes_from),
                "signing_keys": keys.count(sealing),
                "sessions": sessions[root.key_id],
                "passwords": await find_within(
                    runtime.database, STORED_PASSWORDS, {"prefix": stored_prefix(pepper)}, patience=PATIENCE
                ),
            }
        )
    console.table(COLUMNS).add(rows)


@command()
@pass_console
def generate(console: Console) -> None:
    """Print a new root secret for USERMGMT_SECRET_KEYS.

    To replace a secret, put the new one in front of the old one, separated by a comma, and remove the old one once
    nothing that was made with it is alive.
    """
    key = new_secret()
    console.show({"key": key}, key)


async def _sessions(runtime: Runtime, roots: Sequence[Root]) -> dict[str, int | None]:
    """How many live sessions have a refresh token of each root: those last refreshed from when it made until the next
    one did.
    """
    now = runtime.clock.now()
    made: dict[str, int | None] = {root.key_id: 0 for root in roots}
    began: list[Root] = []  # a root makes nothing once one that stands before it does: it is first seen, but too late
    for root in sorted(roots, key=lambda root: root.makes_from):
        if root.makes_from <= now and (not began or roots.index(root) < roots.index(began[-1])):
            began.append(root)
    ends = [*(after.makes_from for _, after in pairwise(began)), now + timedelta(days=1)]
    for root, until in zip(began, ends, strict=True):
        values = {"since": root.makes_from, "until": until, "at": now}
        made[root.key_id] = await find_within(runtime.database, LIVE_SESSIONS, values, patience=PATIENCE)
    return made


def _state(root: Root, *, is_before: bool) -> str:
    if root.is_making:
        return "making"
    return "waiting" if is_before else "verifying"
