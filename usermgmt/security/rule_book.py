"""IP rules in memory: which networks may call, decided in microseconds and without any I/O.

A call has several subjects: everyone, each role that the caller holds, the caller's account, and the named set that the
route requires. It must pass each of them. Within one subject the longest matching network decides, and of two rules on
the same network the one that denies. Where no rule matches, the call passes, unless the subject has a rule that allows:
then the subject's rules are a list of who may, and nobody else passes.

Rules that only report never decide. What they would refuse is told beside the decision.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from uuid import UUID

from usermgmt.security.address import Network, parse_address


class Action(StrEnum):
    """What a rule does with a network."""

    ALLOW = "allow"
    DENY = "deny"


class Mode(StrEnum):
    """Whether a rule decides, or only tells what it would refuse."""

    ENFORCE = "enforce"
    REPORT = "report"


class SubjectKind(StrEnum):
    """Whose calls a rule is about."""

    EVERYONE = "everyone"
    ROLE = "role"
    USER = "user"
    SET = "set"  # a named set of rules that routes demand


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose calls: everyone's, those of a role or a user, or those to the routes that require a set."""

    kind: SubjectKind
    name: str | None = None

    def __str__(self) -> str:
        return self.kind if self.name is None else f"{self.kind}:{self.name}"


EVERYONE = Subject(SubjectKind.EVERYONE)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule."""

    id: UUID
    network: Network
    action: Action
    subject: Subject
    mode: Mode = Mode.ENFORCE
    expires_at: datetime | None = None

    def is_live(self, now: datetime) -> bool:
        """Whether the rule has not expired."""
        return self.expires_at is None or self.expires_at > now


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the rules of one subject say of an address; `rule` is None where none matched."""

    subject: Subject
    is_allowed: bool
    rule: Rule | None = None

    def __str__(self) -> str:
        verb = "allows" if self.is_allowed else "refuses"
        if self.rule is None:
            return f"{self.subject}: no rule matches, which {verb}"
        return f"{self.subject}: rule {self.rule.id} ({self.rule.action} {self.rule.network}) {verb}"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a call passes, by the ruling on each subject; `reported` are refusals of rules that only report."""

    rulings: Sequence[Ruling]
    reported: Sequence[Ruling] = ()

    @property
    def is_allowed(self) -> bool:
        """Whether every subject lets the call pass."""
        return all(ruling.is_allowed for ruling in self.rulings)

    @property
    def deciding_rules(self) -> Iterator[Rule]:
        """The rules that had a say, for their hit counts."""
        return (ruling.rule for ruling in (*self.rulings, *self.reported) if ruling.rule is not None)


@dataclass(slots=True)
class _Rules:
    """The rules of one subject, by IP version and prefix length."""

    matching: dict[int, dict[int, dict[int, list[Rule]]]] = field(default_factory=lambda: {4: {}, 6: {}})
    allowing: list[Rule] = field(default_factory=list)

    def add(self, rule: Rule) -> None:
        by_prefix = self.matching[rule.network.version]
        rules = by_prefix.setdefault(rule.network.prefixlen, {})
        rules.setdefault(int(rule.network.network_address), []).append(rule)
        if rule.action is Action.ALLOW:
            self.allowing.append(rule)

    def matches(self, address: IPv4Address | IPv6Address) -> Iterator[list[Rule]]:
        """The rules that match, those of the longest network first."""
        number, bits = int(address), address.max_prefixlen
        by_prefix = self.matching[address.version]
        for length in sorted(by_prefix, reverse=True):
            shift = bits - length
            yield by_prefix[length].get(number >> shift << shift, [])


class RuleBook:
    """All rules at one moment; never changed, only replaced."""

    def __init__(self, rules: Iterable[Rule] = (), *, version: int = 0) -> None:
        self.version = version
        self._subjects: dict[Subject, _Rules] = {}
        self._has_reports = False
        for rule in rules:
            self._subjects.setdefault(rule.subject, _Rules()).add(rule)
            self._has_reports = self._has_reports or rule.mode is Mode.REPORT

    def decide(self, address: str | None, subjects: Iterable[Subject], *, now: datetime) -> Decision:
        """Whether a call from an address passes the rules of its subjects. No address matches no rule."""
        known = [subject for subject in subjects if subject in self._subjects]
        if not known:
            return _NOTHING_TO_SAY
        parsed = parse_address(address)
        rulings = [self._rule(subject, parsed, now, {Mode.ENFORCE}) for subject in known]
        if not self._has_reports:
            return Decision(rulings)
        all_rules = [self._rule(subject, parsed, now, {Mode.ENFORCE, Mode.REPORT}) for subject in known]
        reported = [
            strict
            for lenient, strict in zip(rulings, all_rules, strict=True)
            if lenient.is_allowed and not strict.is_allowed
        ]
        return Decision(rulings, reported)

    def _rule(
        self, subject: Subject, address: IPv4Address | IPv6Address | None, now: datetime, modes: set[Mode]
    ) -> Ruling:
        rules = self._subjects[subject]
        for matching in rules.matches(address) if address is not None else ():
            live = [rule for rule in matching if rule.mode in modes and rule.is_live(now)]
            if live:
                decisive = next((rule for rule in live if rule.action is Action.DENY), live[0])
                return Ruling(subject, decisive.action is Action.ALLOW, decisive)
        is_list = any(rule.mode in modes and rule.is_live(now) for rule in rules.allowing)
        return Ruling(subject, not is_list)


_NOTHING_TO_SAY = Decision(())


class Hits:
    """How often each rule had a say since this was last emptied. Bounded by the number of rules."""

    def __init__(self) -> None:
        self._counts: dict[UUID, int] = {}

    def add(self, rules: Iterable[Rule]) -> None:
        """Count one call."""
        for rule in rules:
            self._counts[rule.id] = self._counts.get(rule.id, 0) + 1

    def take(self) -> dict[UUID, int]:
        """What was counted; begins anew."""
        taken, self._counts = self._counts, {}
        return taken
