"""What can be checked of a deployment with two throw-away accounts, which an administrator's credentials make."""

import base64
import hmac
import json
import secrets
import statistics
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from usermgmt.operator.deployment_checks import LOGIN, ME, REFRESH, expect, made_up_name
from usermgmt.operator.deployment_client import Answer, Deployment, NotChecked

AT_ONCE = 20
GUESSES = 8  # of the ten that an account has
MOST_DIFFERENCE = 0.15
LEAST_SECONDS = 0.02  # a difference that a network makes by itself


@dataclass(slots=True)
class Account:
    """A throw-away account, signed in."""

    id: str
    username: str
    password: str
    access_token: str
    refresh_token: str


@dataclass(frozen=True, slots=True)
class Ground:
    """What the checks stand on: the server, the administrator's token, and two accounts."""

    site: Deployment
    admin_token: str
    ada: Account
    bob: Account


AccountCheck = Callable[[Ground], None]


@dataclass(frozen=True, slots=True)
class ListedForAccounts:
    """A check in its group. Its docstring is its line of the report."""

    group: str
    cases: str
    run: AccountCheck

    @property
    def text(self) -> str:
        """What the check is about."""
        return (self.run.__doc__ or "").strip()


ACCOUNT_CHECKS: list[ListedForAccounts] = []


def check(group: str, cases: str) -> Callable[[AccountCheck], AccountCheck]:
    """List a check."""

    def listed(run: AccountCheck) -> AccountCheck:
        ACCOUNT_CHECKS.append(ListedForAccounts(group, cases, run))
        return run

    return listed


# Throw-away accounts


def make_account(site: Deployment, admin_token: str) -> Account:
    """Make an account and sign in to it. Raises `NotChecked` when that does not work."""
    name, password = f"verify-{secrets.token_hex(6)}", secrets.token_urlsafe(18)
    body = {"username": name, "email": f"{name}@example.com", "password": password}
    made = site.call("POST", "/api/users", body, token=admin_token)
    if made.status != 201:
        raise NotChecked(f"no account could be made: {made.status} {made.code}")
    return sign_in(site, made.json()["id"], name, password)


def sign_in(site: Deployment, user_id: str, name: str, password: str) -> Account:
    """A fresh sign-in. Raises `NotChecked` when it is refused."""
    answer = site.call("POST", LOGIN, {"username": name, "password": password})
    if answer.status != 200 or "refresh_token" not in answer.json():
        raise NotChecked(f"signing in: {answer.status} {answer.code}")
    return Account(user_id, name, password, answer.json()["access_token"], answer.json()["refresh_token"])


def remove_account(site: Deployment, admin_token: str, account: Account) -> bool:
    """Erase an account, or at least delete it; whether it is gone."""
    erased = site.call("POST", f"/api/users/{account.id}/erase", token=admin_token)
    if erased.status == 204:
        return True
    return site.call("DELETE", f"/api/users/{account.id}", token=admin_token).status == 204


def again(ground: Ground, account: Account) -> Account:
    """The same account, signed in once more."""
    return sign_in(ground.site, account.id, account.username, account.password)


# Tokens


@check("tokens", "E01 E02 E06 E10")
def only_the_issued_access_token_works(ground: Ground) -> None:
    """Of a real access token only the issued spelling works: no flips, other algorithms, other claims."""
    expect(ground.site.call("GET", ME, token=ground.ada.access_token).status == 200, "the token itself is refused")
    for forged in _forgeries(ground):
        answer = ground.site.call("GET", ME, token=forged)
        expect(answer.status == 401, f"{answer.status} for {forged[:40]}…{forged[-12:]}")


