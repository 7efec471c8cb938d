"""What anybody can check of the way in which a deployment reads requests. The ids are those of the case list."""

import json
from collections.abc import Mapping, Sequence

from usermgmt.operator.deployment_checklist import Checklist, expect
from usermgmt.operator.deployment_checks import JSON, LOGIN, ME, Stranger
from usermgmt.operator.deployment_forgeries import ABSENT_ID, hostile_origins

LONGEST_BODY = 65_536
MOST_SECONDS = 2.0  # for a body that is refused
ODD_PATHS = (
    "//api/users",
    "/api//users",
    "/api/users/",
    "/api/users/.",
    "/api/users/%2e%2e",
    "/api/users/%2e%2e/",
    "/api/users/..%2fusers",
    "/api/users;x=1",
    "/API/USERS",
    "/api/users/0",
    "/api/users/-1",
    "/api/users/%D9%A1",
    "/api/users/'OR'1'='1",
    f"/api/users/{ABSENT_ID.upper()}",
    f"/api/users/%7B{ABSENT_ID}%7D",
    f"/api/users/urn:uuid:{ABSENT_ID}",
    "/%00",
    "/%ff",
    "/nowhere",
)

check: Checklist[Stranger] = Checklist()


# Input


@check("input", "H01 H02 H05 H12")
def what_is_no_plain_json_is_refused(stranger: Stranger) -> None:
    """Broken, deep, duplicate and infinite JSON is refused quickly."""
    bodies: Mapping[bytes, Sequence[int]] = {
        b"": (400, 415),
        b"null": (400, 422),
        b"[]": (400, 422),
        b"1": (400, 422),
        b"{": (400,),
        b"[" * 20_000: (400,),
        b'{"a":' * 1_000: (400,),
        b'{"username":"a","username":"b","password":"c"}': (400,),
        b'{"username":NaN,"password":"c"}': (400,),
        b'{"username":-Infinity,"password":"c"}': (400,),
        b'{"username":1e999,"password":"c"}': (400, 422),
        b'{"username":%s,"password":"c"}' % (b"9" * 5_000): (400, 422),
        b'{"username":"\\ud800","password":"c"}': (400, 422),
        b'{"username":"\\u0000","password":"c"}': (400, 422),
        b"\xff\xfe{": (400,),
    }
    for body, statuses in bodies.items():
        answer = stranger.site.call("POST", LOGIN, body=body, headers=JSON)
        expect(answer.status in statuses, f"{answer.status} for {body[:40]!r}")
        expect(answer.seconds < MOST_SECONDS, f"{answer.seconds:.1f} s for {body[:40]!r}")


@check("input", "H18 J03")
def other_content_types_are_refused(stranger: Stranger) -> None:
    """Bodies that are no JSON by their type, or compressed, are refused unread."""
    kinds = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ";;;=", "")
    refused = [*({"Content-Type": kind} for kind in kinds), {**JSON, "Content-Encoding": "gzip"}]
    for headers in refused:
        answer = stranger.site.call("POST", LOGIN, body=b'{"username":"a","password":"b"}', headers=headers)
        expect(answer.status == 415, f"{answer.status} for {headers}")


@check("input", "I01 A05")
def bodies_have_a_limit(stranger: Stranger) -> None:
    """A body one byte beyond 64 KiB is refused, told by its length or in chunks."""
    empty = len(json.dumps({"username": "a", "password": ""}))
    body = json.dumps({"username": "a", "password": "x" * (LONGEST_BODY + 1 - empty)}).encode()
    answer = stranger.site.call("POST", LOGIN, body=body, headers=JSON)
    expect(answer.status == 413, f"{answer.status} for {len(body):,} bytes")
    chunked = ("Content-Type: application/json", "Transfer-Encoding: chunked", "Connection: close")
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:1_000], body[1_000:])) + b"0\r\n\r\n"
    received = stranger.site.raw(stranger.site.head("POST", LOGIN, *chunked) + chunks)
    expect(b" 413 " in received[:20], f"{_status_line(received)} for {len(body):,} bytes in chunks")


@check("input", "H07 H10")
def odd_paths_are_refused(stranger: Stranger) -> None:
    """Odd spellings of paths and ids are refused, and unknown routes not found, never with a 5xx."""
    for path in ODD_PATHS:
        answer = stranger.site.call("GET", path)
        expect(answer.status in (400, 401, 404), f"{answer.status} for {path}")


