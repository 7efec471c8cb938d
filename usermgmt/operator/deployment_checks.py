"""What anybody can check of a deployment from outside, without an account. The ids are those of the case list."""

import base64
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from usermgmt.operator.deployment_client import Answer, Deployment

LOGIN, REFRESH, ME = "/api/auth/login", "/api/auth/refresh", "/api/users/me"
ABSENT_ID = "01900000-0000-7000-8000-000000000000"
LONGEST_BODY = 65_536
ODD_PATHS = (
    "//api/users",
    "/api/users/",
    "/api/users/.",
    "/api/users/%2e%2e/",
    "/API/USERS",
    "/api/users/0",
    "/api/users/-1",
    "/api/users/'OR'1'='1",
    "/%00",
    "/%ff",
)
NEVER_TOLD = (
    "traceback",
    "sqlalchemy",
    "asyncpg",
    "quart",
    "hypercorn",
    "werkzeug",
    "select ",
    "password_hash",
    "/site-packages",
)

Check = Callable[[Deployment], None]


class Failed(Exception):
    """The deployment does not keep a promise."""


class Warned(Exception):
    """Something that may be meant, and should be."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A check in its group. Its docstring is its line of the report."""

    group: str
    cases: str
    run: Check

    @property
    def text(self) -> str:
        """What the check is about."""
        return (self.run.__doc__ or "").strip()


CHECKS: list[Listed] = []


def check(group: str, cases: str) -> Callable[[Check], Check]:
    """List a check."""

    def listed(run: Check) -> Check:
        CHECKS.append(Listed(group, cases, run))
        return run

    return listed


def expect(condition: bool, told: str) -> None:
    """Fail with a sentence unless a condition holds."""
    if not condition:
        raise Failed(told)


# Answers


@check("answers", "J04 I11")
def every_answer_has_the_security_headers(site: Deployment) -> None:
    """Every answer, errors included, has the security headers."""
    wanted = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
    for method, path in (("GET", "/health/live"), ("GET", ME), ("GET", "/nowhere"), ("POST", LOGIN), ("TRACE", ME)):
        answer = site.call(method, path)
        for name, value in wanted.items():
            expect(answer.headers.get(name) == value, f"{method} {path}: {name} is {answer.headers.get(name)!r}")
        policy = answer.headers.get("content-security-policy", "")
        expect("default-src 'none'" in policy, f"{method} {path}: Content-Security-Policy is {policy!r}")


@check("answers", "I11")
def nothing_tells_what_serves(site: Deployment) -> None:
    """No header and no body tells the software behind."""
    for path in ("/health/live", "/nowhere", ME):
        answer = site.call("GET", path)
        expect("x-powered-by" not in answer.headers, f"{path}: X-Powered-By")
        server = answer.headers.get("server", "").lower()
        expect(not any(word in server for word in ("hypercorn", "quart", "python")), f"{path}: Server is {server!r}")
        expect(not [word for word in NEVER_TOLD if word in answer.body.decode("latin-1").lower()], f"{path}: body")


@check("answers", "I11")
def errors_are_problem_documents(site: Deployment) -> None:
    """Errors are problem documents (RFC 9457) with a code and a request id."""
    calls: list[tuple[int, Answer]] = [
        (404, site.call("GET", "/nowhere")),
        (405, site.call("DELETE", LOGIN)),
        (401, site.call("GET", ME)),
        (415, site.call("POST", LOGIN, body=b"x", headers={"Content-Type": "text/plain"})),
        (400, site.call("POST", LOGIN, body=b"{", headers={"Content-Type": "application/json"})),
        (422, site.call("POST", LOGIN, {"nosuch": 1})),
    ]
    for status, answer in calls:
        expect(answer.status == status, f"{answer.status} instead of {status}")
        expect(answer.headers.get("content-type") == "application/problem+json", f"{status} is no problem document")
        expect(bool(answer.code and answer.json().get("request_id")), f"{status} has no code or no request id")


@check("answers", "J04")
def tls_is_insisted_on(site: Deployment) -> None:
    """Reached with TLS, and browsers are told to come back with it."""
    if not site.is_secure:
        raise Warned("this URL is not https: passwords travel in the clear unless this is a private network")
    expect("strict-transport-security" in site.call("GET", "/health/live").headers, "no Strict-Transport-Security")


@check("answers", "P28")
def the_insides_are_private(site: Deployment) -> None:
    """The documentation and the metrics are not public."""
    public = [path for path in ("/docs", "/openapi.json", "/metrics") if site.call("GET", path).status == 200]
    if public:
        raise Warned(f"anybody can read {', '.join(public)}")


# Tokens


