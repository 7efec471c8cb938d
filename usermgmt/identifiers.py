"""The server's keys: UUIDv7 (RFC 9562), ordered by the time of their making."""

from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """A fresh key, greater than every key this process made before."""
    return uuid7()