# HTTP


@check("http", "I05")
def messages_that_can_be_read_in_two_ways_are_refused(stranger: Stranger) -> None:
    """Ambiguous framing is refused, and the connection closed."""
    site = stranger.site
    second = site.head("GET", "/health/live", "Connection: close")
    for told in (
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 5"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: +5"],
        ["Content-Length: -1"],
        ["Content-Length: 5, 6"],
        ["Content-Length: 0x5"],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding : chunked"],
        ["Transfer-Encoding: chunked", "X: y\n\nGET / HTTP/1.1"],
    ):
        head = site.head("POST", LOGIN, "Content-Type: application/json", *told)
        _expect_one_refusal(site.raw(head + b"0\r\n\r\n" + second), str(told))
    overflow = site.head("POST", LOGIN, "Content-Type: application/json", "Transfer-Encoding: chunked")
    _expect_one_refusal(site.raw(overflow + b"f" * 40 + b"\r\nx\r\n0\r\n\r\n" + second), "an endless chunk")


def _expect_one_refusal(received: bytes, told: str) -> None:
    expect(received.count(b"HTTP/1.1 ") <= 1, f"{told}: answered twice on one connection")
    expect(received[:10] in (b"", b"HTTP/1.1 4", b"HTTP/1.1 5"), f"{told}: {_status_line(received)}")
    expect(received[9:12] != b"500", f"{told}: {_status_line(received)}")


@check("http", "I06")
def http_2_without_tls_is_refused(stranger: Stranger) -> None:
    """HTTP/2 in clear text is refused or ignored."""
    headers = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
    received = stranger.site.raw(stranger.site.head("GET", "/health/live", *headers))
    expect(not received.startswith(b"HTTP/1.1 101"), "an upgrade to h2c is accepted")


@check("http", "I08 G08")
def odd_methods_are_refused(stranger: Stranger) -> None:
    """Unknown methods are refused, and methods cannot be overridden."""
    site = stranger.site
    for method in ("TRACE", "FOO", "PROPFIND", "get"):
        answer = site.call(method, ME)
        expect(answer.status in (400, 401, 405, 501), f"{answer.status} for {method}")
    received = site.raw(f"CONNECT evil.example:443 HTTP/1.1\r\nHost: {site.host}\r\nConnection: close\r\n\r\n".encode())
    expect(received[:10] in (b"", b"HTTP/1.1 4", b"HTTP/1.1 5"), f"{_status_line(received)} for CONNECT")
    answer = site.call("POST", ME, headers={"X-HTTP-Method-Override": "GET"})
    expect(answer.status in (401, 405), f"{answer.status} for an overridden method")


@check("http", "I08 D10")
def hostile_hosts_are_not_given_back(stranger: Stranger) -> None:
    """A hostile Host or forwarding header is refused, or stands in no answer."""
    site = stranger.site
    for host in ("evil.example", "a b", ".", "x:99999", "evil.example\r\nHost: evil.example"):
        request = f"GET {site.path('/nowhere')} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        received = site.raw(request.encode())
        expect(not received.startswith(b"HTTP/1.1 5"), f"Host: {host}: {_status_line(received)}")
        expect(b"evil.example" not in received, f"Host: {host} is given back")
    hostile = {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example", "X-Forwarded-Proto": "javascript"}
    for path in ("/nowhere", LOGIN):
        answer = site.call("GET", path, headers=hostile)
        expect("evil.example" not in f"{answer.headers} {answer.body!r}", f"{path} gives a forwarded host back")


@check("http", "J01 J02")
def pages_of_other_origins_get_nothing(stranger: Stranger) -> None:
    """None of thirty strange or similar origins is allowed, nor is *."""
    for origin in hostile_origins(stranger.site.origin):
        for method, headers in (("OPTIONS", {"Access-Control-Request-Method": "POST"}), ("GET", {})):
            answer = stranger.site.call(method, ME, headers={"Origin": origin, **headers})
            allowed = answer.headers.get("access-control-allow-origin")
            expect(allowed is None, f"{method} with Origin: {origin} allows {allowed}")


def _status_line(received: bytes) -> str:
    return received.partition(b"\r\n")[0][:60].decode("latin-1") or "nothing"
