"""Password hashing: what is stored, how it is verified, and how little it disturbs the rest.

Stored is `um1$<pepper id>$<bcrypt>`, where bcrypt runs over base64(HMAC-SHA-384(pepper, password)): 64 bytes whatever
the password, so its limit of 72 bytes truncates nothing (OWASP Password Storage Cheat Sheet). Hashes from elsewhere
(`foreign_hashes`, and plain bcrypt) verify too, and are replaced at the next sign-in.

Hashing has threads of its own at low priority. A caller is refused when it would wait longer than a client would.
"""

import asyncio
import base64
import hashlib
import hmac
import math
import os
import secrets
import threading
import time
import unicodedata
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import bcrypt

from usermgmt.errors import Overloaded
from usermgmt.security import foreign_hashes

T = TypeVar("T")
Observer = Callable[[float, float], None]
"""Is told of each hash how long it waited and how long it took, in seconds."""

VERSION = "um1"
BCRYPT_BYTES = 72
BCRYPT_PREFIXES = ("$2a$", "$2b$", "$2y$")
BCRYPT_ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
DIGEST_CHARACTERS = 31
COST_12_SECONDS = 0.25  # a first guess; what is measured replaces it
WEIGHT_OF_NEWEST = 0.2
WEIGHT_OF_LONGER = 0.5
LEAST_PATIENCE_AT_TURN = 1.0  # seconds; a shorter queue is bounded where it is entered
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


@dataclass(slots=True)
class Place:
    """A place in the queue of hashes, for one of them."""

    is_used: bool = False


class PasswordHasher:
    """Hashes and verifies passwords in a bounded pool of low-priority threads."""

    def __init__(
        self,
        *,
        cost: int,
        peppers: Sequence[tuple[str, bytes]],
        workers: int = 0,
        nice: int = 0,
        max_wait: timedelta = timedelta(seconds=2.5),
        patience: timedelta = timedelta(milliseconds=750),
        observe: Observer = lambda _waited, _spent: None,
        observe_refusal: Callable[[], None] = lambda: None,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """`peppers` are (id, key), the one that hashes first; `workers` 0 means one per processor; `max_wait` bounds
        the queue, and `patience` is how long a place in it is waited for; `around` each wait for a hash is a block of
        its own.
        """
        self.cost = cost
        self._peppers = dict(peppers)
        self._newest = peppers[0][0]
        self.workers = workers or processors()
        self._max_wait = max_wait.total_seconds()
        self._patience = patience.total_seconds()
        self._observe, self._observe_refusal, self._around = observe, observe_refusal, around
        self._pool = ThreadPoolExecutor(self.workers, "hash", initializer=_lower_priority, initargs=(nice,))
        self._seconds = COST_12_SECONDS * 2.0 ** (cost - 12)
        self._alone: float | None = None
        self._admitted = 0
        self._running = 0
        self._lock = threading.Lock()

    def make_with(self, pepper_id: str) -> None:
        """Hash with this one of the peppers from now on."""
        self._newest = pepper_id

    @property
    def running(self) -> int:
        """How many hashes are being computed."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many wait for a thread."""
        return max(0, self._admitted - self._running)

    async def hash(self, password: str) -> str:
        """The form of a password to store. Raises `Overloaded`."""
        return await self._run(lambda: self.hash_now(password))

    async def verify(self, password: str, stored: str | None, *, place: "Place | None" = None) -> Verdict:
        """Whether a password matches what is stored; None never matches. Every answer costs one hash at `cost`.

        Raises `Overloaded`, unless a place was taken for it before.
        """
        return await self._run(lambda: self._verify_now(password, stored), place)

    @asynccontextmanager
    async def place(self) -> AsyncIterator["Place"]:
        """Take a place in the queue before the work that leads to a hash, so that nobody does that work in vain.

        Where there is none, wait a moment for one: who comes again at once when refused would cost more than who waits.
        Raises `Overloaded`.
        """
        if self._expected_wait() > self._max_wait:
            await asyncio.sleep(self._patience)
        self._admit()
        taken = Place()
        try:
            yield taken
        finally:
            if not taken.is_used:
                self._leave()

    def hash_now(self, password: str) -> str:
        """The form of a password to store, computed in this thread."""
        digest = _peppered(password, self._peppers[self._newest])
        return f"{stored_prefix(self._newest)}{bcrypt.hashpw(digest, bcrypt.gensalt(self.cost)).decode()}"

    async def close(self) -> None:
        """Stop the threads; what has not begun is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, job: Callable[[], T], place: "Place | None" = None) -> T:
        """Run a job in the pool unless it would wait too long. A caller that goes away takes its job along."""
        if place is None or place.is_used:
            self._admit()
        else:
            place.is_used = True
        future = self._pool.submit(self._timed, job, time.perf_counter())
        future.add_done_callback(self._leave)  # when it is computed or dropped, not when its caller stops waiting
        with self._around():
            return await asyncio.wrap_future(future)

    def _admit(self) -> None:
        wait = self._expected_wait()
        if wait > self._max_wait:
            self._observe_refusal()
            raise Overloaded(retry_after=math.ceil(wait))
        with self._lock:
            self._admitted += 1

    def _leave(self, _: object = None) -> None:
        with self._lock:
            self._admitted -= 1

    def _expected_wait(self) -> float:
        """How long a job that comes now would wait, in seconds; none while a thread is idle."""
        ahead = self._admitted - self.workers + 1
        return max(0, ahead) / self.workers * self._seconds

    def _timed(self, job: Callable[[], T], asked: float) -> T:
        """Run in a thread, keeping a moving average of the time it takes, quick to grow and slow to fall.

        Who was let in by a time that has grown since and waited too long is refused.
        """
        started = time.perf_counter()
        if started - asked > max(self._max_wait, LEAST_PATIENCE_AT_TURN):
            self._observe_refusal()
            raise Overloaded(retry_after=math.ceil(self._seconds))
        with self._lock:
            self._running += 1
        try:
            return job()
        finally:
            with self._lock:
                self._running -= 1
                spent = time.perf_counter() - started
                weight = WEIGHT_OF_LONGER if spent > self._seconds else WEIGHT_OF_NEWEST
                self._seconds += weight * (spent - self._seconds)
            self._observe(started - asked, spent)

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


def stored_prefix(pepper_id: str) -> str:
    """What every hash that was made with a pepper begins with."""
    return f"{VERSION}${pepper_id}$"


def _parse(stored: str) -> _Stored | None:
    """Take a stored form apart; None for one that nobody here can verify."""
    pepper_id: str | None = None
    if stored.startswith(f"{VERSION}$"):
        pepper_id, _, stored = stored.removeprefix(f"{VERSION}$").partition("$")
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


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _lower_priority(nice: int) -> None:
    """Give way to the event loop: the higher the niceness, the smaller this thread's share of a busy processor."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
    except (OSError, AttributeError):
        return