def _forgeries(ground: Ground) -> Iterator[str]:
    token = ground.ada.access_token
    header, payload, signature = token.split(".")
    yield from (token[:-1], f"{token}=", f"{token}.", f"{header}.{payload}.", f"{header}.{payload}")
    for place in range(2, 12):
        yield token[:-place] + ("A" if token[-place] != "A" else "B") + token[len(token) - place + 1 :]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    for changed in ({"sub": ground.bob.id}, {"exp": claims["exp"] + 10**6}, {"aud": "other"}, {"iss": "other"}):
        yield f"{header}.{_encoded({**claims, **changed})}.{signature}"
    for algorithm in ("none", "HS256"):
        yield f"{_encoded({'alg': algorithm, 'typ': 'at+jwt'})}.{payload}.{signature}"
    signed = f"{_encoded({'alg': 'HS256', 'typ': 'at+jwt'})}.{payload}"
    for secret in _public_keys(ground.site):
        digest = hmac.digest(secret, signed.encode(), "sha256")
        yield f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
    yield ground.ada.refresh_token


def _public_keys(site: Deployment) -> list[bytes]:
    """The published keys in a form that a careless verifier would take for a shared secret."""
    keys = (site.call("GET", "/.well-known/jwks.json").json() or {}).get("keys", [])
    return [json.dumps(key).encode() for key in keys]


def _encoded(value: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


# Sessions


@check("sessions", "F01 P9")
def a_refresh_token_has_one_successor(ground: Ground) -> None:
    """Twenty simultaneous refreshes give one successor; an older token ends the session."""
    account = again(ground, ground.ada)
    body = {"refresh_token": account.refresh_token}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: ground.site.call("POST", REFRESH, body), range(AT_ONCE)))
    expect(all(answer.status < 500 for answer in answers), "a refresh failed with 5xx")
    successors = {answer.json()["refresh_token"] for answer in answers if answer.status == 200}
    expect(len(successors) == 1, f"{len(successors)} successors")
    second = ground.site.call("POST", REFRESH, {"refresh_token": successors.pop()})
    expect(second.status == 200, f"{second.status} for the successor")
    expect(ground.site.call("POST", REFRESH, body).status == 401, "the first token works after two rotations")
    expect(ground.site.call("GET", ME, token=second.json()["access_token"]).status == 401, "the session survived")


@check("sessions", "F06 P8")
def signing_out_ends_the_access_token_at_once(ground: Ground) -> None:
    """After signing out neither token works, at the very next request."""
    account = again(ground, ground.ada)
    out = ground.site.call("POST", "/api/auth/logout", token=account.access_token)
    expect(out.status == 204, f"{out.status} for signing out")
    expect(ground.site.call("GET", ME, token=account.access_token).status == 401, "the access token works")
    refreshed = ground.site.call("POST", REFRESH, {"refresh_token": account.refresh_token})
    expect(refreshed.status == 401, "the refresh token works")


@check("sessions", "F08 F09 P8")
def disabling_ends_every_session_at_once(ground: Ground) -> None:
    """A disabled account is refused at the next request, and its old sessions do not come back."""
    account, path = again(ground, ground.bob), f"/api/users/{ground.bob.id}"
    for status in ("disabled", "active"):
        changed = ground.site.call("PUT", path, {"status": status}, token=ground.admin_token)
        expect(changed.status == 200, f"{changed.status} for {status}")
        expect(ground.site.call("GET", ME, token=account.access_token).status == 401, f"works when {status}")
    fresh = again(ground, ground.bob)
    ground.bob.access_token, ground.bob.refresh_token = fresh.access_token, fresh.refresh_token


# Access


@check("access", "G01 G02 B06 P14")
def nobody_acts_on_somebody_else_s_account(ground: Ground) -> None:
    """An ordinary account can neither see nor change another, its sessions, record, roles or export."""
    path = f"/api/users/{ground.bob.id}"
    for method, suffix, body in (
        ("GET", "", None),
        ("PUT", "", {"display_name": "x"}),
        ("PATCH", "", {"display_name": "x"}),
        ("DELETE", "", None),
        ("GET", "/sessions", None),
        ("DELETE", "/sessions", None),
        ("GET", "/activity", None),
        ("GET", "/export", None),
        ("GET", "/roles", None),
        ("PUT", "/roles/admin", None),
        ("POST", "/restore", None),
        ("POST", "/erase", None),
    ):
        answer = ground.site.call(method, path + suffix, body, token=ground.ada.access_token)
        expect(answer.status in (403, 404), f"{answer.status} for {method} …{suffix}")
        nobody = ground.site.call(method, path + suffix, body)
        expect(nobody.status == 401, f"{nobody.status} for nobody: {method} …{suffix}")
    expect(ground.site.call("GET", ME, token=ground.bob.access_token).status == 200, "something was done after all")


