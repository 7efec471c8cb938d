"""Accounts in and out by the command line: files as people have them, rows that are wrong, runs that are cut."""

import csv
import io
import json
import os
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.imports.cells import BAD_CELLS, bad_cells
from tests.operator.calls import sign_in
from tests.operator.conftest import PASSWORD, PROGRAM, CommandLine, Start, environment

BCRYPT = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"  # of "U*U", from the tests of crypt_blowfish


def rows(*documents: dict[str, Any]) -> str:
    return "".join(json.dumps(document) + "\n" for document in documents)


def person(name: str, **more: Any) -> dict[str, Any]:
    return {"username": name, "email": f"{name}@example.com", **more}


def totals(line: CommandLine, text: str, *options: str) -> dict[str, Any]:
    """What an import from standard input says in the end; the refused rows under `rows`."""
    result = line.run("users", "import", "-", *options, "--json", given=text)
    *refused, last = map(json.loads, result.stdout.splitlines())
    assert result.exit_code == (1 if last["refused"] else 0), result.stderr
    return {**last, "rows": refused}


def test_accounts_are_made_with_all_that_a_row_has(line: CommandLine) -> None:
    group = line.document("groups", "create", "staff")["id"]
    ada = person(
        "ada",
        id="01890000-0000-7000-8000-000000000001",
        display_name="Ada",
        password_hash=BCRYPT,
        status="disabled",
        roles=["manager", "user"],
        groups=["staff"],
        attributes={"plan": "pro", "seats": 3},
        email_verified=True,
        created_at="2020-02-03T04:05:06.789999+01:00",
        last_login_at="1970-01-01T00:00:00Z",
    )
    found = totals(line, rows(ada, person("bob")))
    assert (found["created"], found["exists"], found["refused"]) == (2, 0, 0)
    shown = line.document("users", "show", "ada")
    assert {name: shown[name] for name in ("id", "display_name", "status", "attributes", "email_verified")} == {
        name: ada[name] for name in ("id", "display_name", "status", "attributes", "email_verified")
    }
    assert (shown["roles"], shown["groups"]) == (["manager", "user"], [group])
    assert (shown["created_at"], shown["last_login_at"]) == ("2020-02-03T03:05:06.789Z", "1970-01-01T00:00:00.000Z")
    assert [each["username"] for each in line.documents("users", "list", "--created-after", shown["created_at"])] == [
        "bob"
    ]
    assert line.document("users", "show", "bob")["roles"] == ["user"]
    (event,) = [each for each in line.documents("audit", "list") if each["event"] == "users.imported"]
    assert event["details"] == {"count": 2}


def test_a_second_run_changes_nothing(line: CommandLine) -> None:
    text = rows(*(person(f"user{number}") for number in range(50)))
    assert totals(line, text)["created"] == 50
    before = line.documents("users", "list", "--all")
    found = totals(line, text)
    assert (found["created"], found["exists"]) == (0, 50)
    assert line.documents("users", "list", "--all") == before


NAMES = [
    *("=1+1", "'=1+1", "''=1", "'", "'a", "a'=b", "-1", "@x", "+x", "x;=1+cmd|' /C calc'!A0", "x;'=1", ";;=", ";'';@"),
    *("a;b", "=;=;'+", "'=;''-x", "a,=b", 'quote "; =x'),
]


def test_what_is_exported_as_csv_is_imported_as_it_was_and_is_no_formula(line: CommandLine) -> None:
    made = [
        person(f"user{place}", display_name=name, attributes={"note": name, name: "x"})
        for place, name in enumerate(NAMES)
    ]
    assert totals(line, rows(*made))["created"] == len(NAMES)
    before = line.documents("users", "list", "--all")
    line.done("users", "export", "--format", "csv", "--output", "kept.csv")
    text = Path("kept.csv").read_text()
    for delimiter in ",;":
        cells = [cell for row in csv.reader(io.StringIO(text), delimiter=delimiter) for cell in row]
        assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == []
    for user in before:
        line.done("users", "erase", user["id"], "--yes")
    line.done("users", "import", "kept.csv")
    shown = ("id", "username", "display_name", "attributes", "created_at")
    after = line.documents("users", "list", "--all")
    assert [[user[name] for name in shown] for user in after] == [[user[name] for name in shown] for user in before]


