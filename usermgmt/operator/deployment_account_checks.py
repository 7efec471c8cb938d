"""What can be checked of a deployment with two throw-away accounts, which an administrator's credentials make."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from usermgmt.operator.checklist import NotChecked
from usermgmt.operator.deployment_checklist import Checklist, expect
from usermgmt.operator.deployment_checks import LOGIN, ME, REFRESH
from usermgmt.operator.deployment_client import Answer, Deployment, Unreachable
from usermgmt.operator.deployment_forgeries import ABSENT_ID, forgeries
from usermgmt.operator.deployment_operations import Operation, operations_of

AT_ONCE = 20
LOGOUT = "/api/auth/logout"
SPARE_REQUESTS = 20  # for cleaning up, when all others are spent


@dataclass(slots=True)
class Account:
    """A throw-away account, once signed in with its tokens."""

    id: str
    username: str
    password: str
    access_token: str = ""
    refresh_token: str = ""


@dataclass(frozen=True, slots=True)
class Ground:
    """What the checks stand on: the server, the administrator's token, and two accounts."""

    site: Deployment
    admin_token: str
    ada: Account
    bob: Account


check: Checklist[Ground] = Checklist()


# Throw-away accounts


@contextmanager
def throw_away_accounts(site: Deployment, admin_token: str) -> Iterator[Ground]:
    """Two accounts that are erased at the end, whatever happens; the administrator's session ends then too."""
    made: list[Account] = []
    try:
        for _ in range(2):
            _make_uninterrupted(site, admin_token, made)
            sign_in(site, made[-1])
        yield Ground(site, admin_token, *made)
    finally:
        site.allowance += SPARE_REQUESTS
        left = [account.username for account in made if not _is_removed(site, admin_token, account)]
        if left:
            click.echo(f"These accounts could not be removed: {', '.join(left)}", err=True)
        _is_done(site, "POST", LOGOUT, admin_token)


def sign_in(site: Deployment, account: Account) -> Account:
    """Sign in to an account, whose tokens are then these. Raises `NotChecked` when that is refused."""
    account.access_token, account.refresh_token = tokens_for(site, account.username, account.password)
    return account


def tokens_for(site: Deployment, username: str, password: str) -> tuple[str, str]:
    """The access token and the refresh token of a fresh sign-in. Raises `NotChecked` when it is refused."""
    answer = site.call("POST", LOGIN, {"username": username, "password": password})
    document = answer.json()
    if answer.status != 200 or not isinstance(document, dict):
        raise NotChecked(f"{username} could not sign in: {answer.status} {answer.code or ''}".rstrip())
    if "access_token" not in document or "refresh_token" not in document:
        raise NotChecked("signing in gives no pair of tokens (with tokens.transport = cookie there is none)")
    return str(document["access_token"]), str(document["refresh_token"])


