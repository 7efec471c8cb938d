"""The application's own connection does what the framework's does, seen from the socket."""

import asyncio
import json
from typing import Any

import pytest
import structlog.testing
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.protocol.events import Body, Event, Request, StreamClosed
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.utils import wrap_app
from quart import Quart, Response

from tests.loopback import PATIENCE, Answer, exchange, head, listening, parsed
from tests.people import PASSWORD, Person, Server
from usermgmt.http import connection
from usermgmt.http.access import public, unlimited

BOTH = pytest.mark.parametrize("flags", [{"server.fast_path": True}, {"server.fast_path": False}], ids=["own", "stock"])
ADA = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}


def registration(body: bytes, *headers: str) -> bytes:
    return head("POST", "/api/users", "Content-Type: application/json", *headers) + body


async def count_users(server: Server) -> int:
    return int((await server.rows("SELECT count(*) FROM users"))[0][0])


@BOTH
async def test_answers_are_whole(server: Server, ada: Person):
    token = f"Authorization: Bearer {ada.access_token}"
    tag = f'If-None-Match: "{(await (await ada.get("/api/users/me")).get_json())["version"]}"'
    expected = {
        ("GET", "/health/live"): 200,
        ("HEAD", "/health/live"): 200,
        ("GET", "/api/users/me", token): 200,
        ("GET", "/api/users/me", token, tag): 304,
        ("GET", "/api/users/me"): 401,
        ("GET", "/api/users", token): 403,
        ("GET", "/nowhere"): 404,
        ("PUT", "/health/live"): 405,
        ("OPTIONS", "/api/users", "Origin: https://a.example", "Access-Control-Request-Method: GET"): 200,
    }
    async with listening(server.app) as port:
        for request, status in expected.items():
            answer = await exchange(port, head(*request))
            assert answer.status == status, request
            if request[0] == "HEAD" or status == 304:
                assert answer.body == b""
            else:
                assert len(answer.body) == int(answer.headers["content-length"])
            assert "x-request-id" in answer.headers


@BOTH
async def test_a_body_may_come_in_pieces_and_without_a_length(server: Server):
    body = json.dumps(ADA).encode()
    async with listening(server.app) as port:
        chunks = b"".join(b"%x\r\n%s\r\n" % (1, body[at : at + 1]) for at in range(len(body))) + b"0\r\n\r\n"
        answer = await exchange(port, registration(chunks, "Transfer-Encoding: chunked"))
        assert answer.status == 201
        answer = await in_pieces(port, registration(body, f"Content-Length: {len(body)}"), 7)
        assert answer.status == 409


async def in_pieces(port: int, request: bytes, length: int) -> Answer:
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for at in range(0, len(request), length):
            writer.write(request[at : at + length])
            await writer.drain()
            await asyncio.sleep(0)
        answer = parsed(await reader.read(-1))
        writer.close()
        return answer


@BOTH
async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_fault(server: Server):
    body = json.dumps(ADA).encode()
    with structlog.testing.capture_logs() as logs:
        async with listening(server.app) as port:
            for length in (0, 1, len(body) - 1):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(registration(body[:length], f"Content-Length: {len(body)}"))
                await writer.drain()
                await asyncio.sleep(0.05)  # the server waits for the rest by then
                writer.close()
                await writer.wait_closed()
            await asyncio.sleep(0.1)  # in which a fault would be logged
            assert (await exchange(port, head("GET", "/health/live"))).status == 200
    assert await count_users(server) == 0
    assert [line for line in logs if line["log_level"] not in ("info", "debug")] == []