@check("tokens", "E01 E03 E04 E05 E13")
def made_up_tokens_open_nothing(site: Deployment) -> None:
    """Made-up access tokens are refused: no algorithm, foreign keys, broken headers."""
    for token in made_up_tokens():
        answer = site.call("GET", ME, token=token)
        expect(answer.status == 401, f"{answer.status} for {token[:60]}…")


@check("tokens", "E11 E12")
def credentials_elsewhere_are_not_looked_at(site: Deployment) -> None:
    """Odd Authorization headers, and tokens in queries and cookies, are refused."""
    for value in ("Bearer", "Bearer ", "Basic YTpi", "bearer x", "Bearer a b", "Token x", "Bearer \t x", "x" * 4_000):
        answer = site.call("GET", ME, headers={"Authorization": value})
        expect(answer.status in (400, 401, 431), f"{answer.status} for Authorization: {value[:20]!r}")
    for path, headers in ((f"{ME}?access_token=x", {}), (ME, {"Cookie": "access_token=x"})):
        expect(site.call("GET", path, headers=headers).status == 401, f"{path} {headers}")


@check("tokens", "F15 C12")
def made_up_refresh_tokens_open_nothing(site: Deployment) -> None:
    """Made-up refresh tokens are refused."""
    for value in ("x", "umr1_", f"umr1_{secrets.token_urlsafe(90)}", ABSENT_ID):
        answer = site.call("POST", REFRESH, {"refresh_token": value})
        expect(answer.status in (401, 422), f"{answer.status} for {value[:30]!r}")


# Input


@check("input", "H01 H02 H05 H12 H18")
def what_is_no_plain_json_is_refused(site: Deployment) -> None:
    """Broken, deep, duplicate, infinite and compressed bodies are refused quickly."""
    bodies: Mapping[bytes, Sequence[int]] = {
        b"": (400, 415),
        b"null": (400, 422),
        b"[]": (400, 422),
        b"{": (400,),
        b"[" * 20_000: (400,),
        b'{"a":' * 1_000: (400,),
        b'{"username":"a","username":"b","password":"c"}': (400,),
        b'{"username":NaN,"password":"c"}': (400,),
        b'{"username":1e999,"password":"c"}': (400, 422),
        b'{"username":"\\ud800","password":"c"}': (400, 422),
        b'{"username":"\\u0000","password":"c"}': (400, 422),
        b"\xff\xfe{": (400,),
    }
    for body, statuses in bodies.items():
        answer = site.call("POST", LOGIN, body=body, headers={"Content-Type": "application/json"})
        expect(answer.status in statuses, f"{answer.status} for {body[:40]!r}")
        expect(answer.seconds < 2, f"{answer.seconds:.1f} s for {body[:40]!r}")
    for headers in ({"Content-Type": "text/plain"}, {"Content-Type": "application/json", "Content-Encoding": "gzip"}):
        answer = site.call("POST", LOGIN, body=b"{}", headers=headers)
        expect(answer.status == 415, f"{answer.status} for {headers}")


@check("input", "I01 A05")
def bodies_have_a_limit(site: Deployment) -> None:
    """A body beyond the limit is refused, told by its length or in chunks."""
    body = json.dumps({"username": "a", "password": "x" * 70_000}).encode()
    answer = site.call("POST", LOGIN, body=body, headers={"Content-Type": "application/json"})
    expect(answer.status == 413, f"{answer.status} for 70,000 characters")
    chunk = b"%x\r\n" % LONGEST_BODY + b"a" * LONGEST_BODY + b"\r\n"
    head = site.head("POST", LOGIN, "Content-Type: application/json", "Transfer-Encoding: chunked", "Connection: close")
    received = site.raw(head + chunk * 4 + b"0\r\n\r\n")
    expect(b" 413 " in received[:40] or received == b"", f"chunks: {received[:60]!r}")


@check("input", "H07 H10")
def odd_paths_and_queries_are_refused(site: Deployment) -> None:
    """Odd spellings of paths, ids and queries are refused, never with a 5xx."""
    for path in (*ODD_PATHS, f"/api/users/{ABSENT_ID.upper()}", f"/api/users/%7B{ABSENT_ID}%7D"):
        answer = site.call("GET", path)
        expect(answer.status in (400, 401, 404), f"{answer.status} for {path}")


# HTTP


@check("http", "I05")
def messages_that_can_be_read_in_two_ways_are_refused(site: Deployment) -> None:
    """Ambiguous framing is refused, and the connection closed."""
    second = site.head("GET", "/health/live", "Connection: close")
    for told in (
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: +5"],
        ["Content-Length: 5, 6"],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding : chunked"],
    ):
        head = site.head("POST", LOGIN, "Content-Type: application/json", *told)
        received = site.raw(head + b"0\r\n\r\n" + second)
        expect(received.count(b"HTTP/1.1 ") <= 1, f"{told}: answered twice on one connection")
        expect(not received.startswith(b"HTTP/1.1 2"), f"{told}: {received[:40]!r}")


