"""Which new passwords are accepted."""

import unicodedata
from pathlib import Path

import pytest

from tests.people import Server
from usermgmt.security.password_policy import PRODUCT, SHIPPED, PasswordPolicy

KEYS = "\U0001f511" * 64
NAMES = ("Ada.Lovelace", "ada.lovelace@example.com", "Countess of Lovelace")
SHORT, LONG, COMMON, NAME = "password_too_short", "password_too_long", "password_too_common", "password_is_a_name"


@pytest.fixture(scope="module")
def policy() -> PasswordPolicy:
    """The policy of the default settings."""
    return PasswordPolicy(min_length=8, max_length=1024)


def _problem(policy: PasswordPolicy, password: str, *names: str) -> str | None:
    found = policy.problem(password, names=names)
    return found.code if found is not None else None


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("", SHORT),
        ("qzjxvkw", SHORT),  # A01: seven, eight, twenty of one kind
        ("qzjxvkwb", None),
        ("qzjxvkwbqzjxvkwbmmmm", None),
        ("        ", None),
        ("correct horse battery staple", None),
        (KEYS, None),  # A02
        ("e\u0301" * 7, SHORT),  # seven characters in fourteen code points
        ("e\u0301" * 8, None),
        ("密" * 8, None),
        ("密" * 7, SHORT),
        ("x" * 1024, None),
        ("x" * 1025, LONG),
        ("e\u0301" * 1024, None),
    ],
    ids=lambda value: f"{str(value)[:20]!a}",
)
def test_only_the_length_counts_and_it_is_that_of_characters(policy: PasswordPolicy, password, code):
    assert _problem(policy, password) == code


def test_every_common_password_is_refused_in_any_case(policy: PasswordPolicy):  # A08, P4
    common = [line for line in SHIPPED.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    fitting = [line for line in common if len(line) >= 8]
    assert len(fitting) >= 3000
    for password in fitting:
        for spelling in (password, password.upper(), password.title(), password.swapcase()):
            assert (spelling, _problem(policy, spelling)) == (spelling, COMMON)


@pytest.mark.parametrize(
    "password", ["password1", "PASSWORD1", "qwertyuiop", "12345678", "iloveyou", "trustno1", "sunshine"]
)
def test_what_everybody_tries_first_is_refused(policy: PasswordPolicy, password):
    assert _problem(policy, password) == COMMON


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("ada.lovelace", NAME),
        ("ADA.LOVELACE", NAME),
        ("ada.lovelace@example.com", NAME),
        ("Ada.Lovelace@Example.COM", NAME),
        ("countess of lovelace", NAME),
        (PRODUCT, NAME),
        (PRODUCT.upper(), NAME),
        ("ada.lovelace's own", None),
        ("example.com", None),
        ("the usermgmt of ours", None),
    ],
)
def test_the_own_names_and_the_product_are_no_passwords(policy: PasswordPolicy, password, code):  # A08
    assert _problem(policy, password, *NAMES) == code


def test_a_name_is_recognised_however_it_is_composed(policy: PasswordPolicy):  # A07
    name = "Zo\u00eb.Müller"
    for form in ("NFC", "NFD"):
        assert _problem(policy, unicodedata.normalize(form, name.upper()), name) == NAME
        assert _problem(policy, name, unicodedata.normalize(form, name)) == NAME


def test_another_accounts_name_is_a_password_like_any(policy: PasswordPolicy):
    assert _problem(policy, "ada.lovelace", "bob", "bob@example.com") is None


def test_the_operators_own_list_is_refused_too(tmp_path: Path):
    extra = tmp_path / "blocklist.txt"
    extra.write_bytes("\ufeffour company\r\n\r\n# a comment\r\nMu\u0308nchen 1972\r\n".encode())
    policy = PasswordPolicy(min_length=8, max_length=64, extra_blocklist=extra)
    assert [_problem(policy, password) for password in ("Our Company", "MÜNCHEN 1972", "password1")] == [COMMON] * 3
    assert [_problem(policy, password) for password in ("# a comment", "our companies")] == [None] * 2


def test_no_sentence_repeats_the_password(policy: PasswordPolicy):
    for password in ("short", "password1", "ada.lovelace", "canary" * 300):
        problem = policy.problem(password, names=NAMES)
        assert problem is not None
        assert password not in problem.detail


# From end to end


async def test_registering_follows_the_policy_and_the_password_signs_in(server: Server):  # A01, A02, A08
    table = [
        ("qzjxvkw", SHORT),
        ("qzjxvkwb", None),
        (KEYS, None),
        ("  leading and trailing  ", None),
        ("Zoe\u0308's own password", None),
        ("x" * 1025, LONG),
        ("PassWord1", COMMON),
        ("Person-6", NAME),
        ("person-7@example.com", NAME),
        ("UserMgmt", NAME),
        ("with a NUL\0 inside", "nul_character"),  # A06
    ]
    for number, (password, code) in enumerate(table):
        name = f"person-{number - (code == NAME)}"
        account = {"username": name, "email": f"{name}@example.com", "password": password}
        made = await server.nobody().post("/api/users", json=account)
        body = await made.get_json()
        assert (password[:20], made.status_code) == (password[:20], 422 if code else 201)
        if code is not None:
            assert [(error["pointer"], error["code"]) for error in body["errors"]] == [("/password", code)]
            continue
        assert password not in str(body)
        composed = unicodedata.normalize("NFC", password)  # A07
        for presented, status in ((password, 200), (composed, 200), (f"{password}x", 401), (password[1:], 401)):
            answer = await server.nobody().post("/api/auth/login", json={"username": name, "password": presented})
            assert (presented[:20], answer.status_code) == (presented[:20], status)


async def test_a_password_that_differs_after_its_72nd_byte_does_not_sign_in(server: Server):  # A03
    for number, start in enumerate(("0123456789" * 8, "密码" * 14)):
        account = {"username": f"u{number}", "email": f"u{number}@example.com", "password": f"{start}one"}
        assert (await server.nobody().post("/api/users", json=account)).status_code == 201
        for end, status in (("one", 200), ("two", 401), ("", 401)):
            body = {"username": f"u{number}", "password": f"{start}{end}"}
            assert (await server.nobody().post("/api/auth/login", json=body)).status_code == status