def test_one_is_told_as_one(line: CommandLine) -> None:
    told = line.done("users", "import", "-", given=rows(person("ada")))
    assert told.startswith("Made 1 account, 0 there before, 0 rows refused, ")


def test_a_dry_run_tells_everything_and_does_nothing(line: CommandLine) -> None:
    found = totals(line, rows(person("ada"), person("ada"), person("x y")), "--dry-run")
    assert (found["created"], found["exists"], found["refused"], found["dry_run"]) == (1, 1, 1, True)
    assert line.documents("users", "list") == []
    assert [each for each in line.documents("audit", "list") if each["event"] == "users.imported"] == []


@pytest.mark.parametrize(
    ("row", "field", "code"),
    [
        ({"username": "ada"}, "/email", "required"),
        (person("ada", email=7), "/email", "wrong_type"),
        (person("a/b"), "/username", "invalid_username"),
        (person("ada", email="nowhere"), "/email", "invalid_email"),
        (person("ada", display_name="\n"), "/display_name", "invalid_display_name"),
        (person("ada", nick="x"), "/nick", "unknown_field"),
        (person("ada", id="7"), "/id", "invalid_format"),
        (person("ada", id="00000000-0000-0000-0000-000000000000"), "/id", "invalid_format"),
        (person("ada", created_at="0001-01-01T00:00:00+23:00"), "/created_at", "invalid_format"),
        (person("ada", created_at="9999-12-31T23:59:59-23:00"), "/created_at", "invalid_format"),
        (person("ada", created_at="0001-01-01T00:00:00Z"), "/created_at", "out_of_range"),
        (person("ada", created_at="9999-12-31T23:59:59.999999Z"), "/created_at", "out_of_range"),
        (person("ada", last_login_at="1969-12-31T23:59:59.999Z"), "/last_login_at", "out_of_range"),
        (person("ada", last_login_at="2222-02-02T00:00:00Z"), "/last_login_at", "out_of_range"),
        (person("ada", roles=0), "/roles", "wrong_type"),
        (person("ada", password="short"), "/password", "password_too_short"),
        (person("ada", password_hash="5f4dcc3b5aa765d61d8327deb882cf99"), "/password_hash", "unknown_hash"),
        (person("ada", password_hash="um1$a$" + BCRYPT.replace("$2a$05", "$2b$31")), "/password_hash", "unknown_hash"),
        (person("ada", password_hash=BCRYPT, password=PASSWORD), "/password", "not_together"),
        (person("ada", status="asleep"), "/status", "not_an_option"),
        (person("ada", roles="user"), "/roles", "wrong_type"),
        (person("ada", roles=["nobody"]), "/roles/0", "unknown_role"),
        (person("ada", groups=["nowhere"]), "/groups/0", "unknown_group"),
        (person("ada", attributes=[]), "/attributes", "wrong_type"),
        (person("ada", attributes={"x": "y" * 70_000}), None, "unreadable_row"),
        (person("ada", attributes={"x": "y" * 20_000}), "/attributes", "too_long"),
        (person("ada", email_verified="yes"), "/email_verified", "wrong_type"),
        (person("ada", created_at="yesterday"), "/created_at", "invalid_format"),
        (person("ada", created_at="2020-01-01T00:00:00"), "/created_at", "invalid_format"),
        (person("ada", email="zoe@example.com"), "/email", "email_taken"),
        (person("zoe", email="ada@example.com"), "/username", "username_taken"),
        (person("ada", id="01890000-0000-7000-8000-000000000001"), "/id", "id_taken"),
        (person("zoe", email="z@example.com"), "/username", "username_taken"),
        (person("zoe", id="01890000-0000-7000-8000-000000000001", email="z@x.com"), "/id", "other_names"),
        (person("zo", id="01890000-0000-7000-8000-000000000001", email="zoe@example.com"), "/id", "other_names"),
    ],
)
def test_a_row_that_is_wrong_is_told_and_the_others_are_made(
    line: CommandLine, row: dict[str, Any], field: str | None, code: str
) -> None:
    zoe = person("zoe", id="01890000-0000-7000-8000-000000000001")
    found = totals(line, rows(zoe, row, person("bob")))
    assert (found["created"], found["refused"]) == (2, 1)
    (refused,) = found["rows"]
    assert (refused["line"], refused["outcome"]) == (2, "refused")
    told = [(each["pointer"], each["code"]) for each in refused.get("errors", [])]
    assert (field, code) in told if field else refused["code"] == code


