"""Counters of requests: in the memory of one process, or in a Valkey (or Redis) that several share.

Both are one atomic step of the generic cell rate algorithm: a budget of `count` a `period` refills evenly, and never
admits more than `count` at once. What a caller has spent is one number, the time at which its budget is whole again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from math import ceil
from typing import Any, NamedTuple, Protocol, cast

import structlog

from usermgmt.telemetry import metrics

MAX_KEYS = 100_000
SAMPLE = 64  # keys that are looked at together when some have to be forgotten
LOOKS = 2  # how many samples one caller waits for
MAX_BATCH = 200  # requests that one call of the script spends for; a thousand would hold Valkey for milliseconds
ROUNDING = 0.01  # part of a step that sums of floats may be off
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two looks at a Valkey that is down
KEY_PREFIX = "usermgmt:budget:"
SCHEMES = {"valkey": "redis", "valkeys": "rediss", "redis": "redis", "rediss": "rediss", "unix": "unix"}

log = structlog.get_logger("usermgmt.valkey")

# One call spends for all requests of an instant. A budget is kept as the time at which it last was whole and what was
# spent since, which no rounding touches. Time is Valkey's own, in microseconds: the workers' clocks do not matter.
SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local answers = {}
for i, key in ipairs(KEYS) do
  local count, period = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local step = period / count
  local since, units = string.match(redis.call('GET', key) or '', '^(%d+) (%d+)$')
  since, units = tonumber(since or now), tonumber(units or 0)
  local owed = since + units * step - now
  if owed <= 0 then since, units, owed = now, 0, 0 end
  if owed > period + 1 then since, units, owed = now, count, period end
  local is_admitted = owed + step <= period + 0.5
  if is_admitted then
    units, owed = units + 1, owed + step
    redis.call('SET', key, string.format('%.0f %.0f', since, units), 'PX', math.ceil(owed / 1000))
  end
  table.insert(answers, is_admitted and 1 or 0)
  table.insert(answers, math.floor(owed))
end
return answers
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """What came of spending: whether it was admitted, how much is left, and when it is whole or worth trying again."""

    is_admitted: bool
    remaining: int
    whole_in: int
    retry_after: int


class BudgetStore(Protocol):
    """Keeps what callers have spent. `spend` never raises."""

    async def spend(self, key: str, count: int, period: timedelta) -> Spent:
        """Spend one of `count` a `period`."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...


class _Owed(NamedTuple):
    """When a budget is whole again; its period, and how long one of it takes to come back, in seconds."""

    whole_at: float
    period: float
    step: float

    def admits(self, now: float) -> bool:
        """Whether one more may be spent."""
        return self.whole_at - now + self.step <= self.period + self.step * ROUNDING

    def part(self, now: float) -> float:
        """How much of the budget is spent, from 0 to 1; below it is over."""
        return (self.whole_at - now) / self.period


@dataclass(frozen=True, slots=True)
class _Ask:
    """A request that waits for Valkey. The answer is whether it is admitted and the seconds until its budget is whole,
    or None where nobody answers.
    """

    key: str
    count: int
    period_seconds: float
    answer: asyncio.Future[tuple[bool, float] | None]


