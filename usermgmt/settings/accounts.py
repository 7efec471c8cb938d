"""How accounts are made and signed in to: secrets, passwords, tokens."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from usermgmt.settings.kinds import LONGEST, Lifetime, ReadablePath, Section, Text, Wait, Whole
from usermgmt.settings.values import Between, Duration, read_list

_SHORTEST_KEY_LIFETIME = Duration.parse("1h")


def _key_lifetime(lifetime: Duration) -> Duration:
    if lifetime and lifetime < _SHORTEST_KEY_LIFETIME:
        raise ValueError("must be 0 or at least 1h: other servers keep the published keys for a while")
    return lifetime


class SecretSettings(Section):
    """The root secrets, from which the keys of tokens and digests are derived."""

    keys: Annotated[tuple[SecretStr, ...], BeforeValidator(read_list)] = Field(
        default=(), description="Root secrets, newest first, each of at least 32 bytes."
    )
    rollout: Annotated[Duration, Between(Duration(0), Duration.parse("30d"))] = Field(
        default=Duration.parse("10m"),
        description="Duration in which a new root secret only verifies, until every process has been started with it.",
    )


class BootstrapSettings(Section):
    """The first administrator; used only while there is none. All three are set, or none."""

    admin_username: str = Field(default="", description="Username of the first administrator.")
    admin_email: str = Field(default="", description="E-mail address of the first administrator.")
    admin_password: SecretStr = Field(default=SecretStr(""), description="Password of the first administrator.")

    @model_validator(mode="after")
    def _is_whole(self) -> "BootstrapSettings":
        missing = [name for name, value in self if not value]
        if missing and len(missing) < len(type(self).model_fields):
            raise ValueError(f"set all three keys or none; not set: {', '.join(missing)}")
        return self


class PasswordsSettings(Section):
    """Which passwords are accepted, and what hashing them may cost."""

    bcrypt_cost: Annotated[Whole, Between(4, 16)] = Field(
        default=12, description="Cost of bcrypt; each step doubles the work."
    )
    min_length: Annotated[Whole, Between(1, 64)] = Field(default=8, description="Shortest password, in characters.")
    max_length: Annotated[Whole, Between(64, 4096)] = Field(
        default=1024, description="Longest password, in characters."
    )
    blocklist: ReadablePath = Field(
        default="",
        description="Path of a UTF-8 file with further refused passwords, one a line; empty: none.",
    )
    hash_workers: Annotated[Whole, Between(0, 1024)] = Field(
        default=0, description="Number of threads that hash; 0: one per processor that the process may use."
    )
    hash_queue: Wait = Field(
        default=Duration.parse("2500ms"), description="Longest duration that a hash waits for its start."
    )
    hash_nice: Annotated[Whole, Between(0, 19)] = Field(
        default=12,
        description="Niceness that is added for the threads that hash; 12 leaves reads nine tenths of a processor.",
    )


class TokensSettings(Section):
    """Access tokens, refresh tokens and the sessions they belong to."""

    issuer: Text = Field(default="usermgmt", description="Name of this server in its tokens (iss).")
    audience: Text = Field(default="usermgmt", description="Name of whom the tokens are for (aud).")
    algorithm: Literal["ES256", "EdDSA", "RS256", "HS256"] = Field(
        default="ES256", description="Signature algorithm of tokens."
    )
    access_lifetime: Annotated[Duration, Between(Duration.parse("1s"), Duration.parse("15m"))] = Field(
        default=Duration.parse("10m"), description="Duration for which an access token is valid."
    )
    session_idle_lifetime: Lifetime = Field(
        default=Duration.parse("14d"),
        description="Duration after which a session that is not refreshed ends.",
    )
    session_lifetime: Lifetime = Field(
        default=Duration.parse("30d"), description="Duration after which a session ends anyway."
    )
    key_lifetime: Annotated[Duration, Between(Duration(0), LONGEST), AfterValidator(_key_lifetime)] = Field(
        default=Duration.parse("90d"),
        description="Duration after which the key that signs is replaced; 0: never by itself.",
    )
    refresh_grace: Annotated[Duration, Between(Duration(0), Duration.parse("60s"))] = Field(
        default=Duration.parse("10s"), description="Duration in which a used refresh token may be sent again."
    )
    fresh_lifetime: Annotated[Duration, Between(Duration(0), LONGEST)] = Field(
        default=Duration.parse("15m"), description="Duration for which a sign-in counts as recent."
    )
    max_sessions: Annotated[Whole, Between(1, 10_000)] = Field(
        default=100, description="Most live sessions of one account; a new one ends the oldest, in number."
    )
    transport: Literal["body", "cookie"] = Field(
        default="body", description="Where refresh tokens travel: in JSON bodies, or in a cookie for browser clients."
    )


class RegistrationSettings(Section):
    """Who may make an account."""

    mode: Literal["open", "closed"] = Field(default="open", description="Whether anybody may register.")
    default_role: Text = Field(default="user", description="Name of the role that a new account holds.")
