"""What a request holds that nobody asked for, in front of its path and after its head, does no harm."""

import json
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.operator.calls import answered, call, connection_to
from tests.operator.conftest import Start, environment, until
from tests.operator.test_http2 import COMMON, Speaker
from tests.operator.test_tls import certify, secured

PLACES = 12
PIECES = 40  # in one write; a server keeps ten for whoever serves
CHUNKED = b"Host: x\r\nTransfer-Encoding: chunked\r\n"
REFUSED = {
    b"POST /nope": 404,
    b"PUT /api/users/me": 401,
    b"PUT /health/live": 405,
    b"POST /api/auth/login": 415,
    b"POST http://[": 400,
    b"GET /health/live": 200,
}

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # what is refused never reaches it
Serving = Callable[..., str]


@pytest.fixture
def serving(start: Start, database_url: str) -> Serving:
    """Starts a server with few places; its address."""

    def begin(**more: str) -> str:
        limits = {"server__max_connections": str(PLACES), "limits__enabled": "false"}
        counts = {"metrics__enabled": "true", "metrics__token": "t" * 32}
        process = start("serve", "--port", "0", environ=environment(database_url, **limits, **counts, **more))
        return str(json.loads(process.wait_for('"serving"'))["url"])

    return begin


@pytest.mark.parametrize("server", ["hypercorn", "granian"])
@pytest.mark.parametrize("fast_path", ["true", "false"])
def test_bodies_that_nobody_reads_take_nobodys_place(serving: Serving, server: str, fast_path: str) -> None:  # I02
    url = serving(server__fast_path=fast_path, server__server=server)
    body = CHUNKED + b"\r\n" + b"1\r\nx\r\n" * PIECES
    for line, status in REFUSED.items():
        with closing(connection_to(url)) as connection:
            connection.sendall(line + b" HTTP/1.1\r\n" + body + b"0\r\n\r\n")
            assert answered(connection)[0] == status, line
    for line in (*REFUSED, *REFUSED, *REFUSED):
        with closing(connection_to(url)) as connection:
            connection.sendall(line + b" HTTP/1.1\r\n" + body)
    until(lambda: is_served(url))


@pytest.mark.parametrize("fast_path", ["true", "false"])
def test_frames_that_nobody_reads_take_nobodys_place(
    serving: Serving, tmp_path: Path, fast_path: str
) -> None:  # I02, I07
    certify(tmp_path, "first")
    files = {"server__tls_certificate": str(tmp_path / "cert.pem"), "server__tls_key": str(tmp_path / "key.pem")}
    url = serving(server__fast_path=fast_path, **files)
    for number in range(PLACES * 2):
        with closing(secured(url, tmp_path, "h2")) as connection:
            speaker = Speaker(connection)
            path = "/nope" if number % 2 else "/health/live"
            speaker.http2.send_headers(1, [(":method", "POST" if number % 2 else "GET"), (":path", path), *COMMON])
            for _ in range(PIECES):
                speaker.http2.send_data(1, b"x")
            speaker.flush()
    until(lambda: is_served(url, tmp_path))


def is_served(url: str, authority: Path | None = None) -> bool:
    """Whether somebody new is."""
    request = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with (
        suppress(OSError),
        closing(connection_to(url) if authority is None else secured(url, authority, "http/1.1")) as connection,
    ):
        connection.sendall(request)
        return answered(connection)[0] == 200
    return False


WHOLE_TARGETS = {
    b"http://x/health/live": 200,
    b"HTTPS://x.example:8443/health/live?x=1": 200,
    b"http://[::1]:80/health/%6cive": 200,
    b"http://x": 404,
    b"http://x/%09metrics": 404,
    b"http://x/m%0aetrics": 404,
    b"http://x/health/live;x": 404,
    b"http://x/health/live%3Ffoo": 404,
    b"http://x/health/live%23": 404,
    b"http://x//health/live": 400,
    b"http://x%2Fhealth%2Flive": 400,
    b"http://ada@x/health/live": 400,
    b"http://x\\/health/live": 400,
    b"http:///health/live": 400,
    b"ftp://x/health/live": 400,
    b"%2Fhealth/live": 400,
}


@pytest.mark.parametrize("fast_path", ["true", "false"])
def test_a_whole_url_means_its_path_and_nothing_else(serving: Serving, fast_path: str) -> None:  # I08
    url = serving(server__fast_path=fast_path)
    assert call(f"{url}/metrics")[0] == 401
    for target, status in WHOLE_TARGETS.items():
        with closing(connection_to(url)) as connection:
            connection.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answered(connection)[0] == status, target
