"""Access tokens (JWT, RFC 7519, RFC 8725, RFC 9068) and refresh tokens.

An access token is signed and short-lived. A refresh token is a session's name, its generation and a MAC over both: it
can be computed again at any time, so nothing of it is stored.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt

from usermgmt.errors import InvalidToken
from usermgmt.identifiers import new_id
from usermgmt.security import encoding
from usermgmt.security.keys import KeyRing, RingKey
from usermgmt.security.secrets import Purpose, Secrets

MAX_ACCESS_TOKEN = 2_048  # characters; ours are below 600
MOST_REMEMBERED = 10_000
CLOCK_SKEW = timedelta(seconds=30)  # how far another worker's clock may run ahead
REFRESH_PREFIX = "umr1_"  # lets secret scanners find a leaked one
REFRESH_BYTES = 16 + 16 + 4 + 32


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What a verified access token says."""

    user_id: UUID
    session_id: UUID
    issued_at: datetime
    expires_at: datetime
    key_id: str = ""


@dataclass(frozen=True, slots=True)
class RefreshClaims:
    """What a genuine refresh token says. Whether it is still good is the session's to tell."""

    user_id: UUID
    session_id: UUID
    generation: int


class AccessTokens:
    """Signs and verifies access tokens with the key ring of the process."""

    def __init__(
        self, *, ring: Callable[[], KeyRing], algorithm: str, issuer: str, audience: str, lifetime: timedelta
    ) -> None:
        self._ring = ring
        self._algorithm = algorithm
        self._issuer = issuer
        self._audience = audience
        self._verified = _Verified()
        self.lifetime = lifetime

    def issue(self, user_id: UUID, session_id: UUID, *, now: datetime) -> str:
        """A token for this session, good for `lifetime` from now."""
        key = self._ring().signing_key(self._algorithm, now)
        if key is None:
            raise RuntimeError("no signing key is active")
        issued = int(now.timestamp())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(user_id),
            "sid": str(session_id),
            "jti": str(new_id()),
            "iat": issued,
            "exp": issued + int(self.lifetime.total_seconds()),
        }
        return jwt.encode(claims, key.private, algorithm=key.algorithm, headers=key.headers)

    def verify(self, token: str, *, now: datetime) -> AccessClaims:
        """Tell what a token says, or raise `InvalidToken`.

        Accepted is only the exact spelling that `issue` gives: one of the ring's headers, canonical base64url, the
        ring's algorithm for that key, every claim present and of its type, our issuer and audience, and a lifetime
        no longer than ours. What was found so is remembered until the token expires or its key is retired.
        """
        known = self._verified.find(token)
        if known is not None and self._is_still_good(token, known, now):
            return known
        key = self._key_of(token, now)
        verified = self._checked(self._signed_claims(token, key), now, key)
        self._verified.add(token, verified)
        return verified

    def _signed_claims(self, token: str, key: RingKey) -> Mapping[str, Any]:
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key.public,
                algorithms=[key.algorithm],
                options={"verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False},
            )
            spelling = _payload_segment(claims)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise InvalidToken from error
        if token.split(".")[1] != spelling:  # a name twice, of which only the last would count
            raise InvalidToken
        return claims

    def _is_still_good(self, token: str, claims: AccessClaims, now: datetime) -> bool:
        """Whether a token that was verified before has its key in the ring still, and is within its time."""
        key = self._ring().verifying_key(token.partition(".")[0], now)
        return key is not None and claims.issued_at <= now + CLOCK_SKEW and now < claims.expires_at

    def _key_of(self, token: str, now: datetime) -> RingKey:
        segments = token.split(".") if len(token) <= MAX_ACCESS_TOKEN else []
        if len(segments) != 3 or any(encoding.decode(segment) is None for segment in segments):
            raise InvalidToken
        key = self._ring().verifying_key(segments[0], now)
        if key is None:
            raise InvalidToken
        return key

    def _checked(self, claims: Mapping[str, Any], now: datetime, key: RingKey) -> AccessClaims:
        """Check every claim by hand: the clock is ours, and nothing is optional."""
        user_id, session_id = _uuid(claims.get("sub")), _uuid(claims.get("sid"))
        issued, expires = claims.get("iat"), claims.get("exp")
        if user_id is None or session_id is None or not isinstance(claims.get("jti"), str):
            raise InvalidToken
        if claims.get("iss") != self._issuer or claims.get("aud") != self._audience or "nbf" in claims:
            raise InvalidToken
        if type(issued) is not int or type(expires) is not int:
            raise InvalidToken
        latest = min(expires, (now + CLOCK_SKEW).timestamp())
        if not 0 <= issued <= latest or expires - issued > self.lifetime.total_seconds():
            raise InvalidToken
        issued_at, expires_at = datetime.fromtimestamp(issued, UTC), datetime.fromtimestamp(expires, UTC)
        if expires_at <= now:
            raise InvalidToken("The access token has expired.")
        return AccessClaims(user_id, session_id, issued_at, expires_at, key.kid)


class _Verified:
    """Tokens whose signature and claims were found good, by their digest: a copy of the memory holds no token.

    Bounded; the first that came is the first to go.
    """

    def __init__(self) -> None:
        self._claims: dict[bytes, AccessClaims] = {}

    def find(self, token: str) -> AccessClaims | None:
        return self._claims.get(_digest(token))

    def add(self, token: str, claims: AccessClaims) -> None:
        while len(self._claims) >= MOST_REMEMBERED:
            del self._claims[next(iter(self._claims))]
        self._claims[_digest(token)] = claims


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


class RefreshTokens:
    """Makes and reads refresh tokens."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def issue(self, claims: RefreshClaims) -> str:
        """The refresh token of one generation of a session; the same whenever it is asked for."""
        message = claims.user_id.bytes + claims.session_id.bytes + claims.generation.to_bytes(4, "big")
        signature = self._secrets.making_key(Purpose.REFRESH_TOKEN).sign(message)
        return REFRESH_PREFIX + encoding.encode(message + signature)

    def read(self, token: str) -> RefreshClaims | None:
        """What a token says if one of our keys made it, else None."""
        raw = encoding.decode(token.removeprefix(REFRESH_PREFIX)) if token.startswith(REFRESH_PREFIX) else None
        if raw is None or len(raw) != REFRESH_BYTES:
            return None
        message, signature = raw[:36], raw[36:]
        if not self._secrets.is_signed(Purpose.REFRESH_TOKEN, message, signature):
            return None
        return RefreshClaims(
            user_id=UUID(bytes=message[:16]),
            session_id=UUID(bytes=message[16:32]),
            generation=int.from_bytes(message[32:36], "big"),
        )


def _payload_segment(claims: Mapping[str, Any]) -> str:
    """The second segment of a token with these claims, as `issue` spells it."""
    return encoding.encode(json.dumps(claims, separators=(",", ":")).encode())


def _uuid(value: object) -> UUID | None:
    """The UUID that a claim spells canonically."""
    if not isinstance(value, str):
        return None
    try:
        parsed = uuid.UUID(value)
    except ValueError:
        return None
    return parsed if str(parsed) == value else None
