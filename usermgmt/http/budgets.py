"""Request budgets: declared as quart-rate-limiter declares them, spent in one atomic step, told in the headers of the
current draft (draft-ietf-httpapi-ratelimit-headers).

A budget belongs to a verified subject, else to a network, and is one for all routes that name it. Requests for paths
and methods that do not exist, and OPTIONS, spend one too. Preflights, probes and documentation are free.
"""

from quart import Quart, Response, current_app, g, request
from quart_rate_limiter import (
    QUART_RATE_LIMITER_EXEMPT_ATTRIBUTE,
    QUART_RATE_LIMITER_LIMITS_ATTRIBUTE,
    RateLimit,
    RateLimiter,
)

from usermgmt.errors import BudgetSpent
from usermgmt.http.access import BudgetName, View, marks_of
from usermgmt.http.context import claims, client
from usermgmt.runtime import Runtime
from usermgmt.settings import Settings
from usermgmt.storage.counters import BudgetStore, build_store
from usermgmt.telemetry import metrics


class Limiter(RateLimiter):
    """quart-rate-limiter, but for its spending, which reads and writes in two steps and keeps every key for ever."""

    def __init__(self, store: BudgetStore, unknown: RateLimit) -> None:
        super().__init__()
        self._counters = store
        self._unknown = unknown

    async def _before_request(self) -> None:
        """Spend from the budget of the route. Refused: `BudgetSpent`."""
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return
        name, limit = self._budget()
        if limit is None:
            return
        spent = await self._counters.spend(f"{name}:{_payer()}", limit.count, limit.period)
        seconds = int(limit.period.total_seconds())
        g.budget_headers = {
            "RateLimit-Policy": f'"{name}";q={limit.count};w={max(1, seconds)}',
            "RateLimit": f'"{name}";r={spent.remaining};t={spent.whole_in if spent.is_admitted else spent.retry_after}',
        }
        metrics.budgets.labels(name, "admitted" if spent.is_admitted else "refused").inc()
        if not spent.is_admitted:
            raise BudgetSpent(retry_after=spent.retry_after)

    async def _after_request(self, response: Response) -> Response:
        """Tell what is left."""
        response.headers.update(g.get("budget_headers", {}))
        return response

    async def _before_serving(self) -> None:
        """Connections are opened when they are needed."""

    async def _after_serving(self) -> None:
        await self._counters.close()

    def _budget(self) -> tuple[str, RateLimit | None]:
        """The name and the limit of the budget that this request spends from."""
        if request.routing_exception is not None or request.endpoint is None or request.method == "OPTIONS":
            return BudgetName.UNKNOWN, self._unknown
        view = current_app.view_functions[request.endpoint]
        limits = self._get_limits_for_view_function(view, None)
        return str(marks_of(view).budget), limits[0] if limits else None


def install(app: Quart, runtime: Runtime) -> None:
    """Spend a budget before each handler. Call where the pipeline has it."""
    settings = runtime.settings
    if not settings.limits.enabled:
        return
    store = build_store(settings.valkey.url.get_secret_value(), settings.valkey.timeout)
    unknown = RateLimit(settings.limits.unknown.count, settings.limits.unknown.period)
    Limiter(store, unknown).init_app(app)


def declare(view: View, budget: BudgetName, settings: Settings) -> None:
    """Tell the library a route's budget."""
    if budget is BudgetName.NONE:
        setattr(view, QUART_RATE_LIMITER_EXEMPT_ATTRIBUTE, True)
        return
    limit = getattr(settings.limits, budget)
    setattr(view, QUART_RATE_LIMITER_LIMITS_ATTRIBUTE, [RateLimit(limit.count, limit.period)])


def _payer() -> str:
    """Whose budget it is: the verified subject's, else that of the network."""
    verified = claims()
    return f"user:{verified.user_id}" if verified is not None else f"network:{client().network}"
