"""Request budgets: quart-rate-limiter with a key that nobody can forge, a store that cannot grow without bound, and the
headers of the current draft (draft-ietf-httpapi-ratelimit-headers).

The counts are this process's own; a second worker would double them, which is why production refuses it for now.
"""

from collections import OrderedDict
from datetime import UTC, datetime

from quart import Quart, Response, g, request
from quart_rate_limiter import (
    QUART_RATE_LIMITER_EXEMPT_ATTRIBUTE,
    QUART_RATE_LIMITER_LIMITS_ATTRIBUTE,
    RateLimit,
    RateLimiter,
)
from quart_rate_limiter.store import RateLimiterStoreABC

from usermgmt.http.access import Budget, View
from usermgmt.http.context import claims, client
from usermgmt.runtime import Runtime
from usermgmt.settings import Settings

MAX_KEYS = 100_000
ROOM = 10_000
LIBRARY_HEADERS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")


class BoundedStore(RateLimiterStoreABC):
    """The theoretical arrival time of each key, in memory. What is over is forgotten; past `MAX_KEYS` the key that was
    touched longest ago is, which never is one that is being refused now.
    """

    def __init__(self) -> None:
        self._arrivals: OrderedDict[str, datetime] = OrderedDict()

    async def before_serving(self) -> None:
        """Nothing to open."""

    async def after_serving(self) -> None:
        """Nothing to close."""

    async def get(self, key: str, default: datetime) -> datetime:
        """The arrival time of a key."""
        if key in self._arrivals:
            self._arrivals.move_to_end(key)
        return self._arrivals.get(key, default)

    async def set(self, key: str, tat: datetime) -> None:
        """Keep the arrival time of a key."""
        self._arrivals[key] = tat
        self._arrivals.move_to_end(key)
        if len(self._arrivals) > MAX_KEYS:
            self._forget(datetime.now(UTC))

    def _forget(self, now: datetime) -> None:
        """Make room for many at once: looking through all of them for each new one would be a gift to a flood."""
        over = [key for key, arrival in self._arrivals.items() if arrival <= now]
        for key in over:
            del self._arrivals[key]
        while len(self._arrivals) > MAX_KEYS - ROOM:
            self._arrivals.popitem(last=False)


def install(app: Quart, runtime: Runtime) -> None:
    """Spend a budget before each handler. Call where the pipeline has it."""
    app.after_request(_rename_headers)  # registered first, so it runs after the library's own
    limiter = RateLimiter(key_function=_key, skip_function=_is_free, store=BoundedStore())
    limiter.init_app(app, enabled=runtime.settings.limits.enabled)


def declare(view: View, budget: Budget, settings: Settings) -> None:
    """Tell the library a route's budget."""
    if budget is Budget.NONE:
        setattr(view, QUART_RATE_LIMITER_EXEMPT_ATTRIBUTE, True)
        return
    limit = getattr(settings.limits, budget)
    setattr(view, QUART_RATE_LIMITER_LIMITS_ATTRIBUTE, [RateLimit(limit.count, limit.period)])


async def _key() -> str:
    """Whose budget it is: the verified subject's, else that of the address."""
    verified = claims()
    return f"user:{verified.user_id}" if verified is not None else f"address:{client().address}"


async def _is_free() -> bool:
    """Preflights cost nothing."""
    return request.method == "OPTIONS"


async def _rename_headers(response: Response) -> Response:
    """Say in the draft's words what the library said in those of an older draft."""
    limit, remaining, reset = (response.headers.pop(name, None) for name in LIBRARY_HEADERS)
    if limit is not None and g.get("budget") is not None:
        budget = g.budget
        reset = response.headers.get("Retry-After", reset)  # which must not be sooner
        response.headers["RateLimit-Policy"] = f'"{budget.name}";q={budget.count};w={budget.seconds}'
        response.headers["RateLimit"] = f'"{budget.name}";r={max(0, int(remaining or 0))};t={reset}'
    return response
