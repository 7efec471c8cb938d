"""Password hashes that other systems made, in the forms in which they are kept here, and how they are verified.

Kept are `$2b$…` (bcrypt), `$argon2id$…` and its siblings (PHC), and `fh1$<algorithm>$…` for the rest. Refused is what
protects nobody (a handful of rounds) and what would cost us more than a sign-in may. The first sign-in replaces them
with ours; `foreign_spellings` knows how others write them.
"""

import base64
import hashlib
import hmac
import re
import threading
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import bcrypt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.argon2 import Argon2d, Argon2i, Argon2id

VERSION = "fh1"
BCRYPT = re.compile(r"\$2[abxy]?\$(\d\d)\$[./A-Za-z0-9]{53}")
ARGON2 = re.compile(r"\$(argon2id|argon2i|argon2d)\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)")
DIGESTS = ("sha1", "sha256", "sha512")
ARGON2_KINDS: Mapping[str, Any] = {"argon2id": Argon2id, "argon2i": Argon2i, "argon2d": Argon2d}
LOWEST_BCRYPT, HIGHEST_BCRYPT = 4, 16
FEWEST_ROUNDS, MOST_ROUNDS = 1_000, 2_000_000
MOST_MEMORY_BYTES = 256 * 1024 * 1024
MOST_PASSES_BYTES = 2 * 1024 * 1024 * 1024
MOST_PASSES = 64  # each starts its threads anew
MOST_SCRYPT_WORK = 1 << 22  # N × r × p: about a second
MOST_LANES = 16
MOST_SALT_BYTES = 256
HASH_BYTES = range(16, 129)


class HashRefused(ValueError):
    """A hash that is not taken; the text says why, without the hash."""


class Foreign(Protocol):
    """A hash from elsewhere that can be verified."""

    def matches(self, password: str) -> bool:
        """Whether the password is the one it was made of. Takes its time; releases the interpreter lock."""
        ...


def parsed(stored: str) -> Foreign | None:
    """A kept hash, to be verified; None for one of ours, plain bcrypt, and what nobody here wrote."""
    if stored.startswith("$argon2"):
        match = ARGON2.fullmatch(stored)
        return argon2_of(match) if match is not None else None
    if not stored.startswith(f"{VERSION}$"):
        return None
    _, name, *parts = stored.split("$", 2)
    reader = _KEPT.get(name)
    try:
        return reader(parts[0]) if reader is not None and parts else None
    except (ValueError, HashRefused):
        return None


