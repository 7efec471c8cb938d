"""Whether this process can serve."""

from dataclasses import dataclass

from usermgmt.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Readiness:
    """What a load balancer asks, check by check."""

    checks: dict[str, bool]

    @property
    def is_ready(self) -> bool:
        """Whether every check passed."""
        return all(self.checks.values())


async def check_readiness(runtime: Runtime) -> Readiness:
    """Ask everything that serving depends on. Never raises."""
    return Readiness(
        {
            "accepting": not runtime.is_draining,
            "database": await runtime.database.is_answering(),
            "signing_key": runtime.ring.signing_key(runtime.settings.tokens.algorithm, runtime.clock.now()) is not None,
        }
    )
