"""How IP rules decide: the longest network, denials first, every subject must let the call pass."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usermgmt.security.address import parse_network
from usermgmt.security.rule_book import EVERYONE, Action, Mode, Rule, RuleBook, Subject, SubjectKind

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ADMINS = Subject(SubjectKind.ROLE, "admin")


def rule(
    text: str,
    *,
    subject: Subject = EVERYONE,
    mode: Mode = Mode.ENFORCE,
    expires_at: datetime | None = None,
    number: int = 0,
) -> Rule:
    """A rule written as `deny 10.0.0.0/8`."""
    action, network = text.split(" ")
    return Rule(UUID(int=number), parse_network(network), Action(action), subject, mode, expires_at)


def passes(rules: list[Rule], address: str | None, *subjects: Subject) -> bool:
    return RuleBook(rules).decide(address, subjects or [EVERYONE], now=NOW).is_allowed


@pytest.mark.parametrize(
    ("rules", "address", "allowed"),
    [
        ([], "192.0.2.1", True),
        (["deny 192.0.2.0/24"], "192.0.2.1", False),
        (["deny 192.0.2.0/24"], "192.0.3.1", True),
        (["deny 192.0.2.0/24", "allow 192.0.2.7"], "192.0.2.7", True),
        (["deny 192.0.2.0/24", "allow 192.0.2.7"], "192.0.2.8", False),
        (["deny 192.0.2.0/24", "allow 192.0.2.7"], "198.51.100.1", False),
        (["allow 10.0.0.0/8"], "10.1.2.3", True),
        (["allow 10.0.0.0/8"], "192.0.2.1", False),
        (["allow 10.0.0.0/8", "deny 10.1.0.0/16"], "10.1.2.3", False),
        (["allow 10.0.0.0/8", "deny 10.0.0.0/8"], "10.1.2.3", False),
        (["deny 0.0.0.0/0"], "192.0.2.1", False),
        (["deny 0.0.0.0/0"], "2001:db8::1", True),
        (["deny ::/0"], "2001:db8::1", False),
        (["deny ::/0"], "192.0.2.1", True),
        (["deny 192.0.2.0/24"], "::ffff:192.0.2.1", False),
        (["deny ::ffff:192.0.2.0/120"], "192.0.2.1", False),
        (["deny ::ffff:0:0/96"], "192.0.2.1", False),
        (["deny 2001:db8::/32"], "2001:0DB8:0:0::1%eth0", False),
        (["deny 192.0.2.0/24"], None, True),
        (["allow 192.0.2.0/24"], None, False),
    ],
)
def test_who_passes(rules: list[str], address: str | None, allowed: bool):  # D06
    assert passes([rule(text) for text in rules], address) is allowed


def test_every_subject_must_let_the_call_pass():
    rules = [rule("allow 10.0.0.0/8", subject=ADMINS), rule("deny 10.6.0.0/16")]
    assert passes(rules, "10.1.1.1", EVERYONE, ADMINS)
    assert not passes(rules, "192.0.2.1", EVERYONE, ADMINS)
    assert not passes(rules, "10.6.1.1", EVERYONE, ADMINS)
    assert passes(rules, "192.0.2.1", EVERYONE)


def test_what_has_expired_does_not_exist():
    over, later = (
        rule("allow 10.0.0.0/8", expires_at=NOW),
        rule("deny 10.0.0.0/8", expires_at=NOW + timedelta(seconds=1)),
    )
    assert passes([over], "192.0.2.1")
    assert not passes([later], "10.0.0.1")
    assert RuleBook([later]).decide("10.0.0.1", [EVERYONE], now=NOW + timedelta(seconds=1)).is_allowed


def test_what_only_reports_refuses_nobody_and_is_told():
    book = RuleBook([rule("deny 10.0.0.0/8", mode=Mode.REPORT), rule("deny 10.1.0.0/16", number=2)])
    decision = book.decide("10.2.0.1", [EVERYONE], now=NOW)
    assert decision.is_allowed
    assert [str(ruling) for ruling in decision.reported] == [
        "everyone: rule 00000000-0000-0000-0000-000000000000 (deny 10.0.0.0/8) refuses"
    ]
    decision = book.decide("10.1.0.1", [EVERYONE], now=NOW)
    assert (decision.is_allowed, decision.reported) == (False, [])
    assert book.decide("192.0.2.1", [EVERYONE], now=NOW).reported == []


NETWORKS = st.sampled_from(
    ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "::/0", "2001:db8::/32", "2001:db8::1/128"]
)
RULES = st.lists(
    st.builds(
        lambda action, network, subject, expires: rule(f"{action} {network}", subject=subject, expires_at=expires),
        st.sampled_from(["allow", "deny"]),
        NETWORKS,
        st.sampled_from([EVERYONE, ADMINS]),
        st.sampled_from([None, NOW, NOW + timedelta(days=1)]),
    ),
    max_size=8,
)
ADDRESSES = st.sampled_from(["10.1.2.3", "10.1.2.4", "10.1.9.9", "10.9.9.9", "192.0.2.1", "2001:db8::1", "2001:db8::2"])


def naive(rules: list[Rule], address: str, subject: Subject) -> bool:
    """The same, as one would say it."""
    live = [each for each in rules if each.subject == subject and (each.expires_at is None or each.expires_at > NOW)]
    matching = [each for each in live if ip_address(address) in each.network]
    if not matching:
        return not any(each.action is Action.ALLOW for each in live)
    longest = max(each.network.prefixlen for each in matching)
    return all(each.action is Action.ALLOW for each in matching if each.network.prefixlen == longest)


@settings(max_examples=300, deadline=None)
@given(RULES, ADDRESSES)
def test_it_decides_as_one_would_say_it(rules: list[Rule], address: str):
    expected = naive(rules, address, EVERYONE) and naive(rules, address, ADMINS)
    assert passes(rules, address, EVERYONE, ADMINS) is expected
