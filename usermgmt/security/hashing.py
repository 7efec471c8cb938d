"""Password hashing: what is stored, and how it is verified.

Stored is `um1$<pepper id>$<bcrypt>`, where bcrypt runs over base64(HMAC-SHA-384(pepper, password)): 64 bytes whatever
the password, so its limit of 72 bytes truncates nothing (OWASP Password Storage Cheat Sheet). Hashes from elsewhere
(`foreign_hashes`, and plain bcrypt) verify too, and are replaced at the next sign-in.

Hashing has threads of its own (`hash_pool`).
"""

import base64
import hashlib
import hmac
import secrets
import time
import unicodedata
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import bcrypt

from usermgmt.errors import Overloaded
from usermgmt.security import foreign_hashes
from usermgmt.security.hash_pool import HashPool, Place

OWN_VERSION = "um1"
BCRYPT_BYTES = 72
BCRYPT_PREFIXES = ("$2a$", "$2b$", "$2y$")
BCRYPT_ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
DIGEST_CHARACTERS = 31
COST_12_SECONDS = 0.25  # a first guess; what is measured replaces it
LOWEST_COST = 4
MEASURED_COST = 8


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a password matches what is stored, and whether that should be stored anew."""

    matches: bool
    is_outdated: bool = False


@dataclass(frozen=True, slots=True)
class _Stored:
    """A stored hash taken apart: the bcrypt hash, and the pepper it was made with (None: without)."""

    bcrypt_hash: bytes
    pepper_id: str | None

    @property
    def cost(self) -> int:
        return int(self.bcrypt_hash[4:6])


class PasswordHasher:
    """Hashes and verifies passwords in a bounded pool of low-priority threads."""

    def __init__(
        self,
        *,
        cost: int,
        peppers: Sequence[tuple[str, bytes]],
        pool: HashPool | None = None,
    ) -> None:
        """`peppers` are (id, key), the one that hashes first; without `pool` it makes one of as many threads as there
        are processors.
        """
        self.cost = cost
        self._peppers = dict(peppers)
        self._newest = peppers[0][0]
        self.pool = pool or HashPool(seconds=expected_seconds(cost))
        self._alone: float | None = None

    @property
    def workers(self) -> int:
        """How many threads hash."""
        return self.pool.workers

    @property
    def running(self) -> int:
        """How many hashes are being computed."""
        return self.pool.running

    @property
    def waiting(self) -> int:
        """How many wait for a thread."""
        return self.pool.waiting

    def make_with(self, pepper_id: str) -> None:
        """Hash with this one of the peppers from now on."""
        self._newest = pepper_id

    async def hash(self, password: str) -> str:
        """The form of a password to store. Raises `Overloaded`."""
        return await self.pool.run(lambda: self.hash_now(password))

    async def verify(self, password: str, stored: str | None, *, place: Place | None = None) -> Verdict:
        """Whether a password matches what is stored; None never matches. Every answer costs one hash at `cost`.

        Raises `Overloaded`, unless a place was taken for it before.
        """
        return await self.pool.run(lambda: self._verify_now(password, stored), place)

    def place(self) -> AbstractAsyncContextManager[Place]:
        """Take a place in the queue of hashes before the work that leads to one; see `HashPool.place`."""
        return self.pool.place()

    async def close(self) -> None:
        """Stop the threads; what has not begun is dropped."""
        await self.pool.close()

    def hash_now(self, password: str) -> str:
        """The form of a password to store, computed in this thread."""
        digest = _peppered(password, self._peppers[self._newest])
        return f"{stored_prefix(self._newest)}{bcrypt.hashpw(digest, bcrypt.gensalt(self.cost)).decode()}"

    def _verify_now(self, password: str, stored: str | None) -> Verdict:
        foreign = foreign_hashes.parsed(stored) if stored is not None else None
        if foreign is not None:
            return self._verify_foreign(password, foreign)
        parsed = _parse(stored) if stored is not None else None
        known = parsed is not None and (parsed.pepper_id is None or parsed.pepper_id in self._peppers)
        if parsed is None or not known:
            bcrypt.checkpw(_peppered(password, self._peppers[self._newest]), _decoy(self.cost))
            return Verdict(matches=False)
        matches = bcrypt.checkpw(self._material(password, parsed), parsed.bcrypt_hash)
        self._top_up(password, parsed.cost)
        if not matches:
            return Verdict(matches=False)
        return Verdict(matches=True, is_outdated=parsed.pepper_id != self._newest or parsed.cost != self.cost)

    def _verify_foreign(self, password: str, foreign: foreign_hashes.Foreign) -> Verdict:
        """A hash of another kind, to be stored anew once it matches. A cheaper one is filled up to about one of ours;
        that one is dearer can be seen from outside.
        """
        started = time.thread_time()
        try:
            matches = foreign.matches(password)
        except MemoryError:
            raise Overloaded from None
        missing = 1 - (time.thread_time() - started) / self._seconds_alone()
        for step in range(self.cost - 1, LOWEST_COST - 1, -1):
            share = 2.0 ** (step - self.cost)
            if share <= missing:
                bcrypt.checkpw(_peppered(password, self._peppers[self._newest]), _decoy(step))
                missing -= share
        return Verdict(matches=matches, is_outdated=matches)

    def _seconds_alone(self) -> float:
        """What a hash at our cost takes of a processor, measured once on a cheaper one."""
        if self._alone is None:
            step = min(self.cost, MEASURED_COST)
            started = time.thread_time()
            bcrypt.checkpw(b"x", _decoy(step))
            self._alone = (time.thread_time() - started) * 2.0 ** (self.cost - step)
        return self._alone

    def _material(self, password: str, parsed: _Stored) -> bytes:
        """What the stored bcrypt hash was made from."""
        if parsed.pepper_id is None:
            return _normalised(password)[:BCRYPT_BYTES]
        return _peppered(password, self._peppers[parsed.pepper_id])

    def _top_up(self, password: str, cost: int) -> None:
        """Add decoys to a cheaper hash until together they cost one at `cost`: 2^c + 2^c + … + 2^(cost-1) = 2^cost."""
        for step in range(cost, self.cost):
            bcrypt.checkpw(_peppered(password, self._peppers[self._newest]), _decoy(step))


def expected_seconds(cost: int) -> float:
    """What a hash may take, before one was measured here."""
    return COST_12_SECONDS * 2.0 ** (cost - 12)


def stored_prefix(pepper_id: str) -> str:
    """What every hash that was made with a pepper begins with."""
    return f"{OWN_VERSION}${pepper_id}$"


def _parse(stored: str) -> _Stored | None:
    """Take a stored form apart; None for one that nobody here can verify."""
    pepper_id: str | None = None
    if stored.startswith(f"{OWN_VERSION}$"):
        pepper_id, _, stored = stored.removeprefix(f"{OWN_VERSION}$").partition("$")
    if not stored.isascii():
        return None
    if not stored.startswith(BCRYPT_PREFIXES) or len(stored) != 60 or not stored[4:6].isdigit() or stored[6] != "$":
        return None
    if not 4 <= int(stored[4:6]) <= 31 or any(character not in BCRYPT_ALPHABET for character in stored[7:]):
        return None
    return _Stored(b"$2b$" + stored[4:].encode(), pepper_id)


def _decoy(cost: int) -> bytes:
    """A well-formed bcrypt hash that nothing matches, made without hashing."""
    digest = "".join(secrets.choice(BCRYPT_ALPHABET) for _ in range(DIGEST_CHARACTERS - 1)) + "."
    return bcrypt.gensalt(cost) + digest.encode()


def _peppered(password: str, pepper: bytes) -> bytes:
    return base64.b64encode(hmac.digest(pepper, _normalised(password), hashlib.sha384))


def _normalised(password: str) -> bytes:
    """The bytes of a password: NFC, so that the same characters typed elsewhere are the same password."""
    return unicodedata.normalize("NFC", password).encode()