@pytest.mark.parametrize(
    "text", ["{", "[]", "7", '{"username": "a", "username": "b"}', "\xff", '{"username": "\\u0000"}']
)
def test_a_line_that_is_no_object_is_told_with_its_number(line: CommandLine, text: str) -> None:
    found = totals(line, rows(person("ada")) + "\n" + text + "\n" + rows(person("bob")))
    assert (found["created"], found["refused"], found["rows"][0]["line"]) == (2, 1, 3)


CSV = """\ufeffusername,email,display_name,roles,email_verified,attributes.plan,attributes
ada,ada@example.com,"Ada
Lovelace? No: one line",,,,
bob,bob@example.com,Bob,"user,manager",true,pro,"{""seats"": 3}"
eve,eve@example.com
zed,zed@example.com,'=SUM(A1),,maybe,,
tim,tim@example.com,'=SUM(A1),,,,
"""


def test_csv_is_read_as_spreadsheets_write_it(line: CommandLine) -> None:
    found = totals(line, CSV, "--format", "csv")
    assert [(each["line"], each["code"]) for each in found["rows"]] == [
        (2, "validation_failed"),
        (5, "unreadable_row"),
        (6, "unreadable_row"),
    ]
    bob = line.document("users", "show", "bob")
    assert (bob["roles"], bob["email_verified"], bob["attributes"]) == (
        ["manager", "user"],
        True,
        {"seats": 3, "plan": "pro"},
    )
    assert line.document("users", "show", "tim")["display_name"] == "=SUM(A1)"


def test_a_cell_that_no_line_could_hold_is_refused_and_the_other_rows_are_made(line: CommandLine) -> None:
    found = totals(line, bad_cells(), "--format", "csv")
    assert (found["created"], found["refused"]) == (2, len(BAD_CELLS))
    for told, (_, cell, code, pointer) in zip(found["rows"], BAD_CELLS, strict=True):
        assert (told["code"], told["errors"][0]["pointer"] if pointer else None) == (code, pointer), cell[:40]
        assert pointer or told["detail"].startswith("attributes: "), cell[:40]
    assert [each["username"] for each in line.documents("users", "list")] == ["first", "last"]


@pytest.mark.parametrize(
    "text",
    [
        "username;email\nada;ada@example.com\n",
        "name\nada\n",
        "username,email,email\n",
        "username,email,attributes.\0\n",
        'a,"b',
    ],
)
def test_a_file_that_is_no_such_csv_is_refused_as_a_whole(line: CommandLine, text: str) -> None:
    explanation = line.refused(1, "users", "import", "-", "--format", "csv", given=text)
    assert "line" in explanation or "semicolons" in explanation
    assert line.documents("users", "list") == []


