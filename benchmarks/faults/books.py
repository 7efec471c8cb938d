"""What was acknowledged, held against what the database has: nothing lost, nothing applied in half, no lie."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.faults.traffic import Call

Rows = Callable[[str], Awaitable[Sequence[Sequence[Any]]]]

UNKNOWN = ("outcome_unknown", "took_too_long")
"""The refusals that say that a change may have been made; any other says that it was not."""

HALVES = {
    "accounts without their record": """
        SELECT count(*) FROM users u WHERE NOT EXISTS
        (SELECT 1 FROM audit_events a WHERE a.owner_id = u.id AND a.event = 'user.created')""",
    "records of accounts that are not there": """
        SELECT count(*) FROM audit_events a WHERE a.event = 'user.created'
        AND NOT EXISTS (SELECT 1 FROM users u WHERE u.id = a.owner_id)""",
    "accounts without a role": """
        SELECT count(*) FROM users u WHERE NOT EXISTS (SELECT 1 FROM role_grants g WHERE g.user_id = u.id)""",
    "accounts without their two names": """
        SELECT count(*) FROM users u WHERE (SELECT count(*) FROM login_names n WHERE n.user_id = u.id) <> 2""",
    "names without an account": """
        SELECT count(*) FROM login_names n WHERE NOT EXISTS (SELECT 1 FROM users u WHERE u.id = n.user_id)""",
    "changes without their record, or records without their change": """
        SELECT count(*) FROM users u WHERE u.version - 1 <>
        (SELECT count(*) FROM audit_events a WHERE a.owner_id = u.id AND a.event = 'user.updated')""",
    "sessions without the record of their sign-in": """
        SELECT count(*) FROM sessions s WHERE NOT EXISTS
        (SELECT 1 FROM audit_events a WHERE a.session_id = s.id AND a.event = 'login.succeeded')""",
    "keys without an answer": "SELECT count(*) FROM idempotency_keys WHERE status = 0",
}


@dataclass
class Balance:
    """What the books say. Empty lists are what is promised."""

    lost: list[str] = field(default_factory=list)
    half: list[str] = field(default_factory=list)
    untrue: list[str] = field(default_factory=list)
    unknown_but_made: int = 0


async def balance(rows: Rows, calls: Iterable[Call]) -> Balance:
    """Hold the answers of all calls against the rows."""
    found = Balance()
    made = {name for (name,) in await rows("SELECT username FROM users")}
    versions = {_plain(key): version for key, version in await rows("SELECT id, version FROM users")}
    updates: dict[str, list[int]] = {}
    for call in calls:
        if call.kind in ("register", "repeat"):
            _check_registration(found, call, made)
        elif call.kind == "update" and call.is_good:
            updates.setdefault(_plain(call.name), []).append(call.version)
    for account, acknowledged in updates.items():
        if max(acknowledged) > versions[account] or len(set(acknowledged)) < len(acknowledged):
            found.lost.append(f"a change of {account}")
    for what, statement in HALVES.items():
        ((count,),) = await rows(statement)
        if count:
            found.half.append(f"{count} {what}")
    return found


def _check_registration(found: Balance, call: Call, made: set[str]) -> None:
    if call.is_good and call.name not in made:
        found.lost.append(call.name)
    if call.is_good or call.name not in made:
        return
    if call.status > 0 and call.code not in UNKNOWN:
        found.untrue.append(f"{call.name} was refused with {call.status} {call.code}, but made")
    else:
        found.unknown_but_made += 1


def _plain(key: Any) -> str:  # PostgreSQL gives a UUID, SQLite its digits
    return str(key).replace("-", "")
