"""The same requests over TLS: HTTP/1.1, and HTTP/2 by the library `h2`, one request at a time on each connection.

The client costs more than the server does; what compares protocols is the server's processor time a request.
"""

import asyncio
import ssl
import subprocess
from functools import cache
from pathlib import Path

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset

from benchmarks.load import Client

LONGEST_READ = 65_536


def certify(folder: Path) -> dict[str, str]:
    """A certificate for this machine, by the program openssl; the settings that name it."""
    certificate, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return {"server__tls_certificate": certificate, "server__tls_key": key}


@cache
def trusting(protocol: str) -> ssl.SSLContext:
    """TLS that asks for one protocol and believes every certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context


class EncryptedClient(Client):
    """HTTP/1.1 over TLS."""

    protocol = "http/1.1"

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self._address, ssl=trusting(self.protocol))


class Http2Client(EncryptedClient):
    """HTTP/2 over TLS; takes requests as HTTP/1.1 writes them."""

    protocol = "h2"

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._http2 = H2Connection()

    async def call(self, wire: bytes) -> tuple[int, bytes]:
        """Send a request; its status and body. Raises `OSError` or `EOFError` when the connection fails."""
        if self._streams is None:
            self._streams = await self._open()
            self._http2 = H2Connection(H2Configuration(header_encoding="ascii"))
            self._http2.initiate_connection()
        stream = self._http2.get_next_available_stream_id()
        head, body = _translated(wire)
        self._http2.send_headers(stream, head, end_stream=not body)
        if body:
            self._http2.send_data(stream, body, end_stream=True)
        try:
            return await self._answer(stream)
        except (OSError, EOFError):
            self.close()
            raise

    async def _answer(self, stream: int) -> tuple[int, bytes]:
        assert self._streams is not None
        reader, writer = self._streams
        status, body = 0, b""
        while True:
            writer.write(self._http2.data_to_send())
            data = await reader.read(LONGEST_READ)
            if not data:
                raise EOFError
            for event in self._http2.receive_data(data):
                if isinstance(event, ResponseReceived):
                    status = int(dict(event.headers)[":status"])
                elif isinstance(event, DataReceived):
                    body += event.data
                    self._http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamReset):
                    raise ConnectionResetError
                elif isinstance(event, StreamEnded) and event.stream_id == stream:
                    return status, body


@cache
def _translated(wire: bytes) -> tuple[list[tuple[str, str]], bytes]:
    """The head and the body of a request, for HTTP/2."""
    head, _, body = wire.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, path, _ = first.split(" ")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    pseudo = [(":method", method), (":path", path), (":scheme", "https"), (":authority", dict(headers)["host"])]
    return [*pseudo, *((name, value) for name, value in headers if name != "host")], body
