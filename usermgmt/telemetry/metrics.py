"""What a process counts, as Prometheus reads it. Every label has a bounded set of values.

Several workers of one server write into one directory (`PROMETHEUS_MULTIPROC_DIR`, which their supervisor makes), so
that any of them tells the sum. What is a state and not a sum, a gauge, is taken every `SAMPLE_SECONDS`,
or where that would cost statements more rarely, or set when it changes.
"""

import itertools
import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from usermgmt import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
SAMPLE_SECONDS = 2.0
UNMATCHED = "unmatched"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
HASH_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 3.0, 5.0)
CHORE_SECONDS = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0)

_registry = CollectorRegistry()


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"usermgmt_{name}", text, labels, registry=_registry)


def _sum(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"usermgmt_{name}", text, labels, registry=_registry, multiprocess_mode="livesum")


def _most(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"usermgmt_{name}", text, labels, registry=_registry, multiprocess_mode="max")


def _latest(name: str, text: str) -> Gauge:
    """What is true of the whole deployment, so that the worker that looked last is right."""
    return Gauge(f"usermgmt_{name}", text, registry=_registry, multiprocess_mode="livemostrecent")


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"usermgmt_{name}", text, labels, registry=_registry, buckets=buckets)


requests = _counter("requests_total", "Requests answered.", "method", "route", "status")
request_seconds = _histogram("request_duration_seconds", "From request to answer.", REQUEST_SECONDS, "route")
tokens = _counter("tokens_verified_total", "Access tokens, by the key that signed them.", "key", "outcome")
budgets = _counter("budget_requests_total", "Requests by budget.", "budget", "outcome")
throttled = _counter("throttle_refused_total", "Guesses refused before they were verified.", "kind")
sessions_opened = _counter("sessions_opened_total", "Sign-ins that opened a session.")
sessions_revoked = _counter("sessions_revoked_total", "Sessions that were ended before their time.", "reason")
refreshed = _counter("refreshes_total", "Refresh tokens presented.", "outcome")
REFRESHED = ("new", "repeated", "refused", "forged")
audit_events = _counter("audit_events_total", "Events put on record.", "event", "outcome")
hash_wait = _histogram("hash_wait_seconds", "How long a password waited for its hash to begin.", HASH_SECONDS)
hash_seconds = _histogram("hash_duration_seconds", "How long a hash took.", HASH_SECONDS)
hash_refused = _counter("hash_refused_total", "Passwords refused because the queue was full.")
database_faults = _counter("database_unavailable_total", "Times the database was away or too busy.")
chores_done = _most("chore_last_success_timestamp_seconds", "When a chore was last done, in Unix time.", "chore")
chore_rows = _counter("chore_rows_total", "Rows that a chore did.", "chore")
chore_seconds = _histogram("chore_duration_seconds", "How long a chore took.", CHORE_SECONDS, "chore")
chores_failed = _counter("chore_failures_total", "Times a chore failed.", "chore")

hash_running = _sum("hash_running", "Hashes being computed.")
hash_waiting = _sum("hash_waiting", "Passwords waiting for a thread.")
pool_size = _sum("database_pool_connections", "Connections that a pool may have.", "pool")
pool_used = _sum("database_pool_connections_in_use", "Connections of a pool in use.", "pool")
read_keys = _counter("database_coalesced_keys_total", "Keys looked up by coalesced reads.")
read_statements = _counter("database_coalesced_statements_total", "Statements that looked them up.")
loop_lag = Gauge(
    "usermgmt_loop_lag_seconds",
    "How late the event loop came to its last sample.",
    registry=_registry,
    multiprocess_mode="livemax",
)
valkey_down = _sum("valkey_down", "Workers that count requests alone because Valkey is away.")
draining = _sum("draining", "Workers that take no new work.")
memory = _sum("resident_memory_bytes", "Memory of the workers.")
workers = _sum("workers", "Workers that serve.")
sessions_live = _latest("sessions_live", "Sessions that are good, of the whole deployment; beyond 10,000 estimated.")
audit_broken = _latest("audit_chain_broken", "Whether the end of the record is not ours: nothing is sealed any more.")
audit_unsealed = _latest("audit_unsealed_events", "Events on record that wait for a seal, counted up to 10,000.")
audit_unsealed_seconds = _latest("audit_oldest_unsealed_seconds", "How long the first of them waits.")
audit_sealed_at = _latest("audit_last_seal_timestamp_seconds", "When the last seal was made, in Unix time; 0: never.")
build = Gauge(
    "usermgmt_build_info", "The release that runs.", ["version"], registry=_registry, multiprocess_mode="livemax"
)


def exposition() -> bytes:
    """Everything in the text format 0.0.4; over several workers, their sum."""
    if DIRECTORY not in os.environ:
        return generate_latest(_registry) + generate_latest(_own_process())
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def forget_worker(pid: int, directory: Path) -> None:
    """Take the gauges of a process that ended out of the sums; what it counted stays."""
    multiprocess.mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]


def observe_request(method: str, route: str | None, status: int, seconds: float) -> None:
    """Count an answer."""
    _answered(method if method in METHODS else "other", route or UNMATCHED, status).inc()
    _timed(route or UNMATCHED).observe(seconds)


def observe_token(key: str | None) -> None:
    """Count a token by its key; None for one that was refused."""
    _token(key or "none", "good" if key else "refused").inc()


def observe_hash(waited: float, spent: float) -> None:
    """Note a hash: how long it waited and how long it took."""
    hash_wait.observe(waited)
    hash_seconds.observe(spent)


def expect(counter: Counter, *values: Iterable[str]) -> None:
    """Begin at zero for each combination of labels that may come: Prometheus sees no growth from nothing."""
    for labels in itertools.product(*values):
        counter.labels(*labels)


def observe_chore(chore: str, *, at: float, rows: int, seconds: float) -> None:
    """Note a chore that was done: when, how many rows it did, how long it took."""
    chores_done.labels(chore).set(at)
    chore_rows.labels(chore).inc(rows)
    chore_seconds.labels(chore).observe(seconds)


def set_gauges(values: Mapping[Gauge, float]) -> None:
    """Note states."""
    for gauge, value in values.items():
        gauge.set(value)


def note_start() -> None:
    """Note that this process serves."""
    workers.set(1)
    build.labels(__version__).set(1)


def resident_bytes() -> int:
    """The memory of this process; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


@cache
def _own_process() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


@cache
def _answered(method: str, route: str, status: int) -> Counter:
    return requests.labels(method, route, str(status))


@cache
def _timed(route: str) -> Histogram:
    return request_seconds.labels(route)


@cache
def _token(key: str, outcome: str) -> Counter:
    return tokens.labels(key, outcome)


expect(refreshed, REFRESHED)
