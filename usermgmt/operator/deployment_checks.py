"""What anybody can check of a deployment from outside, without an account. The ids are those of
`tests/security/cases.toml`.
"""

import json
import secrets
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from usermgmt.operator.checklist import NotChecked
from usermgmt.operator.deployment_checklist import Checklist, Warned, expect
from usermgmt.operator.deployment_client import Answer, Deployment
from usermgmt.operator.deployment_forgeries import ABSENT_ID, made_up_tokens

LOGIN, REFRESH, ME = "/api/auth/login", "/api/auth/refresh", "/api/users/me"
JSON = {"Content-Type": "application/json"}
GUESSES = 5  # of the ten that an account has, when nobody signs in to it in between
ROUND = 8  # guesses between two sign-ins
LEAST_SECONDS = 0.005  # a difference that a network makes by itself
NEVER_TOLD = ("traceback", "sqlalchemy", "asyncpg", "quart", "hypercorn", "werkzeug", "password_hash", "/site-packages")


@dataclass(frozen=True, slots=True)
class Stranger:
    """What somebody without an account has: the server, perhaps the name of somebody who exists, and patience.

    `sign_in` signs in to that name with the right password, which forgets the wrong ones.
    """

    site: Deployment
    known_name: str | None = None
    sign_in: Callable[[], object] | None = None
    pairs: int = 40
    tolerance: float = 0.15


check: Checklist[Stranger] = Checklist()


# Answers


@check("answers", "J04 I11")
def every_answer_has_the_security_headers(stranger: Stranger) -> None:
    """Every answer, errors included, has the security headers."""
    wanted = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
    for method, path in (("GET", "/health/live"), ("GET", ME), ("GET", "/nowhere"), ("POST", LOGIN), ("TRACE", ME)):
        answer = stranger.site.call(method, path)
        for name, value in wanted.items():
            expect(answer.headers.get(name) == value, f"{method} {path}: {name} is {answer.headers.get(name)!r}")
        policy = answer.headers.get("content-security-policy", "")
        expect("default-src 'none'" in policy, f"{method} {path}: Content-Security-Policy is {policy!r}")
        expect("frame-ancestors 'none'" in policy, f"{method} {path}: pages may frame it")


@check("answers", "I11")
def nothing_tells_what_serves(stranger: Stranger) -> None:
    """No header and no body tells the software behind; there is no Server header."""
    for path in ("/health/live", "/nowhere", ME):
        answer = stranger.site.call("GET", path)
        for name in ("server", "x-powered-by", "via"):
            expect(name not in answer.headers, f"{path}: {name} is {answer.headers.get(name)!r}")
        body = answer.body.decode("latin-1").lower()
        told = [word for word in NEVER_TOLD if word in body]
        expect(told == [], f"{path}: the body holds {', '.join(told)}")


@check("answers", "I11")
def errors_are_problem_documents(stranger: Stranger) -> None:
    """Errors are problem documents (RFC 9457) with a code and a request id."""
    call = stranger.site.call
    calls: list[tuple[int, Answer]] = [
        (404, call("GET", "/nowhere")),
        (405, call("DELETE", LOGIN)),
        (401, call("GET", ME)),
        (415, call("POST", LOGIN, body=b"x", headers={"Content-Type": "text/plain"})),
        (400, call("POST", LOGIN, body=b"{", headers=JSON)),
        (422, call("POST", LOGIN, {"nosuch": 1})),
    ]
    for status, answer in calls:
        expect(answer.status == status, f"{answer.status} instead of {status}")
        expect(answer.headers.get("content-type") == "application/problem+json", f"{status} is no problem document")
        expect(bool(answer.code and answer.json().get("request_id")), f"{status} has no code or no request id")
    expect("www-authenticate" in calls[2][1].headers, "401 without WWW-Authenticate")
    expect("allow" in calls[1][1].headers, "405 without Allow")


@check("answers", "J04")
def tls_is_insisted_on(stranger: Stranger) -> None:
    """Reached with TLS, and browsers are told to come back with it."""
    if not stranger.site.is_secure:
        raise Warned("this URL is not https: passwords travel in the clear unless this is a private network")
    headers = stranger.site.call("GET", "/health/live").headers
    expect("strict-transport-security" in headers, "no Strict-Transport-Security")