class MemoryStore:
    """The counters of this process alone, at most `MAX_KEYS`. Past that the old ones of whom least is spent make room;
    one that is being refused does so only when nearly all are.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._owed: dict[str, _Owed] = {}

    async def spend(self, key: str, count: int, period: timedelta) -> Spent:
        """Spend one of `count` a `period`."""
        now, seconds = self._clock(), period.total_seconds()
        known = self._owed.get(key)
        owed = _Owed(now if known is None else max(known.whole_at, now), seconds, seconds / count)
        is_admitted = owed.admits(now)
        if is_admitted:
            owed = owed._replace(whole_at=owed.whole_at + owed.step)
            self._owed[key] = owed
            self._make_room(now)
        return spent(is_admitted, owed.whole_at - now, count, seconds)

    async def close(self) -> None:
        """Nothing to let go of."""

    def _make_room(self, now: float) -> None:
        """Look at a few of the oldest at a time, which takes no longer however many there are."""
        for _ in range(LOOKS):
            if len(self._owed) <= MAX_KEYS:
                return
            oldest = sorted(islice(self._owed.items(), SAMPLE), key=lambda item: item[1].part(now))
            for place, (key, owed) in enumerate(oldest):
                del self._owed[key]
                if place >= SAMPLE // 2 or not owed.admits(now):
                    self._owed[key] = owed  # among the young ones again
        if len(self._owed) > MAX_KEYS:
            del self._owed[next(iter(self._owed))]


class ValkeyStore:
    """The counters that all workers share; the requests of an instant are one call, so a worker needs one connection.
    While Valkey does not answer in time, whatever the reason, this process counts alone; a look now and then tells when
    it is back.
    """

    def __init__(self, url: str, timeout: timedelta) -> None:
        from redis.asyncio import Redis  # noqa: PLC0415 - an extra, needed only where it is configured
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415

        self._timeout = timeout.total_seconds()
        self._alone = MemoryStore()
        self._client = Redis.from_url(
            client_url(url), retry=Retry(NoBackoff(), 0), socket_timeout=None, socket_connect_timeout=None
        )
        self._script = self._client.register_script(SCRIPT)
        self._waiting: list[_Ask] = []
        self._sending: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def is_down(self) -> bool:
        """Whether this process counts alone now."""
        return self._watch is not None

    async def spend(self, key: str, count: int, period: timedelta) -> Spent:
        """Spend one of `count` a `period`."""
        if self.is_down:
            return await self._alone.spend(key, count, period)
        ask = _Ask(KEY_PREFIX + key, count, period.total_seconds(), asyncio.get_running_loop().create_future())
        self._waiting.append(ask)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())
        answer = await ask.answer
        if answer is None:
            return await self._alone.spend(key, count, period)
        return spent(*answer, count, ask.period_seconds)

    async def close(self) -> None:
        """Close every connection."""
        for task in (self._watch, self._sending):
            if task is not None:
                task.cancel()
        with suppress(Exception):
            await self._client.aclose()

    async def _send(self) -> None:
        """Ask for all who wait, again while others came meanwhile. Nobody is left waiting, whatever happens."""
        batch: list[_Ask] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                for ask, answer in zip(batch, await self._call(batch), strict=True):
                    _settle(ask, answer)
        except Exception as fault:  # noqa: BLE001 - whatever is wrong with Valkey, requests go on
            self._note_down(fault)
        finally:
            for ask in [*batch, *self._waiting]:
                _settle(ask, None)
            self._waiting, self._sending = [], None

    async def _call(self, batch: list[_Ask]) -> list[tuple[bool, float]]:
        """One call of the script. Raises `TimeoutError`, and whatever the client library raises."""
        arguments = [argument for ask in batch for argument in (ask.count, round(ask.period_seconds * 1e6))]
        calling = asyncio.ensure_future(cast("Awaitable[Any]", self._script([ask.key for ask in batch], arguments)))
        for _ in range(2):  # after a pause of this process an answer may have come that nobody has read yet
            await asyncio.wait((calling,), timeout=self._timeout / 2)
        if not calling.done():
            calling.cancel()
            raise TimeoutError
        numbers = [int(number) for number in calling.result()]
        return [(bool(is_admitted), owed / 1e6) for is_admitted, owed in zip(numbers[::2], numbers[1::2], strict=True)]

    def _note_down(self, fault: Exception) -> None:
        if self._watch is None:
            metrics.valkey_down.set(1)
            log.warning("valkey_down", reason=type(fault).__name__, meanwhile="each worker counts requests alone")
            self._watch = asyncio.create_task(self._look_until_back())

    async def _look_until_back(self) -> None:
        pause = FIRST_PAUSE
        while not await self._is_well():
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        self._watch = None
        metrics.valkey_down.set(0)
        log.info("valkey_back")

    async def _is_well(self) -> bool:
        look = _Ask(KEY_PREFIX + "look", 1_000_000, 1.0, asyncio.get_running_loop().create_future())
        with suppress(Exception):
            await self._client.connection_pool.disconnect()
            return len(await self._call([look])) == 1
        return False


def _settle(ask: _Ask, answer: tuple[bool, float] | None) -> None:
    if not ask.answer.done():
        ask.answer.set_result(answer)


def spent(is_admitted: bool, owed: float, count: int, seconds: float) -> Spent:
    """What came of it, in whole numbers: `owed` are the seconds until the budget is whole."""
    owed, step = min(max(owed, 0.0), seconds), seconds / count
    remaining = max(0, int((seconds - owed) / step + 1e-6))
    retry_after = 0 if is_admitted else max(1, ceil(owed + step - seconds))
    return Spent(is_admitted, remaining, max(0, ceil(owed)), retry_after)


def client_url(url: str) -> str:
    """The URL in the words of the client library, which knows no `valkey://`."""
    scheme, separator, rest = url.partition("://")
    return f"{SCHEMES[scheme]}{separator}{rest}"


async def ping(url: str, patience: timedelta) -> float:
    """How many seconds a Valkey takes to count once. Raises whatever the client library raises, and `TimeoutError`."""
    store = ValkeyStore(url, patience)
    look = _Ask(KEY_PREFIX + "look", 1_000_000, 1.0, asyncio.get_running_loop().create_future())
    try:
        await store._call([look])  # the first one connects
        started = time.perf_counter()
        await store._call([look])
        return time.perf_counter() - started
    finally:
        await store.close()


def build_store(url: str, timeout: timedelta) -> BudgetStore:
    """The counters that the settings ask for."""
    return ValkeyStore(url, timeout) if url else MemoryStore()
