"""Password hashes that other systems made: recognised in the forms in which these give them away, kept in one form for
each algorithm, and verified at the first sign-in, which replaces them with ours.

Kept are `$2b$…` (bcrypt), `$argon2id$…` and its siblings (PHC), and `fh1$<algorithm>$…` for the rest. Refused is what
protects nobody (plain digests, a handful of rounds) and what would cost us more than a sign-in may.
"""

import base64
import binascii
import hashlib
import hmac
import json
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
OWN = re.compile(r"um1\$[^$]{1,64}\$\$2b\$(\d\d)\$[./A-Za-z0-9]{53}")
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


def recognised(given: object) -> str:
    """The form in which a hash is kept. `given` is a text, or the document of Keycloak, Auth0 or Firebase.

    Raises `HashRefused`.
    """
    if isinstance(given, str):
        found = _from_text(given.strip())
    elif isinstance(given, Mapping):
        found = _from_document(given)
    else:
        found = None
    if found is None:
        raise HashRefused("This is no password hash that is known here.")
    return found


def parsed(stored: str) -> Foreign | None:
    """A kept hash, to be verified; None for one of ours, plain bcrypt, and what nobody here wrote."""
    if stored.startswith("$argon2"):
        match = ARGON2.fullmatch(stored)
        return _argon2(match) if match is not None else None
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
        """Refused: rounds that protect nothing or never end."""
        if self.digest not in DIGESTS:
            raise HashRefused("PBKDF2 is known with SHA-1, SHA-256 and SHA-512.")
        _bounded("PBKDF2's rounds", self.rounds, FEWEST_ROUNDS, MOST_ROUNDS)
        blocks = -(-len(self.expected) // hashlib.new(self.digest).digest_size)
        _bounded("PBKDF2's rounds, for each part of the hash,", self.rounds * blocks, FEWEST_ROUNDS, MOST_ROUNDS)
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
        """Refused: parameters that are none, or too dear."""
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
        """Refused: parameters that are none, or too dear."""
        _bounded("Firebase's mem_cost", self.mem_cost, 1, 20)
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
        """Refused: parameters that are none, or too dear."""
        _bounded("Argon2's lanes", self.lanes, 1, MOST_LANES)
        _bounded("Argon2's memory in KiB", self.memory, 8 * self.lanes, MOST_MEMORY_BYTES // 1024)
        _bounded("Argon2's passes", self.passes, 1, min(MOST_PASSES, MOST_PASSES_BYTES // 1024 // self.memory))
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
        return f"{VERSION}$bcrypt-sha256${_bcrypt(self.bcrypt_hash)}"

    def matches(self, password: str) -> bool:
        """Whether it was made of the password."""
        return any(
            bcrypt.checkpw(hashlib.sha256(each).hexdigest().encode(), self.bcrypt_hash.encode())
            for each in _spellings(password)
        )


def _from_text(text: str) -> str | None:
    """The kept form of a hash that is one text."""
    if (own := OWN.fullmatch(text)) is not None:  # only who imports says that it is ours: it is bounded like others
        _check_cost(own[1])
        return text
    if text.startswith("$2"):
        return _bcrypt(text)
    if text.startswith(f"{VERSION}$"):
        found = parsed(text)
        return found.kept() if isinstance(found, Pbkdf2 | Scrypt | Firebase | BcryptOfSha256) else None
    for prefix, reader in _SPELLINGS:
        if text.startswith(prefix):
            try:
                return reader(text.removeprefix(prefix))
            except (ValueError, KeyError, binascii.Error) as error:
                if isinstance(error, HashRefused):
                    raise
                raise HashRefused(f"The hash begins like {prefix!r} and does not go on so.") from None
    match = _BETTER_AUTH.fullmatch(text)
    if match is not None:
        return Scrypt(16384, 16, 1, match[1].encode(), bytes.fromhex(match[2])).kept()
    return None


def _from_document(given: Mapping[str, Any]) -> str | None:
    """The kept form of what an export has as an object."""
    try:
        if "credentialData" in given or "hashIterations" in given:
            return _keycloak(given)
        if "signer_key" in given:
            return _firebase(given)
        if "algorithm" in given and "hash" in given:
            return _auth0(given)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        if isinstance(error, HashRefused):
            raise
        raise HashRefused("The document of the hash is not complete.") from None
    return None


def _keycloak(given: Mapping[str, Any]) -> str:
    """A credential of Keycloak's export, with its two texts of JSON or (before version 8) flat."""
    if "credentialData" in given:
        data, secret = json.loads(given["credentialData"]), json.loads(given["secretData"])
    else:
        data, secret = given, given
    algorithm, rounds = str(data["algorithm"]), int(data["hashIterations"])
    salt, value = base64.b64decode(secret["salt"]), base64.b64decode(secret["value"])
    if algorithm.startswith("argon2"):
        more = {name: values[0] for name, values in data["additionalParameters"].items()}
        kind = f"argon2{more.get('type', 'id')}"
        if kind not in ARGON2_KINDS:
            raise HashRefused("Argon2 is known as argon2id, argon2i and argon2d.")
        return Argon2(kind, int(more["memory"]), rounds, int(more["parallelism"]), salt, value).kept()
    digest = {"pbkdf2": "sha1", "pbkdf2-sha256": "sha256", "pbkdf2-sha512": "sha512"}.get(algorithm)
    if digest is None:
        raise HashRefused("Of Keycloak's algorithms pbkdf2, pbkdf2-sha256, pbkdf2-sha512 and argon2 are known.")
    return Pbkdf2(digest, rounds, salt, value).kept()


def _firebase(given: Mapping[str, Any]) -> str:
    """A row of Firebase's export, with the parameters of its project."""
    return Firebase(
        rounds=int(given["rounds"]),
        mem_cost=int(given["mem_cost"]),
        signer_key=_unpadded(given["signer_key"]),
        separator=_unpadded(given.get("salt_separator", "")),
        salt=_unpadded(given["salt"]),
        expected=_unpadded(given["hash"]),
    ).kept()


def _auth0(given: Mapping[str, Any]) -> str | None:
    """Auth0's `custom_password_hash`."""
    algorithm, value = given["algorithm"], given["hash"]["value"]
    if algorithm in {"bcrypt", "argon2", "pbkdf2"}:
        return _from_text(value)
    if algorithm != "scrypt":
        raise HashRefused(
            "Of Auth0's algorithms bcrypt, argon2, pbkdf2 and scrypt are known; a digest protects nobody."
        )
    read: dict[str, Callable[[str], bytes]] = {"hex": bytes.fromhex, "base64": base64.b64decode, "utf8": str.encode}
    salt = given["salt"]
    return Scrypt(
        int(given.get("cost", 16384)),
        int(given.get("blockSize", 8)),
        int(given.get("parallelization", 1)),
        read[salt.get("encoding", "utf8")](salt["value"]),
        read[given["hash"].get("encoding", "base64")](value),
    ).kept()


def _django_pbkdf2(digest: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        rounds, salt, value = text.split("$")
        return Pbkdf2(digest, int(rounds), salt.encode(), base64.b64decode(value)).kept()

    return read


def _passlib_pbkdf2(digest: str) -> Callable[[str], str]:
    """Passlib's `rounds$salt$hash`, and the PHC form `i=rounds,l=length$salt$hash`."""

    def read(text: str) -> str:
        rounds, salt, value = text.split("$")
        if rounds.startswith("i="):
            rounds = rounds.removeprefix("i=").partition(",")[0]
        return Pbkdf2(digest, int(rounds), _unpadded(salt), _unpadded(value)).kept()

    return read


def _django_scrypt(text: str) -> str:
    salt, n, r, p, value = text.split("$")
    return Scrypt(int(n), int(r), int(p), salt.encode(), base64.b64decode(value)).kept()


def _phc_scrypt(text: str) -> str:
    parameters, salt, value = text.split("$")
    named = dict(each.split("=") for each in parameters.split(","))
    log_n = int(named["ln"])
    _bounded("scrypt's ln", log_n, 1, 30)
    return Scrypt(1 << log_n, int(named["r"]), int(named["p"]), _unpadded(salt), _unpadded(value)).kept()


def _werkzeug_pbkdf2(text: str) -> str:
    method, salt, value = text.split("$")
    digest, rounds = method.split(":")
    return Pbkdf2(digest, int(rounds), salt.encode(), bytes.fromhex(value)).kept()


def _werkzeug_scrypt(text: str) -> str:
    method, salt, value = text.split("$")
    n, r, p = map(int, method.split(":"))
    return Scrypt(n, r, p, salt.encode(), bytes.fromhex(value)).kept()


def _phc_argon2(text: str) -> str:
    match = ARGON2.fullmatch(f"$argon2{text}")
    if match is None:
        raise HashRefused("Argon2 is known in its version 19, as $argon2id$v=19$m=…,t=…,p=…$salt$hash.")
    return _argon2(match).kept()


def _argon2(match: re.Match[str]) -> Argon2:
    kind, memory, passes, lanes, salt, value = match.groups()
    return Argon2(kind, int(memory), int(passes), int(lanes), _unpadded(salt), _unpadded(value))


def _bcrypt(text: str) -> str:
    match = BCRYPT.fullmatch(text)
    if match is None:
        raise HashRefused("The hash begins like bcrypt and does not go on so.")
    if text.startswith("$2x$"):
        raise HashRefused("$2x$ marks hashes of a faulty bcrypt, which nobody should verify.")
    _check_cost(match[1])
    return f"$2b${text.split('$', 2)[2]}"


def _check_cost(digits: str) -> None:
    _bounded("bcrypt's cost", int(digits), LOWEST_BCRYPT, HIGHEST_BCRYPT)


_SPELLINGS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("pbkdf2_sha256$", _django_pbkdf2("sha256")),
    ("pbkdf2_sha1$", _django_pbkdf2("sha1")),
    ("argon2$argon2", _phc_argon2),
    ("$argon2", _phc_argon2),
    ("bcrypt_sha256$", lambda text: BcryptOfSha256(text).kept()),
    ("bcrypt$", _bcrypt),
    ("scrypt$", _django_scrypt),
    ("$scrypt$", _phc_scrypt),
    ("$pbkdf2-sha256$", _passlib_pbkdf2("sha256")),
    ("$pbkdf2-sha512$", _passlib_pbkdf2("sha512")),
    ("$pbkdf2-sha1$", _passlib_pbkdf2("sha1")),
    ("$pbkdf2$", _passlib_pbkdf2("sha1")),
    ("pbkdf2:", _werkzeug_pbkdf2),
    ("scrypt:", _werkzeug_scrypt),
)
_BETTER_AUTH = re.compile(r"([0-9a-f]{32}):([0-9a-f]{128})")


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
    _bounded("scrypt's r", r, 1, 64)
    _bounded("scrypt's p", p, 1, MOST_LANES)
    _bounded("scrypt's N", n, 2, MOST_MEMORY_BYTES // (128 * r))
    if n & (n - 1):
        raise HashRefused("scrypt's N must be a power of two.")
    _bounded("scrypt's N × r × p", n * r * p, 1024, MOST_SCRYPT_WORK)


def _check_lengths(salt: bytes, expected: bytes, *, shortest_salt: int = 1) -> None:
    if not shortest_salt <= len(salt) <= MOST_SALT_BYTES:
        raise HashRefused(f"The salt must have {shortest_salt} to {MOST_SALT_BYTES} bytes.")
    if len(expected) not in HASH_BYTES:
        raise HashRefused(f"The hash must have {HASH_BYTES.start} to {HASH_BYTES.stop - 1} bytes.")


def _bounded(what: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise HashRefused(f"{what} must be from {least} to {most}.")


def _unpadded(text: str) -> bytes:
    """Base64 of any of its alphabets, with or without its padding; passlib writes a dot for a plus."""
    plain = text.replace(".", "+").replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _text(binary: bytes) -> str:
    return base64.b64encode(binary).decode()