@check("access", "G01 G09 P14")
def administration_is_for_administrators(ground: Ground) -> None:
    """An ordinary account cannot list accounts, roles, groups, IP rules or the record."""
    for path in ("/api/users", "/api/roles", "/api/groups", "/api/ip-rules", "/api/audit"):
        for method in ("GET", "POST"):
            if (method, path) in (("POST", "/api/users"), ("POST", "/api/audit")):
                continue
            answer = ground.site.call(method, path, {} if method == "POST" else None, token=ground.ada.access_token)
            expect(answer.status == 403, f"{answer.status} for {method} {path}")


@check("access", "G04 P16")
def nobody_gives_themselves_rights(ground: Ground) -> None:
    """Fields that one may not set are refused, and stay as they were."""
    before = ground.site.call("GET", ME, token=ground.ada.access_token).json()
    for name, value in {
        "roles": ["admin"],
        "status": "disabled",
        "is_admin": True,
        "permissions": ["users:read"],
        "version": 99,
        "id": ground.bob.id,
        "password_hash": "x",
        "email_verified": True,
        "created_at": "2020-01-01T00:00:00Z",
    }.items():
        answer = ground.site.call("PUT", ME, {name: value}, token=ground.ada.access_token)
        expect(answer.status in (403, 422), f"{answer.status} for {name}")
    after = ground.site.call("GET", ME, token=ground.ada.access_token).json()
    expect(after == before, "the account has changed")


@check("access", "G11 F13")
def no_answer_holds_a_secret(ground: Ground) -> None:
    """No answer about an account holds a hash or a token."""
    for path in (ME, f"{ME}/sessions", f"{ME}/activity", f"{ME}/export", "/api/auth/session"):
        answer: Answer = ground.site.call("GET", path, token=ground.ada.access_token)
        expect(answer.status == 200, f"{answer.status} for {path}")
        for secret in (b"$2b$", b"password_hash", ground.ada.refresh_token.encode()):
            expect(secret not in answer.body, f"{path} holds a secret")
        expect(
            "no-store" in answer.headers.get("cache-control", "") or "no-cache" in answer.headers["cache-control"], path
        )


# Guessing


@check("guessing", "B02 P7")
def the_time_of_a_refused_sign_in_says_nothing(ground: Ground) -> None:
    """A refused sign-in takes as long for a known name as for one that nobody has."""
    spent: dict[bool, list[float]] = {True: [], False: []}
    for number in range(GUESSES):
        for is_known in (True, False) if number % 2 else (False, True):
            body = {"username": ground.ada.username if is_known else made_up_name(), "password": "wrong"}
            spent[is_known].append(ground.site.call("POST", LOGIN, body).seconds)
    known, unknown = statistics.median(spent[True]), statistics.median(spent[False])
    is_noise = abs(known - unknown) < LEAST_SECONDS
    expect(is_noise or abs(known / unknown - 1) <= MOST_DIFFERENCE, f"the medians differ by {known / unknown - 1:+.0%}")


@check("guessing", "C01 P5")
def guessing_ends(ground: Ground) -> None:
    """After some wrong guesses at an account there is a 429 that says when to come back."""
    for _ in range(30):
        try:
            answer = ground.site.call("POST", LOGIN, {"username": ground.bob.username, "password": "wrong"})
        except NotChecked:  # the wait that it asks for is what was looked for
            return
        expect(answer.status in (401, 429), f"{answer.status}")
    raise NotChecked("no limit within 30 guesses")
