"""What goes in and out of the routes of IP rules."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, Field

from usermgmt.http.answers import Timestamp, timestamp
from usermgmt.http.fields import ABSENT, RequestModel, StoredTime, refused
from usermgmt.http.patterns import ID, ROLE_NAME
from usermgmt.ip_rules.models import IpRule
from usermgmt.ip_rules.service import NewRule
from usermgmt.security.address import parse_network
from usermgmt.security.rule_book import Action, Mode, Subject, SubjectKind

SUBJECT = f"^(everyone|role:{ROLE_NAME}|set:{ROLE_NAME}|user:{ID})$"


def _network(value: str) -> str:
    try:
        return str(parse_network(value))
    except ValueError:
        raise refused(
            "invalid_network", "This must be an address or a network such as 10.0.0.0/8, without bits of a host."
        ) from None


def _subject(value: str) -> str:
    if not re.fullmatch(SUBJECT[1:-1], value):
        raise refused("invalid_format", "This must be everyone, role:<name>, user:<id> or set:<name>.")
    return value


NetworkText = Annotated[str, AfterValidator(_network), Field(max_length=64, json_schema_extra={"format": "ip-network"})]
SubjectText = Annotated[str, AfterValidator(_subject), Field(json_schema_extra={"pattern": SUBJECT})]
Note = Annotated[str, Field(max_length=255)]
Force = Field(default=False, description="Whether a rule may shut out your own address.")


class CreateIpRule(RequestModel):
    """A new rule."""

    network: NetworkText
    action: Literal["allow", "deny"]
    subject: SubjectText = "everyone"
    mode: Literal["enforce", "report"] = "enforce"
    expires_at: StoredTime | None = None
    note: Note = ""
    force: bool = Force

    def rule(self) -> NewRule:
        """The rule to make."""
        return NewRule(
            network=self.network,
            action=Action(self.action),
            subject=subject_of(self.subject),
            mode=Mode(self.mode),
            expires_at=self.expires_at,
            note=self.note,
        )


class UpdateIpRule(RequestModel):
    """What to set. A field that is absent is left alone; null takes the time of expiry away."""

    network: NetworkText = ABSENT
    action: Literal["allow", "deny"] = ABSENT
    subject: SubjectText = ABSENT
    mode: Literal["enforce", "report"] = ABSENT
    expires_at: StoredTime | None = None
    note: Note = ABSENT
    force: bool = Force

    def changes(self) -> dict[str, Any]:
        """What to set, by the names of a rule."""
        sent = {name: getattr(self, name) for name in self.model_fields_set if name != "force"}
        if "subject" in sent:
            sent["subject"] = subject_of(sent["subject"])
        return sent


class DeleteIpRule(RequestModel):
    """How to remove a rule."""

    force: Literal["true", "false"] = Field("false", description="Whether you may shut out your own address.")


class IpRuleOut(msgspec.Struct, kw_only=True):
    """Which network a rule is about, what it does with it, whose calls it is about, and how often it had a say."""

    id: str
    network: str
    action: Literal["allow", "deny"]
    subject: str
    mode: Literal["enforce", "report"]
    expires_at: Timestamp | None
    note: str
    hits: int
    last_hit_at: Timestamp | None
    created_by: str | None
    created_at: Timestamp
    updated_at: Timestamp

    @classmethod
    def of(cls, row: IpRule) -> "IpRuleOut":
        """The rule as clients see it."""
        return cls(
            id=str(row.id),
            network=row.network,
            action="allow" if row.action == Action.ALLOW else "deny",
            subject=str(Subject(SubjectKind(row.subject_kind), row.subject)),
            mode="enforce" if row.mode == Mode.ENFORCE else "report",
            expires_at=timestamp(row.expires_at) if row.expires_at is not None else None,
            note=row.note,
            hits=row.hits,
            last_hit_at=timestamp(row.last_hit_at) if row.last_hit_at is not None else None,
            created_by=str(row.created_by) if row.created_by is not None else None,
            created_at=timestamp(row.created_at),
            updated_at=timestamp(row.updated_at),
        )


class IpRulesOut(msgspec.Struct):
    """Every rule, newest first."""

    items: list[IpRuleOut]

    @classmethod
    def of(cls, rows: Sequence[IpRule]) -> "IpRulesOut":
        """The rules as clients see them."""
        return cls([IpRuleOut.of(row) for row in rows])


def subject_of(text: str) -> Subject:
    """The subject that a text like `role:admin` names."""
    kind, _, name = text.partition(":")
    return Subject(SubjectKind(kind), name or None)
