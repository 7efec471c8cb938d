"""Instances of `usermgmt serve` on ports that stay theirs, so that each can leave and come back."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.operator.conftest import PROGRAM, Process
from tests.servers import free_port


@dataclass(slots=True)
class Instance:
    """One of several servers on one database."""

    environ: Mapping[str, str]
    folder: Path
    port: int = field(default_factory=free_port)
    running: Process | None = None

    @property
    def process(self) -> Process:
        """The process that serves."""
        assert self.running is not None
        return self.running

    @property
    def url(self) -> str:
        """Its own address, past any proxy."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, **more: str) -> None:
        """Start, and wait until it takes requests. `more` are settings of this one only."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("USERMGMT_")}
        plain.pop("PYTHONDONTWRITEBYTECODE", None)
        settings = {f"USERMGMT_{name.upper()}": value for name, value in more.items()}
        with (self.folder / "errors").open("ab") as errors:
            popen = subprocess.Popen(
                [PROGRAM, "serve", "--port", str(self.port)],
                env={**plain, **self.environ, **settings},
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                text=True,
            )
        self.running = Process(popen)
        told = json.loads(self.running.wait_for('"serving"'))
        assert told["url"].endswith(f":{self.port}")

    def stop(self) -> None:
        """Have it drain and end."""
        self._end(signal.SIGTERM, 0)

    def restart(self, **more: str) -> None:
        """As an upgrade does: end it, start it anew, go on when it serves."""
        self.stop()
        self.start(**more)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL, -signal.SIGKILL)

    def put_away(self) -> None:
        """End it, whatever it does; nothing was written to standard error until then."""
        if self.running is not None:
            self.kill()
        assert (self.folder / "errors").read_text() == ""

    def _end(self, number: signal.Signals, code: int) -> None:
        assert self.process.end(number) == code
        assert self.process.popen.stdout is not None
        self.process.popen.stdout.close()
        self.running = None
