"""`usermgmt sessions`: who is signed in where, and ending it."""

from typing import Any
from uuid import UUID

import click
import msgspec

from usermgmt.operator.accounts import find_account
from usermgmt.operator.console import Console, counted
from usermgmt.operator.grammar import command
from usermgmt.operator.workplace import on_runtime
from usermgmt.runtime import Runtime
from usermgmt.security.principal import OPERATOR
from usermgmt.sessions import service
from usermgmt.sessions.models import Session
from usermgmt.sessions.schemas import SessionOut

COLUMNS = ("id", "created_at", "refreshed_at", "expires_at", "address", "user_agent")


@command("list")
@click.argument("user")
@on_runtime
async def list_sessions(console: Console, runtime: Runtime, user: str) -> None:
    """List the live sessions of USER, newest first."""
    view = await find_account(runtime, user)
    sessions = await service.list_sessions(runtime, OPERATOR, view.user.id)
    console.table(COLUMNS).add([_document(session) for session in sessions])


@command()
@click.argument("user")
@click.argument("session_id", metavar="[ID]", required=False, type=click.UUID)
@on_runtime
async def revoke(console: Console, runtime: Runtime, user: str, session_id: UUID | None) -> None:
    """End the session ID of USER, or all of them. Their tokens are refused at the next request."""
    user_id = (await find_account(runtime, user)).user.id
    if session_id is not None:
        await service.revoke_session(runtime, OPERATOR, user_id, session_id)
        count = 1
    else:
        count = await service.revoke_sessions(runtime, OPERATOR, user_id, keep_current=False)
    console.show({"revoked": count}, f"Ended {counted(count, 'session')}.")


def _document(session: Session) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(SessionOut.of(session, current=None))
    return document
