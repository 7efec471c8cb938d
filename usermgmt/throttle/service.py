"""Counting guesses of secrets, before they are verified, so that no number of simultaneous ones is one too many.

A guess takes one of those that are left; being right gives it back and forgets the failures before it, being wrong
counts it. While all that are left are being verified, the next ones wait for the outcome: twenty tabs with the right
password all get in, a hundred wrong guesses are verified exactly as often as the limit says.

Windows are fixed: one begins with its first guess. Around its end up to twice the limit fit into one period.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from weakref import WeakKeyDictionary, WeakValueDictionary

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.errors import Overloaded, TooMany, Unavailable
from usermgmt.runtime import Runtime
from usermgmt.security.principal import Caller, Client
from usermgmt.security.secrets import Purpose
from usermgmt.settings.values import Budget
from usermgmt.storage.faults import repeated_on_conflict
from usermgmt.telemetry import metrics
from usermgmt.throttle import queries
from usermgmt.throttle.models import Bucket
from usermgmt.throttle.queries import Window

POLL_SECONDS = 0.02  # places are given back in the database, which tells nobody
BATCH = 500

metrics.expect(metrics.throttled, Bucket)


class TooManyAttempts(TooMany):
    """Too many wrong guesses were made lately: at this account from unknown networks, from this network at accounts or
    refresh tokens, or within this session at its own password.
    """

    code = "too_many_attempts"
    detail = "Too many failed attempts. Try again later."


@dataclass(frozen=True, slots=True)
class Counter:
    """One count of guesses: whose it is, as a keyed digest, of which kind, and its limit."""

    key: str
    bucket: Bucket
    limit: Budget


class Attempt:
    """A guess that was admitted. Leaving it unsettled counts it as wrong: a client that hangs up learns nothing."""

    def __init__(self, runtime: Runtime, counters: Sequence[Counter]) -> None:
        self._runtime = runtime
        self._counters = counters
        self._is_settled = False

    async def settle(self, *, succeeded: bool) -> list[Bucket]:
        """Say how it ended; the counters that this very failure exhausted. Success clears the first counter only."""
        self._is_settled = True
        if not self._counters:
            return []
        return await asyncio.shield(_settle(self._runtime, self._counters, failures=0 if succeeded else 1))

    async def close(self, *, is_taken_back: bool) -> None:
        """Settle what was not: taken back when the server could not verify it, else as a failure."""
        if not self._is_settled and self._counters:
            self._is_settled = True
            await asyncio.shield(_give_back(self._runtime, self._counters, failures=0 if is_taken_back else 1))


def login_counters(runtime: Runtime, client: Client, name: str, *, is_familiar: bool) -> list[Counter]:
    """What a sign-in is counted by: the name, and the network.

    A network that signed in to this account before has a count of its own: strangers cannot use up the owner's guesses.
    """
    limits = runtime.settings.throttle
    account = (
        Counter(_digest(runtime, name, client.network), Bucket.FAMILIAR, limits.account)
        if is_familiar
        else Counter(_digest(runtime, name), Bucket.ACCOUNT, limits.account)
    )
    return [account, Counter(_digest(runtime, client.network), Bucket.NETWORK, limits.network)]


def session_counter(runtime: Runtime, caller: Caller) -> Counter:
    """What a current password is counted by: the session that sends it."""
    session_id = caller.principal.session_id if caller.principal is not None else None
    return Counter(_digest(runtime, str(session_id)), Bucket.SESSION, runtime.settings.throttle.session)


def refresh_counter(runtime: Runtime, client: Client) -> Counter:
    """What a refresh token that we never made is counted by: the network."""
    return Counter(_digest(runtime, client.network), Bucket.REFRESH, runtime.settings.throttle.refresh)


@asynccontextmanager
async def counted(runtime: Runtime, *counters: Counter) -> AsyncIterator[Attempt]:
    """Admit a guess at each of the counters, or refuse it with `TooManyAttempts` before it costs a hash."""
    wanted = counters if runtime.settings.throttle.enabled else ()
    if wanted:
        await _admit(runtime, wanted)
    attempt = Attempt(runtime, wanted)
    try:
        yield attempt
    except Unavailable:
        await attempt.close(is_taken_back=True)
        raise
    finally:
        await attempt.close(is_taken_back=False)


async def count_failure(runtime: Runtime, counter: Counter) -> None:
    """Count a guess that is known to be wrong; `TooManyAttempts` when none was left."""
    async with counted(runtime, counter) as attempt:
        await attempt.settle(succeeded=False)


async def forget_account(runtime: Runtime, names: Sequence[str]) -> None:
    """Give strangers their guesses at an account back: an operator knows that it is the owner who tries."""
    async with runtime.database.begin() as session:
        for name in names:
            await queries.delete_counter(session, _digest(runtime, name), Bucket.ACCOUNT)


async def forget_past(runtime: Runtime) -> int:
    """Delete a batch of the counters whose window is over; how many there were."""
    now, limits = runtime.clock.now(), runtime.settings.throttle
    periods = {
        Bucket.ACCOUNT: limits.account.period,
        Bucket.FAMILIAR: limits.account.period,
        Bucket.NETWORK: limits.network.period,
        Bucket.SESSION: limits.session.period,
        Bucket.REFRESH: limits.refresh.period,
    }
    async with runtime.database.begin() as session:
        return sum(
            [
                await queries.delete_past(session, bucket, before=now - period, limit=BATCH)
                for bucket, period in periods.items()
            ]
        )


@dataclass(frozen=True, slots=True)
class _Full:
    """No guess is left: until the window ends, or only until those that are being verified are through."""

    counter: Counter
    ends_in: timedelta
    is_waiting_worth_it: bool


class _NoneLeft(Exception):
    """Undoes what the counters before this one took."""

    def __init__(self, full: _Full) -> None:
        super().__init__()
        self.full = full


def _refusal(full: _Full) -> TooManyAttempts:
    metrics.throttled.labels(full.counter.bucket).inc()
    return TooManyAttempts(retry_after=ceil(full.ends_in.total_seconds()))


async def _admit(runtime: Runtime, counters: Sequence[Counter]) -> None:
    full = await _take(runtime, counters)
    if full is None:
        return
    if not full.is_waiting_worth_it:
        raise _refusal(full)
    ends = asyncio.get_running_loop().time() + runtime.settings.passwords.hash_queue.total_seconds()
    async with _passed(_turnstile(full.counter), ends):  # one of all that wait here asks at a time
        while (full := await _take(runtime, counters)) is not None:
            if not full.is_waiting_worth_it:
                raise _refusal(full)
            if asyncio.get_running_loop().time() > ends:
                raise Overloaded
            await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def _passed(turnstile: asyncio.Lock, ends: float) -> AsyncIterator[None]:
    """Hold a lock that is had in time; `Overloaded` where who came before waits in vain too."""
    try:
        async with asyncio.timeout_at(ends):
            await turnstile.acquire()
    except TimeoutError:
        raise Overloaded from None
    try:
        yield
    finally:
        turnstile.release()


@repeated_on_conflict
async def _take(runtime: Runtime, counters: Sequence[Counter]) -> _Full | None:
    """Take one guess of every counter, or none and say which is full."""
    now = runtime.clock.now()
    try:
        async with runtime.database.begin() as session:
            for counter in counters:
                window = Window(now, counter.limit.period)
                if not await queries.insert_attempt(
                    session, counter.key, counter.bucket, limit=counter.limit.count, window=window
                ):
                    raise _NoneLeft(await _fullness(session, counter, now))
    except _NoneLeft as refused:
        return refused.full
    return None


async def _fullness(session: AsyncSession, counter: Counter, now: datetime) -> _Full:
    count = await queries.find_count(session, counter.key, counter.bucket)
    if count is None or count.failures < counter.limit.count:
        return _Full(counter, timedelta(0), is_waiting_worth_it=True)
    ends_in = count.window_started_at + counter.limit.period - now
    return _Full(counter, min(max(ends_in, timedelta(seconds=1)), counter.limit.period), is_waiting_worth_it=False)


@repeated_on_conflict
async def _settle(runtime: Runtime, counters: Sequence[Counter], *, failures: int) -> list[Bucket]:
    first, *others = counters
    if failures:
        return await _give_back(runtime, counters, failures=failures)
    async with runtime.database.begin() as session:
        await queries.update_cleared(session, first.key, first.bucket)
        for counter in others:
            await queries.update_settled(session, counter.key, counter.bucket, failures=0)
    return []


@repeated_on_conflict
async def _give_back(runtime: Runtime, counters: Sequence[Counter], *, failures: int) -> list[Bucket]:
    """End the pending guesses, as failures or not; the counters that reached their limit by it."""
    exhausted = []
    async with runtime.database.begin() as session:
        for counter in counters:
            count = await queries.update_settled(session, counter.key, counter.bucket, failures=failures)
            if failures and count == counter.limit.count:
                exhausted.append(counter.bucket)
    return exhausted


def _digest(runtime: Runtime, *parts: str) -> str:
    """A key that names nobody to who reads the table: what is typed as a name is sometimes a password."""
    return runtime.secrets.making_key(Purpose.THROTTLE).sign("\0".join(parts).encode()).hex()


_TURNSTILES: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[str, asyncio.Lock]] = WeakKeyDictionary()


def _turnstile(counter: Counter) -> asyncio.Lock:
    """The lock before a counter; it is forgotten when nobody waits."""
    of_this_loop = _TURNSTILES.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    return of_this_loop.setdefault(f"{counter.bucket}:{counter.key}", asyncio.Lock())
