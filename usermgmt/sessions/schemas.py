"""What goes out of the routes of sessions, and what may be asked."""

from collections.abc import Sequence
from typing import Literal
from uuid import UUID

import msgspec

from usermgmt.http.answers import Timestamp, timestamp
from usermgmt.http.fields import RequestModel
from usermgmt.sessions.models import Session
from usermgmt.sessions.service import WhichSessions


class RevokeSessions(RequestModel):
    """All sessions, or all but the one that calls."""

    scope: Literal[WhichSessions.ALL, WhichSessions.OTHERS] = WhichSessions.ALL


class SessionOut(msgspec.Struct, kw_only=True):
    """One sign-in on record: nothing by which it could be continued. `current` marks the one that asks."""

    id: str
    current: bool
    created_at: Timestamp
    authenticated_at: Timestamp
    refreshed_at: Timestamp
    expires_at: Timestamp
    idle_expires_at: Timestamp
    address: str | None
    user_agent: str | None

    @classmethod
    def of(cls, session: Session, *, current: UUID | None) -> "SessionOut":
        """The session as clients see it."""
        return cls(
            id=str(session.id),
            current=session.id == current,
            created_at=timestamp(session.created_at),
            authenticated_at=timestamp(session.authenticated_at),
            refreshed_at=timestamp(session.refreshed_at),
            expires_at=timestamp(session.expires_at),
            idle_expires_at=timestamp(session.idle_expires_at),
            address=session.address,
            user_agent=session.user_agent,
        )


class SessionsOut(msgspec.Struct):
    """The live sessions of an account, newest first."""

    items: list[SessionOut]

    @classmethod
    def of(cls, sessions: Sequence[Session], *, current: UUID | None) -> "SessionsOut":
        """The sessions as clients see them."""
        return cls([SessionOut.of(session, current=current) for session in sessions])
