"""What goes in and out of signing in."""

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import ConfigDict, Field, model_validator

from usermgmt.auth.service import CurrentSession, SignedIn, TokenPair
from usermgmt.http.fields import ABSENT, RequestModel, refused
from usermgmt.sessions.schemas import SessionOut
from usermgmt.sessions.service import WhichSessions
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


class LogOutQuery(RequestModel):
    """Which of the caller's sessions end."""

    scope: WhichSessions = WhichSessions.THIS


class TokensOut(msgspec.Struct, kw_only=True, omit_defaults=False):
    """A pair of tokens; lifetimes are in seconds. Where `tokens.transport` is `cookie` the refresh token is in a cookie
    instead.
    """

    access_token: str
    refresh_token: str | UnsetType = UNSET
    token_type: str = "Bearer"  # noqa: S105 - RFC 6750's name of the scheme
    expires_in: int
    refresh_expires_in: int

    @classmethod
    def of(cls, pair: TokenPair, *, is_in_cookie: bool) -> "TokensOut":
        """The pair as clients see it."""
        return cls(
            access_token=pair.access_token,
            refresh_token=UNSET if is_in_cookie else pair.refresh_token,
            expires_in=pair.expires_in,
            refresh_expires_in=pair.refresh_expires_in,
        )


class SignedInOut(TokensOut, kw_only=True):
    """A pair of tokens and the account that signed in."""

    user: UserOut

    @classmethod
    def with_user(cls, signed_in: SignedIn, *, is_in_cookie: bool) -> "SignedInOut":
        """The sign-in as clients see it."""
        tokens = TokensOut.of(signed_in.tokens, is_in_cookie=is_in_cookie)
        return cls(**msgspec.structs.asdict(tokens), user=UserOut.of(signed_in.view))


class CurrentSessionOut(msgspec.Struct, kw_only=True):
    """The caller's session, account, roles, and permissions over everything and over the members of groups."""

    session: SessionOut
    user: UserOut
    roles: list[str]
    permissions: list[str]
    group_permissions: dict[str, list[str]]

    @classmethod
    def of(cls, current: CurrentSession) -> "CurrentSessionOut":
        """The session as its owner sees it: nothing by which it could be continued."""
        return cls(
            session=SessionOut.of(current.session, current=current.session.id),
            user=UserOut.of(current.view),
            roles=list(current.view.roles),
            permissions=sorted(current.rights.permissions),
            group_permissions={str(group): sorted(held) for group, held in current.rights.within.items()},
        )
