"""How the server listens, and how it can be reached."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from usermgmt.settings.kinds import HttpUrl, Pause, ReadablePath, Section, Switch, Text, Wait, Whole
from usermgmt.settings.values import Between, Duration


def _bind(text: str) -> str:
    host, separator, port = text.rpartition(":")
    if text and not (separator and host and port.isdecimal() and 0 < int(port) < 65_536):
        raise ValueError("must be empty or host:port, as 127.0.0.1:9100")
    return f"{host}:{int(port)}" if text else ""


class ServerSettings(Section):
    """How the server listens and what it takes from a client."""

    host: Text = Field(
        default="127.0.0.1",
        description="Address to listen on; 0.0.0.0 is every IPv4 address, :: every address.",
    )
    port: Annotated[Whole, Between(0, 65535)] = Field(
        default=8000, description="TCP port to listen on; 0 takes a free one."
    )
    server: Literal["hypercorn", "granian"] = Field(
        default="hypercorn", description="Which server answers: hypercorn, or granian (an extra; no TLS, no HTTP/2)."
    )
    workers: Annotated[Whole, Between(1, 1024)] = Field(default=1, description="Number of processes that serve.")
    worker_timeout: Wait = Field(
        default=Duration.parse("30s"),
        description="Duration without a sign of life after which one of several workers is replaced.",
    )
    graceful_timeout: Pause = Field(
        default=Duration.parse("30s"),
        description="Duration that running requests get to finish when the server stops.",
    )
    drain_delay: Pause = Field(
        default=Duration(0),
        description="Part of graceful_timeout in which new connections are still taken while readiness answers 503.",
    )
    request_timeout: Wait = Field(
        default=Duration.parse("15s"), description="Duration that a client has to send its request."
    )
    head_timeout: Wait = Field(
        default=Duration.parse("5s"), description="Duration that the head of a request may take once it has begun."
    )
    min_bytes_per_second: Annotated[Whole, Between(1, 1 << 30)] = Field(
        default=8192,
        description="Fewest bytes a second, beyond request_timeout, at which a client sends a file or reads an answer.",
    )
    max_connections: Annotated[Whole, Between(1, 1_000_000)] = Field(
        default=10_000, description="Most connections at once, in number; further ones are answered 503."
    )
    max_body_bytes: Annotated[Whole, Between(1, 1 << 30)] = Field(
        default=65536, description="Longest request body, in bytes."
    )
    management_bind: Annotated[str, AfterValidator(_bind)] = Field(
        default="",
        description="Address of a second listener for /metrics and /health only, as 127.0.0.1:9100; empty: none.",
    )
    max_upload_bytes: Annotated[Whole, Between(1, 1 << 40)] = Field(
        default=64 << 20, description="Longest file of accounts that is sent to be imported, in bytes; kept on disk."
    )
    fast_path: Switch = Field(
        default=True, description="Whether requests are served at the least cost, or as the framework does."
    )
    tls_certificate: ReadablePath = Field(
        default="", description="Path of a PEM file with the certificate and its chain; empty: no TLS here."
    )
    tls_key: ReadablePath = Field(default="", description="Path of a PEM file with the certificate's private key.")
    public_url: HttpUrl = Field(
        default="", description="URL under which clients reach the server; empty: made from the request."
    )
    data_dir: Path = Field(default=Path("data"), description="Directory for what the server keeps in files.")

    @property
    def is_tls(self) -> bool:
        """Whether connections are encrypted by this server itself."""
        return bool(self.tls_certificate)

    def transfer_seconds(self, size: int) -> float:
        """How long a client may take to send or to read so many bytes of what has no time of its own."""
        return self.request_timeout.total_seconds() + size / self.min_bytes_per_second
