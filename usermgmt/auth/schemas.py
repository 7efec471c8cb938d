"""What goes in and out of signing in."""

from typing import Annotated

import msgspec
from pydantic import ConfigDict, Field, model_validator

from usermgmt.auth.service import CurrentSession, SignedIn, TokenPair
from usermgmt.http.answers import Timestamp, timestamp
from usermgmt.http.fields import ABSENT, RequestModel, refused
from usermgmt.users.schemas import UserOut

MAX_NAME = 320
MAX_PASSWORD = 4_096
MAX_TOKEN = 4_096


class LogIn(RequestModel):
    """A name and a password. `email` is accepted in place of `username`; either may hold either."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["username"]}, {"required": ["email"]}]})

    username: Annotated[str, Field(max_length=MAX_NAME)] = ABSENT
    email: Annotated[str, Field(max_length=MAX_NAME)] = ABSENT
    password: Annotated[str, Field(max_length=MAX_PASSWORD)]

    @model_validator(mode="after")
    def _named_once(self) -> "LogIn":
        if len({"username", "email"} & self.model_fields_set) != 1:
            raise refused("required", "Send either username or email.")
        return self

    @property
    def name(self) -> str:
        """Whatever the account was named by."""
        return self.username if "username" in self.model_fields_set else self.email


class Refresh(RequestModel):
    """The refresh token of the present generation."""

    refresh_token: Annotated[str, Field(max_length=MAX_TOKEN)]


class LogOut(RequestModel):
    """The session to end, where no access token names it."""

    refresh_token: Annotated[str, Field(max_length=MAX_TOKEN)] | None = None


class TokensOut(msgspec.Struct, kw_only=True):
    """A pair of tokens; lifetimes are in seconds."""

    access_token: str
    refresh_token: str
    token_type: str = "Bearer"  # noqa: S105 - RFC 6750's name of the scheme
    expires_in: int
    refresh_expires_in: int

    @classmethod
    def of(cls, pair: TokenPair) -> "TokensOut":
        """The pair as clients see it."""
        return cls(
            access_token=pair.access_token,
            refresh_token=pair.refresh_token,
            expires_in=pair.expires_in,
            refresh_expires_in=pair.refresh_expires_in,
        )


class SignedInOut(TokensOut, kw_only=True):
    """A pair of tokens and the account that signed in."""

    user: UserOut

    @classmethod
    def with_user(cls, signed_in: SignedIn) -> "SignedInOut":
        """The sign-in as clients see it."""
        return cls(**msgspec.structs.asdict(TokensOut.of(signed_in.tokens)), user=UserOut.of(signed_in.view))


class SessionOut(msgspec.Struct, kw_only=True):
    """One sign-in on record."""

    id: str
    created_at: Timestamp
    authenticated_at: Timestamp
    refreshed_at: Timestamp
    expires_at: Timestamp
    idle_expires_at: Timestamp
    address: str | None
    user_agent: str | None


class CurrentSessionOut(msgspec.Struct, kw_only=True):
    """The caller's session, account, roles and permissions."""

    session: SessionOut
    user: UserOut
    roles: list[str]
    permissions: list[str]

    @classmethod
    def of(cls, current: CurrentSession) -> "CurrentSessionOut":
        """The session as its owner sees it: nothing by which it could be continued."""
        row = current.session
        return cls(
            session=SessionOut(
                id=str(row.id),
                created_at=timestamp(row.created_at),
                authenticated_at=timestamp(row.authenticated_at),
                refreshed_at=timestamp(row.refreshed_at),
                expires_at=timestamp(row.expires_at),
                idle_expires_at=timestamp(row.idle_expires_at),
                address=row.address,
                user_agent=row.user_agent,
            ),
            user=UserOut.of(current.view),
            roles=list(current.view.roles),
            permissions=list(current.permissions),
        )
