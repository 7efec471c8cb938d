"""Programs of the system before and behind usermgmt, started with the very files of `deploy/`."""

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.operator.test_tls import certify
from tests.servers import free_port

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = "accounts.example.com"
PACKAGES = {"nginx": "nginx-light", "systemd-analyze": "systemd"}
PATIENCE = 30.0


def found(program: str) -> str:
    """Where a program is; without it the test fails, since nothing would be known."""
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        pytest.fail(f"{program} is not here: apt install {PACKAGES.get(program, program)}")
    return path


def rendered(sample: Path, replaced: Mapping[str, str]) -> str:
    """A file of `deploy/` with other ports, paths and names; each of them must be in it."""
    text = sample.read_text()
    for old, new in replaced.items():
        assert old in text, f"{sample.name} no longer has {old!r}"
        text = text.replace(old, new)
    return text


@contextmanager
def running(
    *command: str, port: int, log: Path, user: str | None = None, stops_with: int = 15
) -> Iterator["subprocess.Popen[bytes]"]:
    """A program until the block is left, once it listens; what it said is in `log`."""
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, user=user, cwd="/")
    try:
        deadline = time.monotonic() + PATIENCE
        while not listens(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)  # it does not listen yet, and tells nobody when it does
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(stops_with)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def connect_plainly(port: int) -> socket.socket:
    """A connection without TLS to a port of this machine."""
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A reverse proxy that runs."""

    kind: str
    port: int
    plain_port: int
    certificate: Path
    log: Path

    def connect(self, source: str = "127.0.0.1", protocol: str = "http/1.1") -> ssl.SSLSocket:
        """A connection from an address of this machine, which trusts the proxy's certificate and nobody else's."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.set_alpn_protocols([protocol])
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE, source_address=(source, 0))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(plain, server_hostname=NAME)

    def exchange(self, request: bytes, source: str = "127.0.0.1") -> bytes:
        """Send bytes; all that comes until the proxy closes."""
        with self.connect(source) as connection:
            connection.sendall(request)
            seen = b""
            while piece := connection.recv(65_536):
                seen += piece
        return seen


@contextmanager
def proxy(kind: str, folder: Path, first: int, second: int) -> Iterator[Proxy]:
    """nginx or haproxy before two ports of this machine, as the sample says."""
    folder.mkdir()
    certify(folder, NAME, dns=NAME)
    made = Proxy(kind, free_port(), free_port(), folder / "cert.pem", folder / "log")
    ports = {"127.0.0.1:8001": f"127.0.0.1:{first}", "127.0.0.1:8002": f"127.0.0.1:{second}"}
    command = {"nginx": _nginx, "haproxy": _haproxy}[kind](folder, made, ports)
    with running(*command, port=made.port, log=made.log):
        yield made


def _nginx(folder: Path, made: Proxy, ports: Mapping[str, str]) -> list[str]:
    listening = {
        "listen 80;": f"listen 127.0.0.1:{made.plain_port};",
        "listen [::]:80;": "",
        "listen 443 ": f"listen 127.0.0.1:{made.port} ",
        "listen [::]:443 ssl http2;": "",
        "listen [::]:443 ssl http2 default_server;": "",
        "/etc/usermgmt/tls": str(folder),
    }
    site = rendered(DEPLOY / "nginx" / "usermgmt.conf", listening)
    upstream = rendered(DEPLOY / "nginx" / "usermgmt-upstream.conf", ports)
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off;\npid {folder}/pid;\nerror_log stderr notice;\nworker_processes 1;\n"
        f"{'user root;' if os.geteuid() == 0 else ''}\nevents {{}}\n"
        f"http {{\naccess_log {folder}/access.log;\n{temporary}\n{upstream}\n{site}\n}}\n"
    )
    return [found("nginx"), "-e", "stderr", "-p", str(folder), "-c", str(configuration)]


def _haproxy(folder: Path, made: Proxy, ports: Mapping[str, str]) -> list[str]:
    both = folder / "both.pem"
    both.write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())
    listening = {
        "bind :80\n": f"bind 127.0.0.1:{made.plain_port}\n",
        "bind :443 ": f"bind 127.0.0.1:{made.port} ",
        "/etc/usermgmt/tls/both.pem": str(both),
    }
    configuration = folder / "haproxy.cfg"
    configuration.write_text(rendered(DEPLOY / "haproxy" / "haproxy.cfg", {**ports, **listening}))
    return [found("haproxy"), "-db", "-f", str(configuration)]
