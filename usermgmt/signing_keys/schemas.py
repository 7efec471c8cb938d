"""What the public signing keys are told as."""

from typing import Any

import msgspec


class KeySetOut(msgspec.Struct):
    """The keys that verify access tokens now, or will soon."""

    keys: list[dict[str, Any]]