def _make_uninterrupted(site: Deployment, admin_token: str, made: list[Account]) -> None:
    """Make an account and keep it in a list, in a thread: an interruption waits for that, so that none is left."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: made.append(_made(site, admin_token))).result()


def _made(site: Deployment, admin_token: str) -> Account:
    name, password = f"verify-{secrets.token_hex(6)}", secrets.token_urlsafe(18)
    body = {"username": name, "email": f"{name}@example.com", "password": password}
    answer = site.call("POST", "/api/users", body, token=admin_token)
    document = answer.json()
    if answer.status != 201 or not isinstance(document, dict) or "id" not in document:
        raise NotChecked(f"no account could be made: {answer.status} {answer.code or ''}".rstrip())
    return Account(str(document["id"]), name, password)


def _is_removed(site: Deployment, admin_token: str, account: Account) -> bool:
    """Erase an account, or delete it if that is all that is permitted; whether it is gone."""
    path = f"/api/users/{account.id}"
    return _is_done(site, "POST", f"{path}/erase", admin_token) or _is_done(site, "DELETE", path, admin_token)


def _is_done(site: Deployment, method: str, path: str, token: str) -> bool:
    try:
        return site.call(method, path, token=token).status in (204, 404)
    except (NotChecked, Unreachable):
        return False


def _again(ground: Ground, account: Account) -> Account:
    """The same account in a session of its own."""
    return sign_in(ground.site, Account(account.id, account.username, account.password))


# Tokens


@check("tokens", "E01 E02 E06 E07 E10")
def only_the_issued_access_token_works(ground: Ground) -> None:
    """Of a real access token only the issued spelling works: no flips, other algorithms, other claims."""
    site, ada = ground.site, ground.ada
    expect(site.call("GET", ME, token=ada.access_token).status == 200, "the token itself is refused")
    keys = (site.call("GET", "/.well-known/jwks.json").json() or {}).get("keys", [])
    for forged in (*forgeries(ada.access_token, keys, ground.bob.id), ada.refresh_token):
        answer = site.call("GET", ME, token=forged)
        expect(answer.status == 401, f"{answer.status} for {forged[:40]}…{forged[-12:]}")
    refreshed = site.call("POST", REFRESH, {"refresh_token": ada.access_token})
    expect(refreshed.status in (401, 422), f"{refreshed.status} for an access token as refresh token")


# Sessions


@check("sessions", "F01 P9")
def a_refresh_token_has_one_successor(ground: Ground) -> None:
    """Twenty simultaneous refreshes give one successor; an older token ends the session."""
    site = ground.site
    body = {"refresh_token": _again(ground, ground.ada).refresh_token}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: site.call("POST", REFRESH, body), range(AT_ONCE)))
    worst = max(answer.status for answer in answers)
    expect(worst < 500, f"{worst} for a simultaneous refresh")
    successors = {answer.json()["refresh_token"] for answer in answers if answer.status == 200}
    expect(len(successors) == 1, f"{len(successors)} successors")
    second = site.call("POST", REFRESH, {"refresh_token": successors.pop()})
    expect(second.status == 200, f"{second.status} for the successor")
    expect(site.call("POST", REFRESH, body).status == 401, "the first token works after two rotations")
    expect(site.call("GET", ME, token=second.json()["access_token"]).status == 401, "the session survived")
    third = site.call("POST", REFRESH, {"refresh_token": second.json()["refresh_token"]})
    expect(third.status == 401, "the newest refresh token survived")


@check("sessions", "F06 P8")
def signing_out_ends_the_access_token_at_once(ground: Ground) -> None:
    """After signing out neither token works, at the very next request."""
    account = _again(ground, ground.ada)
    out = ground.site.call("POST", LOGOUT, token=account.access_token)
    expect(out.status == 204, f"{out.status} for signing out")
    expect(ground.site.call("GET", ME, token=account.access_token).status == 401, "the access token works")
    refreshed = ground.site.call("POST", REFRESH, {"refresh_token": account.refresh_token})
    expect(refreshed.status == 401, "the refresh token works")


@check("sessions", "F08 F09 P8")
def disabling_ends_every_session_at_once(ground: Ground) -> None:
    """A disabled account is refused at the next request, and its old sessions do not come back."""
    account, path = _again(ground, ground.bob), f"/api/users/{ground.bob.id}"
    for status in ("disabled", "active"):
        changed = ground.site.call("PUT", path, {"status": status}, token=ground.admin_token)
        expect(changed.status == 200, f"{changed.status} for {status}")
        expect(ground.site.call("GET", ME, token=account.access_token).status == 401, f"works when {status}")
    sign_in(ground.site, ground.bob)


# Access


@check("access", "G01 G09 P14")
def nobody_gets_in_without_a_token(ground: Ground) -> None:
    """Each operation that needs a token answers 401 without one."""
    for operation, path, body in _calls(ground):
        answer = ground.site.call(operation.method, path, body)
        expect(answer.status == 401, f"{answer.status} for {operation.method} {operation.path}")


@check("access", "G01 G02 F13 P14")
def nobody_acts_on_somebody_else_s_account(ground: Ground) -> None:
    """An ordinary account can neither administer anything, nor see or change another account."""
    before = _own(ground, ground.bob)
    for operation, path, body in _calls(ground):
        if operation.can_forbid:
            answer = ground.site.call(operation.method, path, body, token=ground.ada.access_token)
            expect(answer.status in (403, 404), f"{answer.status} for {operation.method} {operation.path}")
    expect(_own(ground, ground.bob) == before, "something was done after all")


def _calls(ground: Ground) -> Iterator[tuple[Operation, str, Any]]:
    """Every operation with its path and body. What is not of a throw-away account does not exist, so nothing breaks."""
    sessions = ground.site.call("GET", f"{ME}/sessions", token=ground.bob.access_token).json()["items"]
    values = {
        "user_id": ground.bob.id,
        "id": ground.bob.id,
        "session_id": sessions[0]["id"],
        "group_id": ABSENT_ID,
        "rule_id": ABSENT_ID,
        "role": "admin",
        "name": f"verify-{secrets.token_hex(6)}",
    }
    for operation in operations_of(ground.site):
        body = {"display_name": "x"} if operation.method in ("PUT", "PATCH") else None
        yield operation, operation.filled(values), {} if operation.method == "POST" else body


def _own(ground: Ground, account: Account) -> Any:
    """An account as it sees itself, its sessions and roles included."""
    answers = [ground.site.call("GET", f"{ME}{part}", token=account.access_token) for part in ("", "/roles")]
    expect(all(answer.status == 200 for answer in answers), f"{answers[0].status} for the account itself")
    return [answer.json() for answer in answers]


@check("access", "B06")
def others_cannot_be_told_from_nobody(ground: Ground) -> None:
    """Asked for by somebody else, an account that exists is answered like one that does not."""
    answers = set()
    for user_id in (ground.bob.id, ABSENT_ID):
        answer = ground.site.call("GET", f"/api/users/{user_id}", token=ground.ada.access_token)
        answers.add((answer.status, answer.code, tuple(answer.headers)))
    expect(len(answers) == 1, f"{sorted(answer[0] for answer in answers)}")


@check("access", "G03 G04 P16")
def nobody_gives_themselves_rights(ground: Ground) -> None:
    """Fields that one may not set are refused, and stay as they were."""
    before = _own(ground, ground.ada)
    forbidden: Mapping[str, Any] = {
        "roles": ["admin"],
        "groups": [ABSENT_ID],
        "status": "disabled",
        "is_admin": True,
        "permissions": ["users:read"],
        "version": 99,
        "id": ground.bob.id,
        "password_hash": "x",
        "email_verified": True,
        "created_at": "2020-01-01T00:00:00Z",
    }
    for method in ("PUT", "PATCH"):
        for name, value in forbidden.items():
            answer = ground.site.call(method, ME, {name: value}, token=ground.ada.access_token)
            expect(answer.status in (403, 422), f"{answer.status} for {method} of {name}")
    expect(_own(ground, ground.ada) == before, "the account has changed")


@check("access", "G11 F13 J04")
def no_answer_holds_a_secret(ground: Ground) -> None:
    """No answer about an account holds a hash or a token, and none is kept by a cache."""
    for path in (ME, f"{ME}/sessions", f"{ME}/activity", f"{ME}/export", "/api/auth/session"):
        answer: Answer = ground.site.call("GET", path, token=ground.ada.access_token)
        expect(answer.status == 200, f"{answer.status} for {path}")
        for secret in (b"$2b$", b"password_hash", ground.ada.password.encode(), ground.ada.refresh_token.encode()):
            expect(secret not in answer.body, f"{path} holds a secret")
        policy = answer.headers.get("cache-control", "")
        kept: Sequence[str] = ("no-store", "no-cache")
        expect(any(word in policy for word in kept), f"{path}: Cache-Control is {policy!r}")


# Guessing


@check("guessing", "C01 P5")
def guessing_ends(ground: Ground) -> None:
    """After some wrong guesses at an account there is a 429 that says when to come back."""
    for _ in range(30):
        try:
            answer = ground.site.call("POST", LOGIN, {"username": ground.bob.username, "password": "wrong"})
        except NotChecked:  # the wait that it asks for is what was looked for
            return
        expect(answer.status == 401, f"{answer.status}")
    raise NotChecked("no limit within 30 guesses")
