"""The address of a client: the socket's peer, or what a trusted proxy saw, and nothing that a client says of itself."""

from typing import Any

import pytest
from structlog.testing import capture_logs
from werkzeug.datastructures import Headers

from tests.http.forwarding import FORWARDING
from tests.people import Server

LOGIN = "/api/auth/login"
WRONG = {"username": "nobody-has-this-name", "password": "wrong"}
PROXY, STRANGER = "10.0.0.5", "203.0.113.50"


async def address_of(server: Server, peer: str, *headers: tuple[str, str]) -> str | None:
    """The address under which a sign-in is recorded."""
    client = server.app.test_client()
    await client.post(LOGIN, json=WRONG, headers=Headers(headers), scope_base={"client": (peer, 1234)})
    return (await server.events("login.failed"))[-1].address


@pytest.fixture
def flags() -> dict[str, Any]:
    return {"network.trusted_proxies": "10.0.0.0/8,2001:db8:ffff::/48"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, 10.0.0.9", "192.0.2.7"),
        ("198.51.100.1, 192.0.2.7", "192.0.2.7"),
        ("198.51.100.1, 192.0.2.7, 10.1.1.1, 10.0.0.9", "192.0.2.7"),
        ("10.0.0.1, 10.0.0.2", PROXY),
        ("", PROXY),
        (",", PROXY),
        ("192.0.2.7,", PROXY),
        ("192.0.2.7, unknown", PROXY),
        ("192.0.2.7, _hidden", PROXY),
        ("192.0.2.7, 999.1.1.1", PROXY),
        ("192.0.2.7, 1.2.3", PROXY),
        ("192.0.2.7, 0x7f000001", PROXY),
        ("192.0.2.7, 010.0.0.1", PROXY),
        ("192.0.2.7, <script>", PROXY),
        ("192.0.2.7:4711", "192.0.2.7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("2001:DB8:0:0::7", "2001:db8::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:c000:0207", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::1"),
        ("192.0.2.7, 2001:db8:ffff::1", "192.0.2.7"),
        ('"192.0.2.7"', PROXY),
        ("192.0.2.7 198.51.100.1", PROXY),
        (", ".join(["198.51.100.1", *["10.0.0.9"] * 40]), PROXY),
    ],
)
async def test_behind_a_proxy_the_rightmost_stranger_counts(server: Server, value: str, expected: str):  # D02
    assert await address_of(server, PROXY, ("X-Forwarded-For", value)) == expected


async def test_two_lines_are_one_list(server: Server):  # D02
    lines = [("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", "192.0.2.7")]
    assert await address_of(server, PROXY, *lines) == "192.0.2.7"


async def test_without_the_header_it_is_the_proxy_that_calls(server: Server):
    assert await address_of(server, PROXY) == PROXY
    assert await address_of(server, f"::ffff:{PROXY}", ("X-Forwarded-For", "192.0.2.7")) == "192.0.2.7"


@pytest.mark.parametrize("header", FORWARDING)
async def test_a_stranger_is_believed_nothing(server: Server, header: str):  # D01
    for value in ("192.0.2.7", "for=192.0.2.7", "127.0.0.1", "10.0.0.5"):
        assert await address_of(server, STRANGER, (header, value)) == STRANGER


@pytest.mark.parametrize("header", ["Forwarded", "X-Real-IP", "True-Client-IP", "CF-Connecting-IP"])
async def test_of_a_proxy_only_the_header_of_the_settings_counts(server: Server, header: str):
    lines = [
        (header, "for=198.51.100.1" if header == "Forwarded" else "198.51.100.1"),
        ("X-Forwarded-For", "192.0.2.7"),
    ]
    assert await address_of(server, PROXY, *lines) == "192.0.2.7"
    assert await address_of(server, PROXY, lines[0]) == PROXY


@pytest.mark.parametrize(
    "flags",
    [{"network.trusted_proxies": "10.0.0.0/8", "network.forwarded_header": "Forwarded"}],
    ids=["forwarded"],
)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("for=192.0.2.7", "192.0.2.7"),
        ('for="192.0.2.7"', "192.0.2.7"),
        ("For=192.0.2.7;proto=https;by=10.0.0.5", "192.0.2.7"),
        ('for="[2001:db8::7]:4711"', "2001:db8::7"),
        ('for="192.0.2.7:4711"', "192.0.2.7"),
        ("for=198.51.100.1, for=192.0.2.7", "192.0.2.7"),
        ("for=192.0.2.7, for=10.0.0.9", "192.0.2.7"),
        ('for="198.51.100.1, for=192.0.2.7"', PROXY),
        ("for=192.0.2.7, for=unknown", PROXY),
        ("for=192.0.2.7, for=_gazonk", PROXY),
        ("for=192.0.2.7;for=198.51.100.1", PROXY),
        ("by=192.0.2.7", PROXY),
        ("for=", PROXY),
        ('for="unclosed', PROXY),
        ("192.0.2.7", PROXY),
        ("", PROXY),
        ("x" * 4_000, PROXY),
        ('for="' + "\\\\" * 2_000, PROXY),
    ],
)
async def test_the_standard_header_is_read_as_its_rfc_says(server: Server, value: str, expected: str):
    assert await address_of(server, PROXY, ("Forwarded", value)) == expected


@pytest.mark.parametrize("flags", [{}], ids=["none"])
async def test_a_forwarding_header_that_is_not_believed_is_told_once(server: Server):
    with capture_logs() as logs:
        for _ in range(3):
            assert await address_of(server, PROXY, ("X-Forwarded-For", "192.0.2.7")) == PROXY
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [(entry["event"], entry["address"]) for entry in warnings] == [("forwarding_header_not_believed", PROXY)]


@pytest.mark.parametrize("flags", [{}], ids=["none"])
async def test_many_accounts_behind_one_address_are_told_once(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("usermgmt.http.clients.ENOUGH_REQUESTS", 8)
    monkeypatch.setattr("usermgmt.http.clients.ENOUGH_USERS", 3)
    people = [await server.person(f"person{number}") for number in range(4)]
    with capture_logs() as logs:
        for _ in range(4):
            for person in people:
                await person.get("/api/users/me", scope_base={"client": (PROXY, 1)})
    warnings = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
    assert warnings == ["all_clients_share_one_address"]