@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_what_is_exported_is_imported_as_it_was(line: CommandLine, form: str, tmp_path: Path, start: Start) -> None:
    line.document("groups", "create", "staff")
    made = [
        person("ada", password_hash=BCRYPT, roles=["manager"], groups=["staff"], attributes={"a": [1, {"b": None}]}),
        person("bob", display_name="=cmd()", status="disabled", email_verified=True),
        person("eve", password=PASSWORD),
    ]
    totals(line, rows(*made))
    file = tmp_path / f"all.{form}"
    line.done("users", "export", "--with-hashes", "--format", form, "--output", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = line.documents("users", "list", "--all")
    for name in ("ada", "bob", "eve"):
        line.done("users", "erase", name, "--yes")
    assert line.run("users", "import", str(file)).exit_code == 0
    after = line.documents("users", "list", "--all")
    assert [{**each, "updated_at": None} for each in after] == [{**each, "updated_at": None} for each in before]
    process = start("serve", "--port", "0", environ=environment(line.environ["USERMGMT_DATABASE__URL"]))
    url = json.loads(process.wait_for('"serving"'))["url"]
    assert [sign_in(url, *who) for who in (("ada", "U*U"), ("ada", PASSWORD), ("eve", PASSWORD))] == [200, 401, 200]


def test_hashes_are_exported_on_demand_only(line: CommandLine) -> None:
    totals(line, rows(person("ada", password_hash=BCRYPT)))
    (plain,) = line.documents("users", "export")
    assert "password_hash" not in plain
    table = list(csv.DictReader(io.StringIO(line.done("users", "export", "--format", "csv", "--with-hashes"))))
    assert table[0]["password_hash"].startswith("$2b$05$CCCC")
    events = [each for each in line.documents("audit", "list") if each["event"] == "users.exported"]
    assert [each["details"]["hashes"] for each in events] == [True, False]


def test_the_report_has_every_row(line: CommandLine, tmp_path: Path) -> None:
    report = tmp_path / "report"
    totals(line, rows(person("ada"), person("ada"), person("a b")), "--report", str(report))
    outcomes = [json.loads(each)["outcome"] for each in report.read_text().splitlines()]
    assert outcomes == ["created", "exists", "refused"]
    assert stat.S_IMODE(report.stat().st_mode) == 0o600


def test_a_run_that_was_killed_is_finished_by_the_next(line: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "many.ndjson"
    count = 30_000
    file.write_text(rows(*(person(f"user{number}") for number in range(count))))
    running = subprocess.Popen(
        [PROGRAM, "users", "import", str(file)], env={**os.environ, **line.environ}, stderr=subprocess.DEVNULL
    )
    while running.poll() is None and not line.documents("users", "list", "--limit", "1"):
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    result = line.run("users", "import", str(file), "--json")
    found = json.loads(result.stdout)
    assert (found["created"] + found["exists"], found["refused"]) == (count, 0)
    names = line.run("users", "export").stdout
    assert len(set(map(lambda text: json.loads(text)["username"], names.splitlines()))) == count  # noqa: C417


def test_two_runs_at_once_make_each_account_once(line: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "many.ndjson"
    file.write_text(rows(*(person(f"user{number}") for number in range(8_000))))
    running = [
        subprocess.Popen(
            [PROGRAM, "users", "import", str(file), "--json"],
            env={**os.environ, **line.environ},
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    found = [json.loads(each.communicate()[0]) for each in running]
    assert sum(each["created"] for each in found) == 8_000
    assert sum(each["exists"] for each in found) == 8_000
    assert [each["refused"] for each in found] == [0, 0]


def test_a_file_that_is_not_there_is_told(line: CommandLine) -> None:
    assert "Cannot read nothing.csv" in line.refused(1, "users", "import", "nothing.csv")


@pytest.mark.parametrize("is_link", [False, True])
def test_a_file_that_is_there_is_replaced_by_a_new_private_one_and_only_when_that_is_said(
    line: CommandLine, tmp_path: Path, is_link: bool
) -> None:
    other, out = tmp_path / "other", tmp_path / "out.ndjson"
    other.write_text("kept", encoding="utf-8")
    if is_link:
        out.symlink_to(other)
    else:
        out.write_text("kept", encoding="utf-8")
        out.chmod(0o666)
    line.refused(2, "users", "export", "--output", str(out))
    assert out.read_text(encoding="utf-8") == "kept"
    line.done("users", "export", "--output", str(out), "--yes")
    assert other.read_text(encoding="utf-8") == "kept"
    assert (out.is_symlink(), out.stat().st_mode & 0o777) == (False, 0o600)
