"""The key ring: which keys sign access tokens now, which still verify, and what is published of them (RFC 7517)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import jwt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from usermgmt.security import encoding
from usermgmt.security.secrets import Purpose, Secrets

ALGORITHMS = ("ES256", "EdDSA", "RS256", "HS256")
RSA_BITS = 3072
SYMMETRIC_BYTES = 32
NONCE_BYTES = 12
TOKEN_TYPE = "at+jwt"  # noqa: S105 - RFC 9068, section 2.1

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | bytes


class KeyUnreadable(Exception):
    """A stored key was encrypted under a root secret that is no longer configured."""


@dataclass(frozen=True, slots=True)
class RingKey:
    """One signing key in memory. `private` signs; `public` verifies (the same bytes for HS256)."""

    kid: str
    algorithm: str
    created_at: datetime
    activated_at: datetime
    retired_at: datetime | None
    private: PrivateKey = field(repr=False)

    @property
    def public(self) -> Any:  # PyJWT takes the key object of whichever library type the algorithm has
        """What verifies."""
        return self.private if isinstance(self.private, bytes) else self.private.public_key()

    @property
    def header_segment(self) -> str:
        """The first segment of every token this key signs: it is always the same."""
        return jwt.encode({}, self.private, self.algorithm, headers=self.headers).split(".")[0]

    @property
    def headers(self) -> dict[str, str]:
        """The header fields of a token (RFC 9068)."""
        return {"typ": TOKEN_TYPE, "kid": self.kid}

    def is_retired(self, now: datetime) -> bool:
        """Whether the key no longer verifies."""
        return self.retired_at is not None and self.retired_at <= now

    def jwk(self) -> Mapping[str, str] | None:
        """The public half as published; a symmetric key has none."""
        if isinstance(self.private, bytes):
            return None
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        published: dict[str, Any] = algorithm.to_jwk(self.public, as_dict=True)
        published.pop("key_ops", None)
        return {**published, "kid": self.kid, "use": "sig", "alg": self.algorithm}


class KeyRing:
    """The keys that this process knows, by the header that their tokens carry.

    A token names its key by its whole first segment, which must be one that the ring itself would write: nothing in
    a header is ever parsed, followed or believed (RFC 8725, sections 3.1, 3.5, 3.10 and 3.12).
    """

    def __init__(self, keys: Iterable[RingKey]) -> None:
        self.keys = tuple(sorted(keys, key=lambda key: key.activated_at))
        self._by_header = {key.header_segment: key for key in self.keys}

    def signing_key(self, algorithm: str, now: datetime) -> RingKey | None:
        """The key that signs now: of this algorithm, active, not retired, the most recently activated.

        When none is active yet it is the first that will be: then this clock is behind the one that made the key.
        """
        fit = [key for key in self.keys if key.algorithm == algorithm and not key.is_retired(now)]
        active = [key for key in fit if key.activated_at <= now]
        return active[-1] if active else next(iter(fit), None)

    def verifying_key(self, header_segment: str, now: datetime) -> RingKey | None:
        """The key whose tokens begin with this segment, unless it is retired."""
        key = self._by_header.get(header_segment)
        return None if key is None or key.is_retired(now) else key

    def jwks(self, now: datetime) -> list[Mapping[str, str]]:
        """The public keys to publish: all that verify, those included that will sign soon."""
        published = [key.jwk() for key in self.keys if not key.is_retired(now)]
        return [jwk for jwk in published if jwk is not None]


def generate(algorithm: str) -> PrivateKey:
    """Make a fresh key for one of `ALGORITHMS`."""
    match algorithm:
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
        case "RS256":
            return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
        case "HS256":
            return AESGCM.generate_key(SYMMETRIC_BYTES * 8)
        case _:
            raise ValueError(f"no such algorithm: {algorithm}")


def seal(key: PrivateKey, kid: str, *, secrets: Secrets, nonce: bytes) -> str:
    """Encrypt a private key for storage (AES-256-GCM under the root secret, bound to its `kid`)."""
    wrapping = secrets.making_key(Purpose.SIGNING_KEY_ENCRYPTION)
    sealed = AESGCM(wrapping.key).encrypt(nonce, _to_bytes(key), kid.encode())
    return f"v1.{wrapping.key_id}.{encoding.encode(nonce + sealed)}"


def sealing_key_id(stored: str) -> str:
    """The name of the key that a stored private key was encrypted with."""
    return stored.split(".")[1]


def unseal(stored: str, kid: str, algorithm: str, *, secrets: Secrets) -> PrivateKey:
    """Decrypt a stored private key. Raises `KeyUnreadable` when no configured root secret opens it."""
    _, _, payload = stored.split(".")
    raw = encoding.decode(payload) or b""
    for wrapping in secrets.all(Purpose.SIGNING_KEY_ENCRYPTION):
        try:
            opened = AESGCM(wrapping.key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], kid.encode())
        except (InvalidTag, ValueError):
            continue
        return _from_bytes(opened, algorithm)
    raise KeyUnreadable(kid)


def _to_bytes(key: PrivateKey) -> bytes:
    if isinstance(key, bytes):
        return key
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _from_bytes(raw: bytes, algorithm: str) -> PrivateKey:
    if algorithm == "HS256":
        return raw
    key = serialization.load_der_private_key(raw, password=None)
    if not isinstance(key, (ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey, rsa.RSAPrivateKey)):
        raise KeyUnreadable(algorithm)
    return key