@check("answers", "P28")
def the_insides_are_private(stranger: Stranger) -> None:
    """The documentation and the metrics are not public."""
    paths = ("/docs", "/openapi.json", "/metrics")
    public = [path for path in paths if stranger.site.call("GET", path).status == 200]
    if public:
        raise Warned(f"anybody can read {', '.join(public)}")


# Tokens


@check("tokens", "E01 E03 E04 E05 E13")
def made_up_tokens_open_nothing(stranger: Stranger) -> None:
    """Made-up access tokens are refused: no algorithm, foreign keys, broken headers."""
    for token in made_up_tokens():
        answer = stranger.site.call("GET", ME, token=token)
        expect(answer.status in (401, 431), f"{answer.status} for {token[:60]!r}…")


@check("tokens", "E11 E12")
def credentials_elsewhere_are_not_looked_at(stranger: Stranger) -> None:
    """Odd Authorization headers, and tokens in queries and cookies, are refused."""
    for value in ("Bearer", "Bearer ", "Basic YTpi", "bearer x", "Bearer a b", "Token x", "Bearer \t x", "x" * 4_000):
        answer = stranger.site.call("GET", ME, headers={"Authorization": value})
        expect(answer.status in (400, 401, 431), f"{answer.status} for Authorization: {value[:20]!r}")
    for path, headers in ((f"{ME}?access_token=x", {}), (ME, {"Cookie": "access_token=x"})):
        answer = stranger.site.call("GET", path, headers=headers)
        expect(answer.status in (401, 422), f"{answer.status} for {path} {headers}")


@check("tokens", "F15 C12")
def made_up_refresh_tokens_open_nothing(stranger: Stranger) -> None:
    """Made-up refresh tokens are refused."""
    odd: list[Any] = ["x", "umr1_", f"umr1_{secrets.token_urlsafe(90)}", ABSENT_ID, 1, None, ["x"], {}]
    for value in odd:
        answer = stranger.site.call("POST", REFRESH, {"refresh_token": value})
        expect(answer.status in (401, 422), f"{answer.status} for {value!r:.30}")


# Who exists


@check("names", "B01")
def a_refused_sign_in_says_nothing(stranger: Stranger) -> None:
    """Refused sign-ins have the same status, headers and body, whether the name exists or not."""
    names = [made_up_name(), f"{made_up_name()}@example.com", "x" * 200]
    answers = {_told(stranger.site.call("POST", LOGIN, _wrong(name))) for name in names}
    expect(len(answers) == 1, f"{len(answers)} different answers for names that nobody has")
    if stranger.known_name is not None:
        answers.add(_told(stranger.site.call("POST", LOGIN, _wrong(stranger.known_name))))
    expect(len(answers) == 1, "another answer for a name that exists")


@check("names", "B02 P7")
def the_time_of_a_refused_sign_in_says_nothing(stranger: Stranger) -> str:
    """A refused sign-in takes as long for a name that exists as for one that nobody has."""
    if stranger.known_name is None:
        raise NotChecked("needs --username")
    known, unknown = medians(stranger, stranger.known_name)
    told = f"the medians differ by {known / unknown - 1:+.0%} ({known * 1000:.0f} and {unknown * 1000:.0f} ms)"
    expect(abs(known - unknown) < LEAST_SECONDS or abs(known / unknown - 1) <= stranger.tolerance, told)
    return told


def medians(stranger: Stranger, name: str) -> tuple[float, float]:
    """The median seconds of refused sign-ins, of an existing name and of made-up ones, taken in turns."""
    spent: dict[bool, list[float]] = {True: [], False: []}
    pairs = stranger.pairs if stranger.sign_in is not None else min(stranger.pairs, GUESSES)
    for number in range(pairs):
        if stranger.sign_in is not None and number % ROUND == 0:
            stranger.sign_in()
        for is_known in (True, False) if number % 2 else (False, True):
            body = _wrong(name if is_known else made_up_name())
            spent[is_known].append(stranger.site.call("POST", LOGIN, body).seconds)
    return statistics.median(spent[True]), statistics.median(spent[False])


def made_up_name() -> str:
    """A name that nobody has."""
    return f"nobody-{secrets.token_hex(6)}"


def _wrong(name: str) -> dict[str, str]:
    return {"username": name, "password": f"wrong-{secrets.token_hex(6)}"}


def _told(answer: Answer) -> tuple[int, tuple[str, ...], str]:
    """What an answer tells, without what is another each time."""
    document = answer.json()
    told = {name: value for name, value in document.items() if name != "request_id"}
    return answer.status, tuple(answer.headers), json.dumps(told)
