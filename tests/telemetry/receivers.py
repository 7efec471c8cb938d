"""Small servers that receive what is exported: spans over OTLP/HTTP, envelopes of Sentry's protocol."""

import gzip
import importlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from queue import Empty, Queue
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

PATIENCE = 30.0
UNPACKED: dict[str | None, Callable[[bytes], bytes]] = {None: bytes, "gzip": gzip.decompress}
if find_spec("brotli") is not None:  # where it is installed, Sentry's client uses it
    UNPACKED["br"] = importlib.import_module("brotli").decompress


@dataclass
class Receiver:
    """What came, in its order; while `lets_go` is not set nothing is answered."""

    port: int = 0
    bodies: "Queue[tuple[str, bytes]]" = field(default_factory=Queue)
    lets_go: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def next(self, timeout: float = PATIENCE) -> tuple[str, bytes]:
        """The next body and the path it was sent to."""
        return self.bodies.get(timeout=timeout)

    def spans(self, *, until: str) -> list[tuple[dict[str, Any], Span]]:
        """Each span with the attributes of its resource, up to the export that has one of this name."""
        found: list[tuple[dict[str, Any], Span]] = []
        while not any(span.name == until for _, span in found):
            path, body = self.next()
            assert path == "/v1/traces"
            request = ExportTraceServiceRequest.FromString(body)
            found += [
                (attributes(sent.resource), span)
                for sent in request.resource_spans
                for scope in sent.scope_spans
                for span in scope.spans
            ]
        return found

    def envelope(self) -> tuple[bytes, dict[str, Any]]:
        """The next envelope of an event: whole, and its event."""
        while True:
            path, body = self.next()
            assert path == "/api/1/envelope/"
            lines = [json.loads(line) for line in body.splitlines() if line]
            for header, payload in zip(lines[1::2], lines[2::2], strict=True):
                if header["type"] == "event":
                    return body, payload

    def rest(self) -> list[bytes]:
        """What came and was not looked at."""
        found = []
        while True:
            try:
                found.append(self.bodies.get_nowait()[1])
            except Empty:
                return found


def attributes(carrier: Any) -> dict[str, Any]:
    """The attributes of a span or a resource."""
    return {
        each.key: each.value.int_value if each.value.HasField("int_value") else each.value.string_value
        for each in carrier.attributes
    }


@contextmanager
def receiving(*, hangs: bool = False) -> Iterator[Receiver]:
    """A receiver on a port of its own; with `hangs` it answers nothing until it is let go."""
    receiver = Receiver()
    if not hangs:
        receiver.lets_go.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            body = UNPACKED[self.headers.get("Content-Encoding")](body)
            receiver.bodies.put((self.path, body))
            receiver.lets_go.wait(PATIENCE)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its signature
            pass

        def handle(self) -> None:
            with suppress(OSError):
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.lets_go.set()
        server.shutdown()
        server.server_close()
        thread.join()