@dataclass(frozen=True, slots=True)
class Pbkdf2:
    """PBKDF2 with HMAC (RFC 8018)."""

    digest: str
    rounds: int
    salt: bytes
    expected: bytes

    def kept(self) -> str:
        """The form that is stored. Refused: rounds that protect nothing or never end."""
        if self.digest not in DIGESTS:
            raise HashRefused("PBKDF2 is known with SHA-1, SHA-256 and SHA-512.")
        bounded("PBKDF2's rounds", self.rounds, FEWEST_ROUNDS, MOST_ROUNDS)
        blocks = -(-len(self.expected) // hashlib.new(self.digest).digest_size)
        bounded("PBKDF2's rounds, for each part of the hash,", self.rounds * blocks, FEWEST_ROUNDS, MOST_ROUNDS)
        _check_lengths(self.salt, self.expected)
        return f"{VERSION}$pbkdf2${self.digest}${self.rounds}${_text(self.salt)}${_text(self.expected)}"

    def matches(self, password: str) -> bool:
        """Whether it was made of the password."""
        return any(
            hmac.compare_digest(
                hashlib.pbkdf2_hmac(self.digest, each, self.salt, self.rounds, len(self.expected)), self.expected
            )
            for each in _spellings(password)
        )


@dataclass(frozen=True, slots=True)
class Scrypt:
    """scrypt (RFC 7914)."""

    n: int
    r: int
    p: int
    salt: bytes
    expected: bytes

    def kept(self) -> str:
        """The form that is stored. Refused: parameters that are none, or too dear."""
        _check_scrypt(self.n, self.r, self.p)
        _check_lengths(self.salt, self.expected)
        return f"{VERSION}$scrypt${self.n}${self.r}${self.p}${_text(self.salt)}${_text(self.expected)}"

    def matches(self, password: str) -> bool:
        """Whether it was made of the password."""
        return any(
            hmac.compare_digest(_scrypt(each, self.salt, self.n, self.r, self.p, len(self.expected)), self.expected)
            for each in _spellings(password)
        )


@dataclass(frozen=True, slots=True)
class Firebase:
    """Firebase's scrypt: AES-256-CTR of the project's signer key under what scrypt gives. All it needs is kept with it:
    the signer key is the project's, and no secret that protects anything else once the accounts have moved.
    """

    rounds: int
    mem_cost: int
    signer_key: bytes
    separator: bytes
    salt: bytes
    expected: bytes

    def kept(self) -> str:
        """The form that is stored. Refused: parameters that are none, or too dear."""
        bounded("Firebase's mem_cost", self.mem_cost, 1, 20)
        _check_scrypt(1 << self.mem_cost, self.rounds, 1)
        _check_lengths(self.salt, self.expected)
        if not 16 <= len(self.signer_key) <= 128 or len(self.separator) > 16:
            raise HashRefused("Firebase's signer key or salt separator has no sensible length.")
        binary = "$".join(map(_text, (self.signer_key, self.separator, self.salt, self.expected)))
        return f"{VERSION}$firebase${self.rounds}${self.mem_cost}${binary}"

    def matches(self, password: str) -> bool:
        """Whether it was made of the password."""
        return any(hmac.compare_digest(self._made_of(each), self.expected) for each in _spellings(password))

    def _made_of(self, password: bytes) -> bytes:
        key = _scrypt(password, self.salt + self.separator, 1 << self.mem_cost, self.rounds, 1, 32)
        encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        return encryptor.update(self.signer_key) + encryptor.finalize()


@dataclass(frozen=True, slots=True)
class Argon2:
    """Argon2 (RFC 9106), version 19."""

    kind: str
    memory: int
    passes: int
    lanes: int
    salt: bytes
    expected: bytes

    def kept(self) -> str:
        """The form that is stored. Refused: parameters that are none, or too dear."""
        bounded("Argon2's lanes", self.lanes, 1, MOST_LANES)
        bounded("Argon2's memory in KiB", self.memory, 8 * self.lanes, MOST_MEMORY_BYTES // 1024)
        bounded("Argon2's passes", self.passes, 1, min(MOST_PASSES, MOST_PASSES_BYTES // 1024 // self.memory))
        _check_lengths(self.salt, self.expected, shortest_salt=8)
        salt, expected = (_text(each).rstrip("=") for each in (self.salt, self.expected))
        return f"${self.kind}$v=19$m={self.memory},t={self.passes},p={self.lanes}${salt}${expected}"

    def matches(self, password: str) -> bool:
        """Whether it was made of the password."""
        return any(hmac.compare_digest(self._made_of(each), self.expected) for each in _spellings(password))

    def _made_of(self, password: bytes) -> bytes:
        function = ARGON2_KINDS[self.kind](
            salt=self.salt,
            length=len(self.expected),
            iterations=self.passes,
            lanes=self.lanes,
            memory_cost=self.memory,
        )
        with _ARGON2_TURN:
            made: bytes = function.derive(password)
        return made


_ARGON2_TURN = threading.Lock()
"""Two at once, each with several lanes, wait for each other's threads for ever: OpenSSL has one pool of them."""


@dataclass(frozen=True, slots=True)
class BcryptOfSha256:
    """Django's `bcrypt_sha256`: bcrypt over the hexadecimal SHA-256 of the password."""

    bcrypt_hash: str

    def kept(self) -> str:
        """The form in which it is kept."""
        return f"{VERSION}$bcrypt-sha256${kept_bcrypt(self.bcrypt_hash)}"

    def matches(self, password: str) -> bool:
        """Whether it was made of the password."""
        return any(
            bcrypt.checkpw(hashlib.sha256(each).hexdigest().encode(), self.bcrypt_hash.encode())
            for each in _spellings(password)
        )


def argon2_of(match: re.Match[str]) -> Argon2:
    """The hash that `ARGON2` matched."""
    kind, memory, passes, lanes, salt, value = match.groups()
    return Argon2(kind, int(memory), int(passes), int(lanes), unpadded(salt), unpadded(value))


def kept_bcrypt(text: str) -> str:
    """The form in which a bcrypt hash is kept. Raises `HashRefused`."""
    match = BCRYPT.fullmatch(text)
    if match is None:
        raise HashRefused("The hash begins like bcrypt and does not go on so.")
    if text.startswith("$2x$"):
        raise HashRefused("$2x$ marks hashes of a faulty bcrypt, which nobody should verify.")
    check_cost(match[1])
    return f"$2b${text.split('$', 2)[2]}"


def check_cost(digits: str) -> None:
    """Refuse a cost of bcrypt that protects nobody, or that nobody waits for."""
    bounded("bcrypt's cost", int(digits), LOWEST_BCRYPT, HIGHEST_BCRYPT)


def _kept_pbkdf2(text: str) -> Pbkdf2:
    digest, rounds, salt, value = text.split("$")
    return Pbkdf2(digest, int(rounds), base64.b64decode(salt), base64.b64decode(value))


def _kept_scrypt(text: str) -> Scrypt:
    n, r, p, salt, value = text.split("$")
    return Scrypt(int(n), int(r), int(p), base64.b64decode(salt), base64.b64decode(value))


def _kept_firebase(text: str) -> Firebase:
    rounds, mem_cost, *binary = text.split("$")
    signer_key, separator, salt, value = map(base64.b64decode, binary)
    return Firebase(int(rounds), int(mem_cost), signer_key, separator, salt, value)


_KEPT: Mapping[str, Callable[[str], Foreign]] = {
    "pbkdf2": _kept_pbkdf2,
    "scrypt": _kept_scrypt,
    "firebase": _kept_firebase,
    "bcrypt-sha256": BcryptOfSha256,
}


def _spellings(password: str) -> list[bytes]:
    """The password as it was typed, then as we would normalise it: the other system may have done either."""
    typed, normal = password.encode(), unicodedata.normalize("NFC", password).encode()
    return [typed] if typed == normal else [typed, normal]


def _scrypt(password: bytes, salt: bytes, n: int, r: int, p: int, length: int) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, dklen=length, maxmem=2 * MOST_MEMORY_BYTES)


def _check_scrypt(n: int, r: int, p: int) -> None:
    bounded("scrypt's r", r, 1, 64)
    bounded("scrypt's p", p, 1, MOST_LANES)
    bounded("scrypt's N", n, 2, MOST_MEMORY_BYTES // (128 * r))
    if n & (n - 1):
        raise HashRefused("scrypt's N must be a power of two.")
    bounded("scrypt's N × r × p", n * r * p, 1024, MOST_SCRYPT_WORK)


def _check_lengths(salt: bytes, expected: bytes, *, shortest_salt: int = 1) -> None:
    if not shortest_salt <= len(salt) <= MOST_SALT_BYTES:
        raise HashRefused(f"The salt must have {shortest_salt} to {MOST_SALT_BYTES} bytes.")
    if len(expected) not in HASH_BYTES:
        raise HashRefused(f"The hash must have {HASH_BYTES.start} to {HASH_BYTES.stop - 1} bytes.")


def bounded(what: str, value: int, least: int, most: int) -> None:
    """Refuse a number out of its range."""
    if not least <= value <= most:
        raise HashRefused(f"{what} must be from {least} to {most}.")


def unpadded(text: str) -> bytes:
    """Base64 of any of its alphabets, with or without its padding; passlib writes a dot for a plus."""
    plain = text.replace(".", "+").replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _text(binary: bytes) -> str:
    return base64.b64encode(binary).decode()
