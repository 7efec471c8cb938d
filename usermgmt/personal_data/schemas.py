"""What goes out of the routes of personal data."""

import msgspec

from usermgmt.audit.schemas import EventOut
from usermgmt.http.answers import Timestamp, timestamp
from usermgmt.personal_data.service import Export
from usermgmt.sessions.models import Session
from usermgmt.sessions.schemas import SessionOut
from usermgmt.users.schemas import GrantOut, GrantsOut, UserOut


class HeldGroup(msgspec.Struct, kw_only=True):
    """A group that the account is in."""

    id: str
    name: str


class HeldSession(SessionOut, kw_only=True):
    """A session on record, and when and why it ended if it did before its time."""

    revoked_at: Timestamp | None
    revoked_reason: str | None


class ExportOut(msgspec.Struct, kw_only=True):
    """Everything that is held about an account: itself, roles, groups, sessions, and the newest of its record."""

    user: UserOut
    roles: list[GrantOut]
    groups: list[HeldGroup]
    sessions: list[HeldSession]
    activity: list[EventOut]

    @classmethod
    def of(cls, export: Export) -> "ExportOut":
        """The export as its reader gets it: what is about the account, not where others called from."""
        owner = export.view.user.id
        return cls(
            user=UserOut.of(export.view),
            roles=GrantsOut.of(export.grants).items,
            groups=[HeldGroup(id=str(group.id), name=group.name) for group in export.groups],
            sessions=[_held(session) for session in export.sessions],
            activity=[EventOut.of(event, reader=owner) for event in export.events],
        )


def _held(session: Session) -> HeldSession:
    return HeldSession(
        **msgspec.structs.asdict(SessionOut.of(session, current=None)),
        revoked_at=timestamp(session.revoked_at) if session.revoked_at is not None else None,
        revoked_reason=session.revoked_reason,
    )
