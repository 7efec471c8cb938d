"""`usermgmt ip-rules`: which networks may call. The way back in when a rule has shut everybody out."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import click

from usermgmt.errors import FieldError, ValidationFailed
from usermgmt.http.body import validated
from usermgmt.ip_rules import in_force, service
from usermgmt.ip_rules.models import IpRule
from usermgmt.ip_rules.schemas import CreateIpRule, IpRuleOut
from usermgmt.operator.accounts import find_account
from usermgmt.operator.console import Console, Exit, counted
from usermgmt.operator.grammar import command
from usermgmt.operator.workplace import on_runtime
from usermgmt.runtime import Runtime
from usermgmt.security.address import canonical_address
from usermgmt.security.principal import OPERATOR
from usermgmt.settings.values import Duration

COLUMNS = ("id", "action", "network", "subject", "mode", "expires_at", "hits", "note")


@command("list")
@on_runtime
async def list_rules(console: Console, runtime: Runtime) -> None:
    """List the IP rules, newest first."""
    console.table(COLUMNS).add([_document(rule) for rule in await service.list_rules(runtime)])


@command()
@click.argument("network")
@click.option("--deny", "action", flag_value="deny", help="Refuse calls from NETWORK.")
@click.option("--allow", "action", flag_value="allow", help="Let NETWORK call, and of the subject nobody else.")
@click.option("--role", help="Only whoever holds this role.")
@click.option("--user", help="Only this account.")
@click.option("--set", "named_set", help="Only calls to routes that require this set, such as admin.")
@click.option("--report", is_flag=True, help="Refuse nothing, only count what would be refused.")
@click.option("--expires", metavar="DURATION", help="Forget the rule after so long, as in 2h.")
@click.option("--note", default="", help="Why.")
@on_runtime
async def add(
    console: Console,
    runtime: Runtime,
    network: str,
    action: str | None,
    role: str | None,
    user: str | None,
    named_set: str | None,
    *,
    report: bool,
    expires: str | None,
    note: str,
) -> None:
    """Add a rule about NETWORK, an address or a network such as 10.0.0.0/8.

    The longest matching network decides, of equal ones the denial. Servers follow within a second.
    """
    if action is None:
        raise click.UsageError("Say --deny or --allow.")
    written = {
        "network": network,
        "action": action,
        "subject": await _subject(runtime, role=role, user=user, named_set=named_set),
        "mode": "report" if report else "enforce",
        "note": note,
    }
    rule = replace(_checked(written).rule(), expires_at=_expiry(runtime, expires))
    made = await service.create_rule(runtime, OPERATOR, rule)
    console.show_fields(_document(made))


@command()
@click.argument("rule_id", metavar="ID", type=click.UUID)
@on_runtime
async def remove(console: Console, runtime: Runtime, rule_id: UUID) -> None:
    """Remove a rule."""
    await service.delete_rule(runtime, OPERATOR, rule_id)
    console.show({"id": str(rule_id), "removed": True}, f"Removed rule {rule_id}.")


@command()
@click.argument("address")
@click.option("--user", help="As this account, with the roles that it holds.")
@click.option("--set", "named_set", help="Calling routes that require this set, such as admin.")
@on_runtime
async def check(console: Console, runtime: Runtime, address: str, user: str | None, named_set: str | None) -> int:
    """Tell whether ADDRESS may call, and which rule decides. The exit code is 1 when it may not."""
    canonical = canonical_address(address)
    if canonical is None:
        raise click.UsageError(f"{address!r} is no IP address.")
    user_id = (await find_account(runtime, user)).user.id if user is not None else None
    decision = await in_force.explain(runtime, canonical, user_id=user_id, rule_set=named_set)
    document = {
        "address": canonical,
        "allowed": decision.is_allowed,
        "rulings": [str(ruling) for ruling in decision.rulings],
        "reported": [str(ruling) for ruling in decision.reported],
    }
    lines = [f"{canonical} may {'' if decision.is_allowed else 'not '}call."]
    lines += [f"  {ruling}" for ruling in decision.rulings] or ["  No rule is about it."]
    lines += [f"  would be refused: {ruling}" for ruling in decision.reported]
    console.show(document, "\n".join(lines))
    return Exit.OK if decision.is_allowed else Exit.FAILURE


@command()
@on_runtime
async def suspend(console: Console, runtime: Runtime) -> None:
    """Break the glass: every rule only reports from now on, nobody is refused."""
    console.confirm("Let every address call again?")
    count = await service.suspend_rules(runtime, OPERATOR)
    console.show({"suspended": count}, f"{counted(count, 'rule')} suspended: they only report now.")


async def _subject(runtime: Runtime, *, role: str | None, user: str | None, named_set: str | None) -> str:
    given = [name for name in (role, user, named_set) if name is not None]
    if len(given) > 1:
        raise click.UsageError("Say only one of --role, --user and --set.")
    if user is not None:
        return f"user:{(await find_account(runtime, user)).user.id}"
    if role is not None:
        return f"role:{role}"
    return "everyone" if named_set is None else f"set:{named_set}"


def _checked(written: dict[str, Any]) -> CreateIpRule:
    return validated(CreateIpRule, written, context=None)


def _expiry(runtime: Runtime, expires: str | None) -> datetime | None:
    if expires is None:
        return None
    try:
        lifetime: timedelta = Duration.parse(expires)
        return runtime.clock.now() + lifetime
    except ValueError as problem:
        raise ValidationFailed([FieldError("invalid_format", f"{problem}", pointer="/expires")]) from None
    except OverflowError:
        raise ValidationFailed([FieldError("invalid_time", "This time is out of range.", pointer="/expires")]) from None


def _document(row: IpRule) -> dict[str, Any]:
    shown = IpRuleOut.of(row)
    return {name: getattr(shown, name) for name in IpRuleOut.__struct_fields__}
