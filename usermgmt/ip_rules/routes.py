"""The routes of IP rules."""

from uuid import UUID

from quart import Blueprint, Response

from usermgmt.audit.events import Event
from usermgmt.http.access import answers, emits, limited, refuses, require
from usermgmt.http.answers import answer, no_content
from usermgmt.http.context import caller, runtime
from usermgmt.ip_rules import service
from usermgmt.ip_rules.schemas import CreateIpRule, DeleteIpRule, IpRuleOut, IpRulesOut, UpdateIpRule
from usermgmt.ip_rules.service import IpRuleNotFound, TooManyIpRules, WouldLockOut
from usermgmt.permissions import Permission, RuleSet

blueprint = Blueprint("ip_rules", __name__, url_prefix="/api/ip-rules")


@blueprint.get("")
@require(Permission.IP_RULES_MANAGE, rule_set=RuleSet.ADMIN)
@limited("admin")
@answers(200, IpRulesOut)
async def list_ip_rules() -> Response:
    """List the IP rules."""
    return answer(IpRulesOut.of(await service.list_rules(runtime())))


@blueprint.post("")
@require(Permission.IP_RULES_MANAGE, rule_set=RuleSet.ADMIN)
@limited("admin")
@emits(Event.IP_RULE_CREATED)
@answers(201, IpRuleOut)
@refuses(TooManyIpRules, WouldLockOut)
async def create_ip_rule(body: CreateIpRule) -> Response:
    """Add an IP rule. The longest matching network decides, of equal ones the denial; a call must pass each subject."""
    row = await service.create_rule(runtime(), caller(), body.rule(), is_forced=body.force)
    location = f"{runtime().settings.server.public_url}/api/ip-rules/{row.id}"
    return answer(IpRuleOut.of(row), 201, headers={"Location": location})


@blueprint.get("/<id:rule_id>")
@require(Permission.IP_RULES_MANAGE, rule_set=RuleSet.ADMIN)
@limited("admin")
@answers(200, IpRuleOut)
@refuses(IpRuleNotFound)
async def get_ip_rule(rule_id: UUID) -> Response:
    """Return one IP rule."""
    return answer(IpRuleOut.of(await service.get_rule(runtime(), rule_id)))


@blueprint.put("/<id:rule_id>")
@require(Permission.IP_RULES_MANAGE, rule_set=RuleSet.ADMIN)
@limited("admin")
@emits(Event.IP_RULE_UPDATED)
@answers(200, IpRuleOut)
@refuses(IpRuleNotFound, WouldLockOut)
async def update_ip_rule(rule_id: UUID, body: UpdateIpRule) -> Response:
    """Set the fields of an IP rule that are sent, leave the others alone."""
    row = await service.update_rule(runtime(), caller(), rule_id, body.changes(), is_forced=body.force)
    return answer(IpRuleOut.of(row))


@blueprint.delete("/<id:rule_id>")
@require(Permission.IP_RULES_MANAGE, rule_set=RuleSet.ADMIN)
@limited("admin")
@emits(Event.IP_RULE_DELETED)
@answers(204)
@refuses(IpRuleNotFound, WouldLockOut)
async def delete_ip_rule(rule_id: UUID, query: DeleteIpRule) -> Response:
    """Remove an IP rule."""
    await service.delete_rule(runtime(), caller(), rule_id, is_forced=query.force == "true")
    return no_content()
