"""The commands of protection: IP rules, groups, sessions, the record, explaining, unlocking, erasing."""

import json

import pytest

from tests.operator.conftest import PASSWORD, CommandLine

ALLOWED, DENIED = "192.0.2.7", "198.51.100.9"


@pytest.fixture
def made(line: CommandLine) -> CommandLine:
    """A command line on a database with an administrator and two accounts."""
    for name in ("root", "ada", "bob"):
        words = ("admin", "create") if name == "root" else ("users", "create")
        line.done(*words, name, f"{name}@example.com", "--password-stdin", given=f"{PASSWORD}\n")
    return line


def test_ip_rules_are_added_explained_and_suspended(made: CommandLine):
    rule = made.document("ip-rules", "add", "198.51.100.0/24", "--deny", "--note", "loud", "--expires", "2h")
    assert (rule["network"], rule["action"], rule["subject"], rule["note"]) == (
        "198.51.100.0/24",
        "deny",
        "everyone",
        "loud",
    )
    assert rule["expires_at"]
    assert [each["id"] for each in made.documents("ip-rules", "list")] == [rule["id"]]
    assert made.run("ip-rules", "check", ALLOWED).exit_code == 0
    refused = made.run("ip-rules", "check", DENIED)
    assert refused.exit_code == 1
    assert f"rule {rule['id']} (deny 198.51.100.0/24) refuses" in refused.stdout
    made.document("ip-rules", "add", "192.0.2.0/24", "--allow", "--role", "admin")
    assert made.run("ip-rules", "check", "203.0.113.1", "--user", "root").exit_code == 1
    assert made.run("ip-rules", "check", "203.0.113.1", "--user", "ada").exit_code == 0
    made.document("ip-rules", "add", "192.0.2.0/24", "--allow", "--set", "admin", "--report")
    assert made.run("ip-rules", "check", "203.0.113.1", "--set", "admin").exit_code == 0
    assert "2 rules suspended" in made.done("ip-rules", "suspend", "--yes")
    assert made.run("ip-rules", "check", DENIED).exit_code == 0
    made.done("ip-rules", "remove", rule["id"])
    assert len(made.documents("ip-rules", "list")) == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("add", "10.0.0.1/8", "--deny"), 1),
        (("add", "10.0.0.0/8"), 2),
        (("add", "10.0.0.0/8", "--deny", "--role", "nosuch"), 1),
        (("add", "10.0.0.0/8", "--deny", "--role", "admin", "--set", "admin"), 2),
        (("add", "10.0.0.0/8", "--deny", "--user", "nosuch"), 1),
        (("add", "10.0.0.0/8", "--deny", "--expires", "soon"), 1),
        (("add", "10.0.0.0/8", "--deny", "--expires", "99999999d"), 1),
        (("add", "10.0.0.0/8", "--deny", "--expires", "9999999999d"), 1),
        (("remove", "01900000-0000-7000-8000-000000000000"), 1),
        (("remove", "x"), 2),
        (("check", "nowhere"), 2),
        (("suspend",), 2),
    ],
)
def test_what_is_no_rule_is_refused(made: CommandLine, words: tuple[str, ...], code: int):
    made.refused(code, "ip-rules", *words)


def test_groups_and_roles_over_them_are_explained(made: CommandLine):
    group = made.document("groups", "create", "Lab", "--description", "Where things explode.")
    assert made.document("groups", "add", "Lab", "ada")["members"] == 1
    held = made.document("roles", "grant", "bob", "manager", "--group", "Lab")
    assert {"role": "manager", "group": group["id"]} in held["grants"]
    yes = made.run("explain", "bob", "users:write", "ada")
    assert yes.exit_code == 0
    assert "The role manager over the group Lab permits users:write, and ada is in that group." in yes.stdout
    for words, told in {
        ("bob", "users:write", "root"): "root is not in that group",
        ("bob", "users:write"): "for its members only",
        ("bob", "users:delete", "ada"): "does not permit users:delete",
        ("ada", "users:read"): "The role user over everything does not permit",
    }.items():
        no = made.run("explain", *words)
        assert no.exit_code == 1
        assert told in no.stdout, words
    assert made.run("explain", "root", "ip_rules:manage").exit_code == 0
    assert made.document("groups", "remove", "Lab", "ada")["members"] == 0
    assert made.run("explain", "bob", "users:write", "ada").exit_code == 1
    assert json.loads(made.done("groups", "delete", "Lab", "--yes", "--json"))["deleted"]
    made.refused(1, "groups", "delete", "Lab", "--yes")
    made.refused(1, "roles", "grant", "bob", "manager", "--group", "Lab")
    made.refused(2, "explain", "bob", "users:fly")


def test_the_record_is_listed_sealed_and_verified(made: CommandLine):
    events = made.documents("audit", "list", "--event", "user.created")
    assert [event["actor"]["name"] for event in events] == ["operator"] * 3
    assert len(made.documents("audit", "list", "--limit", "2")) == 2
    assert "user.created" in made.done("audit", "list", "--all")
    made.refused(1, "audit", "list", "--since", "yesterday")
    assert json.loads(made.done("audit", "verify", "--json"))["intact"]
    checkpoint = made.document("audit", "checkpoint")["checkpoint"]
    if checkpoint is not None:
        assert made.run("audit", "verify", "--checkpoint", checkpoint).exit_code == 0
    made.refused(2, "audit", "verify", "--checkpoint", "nonsense")
    assert made.document("audit", "prune", "--yes") == {"removed": 0}


def test_sessions_are_listed_and_ended(made: CommandLine):
    assert made.documents("sessions", "list", "ada") == []
    assert made.document("sessions", "revoke", "ada") == {"revoked": 0}
    made.refused(1, "sessions", "revoke", "ada", "01900000-0000-7000-8000-000000000000")
    made.refused(1, "sessions", "list", "nobody")


def test_an_account_is_unlocked_and_erased(made: CommandLine):
    assert "forgotten" in made.done("users", "unlock", "ada")
    account = made.document("users", "show", "ada")
    made.refused(2, "users", "erase", "ada")
    made.done("users", "erase", "ada", "--yes")
    made.refused(1, "users", "show", "ada")
    made.refused(1, "users", "erase", account["id"], "--yes")
    made.refused(1, "users", "erase", "root", "--yes")