@check("http", "I06")
def http_2_without_tls_is_refused(site: Deployment) -> None:
    """HTTP/2 in clear text is refused or ignored."""
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
    received = site.raw(site.head("GET", "/health/live", *upgrade))
    expect(not received.startswith(b"HTTP/1.1 101"), "an upgrade to h2c is accepted")


@check("http", "I08 G08")
def odd_methods_and_hosts_are_refused(site: Deployment) -> None:
    """Unknown methods, overridden methods and hostile hosts change nothing."""
    for method in ("TRACE", "FOO", "PROPFIND"):
        answer = site.call(method, ME)
        expect(answer.status in (400, 401, 405, 501), f"{answer.status} for {method}")
    answer = site.call("POST", ME, headers={"X-HTTP-Method-Override": "GET"})
    expect(answer.status in (401, 405), f"{answer.status} for an overridden method")
    for host in ("evil.example", "a b", ".", "x:99999"):
        request = f"GET {site.path('/nowhere')} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        received = site.raw(request)
        expect(not received.startswith(b"HTTP/1.1 5"), f"Host: {host}: {received[:40]!r}")
        expect(b"evil.example" not in received, f"Host: {host} is given back")


@check("http", "J01 J02")
def pages_of_other_origins_get_nothing(site: Deployment) -> None:
    """No origin that looks like an allowed one is allowed, and never * with credentials."""
    for origin in hostile_origins(site.origin):
        for method, headers in (("OPTIONS", {"Access-Control-Request-Method": "POST"}), ("GET", {})):
            answer = site.call(method, ME, headers={"Origin": origin, **headers})
            allowed = answer.headers.get("access-control-allow-origin")
            expect(allowed not in (origin, "null"), f"{method} with Origin: {origin} is allowed")
            with_credentials = answer.headers.get("access-control-allow-credentials") == "true"
            expect(not (allowed == "*" and with_credentials), "* with credentials")


# Who exists


@check("names", "B01")
def a_refused_sign_in_says_nothing(site: Deployment) -> None:
    """Refused sign-ins of made-up names have the same status, headers and body."""
    seen = set()
    for name in (made_up_name(), f"{made_up_name()}@example.com", "x" * 200):
        answer = site.call("POST", LOGIN, {"username": name, "password": "wrong"})
        document = answer.json() or {}
        document.pop("request_id", None)
        seen.add((answer.status, tuple(answer.headers), json.dumps(document)))
    expect(len(seen) == 1, f"{len(seen)} different answers")


@check("names", "D10")
def links_are_on_the_configured_base(site: Deployment) -> None:
    """Forwarding headers of a stranger put no foreign host into an answer."""
    hostile = {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example", "X-Forwarded-Proto": "javascript"}
    for path in ("/nowhere", "/api/auth/login"):
        answer = site.call("GET", path, headers=hostile)
        expect(b"evil.example" not in answer.body, path)
        expect("evil.example" not in str(dict(answer.headers)), path)


def made_up_name() -> str:
    """A name that nobody has."""
    return f"nobody-{secrets.token_hex(6)}"


def made_up_tokens() -> Iterator[str]:
    """Tokens that nobody issued."""
    claims = {
        "iss": "usermgmt",
        "aud": "usermgmt",
        "sub": ABSENT_ID,
        "sid": ABSENT_ID,
        "jti": "x",
        "iat": 1,
        "exp": 9**10,
    }
    headers: list[dict[str, Any]] = [
        *({"alg": alg, "typ": "at+jwt"} for alg in ("none", "None", "nOnE", "", "HS256", "ES256", "RS512")),
        *(
            {"alg": "ES256", "typ": "at+jwt", "kid": kid}
            for kid in ("../../dev/null", "' OR 1=1--", "x" * 9_000, 1, ["a"])
        ),
        {"alg": "ES256", "jku": "http://127.0.0.1:1/keys"},
        {"alg": "ES256", "crit": ["x"], "b64": False},
    ]
    for header in headers:
        yield ".".join(_segment(part) for part in (header, claims)) + "." + base64.urlsafe_b64encode(b"x" * 64).decode()
    yield from ("", ".", "..", "a.b.c", "x" * 5_000, _segment(headers[0]) + "..")


def _segment(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def hostile_origins(own: str) -> Iterator[str]:
    """Origins that look like an allowed one."""
    scheme, _, host = own.partition("://")
    yield from (
        "null",
        "https://evil.example",
        f"{scheme}://evil.{host}",
        f"{scheme}://{host}.evil.example",
        f"{scheme}://{host}x",
    )
    yield from (
        f"{scheme}://x{host}",
        f"{own}.",
        f"{own}/",
        f"{own}:1",
        own.upper(),
        "file://",
        "http://localhost.evil.example",
    )
