"""`usermgmt passwords calibrate`: what hashing costs on this machine, and which settings follow."""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import bcrypt
import click

from usermgmt.operator.configuration import operator_settings
from usermgmt.operator.console import Console
from usermgmt.operator.grammar import command, pass_console
from usermgmt.security.hash_pool import processors

LOWEST, HIGHEST = 10, 16
TIMES = 3
WORD = b"x" * 64

Hash = Callable[[int], object]


@command()
@click.option(
    "--target",
    type=click.IntRange(50, 5000),
    default=300,
    show_default=True,
    metavar="MILLISECONDS",
    help="How long one hash may take.",
)
@pass_console
def calibrate(console: Console, target: int) -> None:
    """Measure hashing on this machine, and propose its settings.

    The cost proposed is the highest whose hash takes no longer than --target, and never below 10 (OWASP). Each step
    doubles the work of whoever guesses a stolen hash, and halves how many people can sign in each second. Takes some
    seconds; measure while nothing else runs.
    """
    settings = operator_settings(console).passwords
    measured = measure(target / 1000, hashed=lambda cost: bcrypt.hashpw(WORD, bcrypt.gensalt(cost)))
    cost = proposed(measured, target / 1000)
    workers = processors()
    together = rate(workers, lambda: bcrypt.hashpw(WORD, bcrypt.gensalt(LOWEST)))
    per_second = together / 2 ** (cost - LOWEST)
    document = {
        "milliseconds": {str(each): round(seconds * 1000, 1) for each, seconds in measured.items()},
        "bcrypt_cost": cost,
        "hash_workers": workers,
        "sign_ins_per_second": round(per_second, 1),
        "queue_length": int(per_second * settings.hash_queue.total_seconds()),
        "now": {"bcrypt_cost": settings.bcrypt_cost, "hash_workers": settings.hash_workers or workers},
    }
    rows = [f"  cost {each}: {seconds * 1000:8.1f} ms" for each, seconds in measured.items()]
    lines = [
        "One hash takes:",
        *rows,
        "",
        f"Proposed: passwords.bcrypt_cost = {cost}, passwords.hash_workers = {workers} (every processor).",
        f"With that {per_second:.1f} people can sign in each second and {document['queue_length']} more may wait;",
        "further ones are asked to come back (passwords.hash_queue).",
        f"Set now: passwords.bcrypt_cost = {settings.bcrypt_cost}. Stored hashes follow at their next sign-in.",
        "On a machine that does other things meanwhile every figure is too low: measure while it rests.",
    ]
    console.show(document, "\n".join(lines))


def measure(target: float, *, hashed: Hash) -> dict[int, float]:
    """The seconds of one hash by cost, from the lowest to the first that takes longer than `target`."""
    measured: dict[int, float] = {}
    for cost in range(LOWEST, HIGHEST + 1):
        times = []
        for _ in range(TIMES):
            started = time.perf_counter()
            hashed(cost)
            times.append(time.perf_counter() - started)
        measured[cost] = statistics.median(times)
        if measured[cost] > target:
            break
    return measured


def proposed(measured: dict[int, float], target: float) -> int:
    """The highest cost within `target` seconds, or the lowest there is."""
    return max((cost for cost, seconds in measured.items() if seconds <= target), default=LOWEST)


def rate(workers: int, job: Callable[[], object]) -> float:
    """How many jobs as many threads finish in a second."""
    count = workers * TIMES
    with ThreadPoolExecutor(workers) as pool:
        started = time.perf_counter()
        for future in [pool.submit(job) for _ in range(count)]:
            future.result()
        return count / (time.perf_counter() - started)
