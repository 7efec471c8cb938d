"""A fault: what happens, on what, and what is promised meanwhile; and the judgement of one run."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.faults.books import Balance
from benchmarks.faults.scene import Scene
from benchmarks.faults.traffic import NO_ANSWER, NOT_TAKEN, Call

UNAVAILABLE = "503"
NOTHING = "nothing"
BROKEN = "broken connections"
RECOVERY = 5.0
BUSY_SECONDS = 0.5  # an answer that takes longer while all is well says that times tell little here
SLACK = 0.5  # what a busy machine takes on top of a promised time


@dataclass(frozen=True)
class Fault:
    """`fails` says what a client may see beside good answers, `slowest` within how many seconds it sees anything."""

    name: str
    what: str
    happen: Callable[[Scene], Awaitable[None]]
    kind: str = "postgresql"
    fails: str = UNAVAILABLE
    slowest: float = 2.0
    recovery: float = RECOVERY
    reads_go_on: bool = False
    is_ready_meanwhile: bool = True
    is_live: bool = True
    through_proxy: bool = False
    has_standby: bool = False
    has_valkey: bool = False
    on_small_disk: bool = False
    rate: float = 50.0
    settings: Mapping[str, str] = field(default_factory=dict)
    words: Sequence[str] = ()


@dataclass
class Verdict:
    """One line of the table, and the promises that were broken."""

    fault: Fault
    requests: int
    failed: Counter[str]
    slowest: float
    recovered: float | None
    balance: Balance
    repeated: int
    notes: Sequence[str]
    broken: list[str] = field(default_factory=list)


def judge(fault: Fault, scene: Scene, balance: Balance, repeats: Sequence[Call]) -> Verdict:
    """Hold what happened against what is promised."""
    calls = [call for call in scene.load.calls if call.ended >= scene.began and call.status != NOT_TAKEN]
    failed = [call for call in calls if not call.is_good]
    verdict = Verdict(
        fault,
        requests=len(calls),
        failed=Counter(_named(call) for call in failed),
        slowest=max((call.seconds for call in calls), default=0.0),
        recovered=_recovery(scene),
        balance=balance,
        repeated=len(repeats),
        notes=scene.notes,
        broken=list(scene.broken),
    )
    before = max((call.seconds for call in scene.load.calls if call.ended < scene.began), default=0.0)
    if before > BUSY_SECONDS:
        verdict.notes = [*verdict.notes, f"BUSY MACHINE: up to {before:.1f} s before anything failed"]
    verdict.broken += _broken(fault, scene, verdict, failed)
    verdict.broken += [f"repeating {each.name} was answered {each.status}" for each in repeats if each.status != 201]
    return verdict


def _broken(fault: Fault, scene: Scene, verdict: Verdict, failed: Sequence[Call]) -> list[str]:
    """The promises that were not kept."""
    found = []
    wrong = [call for call in failed if call.status != 503 and not (fault.fails == BROKEN and call.status == NO_ANSWER)]
    if wrong:
        found.append(f"answers that are neither good nor 503: {dict(Counter(_named(call) for call in wrong))}")
    if fault.fails == NOTHING and failed:
        found.append(f"{len(failed)} requests failed; none should")
    if odd := [call for call in failed if call.is_odd]:
        found.append(f"{len(odd)} refusals without problem+json or Retry-After")
    if fault.reads_go_on and (reads := [call for call in failed if call.kind == "read"]):
        found.append(f"{len(reads)} reads failed; they should go on")
    if verdict.slowest > fault.slowest + SLACK:
        found.append(f"the slowest answer took {verdict.slowest:.1f} s; {fault.slowest} s are promised")
    if verdict.recovered is None or verdict.recovered > fault.recovery:
        found.append("it did not recover in time")
    found += [f"lost: {each}" for each in verdict.balance.lost]
    found += [f"half-applied: {each}" for each in verdict.balance.half]
    found += verdict.balance.untrue
    return found + _broken_probes(fault, scene)


def _broken_probes(fault: Fault, scene: Scene) -> list[str]:
    """What a load balancer saw."""
    found = []
    probes = [call for call in scene.load.probes if call.started >= scene.began]
    live = [call for call in probes if call.kind == "live"]
    if fault.is_live and (bad := [call for call in live if call.status != 200 or call.seconds > 1.0]):
        found.append(f"/health/live was not 200 within a second {len(bad)} times")
    ready = [call for call in probes if call.kind == "ready"]
    if not fault.is_ready_meanwhile and all(call.status == 200 for call in ready):
        found.append("/health/ready never said 503")
    if slow := [call for call in ready if call.seconds > 2.0 + SLACK]:
        found.append(f"/health/ready took up to {max(call.seconds for call in slow):.1f} s")
    if fault.is_live and ready and ready[-1].status != 200:
        found.append("/health/ready does not say 200 again")
    return found


def _recovery(scene: Scene) -> float | None:
    """Seconds from the end of the cause to the first request after which none failed; None when the last ones do."""
    later = sorted((call for call in scene.load.calls if call.started > scene.healed), key=lambda call: call.started)
    bad = [place for place, call in enumerate(later) if not call.is_good]
    if not bad:
        return 0.0
    if bad[-1] + 1 >= len(later):
        return None
    return later[bad[-1] + 1].started - scene.healed


def _named(call: Call) -> str:
    if call.status == NO_ANSWER:
        return "no answer"
    return f"{call.status} {call.code}".strip()
