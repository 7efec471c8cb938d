"""What `usermgmt doctor` finds left undone: events not sealed, accounts not erased, sessions kept; and the keys."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, or_, select

from usermgmt.audit.models import AuditEvent, AuditHead
from usermgmt.operator.doctor_findings import Checklist, Finding, error, note, ok, warning
from usermgmt.operator.doctor_installation import Installation, Needs
from usermgmt.security.keys import KeyUnreadable, unseal
from usermgmt.security.secrets import Secrets
from usermgmt.sessions.models import Session
from usermgmt.signing_keys.models import SigningKey
from usermgmt.users.models import User

LEAST_PATIENCE = timedelta(minutes=5)
INTERVALS = 20
"""So many intervals late is late."""
DAY = timedelta(days=1)
OLDEST_KEY = timedelta(days=365)
MOST_COUNTED = 1_000
SERVING = "Is a server running? Its log tells of chores that fail (`chore_failing`)."

check = Checklist()


@check("retention.seals", Needs.SCHEMA)
async def events_are_sealed(installation: Installation) -> AsyncIterator[Finding]:
    """What is on record is sealed soon."""
    async with installation.reading() as reading:
        until = (await reading.execute(select(AuditHead.sealed_until))).scalar_one_or_none()
        oldest = select(func.min(AuditEvent.at))
        pending = oldest if until is None else oldest.where(AuditEvent.at > until)
        waits_since: datetime | None = (await reading.execute(pending)).scalar_one()
    patience = max(LEAST_PATIENCE, INTERVALS * installation.settings.audit.seal_interval)
    if waits_since is not None and installation.now() - waits_since > patience:
        yield warning(
            f"Events wait to be sealed since {waits_since:%Y-%m-%d %H:%M} UTC: they could be changed unnoticed.",
            SERVING,
        )
    else:
        yield ok("No event waits long to be sealed.")


@check("retention.erasures", Needs.SCHEMA)
async def deleted_accounts_are_erased(installation: Installation) -> AsyncIterator[Finding]:
    """Deleted accounts are erased when their time is over."""
    before = installation.now() - installation.settings.retention.deleted_users - timedelta(hours=1)
    count = await _count(installation, select(User.id).where(User.deleted_at < before))
    if count:
        yield warning(f"{_at_least(count)} deleted accounts should have been erased.", SERVING)
    else:
        yield ok("No deleted account waits to be erased.")


@check("retention.sessions", Needs.SCHEMA)
async def ended_sessions_leave(installation: Installation) -> AsyncIterator[Finding]:
    """Sessions that ended long ago leave the table."""
    kept = installation.settings.retention.sessions
    before = installation.now() - kept - DAY
    is_over = or_(Session.expires_at < before, Session.revoked_at < before)
    count = await _count(installation, select(Session.id).where(is_over))
    if count:
        yield warning(f"{_at_least(count)} sessions ended longer ago than retention.sessions.", SERVING)
    else:
        yield ok("No session is kept longer than it should be.")


@check("retention.events", Needs.SCHEMA)
async def old_events_leave(installation: Installation) -> AsyncIterator[Finding]:
    """Events leave the record when their time is over."""
    retention = installation.settings.audit.retention
    async with installation.reading() as reading:
        oldest: datetime | None = (await reading.execute(select(func.min(AuditEvent.at)))).scalar_one()
    if oldest is not None and installation.now() - oldest > retention + 2 * DAY:
        yield warning(f"The record goes back to {oldest:%Y-%m-%d}, longer than audit.retention.", SERVING)
    else:
        yield ok("The record goes back no longer than audit.retention.")


@check("keys.signing", Needs.SCHEMA)
async def keys_sign_and_open(installation: Installation) -> AsyncIterator[Finding]:
    """A key signs access tokens, the configured root secrets open every key, and none is old."""
    tokens, now = installation.settings.tokens, installation.now()
    async with installation.reading() as reading:
        keys: list[Any] = list(await reading.execute(select(SigningKey.__table__).order_by(SigningKey.created_at)))
    live = [key for key in keys if key.retired_at is None or key.retired_at > now]
    signing = [key for key in live if key.algorithm == tokens.algorithm and key.activated_at <= now]
    opened = secrets_of(installation)
    unreadable = [] if opened is None else [key.kid for key in live if not _is_readable(key, opened)]
    if unreadable:
        yield error(
            f"No configured root secret opens the signing keys {', '.join(unreadable)}: their tokens are refused.",
            "Set the root secret of that time again, behind the present one; if it is lost: usermgmt keys retire KID",
        )
    if not signing:
        told = f"No {tokens.algorithm} key signs yet."
        yield (
            note(told, "The next start makes one.")
            if not live
            else warning(told, "Restart the server, which makes one.")
        )
    elif now - signing[-1].activated_at > OLDEST_KEY:
        days = (now - signing[-1].activated_at).days
        yield note(f"The key {signing[-1].kid} has signed for {days} days.", "usermgmt keys rotate")
    elif not unreadable:
        yield ok(f"An {tokens.algorithm} key signs, and the root secrets open all {len(live)} that count.")


def secrets_of(installation: Installation) -> Secrets | None:
    """The keys that are derived from the root secrets, if there are any."""
    roots = [key.get_secret_value() for key in installation.settings.secret.keys]
    return Secrets(roots) if roots else None


def _is_readable(key: Any, secrets: Secrets) -> bool:  # a row of the signing keys
    try:
        unseal(key.private_key, key.kid, key.algorithm, secrets=secrets)
    except (KeyUnreadable, ValueError):
        return False
    return True


async def _count(installation: Installation, rows: Select[UUID]) -> int:
    """How many rows there are, counted no further than it matters."""
    async with installation.reading() as reading:
        counted = select(func.count()).select_from(rows.limit(MOST_COUNTED).subquery())
        return int((await reading.execute(counted)).scalar_one())


def _at_least(count: int) -> str:
    return f"{count} or more" if count == MOST_COUNTED else str(count)