@BOTH
async def test_a_client_that_leaves_before_its_answer_has_its_write(server: Server):
    body = json.dumps(ADA).encode()
    async with listening(server.app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(registration(body, f"Content-Length: {len(body)}"))
        await writer.drain()
        await asyncio.sleep(0.02)  # the request is read and at work by then
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(PATIENCE):
            while await count_users(server) == 0:  # noqa: ASYNC110 - the database tells nobody
                await asyncio.sleep(0.01)
        answer = await exchange(port, registration(body, f"Content-Length: {len(body)}"))
    assert answer.status == 409


@BOTH
async def test_a_body_that_is_too_long_is_refused(server: Server):
    async with listening(server.app) as port:
        assert (await exchange(port, registration(b"", "Content-Length: 1000000"))).status == 413
        chunk = b"%x\r\n%s\r\n" % (40_000, b"x" * 40_000)
        long = chunk * 2 + b"0\r\n\r\n"
        assert (await exchange(port, registration(long, "Transfer-Encoding: chunked"))).status == 413


class TestWaiting:
    @pytest.fixture(params=[True, False], ids=["own", "stock"])
    def flags(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return {"server.fast_path": request.param, "server.request_timeout": "300ms"}

    async def test_a_body_that_does_not_come_is_given_up(self, server: Server):
        async with listening(server.app) as port:
            answer = await exchange(port, registration(b"{", "Content-Length: 50"))
        assert (answer.status, json.loads(answer.body)["code"]) == (408, "request_timeout")


TARGETS = {
    ("GET", "http://elsewhere.example/health/live"): 200,
    ("GET", "HTTPS://elsewhere.example/health/live?x=1"): 200,
    ("GET", "http://elsewhere.example//health/live"): 400,
    ("GET", "http://elsewhere.example"): 404,
    ("GET", "http://[::1/health/live"): 400,
    ("GET", "http:///health/live"): 400,
    ("GET", "ftp://elsewhere.example/health/live"): 400,
    ("GET", "?x=1"): 400,
    ("GET", "health/live"): 400,
    ("GET", "elsewhere.example:80"): 400,
    ("OPTIONS", "*"): 404,
    ("CONNECT", "elsewhere.example:443"): 405,
    ("CONNECT", "/health/live"): 405,
}


@BOTH
async def test_what_asks_for_no_path_is_refused(server: Server):
    async with listening(server.app) as port:
        for (method, target), status in TARGETS.items():
            assert (await exchange(port, head(method, target))).status == status, target


class Stream:
    """An endless answer that tells when it is let go."""

    def __init__(self, app: Quart, piece: bytes = b"{}\n") -> None:
        self.piece = piece
        self.let_go = asyncio.Event()

        @public
        @unlimited
        async def endless() -> Response:
            response = Response(self.pieces(), content_type="application/x-ndjson")
            response.timeout = None
            return response

        app.add_url_rule("/endless", "endless", endless)

    async def pieces(self):
        try:
            while True:
                yield self.piece
                await asyncio.sleep(0.001)  # a stream that has something now and then
        finally:
            self.let_go.set()


@BOTH
async def test_a_stream_ends_with_its_client(server: Server):
    server.app._got_first_request = False
    stream = Stream(server.app)
    async with listening(server.app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head("GET", "/endless"))
        async with asyncio.timeout(PATIENCE):
            assert (await reader.readline()).split(b" ")[1] == b"200"
            for _ in range(3):
                await reader.readuntil(b"{}\n")
            writer.close()
            await stream.let_go.wait()


class TestUnread:
    @pytest.fixture(params=[True, False], ids=["own", "stock"])
    def flags(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        rate = {"server.min_bytes_per_second": 10_000_000}
        return {"server.fast_path": request.param, "server.request_timeout": "300ms", **rate}

    async def test_a_stream_that_its_client_does_not_read_ends(self, server: Server):
        server.app._got_first_request = False
        stream = Stream(server.app, b"x" * 100_000)
        with structlog.testing.capture_logs() as logs:
            async with listening(server.app) as port:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_000)
                writer.write(head("GET", "/endless"))
                async with asyncio.timeout(PATIENCE):
                    assert (await reader.readline()).split(b" ")[1] == b"200"
                    await stream.let_go.wait()
                writer.transport.abort()
        assert [line["event"] for line in logs if line["log_level"] == "info"].count("unread_stream_given_up") == 1


@BOTH
async def test_a_fault_is_answered_and_logged_once(server: Server, monkeypatch: pytest.MonkeyPatch):
    async def broken(*_: object) -> bool:
        raise RuntimeError("broken")

    monkeypatch.setattr(type(server.runtime.database), "is_answering", broken)
    with structlog.testing.capture_logs() as logs:
        async with listening(server.app) as port:
            answer = await exchange(port, head("GET", "/health/ready"))
    assert (answer.status, json.loads(answer.body)["code"]) == (500, "internal_error")
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["request_failed"]


def test_another_release_of_the_framework_is_served_as_it_does_itself(monkeypatch: pytest.MonkeyPatch):
    app = Quart("other")
    monkeypatch.setattr(connection, "version", lambda _: "9.9.0")
    with structlog.testing.capture_logs() as logs:
        connection.install(app, len)
    assert app.asgi_http_class is Quart.asgi_http_class
    assert [(line["event"], line["quart"]) for line in logs] == [("fast_path_off", "9.9.0")]


@BOTH
async def test_pieces_that_come_while_an_answer_is_given_up_hold_nobody(server: Server):
    server.app.config["RESPONSE_TIMEOUT"] = 0.05
    config, loop = Config(), asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE), TaskGroup(loop) as group:

        async def send(event: Event) -> None:
            if isinstance(event, StreamClosed):
                await stream.handle(event)
            elif isinstance(event, Body):
                await loop.create_future()  # nobody reads the answer

        app = wrap_app(server.app, config.wsgi_max_body_size, "asgi")
        stream = HTTPStream(app, config, WorkerContext(None), group, False, ("127.0.0.1", 1), None, send, 1)
        headers = [(b"host", b"x"), (b"transfer-encoding", b"chunked")]
        await stream.handle(Request(1, headers=headers, http_version="1.1", method="POST", raw_path=b"/nope", state={}))
        while not stream.closed:
            for _ in range(20):
                await stream.handle(Body(1, b"x"))
            await asyncio.sleep(0)
