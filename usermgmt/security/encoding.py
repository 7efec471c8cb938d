"""Base64url without padding (RFC 4648, section 5), with exactly one spelling for each value."""

import base64
import binascii


def encode(raw: bytes) -> str:
    """Encode without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes | None:
    """Decode the one canonical spelling; anything else (padding, other alphabet, loose bits) is None."""
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None
    return raw if encode(raw) == text else None
