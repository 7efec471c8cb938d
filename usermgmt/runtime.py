"""What is built once per process and handed to every use case."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from usermgmt.clock import Clock, SystemClock
from usermgmt.security.hash_pool import HashPool
from usermgmt.security.hashing import PasswordHasher, expected_seconds
from usermgmt.security.keys import KeyRing
from usermgmt.security.password_policy import PasswordPolicy
from usermgmt.security.rule_book import Hits, RuleBook
from usermgmt.security.secrets import Purpose, Secrets
from usermgmt.security.tokens import AccessTokens, RefreshTokens
from usermgmt.settings import Settings
from usermgmt.storage.database import Database
from usermgmt.telemetry import metrics, tracing


@dataclass(slots=True)
class Runtime:
    """The settings and what was made from them. What changes while the process lives: `ring`, `rule_book`,
    `rule_hits`, `is_draining`, and with `make_with_root` what `secrets` and `hasher` make new things from.
    """

    settings: Settings
    clock: Clock
    secrets: Secrets
    database: Database
    hasher: PasswordHasher
    password_policy: PasswordPolicy
    ring: KeyRing = field(default_factory=lambda: KeyRing(()))
    rule_book: RuleBook = field(default_factory=RuleBook)
    rule_hits: Hits = field(default_factory=Hits)
    is_draining: bool = False
    import_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    access_tokens: AccessTokens = field(init=False)
    refresh_tokens: RefreshTokens = field(init=False)

    def __post_init__(self) -> None:
        tokens = self.settings.tokens
        self.access_tokens = AccessTokens(
            ring=lambda: self.ring,
            algorithm=tokens.algorithm,
            issuer=tokens.issuer,
            audience=tokens.audience,
            lifetime=tokens.access_lifetime,
        )
        self.refresh_tokens = RefreshTokens(self.secrets)

    def make_with_root(self, position: int) -> None:
        """Make everything new from this one of the root secrets; all of them verify."""
        self.secrets.making = position
        self.hasher.make_with(self.secrets.making_key(Purpose.PASSWORD_PEPPER).key_id)

    async def close(self) -> None:
        """End the hashing threads and close every connection."""
        await self.hasher.close()
        await self.database.close()


def build_runtime(settings: Settings, *, clock: Clock | None = None) -> Runtime:
    """Build the runtime from settings; nothing is connected yet. Raises `ValueError` without a root secret."""
    secrets = Secrets([key.get_secret_value() for key in settings.secret.keys])
    passwords = settings.passwords
    return Runtime(
        settings=settings,
        clock=clock or SystemClock(),
        secrets=secrets,
        database=Database(settings.database),
        hasher=PasswordHasher(
            cost=passwords.bcrypt_cost,
            peppers=[(key.key_id, key.key) for key in secrets.all(Purpose.PASSWORD_PEPPER)],
            pool=HashPool(
                seconds=expected_seconds(passwords.bcrypt_cost),
                workers=passwords.hash_workers,
                nice=passwords.hash_nice,
                max_wait=passwords.hash_queue,
                observe=metrics.observe_hash,
                observe_refusal=metrics.hash_refused.inc,
                around=tracing.hashing,
            ),
        ),
        password_policy=PasswordPolicy(
            min_length=passwords.min_length,
            max_length=passwords.max_length,
            extra_blocklist=Path(passwords.blocklist) if passwords.blocklist else None,
        ),
    )
