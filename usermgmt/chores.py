"""Everything that is done beside answering requests, and how often."""

from datetime import timedelta

from usermgmt.audit import measures as record_measures
from usermgmt.audit import seals
from usermgmt.health import measures
from usermgmt.idempotency import service as idempotency
from usermgmt.ip_rules import in_force as ip_rules
from usermgmt.maintenance.service import Chore, SharedChore
from usermgmt.personal_data import service as personal_data
from usermgmt.root_secrets import service as root_secrets
from usermgmt.sessions import service as sessions
from usermgmt.settings import Settings
from usermgmt.signing_keys import service as signing_keys
from usermgmt.throttle import service as throttle

ANY = 1
"""A batch that did anything at all has another one after it."""


def own_chores(settings: Settings) -> tuple[Chore, ...]:
    """What each process does: its memory has to know what others wrote, and others what it counted."""
    return (
        Chore("root_secrets", root_secrets.REFRESH_INTERVAL, root_secrets.choose_root),
        Chore("key_ring", signing_keys.RELOAD_INTERVAL, signing_keys.refresh_ring),
        Chore("ip_rules", ip_rules.REFRESH_INTERVAL, ip_rules.refresh_rule_book),
        Chore("ip_rule_hits", ip_rules.HITS_INTERVAL, ip_rules.store_hits),
        *(_samples() if settings.metrics.enabled else ()),
    )


def _samples() -> tuple[Chore, ...]:
    """The states that metrics tell."""
    return (
        Chore("samples", measures.INTERVAL, measures.Sampling().take),
        Chore("audit_samples", record_measures.INTERVAL, record_measures.sample),
        Chore("session_samples", sessions.SAMPLE_INTERVAL, sessions.sample_live),
    )


def shared_chores(settings: Settings) -> tuple[SharedChore, ...]:
    """What one process of the deployment does at a time. Each is right, too, when two do it at once."""
    minute, ten_minutes = timedelta(minutes=1), timedelta(minutes=10)
    return (
        SharedChore("signing_keys", minute, signing_keys.tend_keys),
        SharedChore("sessions", ten_minutes, sessions.forget_ended, full=sessions.BATCH),
        SharedChore("idempotency_keys", ten_minutes, idempotency.forget_past, full=idempotency.BATCH),
        SharedChore("throttles", minute, throttle.forget_past, full=throttle.BATCH),
        SharedChore("erasures", minute, personal_data.erase_due, full=personal_data.BATCH),
        SharedChore("audit_seals", settings.audit.seal_interval, seals.seal_pending),
        SharedChore("audit_retention", ten_minutes, seals.prune_due, full=ANY),
    )
