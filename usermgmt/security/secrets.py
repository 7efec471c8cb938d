"""The root secret, and the keys for single purposes that are derived from it (HKDF, RFC 5869).

One root key makes: the newest that every process knows. Every root key that is configured verifies. So a root key is
replaced by putting a new one in front, and removed once nothing made with it is alive.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Purpose(StrEnum):
    """What a derived key is for. Two purposes never share a key."""

    REFRESH_TOKEN = "refresh-token"  # noqa: S105 - a purpose, not a secret
    CURSOR = "cursor"
    SIGNING_KEY_ENCRYPTION = "signing-key-encryption"
    PASSWORD_PEPPER = "password-pepper"  # noqa: S105 - a purpose, not a secret
    IDEMPOTENCY = "idempotency"
    THROTTLE = "throttle"
    AUDIT_SEAL = "audit-seal"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class DerivedKey:
    """A key for one purpose, and a short name by which what it made says so."""

    key_id: str
    key: bytes

    def sign(self, message: bytes) -> bytes:
        """HMAC-SHA-256 of the message (RFC 2104)."""
        return hmac.digest(self.key, message, "sha256")

    def __repr__(self) -> str:
        return f"DerivedKey({self.key_id})"


class Secrets:
    """The derived keys of every configured root key, newest first. At least one is required.

    `making` is the place of the one that makes: the first, until it is known that others do not know it yet.
    """

    def __init__(self, root_keys: Sequence[str]) -> None:
        if not root_keys:
            raise ValueError("a root secret is required")
        self._derived = {purpose: tuple(_derive(root, purpose) for root in root_keys) for purpose in Purpose}
        self.making = 0

    @property
    def root_ids(self) -> tuple[str, ...]:
        """The names of the root keys, newest first; they tell nothing of the keys."""
        return tuple(key.key_id for key in self._derived[Purpose.NAME])

    def making_key(self, purpose: Purpose) -> DerivedKey:
        """The key that makes new things: of the newest root key that every process knows."""
        return self._derived[purpose][self.making]

    def all(self, purpose: Purpose) -> tuple[DerivedKey, ...]:
        """Every key that still verifies, newest first."""
        return self._derived[purpose]

    def is_signed(self, purpose: Purpose, message: bytes, signature: bytes) -> bool:
        """Whether any configured key made this signature; compares in constant time."""
        matches = [hmac.compare_digest(key.sign(message)[: len(signature)], signature) for key in self.all(purpose)]
        return any(matches)


def _derive(root: str, purpose: Purpose) -> DerivedKey:
    material = root.encode()
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=f"usermgmt/1/{purpose}".encode()).derive(material)
    return DerivedKey(key_id=hashlib.sha256(b"id:" + key).hexdigest()[:8], key=key)
