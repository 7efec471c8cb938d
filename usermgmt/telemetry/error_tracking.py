"""Faults told to Sentry, or to what speaks its protocol, by its client library, which is an extra.

What is sent is chosen piece by piece: the kind of each exception and where in the code it was raised, the request's id,
method and route, and the release. Never sent: an exception's message, local variables, headers, cookies, queries and
bodies. The message is in the log, under the same request id.
"""

from typing import TYPE_CHECKING

from usermgmt.settings import ErrorsSettings

if TYPE_CHECKING:
    from usermgmt.telemetry.sentry import Sentry

_sentry: "Sentry | None" = None


def begin(settings: ErrorsSettings) -> None:
    """Tell faults from now on, if a DSN is set."""
    global _sentry  # noqa: PLW0603 - one for the process, as its metrics
    if settings.sentry_dsn.get_secret_value():
        from usermgmt.telemetry.sentry import Sentry  # noqa: PLC0415 - an extra that need not be installed

        _sentry = Sentry(settings)


def tell(error: Exception, **facts: str | None) -> None:
    """Tell a fault, later and elsewhere: the caller goes on at once. `facts` are of bounded sets, or ids."""
    if _sentry is not None:
        _sentry.tell(error, {name: value for name, value in facts.items() if value is not None})


def end() -> None:
    """Send what waits, for a moment, and tell no more. Blocks."""
    global _sentry
    ending, _sentry = _sentry, None
    if ending is not None:
        ending.close()
