"""`usermgmt keys`: the keys that sign access tokens."""

from datetime import datetime
from typing import Any

import click

from usermgmt.operator.console import Console
from usermgmt.operator.grammar import command
from usermgmt.operator.workplace import on_runtime
from usermgmt.runtime import Runtime
from usermgmt.security.keys import KeyRing
from usermgmt.security.principal import OPERATOR
from usermgmt.signing_keys import service
from usermgmt.signing_keys.models import SigningKey

COLUMNS = ("kid", "algorithm", "state", "created_at", "activated_at", "retired_at")


@command("list")
@on_runtime
async def list_keys(console: Console, runtime: Runtime) -> None:
    """List every key, oldest first, with its state.

    published: others can read it, it does not sign yet; signing: it signs new tokens; verifying: tokens that it signed
    are still accepted; retired: they no longer are; unreadable: none of the configured secrets opens it.
    """
    now = runtime.clock.now()
    ring = await service.load_ring(runtime)
    signing = ring.signing_key(runtime.settings.tokens.algorithm, now)
    kid = signing.kid if signing is not None else None
    rows = [_document(key, _state(key, ring, kid, now)) for key in await service.list_keys(runtime)]
    console.table(COLUMNS).add(rows)


@command()
@click.option("--at-once", is_flag=True, help="Sign with the new key now, before others had time to read it.")
@on_runtime
async def rotate(console: Console, runtime: Runtime, at_once: bool) -> None:
    """Make a new key. It signs a minute from now; tokens of the present one stay good until they expire."""
    rotation = await service.rotate_key(runtime, caller=OPERATOR, at_once=at_once)
    activated_at = _time(rotation.activated_at)
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


def _document(key: SigningKey, state: str) -> dict[str, Any]:
    return {
        "kid": key.kid,
        "algorithm": key.algorithm,
        "state": state,
        "created_at": _time(key.created_at),
        "activated_at": _time(key.activated_at),
        "retired_at": _time(key.retired_at) if key.retired_at is not None else None,
    }


def _time(value: datetime) -> str:
    return value.isoformat(timespec="seconds").replace("+00:00", "Z")
