"""TLS by the server itself: HTTP/1.1 and HTTP/2, a certificate that is renewed, files that are no pair."""

import json
import signal
import socket
import ssl
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived, StreamEnded, StreamReset

from tests.operator.conftest import Process, Start, environment
from tests.operator.test_supervision import children, until
from tests.servers import PostgreSQL

Serving = Callable[..., tuple[Process, str]]


def certify(folder: Path, name: str, *, dns: str = "localhost") -> None:
    """A certificate for this machine, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName(dns)]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.fixture
def serving(start: Start, database_url: str, tmp_path: Path) -> Serving:
    """Start a server with a certificate; the process and its address."""
    certify(tmp_path, "first")

    def begin(**more: str) -> tuple[Process, str]:
        files = {"server__tls_certificate": str(tmp_path / "cert.pem"), "server__tls_key": str(tmp_path / "key.pem")}
        process = start("serve", "--port", "0", environ=environment(database_url, **files, **more))
        return process, json.loads(process.wait_for('"serving"'))["url"]

    return begin


def subject(url: str) -> str:
    """Whose certificate a new connection is shown."""
    parts = urlsplit(url)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((parts.hostname, parts.port), timeout=20) as plain,
        context.wrap_socket(plain) as secured,
    ):
        shown = x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")
    return str(shown.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def secured(url: str, folder: Path, protocol: str) -> ssl.SSLSocket:
    """A connection that trusts the server's certificate and asks for one protocol."""
    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    context.set_alpn_protocols([protocol])
    plain = socket.create_connection((parts.hostname, parts.port), timeout=20)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_http_1_is_spoken(serving: Serving, tmp_path: Path) -> None:
    process, url = serving()
    assert url.startswith("https://")
    with secured(url, tmp_path, "http/1.1") as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        seen = b""
        while piece := connection.recv(4096):
            seen += piece
    assert seen.startswith(b"HTTP/1.1 200")
    assert b"strict-transport-security" in seen.lower()
    assert process.end(signal.SIGTERM) == 0


def answers(connection: ssl.SSLSocket, speaker: H2Connection, count: int) -> dict[int, int]:
    """The statuses of as many streams, by their numbers."""
    statuses: dict[int, int] = {}
    ended: set[int] = set()
    while len(ended) < count:
        data = connection.recv(65536)
        assert data
        for event in speaker.receive_data(data):
            if isinstance(event, ResponseReceived):
                statuses[event.stream_id] = int(dict(event.headers)[b":status"])
            elif isinstance(event, StreamEnded | StreamReset):
                ended.add(event.stream_id)
        connection.sendall(speaker.data_to_send())
    return statuses


def test_http_2_is_spoken(serving: Serving, tmp_path: Path) -> None:
    process, url = serving()
    body = b'{"username": "nobody", "password": "wrong"}'
    with secured(url, tmp_path, "h2") as connection:
        assert connection.selected_alpn_protocol() == "h2"
        speaker = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        speaker.initiate_connection()
        common = [(":authority", "x"), (":scheme", "https")]
        for stream in range(1, 41, 2):
            speaker.send_headers(stream, [(":method", "GET"), (":path", "/health/live"), *common], end_stream=True)
        login = [(":method", "POST"), (":path", "/api/auth/login"), *common, ("content-type", "application/json")]
        speaker.send_headers(41, login)
        speaker.send_data(41, body, end_stream=True)
        connection.sendall(speaker.data_to_send())
        statuses = answers(connection, speaker, 21)
    assert statuses == {**dict.fromkeys(range(1, 41, 2), 200), 41: 401}
    assert process.end(signal.SIGTERM) == 0
    assert "Traceback" not in process.output + process.errors()


def test_old_versions_and_clear_text_are_refused(serving: Serving) -> None:
    process, url = serving()
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as plain:
        plain.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" not in plain.recv(4096)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings(action="ignore"):  # that these versions are old is what it is about
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection((parts.hostname, parts.port), timeout=20) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        old.wrap_socket(plain)
    assert subject(url) == "first"
    assert process.end(signal.SIGTERM) == 0


def test_a_certificate_is_renewed_without_a_restart(serving: Serving, tmp_path: Path) -> None:
    process, url = serving()
    assert subject(url) == "first"
    certify(tmp_path, "second")
    assert subject(url) == "first"
    process.popen.send_signal(signal.SIGHUP)
    process.wait_for("certificate_renewed")
    assert subject(url) == "second"
    (tmp_path / "key.pem").write_text("nothing")
    process.popen.send_signal(signal.SIGHUP)
    process.wait_for("certificate_not_renewed")
    assert subject(url) == "second"
    assert process.end(signal.SIGTERM) == 0


def test_only_strong_ciphers_are_agreed_on_and_nothing_is_compressed(serving: Serving) -> None:  # I12
    process, url = serving()
    parts = urlsplit(url)
    every = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    every.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    names = {cipher["name"] for cipher in every.get_ciphers() if cipher["protocol"] != "TLSv1.3"}
    agreed = set()
    for name in names:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"{name}:@SECLEVEL=0")
        with socket.create_connection((parts.hostname, parts.port), timeout=20) as plain:
            try:
                with context.wrap_socket(plain) as secured_socket:
                    assert secured_socket.compression() is None
                    agreed.add(name)
            except (ssl.SSLError, ConnectionError):
                continue
    assert len(names) > 30
    assert agreed == {name for name in names if name.startswith("ECDHE-ECDSA-") and "GCM" in name and "AES" in name}
    assert process.end(signal.SIGTERM) == 0


def test_a_handshake_that_stalls_keeps_nobody_from_being_served(serving: Serving) -> None:  # I12
    process, url = serving(server__graceful_timeout="1s")
    parts = urlsplit(url)
    with ExitStack() as stack:
        for number in range(20):
            stalled = stack.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=20))
            stalled.sendall(b"\x16\x03\x01\x02\x00\x01" * (number % 2))
        assert subject(url) == "first"
        assert process.end(signal.SIGTERM) == 0


def test_several_workers_show_a_renewed_certificate_after_a_reload(
    start: Start, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    certify(tmp_path, "first")
    files = {"server__tls_certificate": str(tmp_path / "cert.pem"), "server__tls_key": str(tmp_path / "key.pem")}
    name = f"tls{tmp_path.name}".lower().replace("-", "_")
    settings = environment(postgresql.create(name, template="template"), server__workers="2", limits__enabled="false")
    process = start(
        "serve", "--port", "0", environ={**settings, **environment(settings["USERMGMT_DATABASE__URL"], **files)}
    )
    url = json.loads(process.wait_for('"serving"'))["url"]
    before = children(process)
    certify(tmp_path, "second")
    process.popen.send_signal(signal.SIGHUP)
    until(lambda: not children(process) & before and len(children(process)) == 2)
    assert {subject(url) for _ in range(8)} == {"second"}
    assert process.end(signal.SIGTERM) == 0


def test_files_that_are_no_pair_are_told_at_the_start(start: Start, database_url: str, tmp_path: Path) -> None:
    certify(tmp_path, "first")
    (tmp_path / "first.pem").write_bytes((tmp_path / "cert.pem").read_bytes())
    certify(tmp_path, "second")
    pairs = (("first.pem", "key.pem"), ("cert.pem", ""), ("cert.pem", "cert.pem"), ("none.pem", "key.pem"))
    for certificate, key in pairs:
        files = {
            "server__tls_certificate": str(tmp_path / certificate),
            "server__tls_key": str(tmp_path / key) if key else "",
        }
        process = start("serve", environ=environment(database_url, **files))
        assert process.end() == 78
        assert "tls" in process.errors()
