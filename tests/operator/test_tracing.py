"""Traces through a real server to a real receiver: what is in them, what is not, and that nobody waits for them."""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.operator.conftest import PASSWORD, CommandLine, Process, Start, environment
from tests.servers import free_port
from tests.telemetry.receivers import Receiver, attributes, receiving

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
ROUTE = "/api/users/<user_ref:user_id>"
Serve = Callable[..., tuple[Process, str]]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def serve(start: Start, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Serve:
    def begin(endpoint: str, **more: str) -> tuple[Process, str]:
        settings = {"limits__enabled": "false", "tracing__otlp_endpoint": endpoint, **more}
        variables = {**environment(database_url, **settings), "OTEL_BSP_SCHEDULE_DELAY": "50"}
        process = start("serve", "--port", "0", environ=variables)
        return process, json.loads(process.wait_for('"serving"'))["url"]

    return begin


def ask(url: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    data = json.dumps(body) if body is not None else None
    connection.request(method, path, data, {"Content-Type": "application/json", **named})
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return (
        response.status,
        json.loads(answer) if answer else None,
        {name.lower(): value for name, value in response.headers.items()},
    )


def lines_of(process: Process, event: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, process.seen) if line["event"] == event]


def test_a_request_is_a_span_within_its_callers_trace_with_its_statements_and_its_hash(
    line: CommandLine, serve: Serve, receiver: Receiver, database_url: str
):
    user = line.create("ada")
    process, url = serve(receiver.url, tracing__sample_ratio="0")
    credentials = {"username": "ada", "password": PASSWORD}
    status, tokens, headers = ask(url, "POST", "/api/auth/login", credentials, **SAMPLED)
    assert status == 200
    bearer = {"Authorization": f"Bearer {tokens['access_token']}", **SAMPLED}
    assert ask(url, "GET", "/health/ready", **SAMPLED)[0] == 200
    assert ask(url, "GET", "/reset/canary-in-path?token=canary-in-query", **SAMPLED)[0] == 404
    assert ask(url, "GET", "/api/users/me?canary-in-query=1", **bearer)[0] == 422
    assert ask(url, "PUT", "/api/users/me", {"display_name": "canary-in-body"}, **bearer)[0] == 200
    assert ask(url, "GET", "/api/users/me", **{**bearer, "traceparent": "garbage"})[0] == 200  # a trace not chosen
    assert process.end(signal.SIGTERM) == 0
    spans = receiver.spans(until=f"PUT {ROUTE}")

    names = [span.name for _, span in spans]
    assert {"POST /api/auth/login", "GET", f"GET {ROUTE}", f"PUT {ROUTE}", "password hash"} <= set(names)
    assert names.count(f"GET {ROUTE}") == 1
    assert not any("health" in name for name in names)
    resource = spans[0][0]
    assert (resource["service.name"], resource["telemetry.sdk.language"]) == ("usermgmt", "python")
    assert {span.trace_id.hex() for _, span in spans} == {TRACE}

    (login,) = [span for _, span in spans if span.name == "POST /api/auth/login"]
    assert (login.kind, login.parent_span_id.hex()) == (Span.SPAN_KIND_SERVER, CALLER)
    assert attributes(login) == {
        "http.request.method": "POST",
        "http.route": "/api/auth/login",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "client.address": "127.0.0.1",
        "usermgmt.request_id": headers["x-request-id"],
    }
    within = [span for _, span in spans if span.parent_span_id == login.span_id]
    statements = [attributes(span) for span in within if span.kind == Span.SPAN_KIND_CLIENT]
    assert [span.name for span in within].count("password hash") == 1
    assert {"INSERT sessions", "INSERT audit_events"} <= {span.name for span in within}
    assert {each["db.system.name"] for each in statements} == {database_url.partition("+")[0]}
    assert all(login.start_time_unix_nano <= span.start_time_unix_nano for span in within)

    (changed,) = [span for _, span in spans if span.name == f"PUT {ROUTE}"]
    assert attributes(changed)["user.id"] == user["id"]
    (refused,) = [span for _, span in spans if span.name == f"GET {ROUTE}"]
    assert attributes(refused)["usermgmt.problem"] == "validation_failed"

    sent = b"".join(span.SerializeToString() for _, span in spans).decode(errors="replace")
    for secret in ("canary", PASSWORD, "ada@example.com", tokens["access_token"], tokens["refresh_token"], "um1$"):
        assert secret not in sent, secret

    told = [each for each in lines_of(process, "request") if each["request_id"] == headers["x-request-id"]]
    assert [(each["trace_id"], each["span_id"]) for each in told] == [(TRACE, login.span_id.hex())]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_statement_that_fails_is_marked_by_its_kind(
    line: CommandLine, serve: Serve, receiver: Receiver, postgresql, database_url: str
):
    line.create("ada")
    postgresql.execute("ALTER TABLE throttles RENAME TO canaries", database=database_url.rpartition("/")[2])
    process, url = serve(receiver.url, tracing__sample_ratio="1")
    assert ask(url, "POST", "/api/auth/login", {"username": "ada", "password": "wrong-canary"})[0] == 500
    spans = receiver.spans(until="POST /api/auth/login")
    (login,) = [span for _, span in spans if span.name == "POST /api/auth/login"]
    assert attributes(login)["error.type"] == "internal_error"
    failed = [span for _, span in spans if span.parent_span_id == login.span_id and span.status.code]
    assert login.status.code == Status.STATUS_CODE_ERROR
    assert [attributes(span)["error.type"] for span in failed] == ["42P01"]
    assert not any(span.events or span.status.message for _, span in spans)
    assert process.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("collector", ["absent", "hanging"])
def test_a_collector_that_does_not_answer_is_told_of_once_and_delays_nobody(serve: Serve, collector: str):
    with receiving(hangs=True) as receiver:
        endpoint = receiver.url if collector == "hanging" else f"http://127.0.0.1:{free_port()}"
        process, url = serve(endpoint, tracing__sample_ratio="1")
        for _ in range(20):
            assert ask(url, "GET", "/.well-known/jwks.json")[0] == 200
        if collector == "absent":
            process.wait_for('"traces_not_taken"')
        else:
            receiver.next()
        for _ in range(20):
            assert ask(url, "GET", "/.well-known/jwks.json")[0] == 200
        began = time.monotonic()
        assert process.end(signal.SIGTERM) == 0
        assert time.monotonic() - began < 10
    faults = [each for each in map(json.loads, process.seen) if each["level"] != "info"]
    assert [each["event"] for each in faults if each["event"] != "no_administrator"] == (
        ["traces_not_taken"] if collector == "absent" else []
    )


def test_without_a_collector_nothing_of_it_is_loaded(start: Start):
    asked = "import usermgmt.app, sys; print([m for m in sys.modules if m.startswith(('opentelemetry', 'sentry_sdk'))])"
    process = start("-c", asked, program=(sys.executable,))
    assert process.end() == 0
    assert process.output == "[]"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("setting", "value", "module", "extra"),
    [
        ("TRACING__OTLP_ENDPOINT", "http://127.0.0.1:4318", "opentelemetry.exporter.otlp.proto.http", "otel"),
        ("ERRORS__SENTRY_DSN", "https://canary@errors.example/1", "sentry_sdk", "sentry"),
    ],
)
def test_a_setting_whose_extra_is_missing_stops_the_start(
    line: CommandLine, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, module: str, extra: str
):
    monkeypatch.setitem(sys.modules, module, None)
    line.environ[f"USERMGMT_{setting}"] = value
    said = line.refused(78, "serve", "--port", "0")
    assert f"needs a library that is not installed: pip install '.[{extra}]' in the checkout" in said
    assert "canary" not in said
