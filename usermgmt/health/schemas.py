"""What probes are answered with."""

from typing import Literal

import msgspec


class LiveOut(msgspec.Struct):
    """The process answers."""

    status: Literal["ok"] = "ok"


class ReadyOut(msgspec.Struct):
    """Whether the process can serve, check by check."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, bool]
