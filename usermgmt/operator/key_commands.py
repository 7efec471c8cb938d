"""`usermgmt keys`: the keys that sign access tokens."""

from datetime import datetime, timedelta
from typing import Any

import click

from usermgmt.auth.queries import LIVE_TOKENS
from usermgmt.operator.console import Console, to_seconds
from usermgmt.operator.grammar import command
from usermgmt.operator.workplace import on_runtime
from usermgmt.runtime import Runtime
from usermgmt.security.keys import KeyRing
from usermgmt.security.principal import OPERATOR
from usermgmt.signing_keys import service
from usermgmt.signing_keys.models import SigningKey
from usermgmt.storage.bounded_reads import find_within

COLUMNS = ("kid", "algorithm", "state", "live_tokens", "activated_at", "retired_at")
PATIENCE = timedelta(seconds=30)


@command("list")
@on_runtime
async def list_keys(console: Console, runtime: Runtime) -> None:
    """List every key, oldest first, with its state.

    published: others can read it, it does not sign yet; signing: it signs new tokens; verifying: tokens that it signed
    are still accepted; retired: they no longer are; unreadable: none of the configured secrets opens it.

    live tokens: how many access tokens were put on record as issued while the key signed, within the lifetime of a
    token, to sessions that are good still. One that was issued again to a repeated refresh counts once.
    """
    now = runtime.clock.now()
    ring = await service.load_ring(runtime)
    signing = ring.signing_key(runtime.settings.tokens.algorithm, now)
    kid = signing.kid if signing is not None else None
    live = await _live_tokens(runtime)
    keys = await service.list_keys(runtime)
    console.table(COLUMNS).add([_document(key, _state(key, ring, kid, now), live.get(key.kid)) for key in keys])


@command()
@click.option("--at-once", is_flag=True, help="Sign with the new key now, before others had time to read it.")
@on_runtime
async def rotate(console: Console, runtime: Runtime, at_once: bool) -> None:
    """Make a new key. It signs a minute from now; tokens of the present one stay good until they expire."""
    rotation = await service.rotate_key(runtime, caller=OPERATOR, at_once=at_once)
    activated_at = to_seconds(rotation.activated_at)
    console.show(
        {"kid": rotation.kid, "activated_at": activated_at},
        f"Made key {rotation.kid}, which signs from {activated_at}.",
    )


@command()
@click.argument("kid")
@on_runtime
async def retire(console: Console, runtime: Runtime, kid: str) -> None:
    """Stop trusting the key KID: every access token that it signed is refused within 10 seconds.

    For a key that leaked. To replace a key, `rotate` is enough.
    """
    console.confirm(f"Refuse every access token that {kid} signed?")
    await service.retire_key(runtime, kid, caller=OPERATOR)
    console.show({"kid": kid, "state": "retired"}, f"{kid} is retired.")


def _state(key: SigningKey, ring: KeyRing, signing: str | None, now: datetime) -> str:
    if key.retired_at is not None and key.retired_at <= now:
        return "retired"
    if all(known.kid != key.kid for known in ring.keys):
        return "unreadable"
    if key.activated_at > now:
        return "published"
    return "signing" if key.kid == signing else "verifying"


async def _live_tokens(runtime: Runtime) -> dict[str, int | None]:
    """How many tokens each key signed that are good now; None where counting takes too long."""
    now = runtime.clock.now()
    oldest = now - runtime.settings.tokens.access_lifetime
    found: dict[str, int | None] = {}
    for period in await service.list_periods(runtime):
        values = {"since": max(period.since, oldest), "until": min(period.until or now, now), "at": now}
        found[period.kid] = (
            await find_within(runtime.database, LIVE_TOKENS, values, patience=PATIENCE)
            if values["since"] < values["until"]
            else 0
        )
    return found


def _document(key: SigningKey, state: str, live_tokens: int | None) -> dict[str, Any]:
    return {
        "kid": key.kid,
        "algorithm": key.algorithm,
        "state": state,
        "live_tokens": 0 if state in ("retired", "unreadable") else live_tokens,
        "created_at": to_seconds(key.created_at),
        "activated_at": to_seconds(key.activated_at),
        "retired_at": to_seconds(key.retired_at) if key.retired_at is not None else None,
    }
