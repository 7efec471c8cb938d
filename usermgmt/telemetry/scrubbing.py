"""What never leaves: secrets, whatever text they got into, and characters that a terminal would obey."""

import re
from collections.abc import Mapping

HIDDEN = "(hidden)"

_VALUE = r"""(?:"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|[^\s"'&,;)}\]]+)"""
_SECRETS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"""((?:set-)?cookie["']?\s*[=:]\s*)[^\n]+""",
        r"""((?:passw(?:or)?d|pwd|secret|token|authorization|api[_-]?key|dsn)["']?\s*[=:]\s*)(?:(?:bearer|basic)\s+)?"""
        + _VALUE,
        r"(\b(?:bearer|basic)\s+)[\w.~+/=-]+",  # RFC 6750, RFC 7617
        r"(://[^\s/:@]*:)[^\s/]*(?=@)",  # the password of a URL
        r"()eyJ[\w-]{6,}\.[\w-]+\.[\w-]*",  # an access token
        r"()(?:um1\$\S+|\$2[aby]\$\d\d\$[./a-z0-9]{53}|\$(?:argon2|scrypt|pbkdf2)\S+)",  # a hash of a password
    )
)
_NAMES = re.compile(r"(?i)passw(or)?d|pwd|secret|^(access_|refresh_)?token$|authorization|cookie|api[_-]?key|dsn")
_INVISIBLE = {
    code: f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02x}"
    for code in (
        *range(0x20),
        *range(0x7F, 0xA0),
        *range(0x200E, 0x2010),
        *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
        0x061C,
    )
}
_INVISIBLE_BUT_BREAKS = {code: shown for code, shown in _INVISIBLE.items() if code != 0x0A}


def scrubbed(text: str) -> str:
    """The text without what looks like a secret: a net under the rule that none is put into a text."""
    for pattern in _SECRETS:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text


def visible(text: str, *, keep_breaks: bool = False) -> str:
    """The text with every control character spelled out, so that it can neither forge a line nor move a cursor."""
    if text.isprintable():
        return text
    return text.translate(_INVISIBLE_BUT_BREAKS if keep_breaks else _INVISIBLE)


def clean(value: object, *, keep_breaks: bool = False) -> object:
    """A value as it may be written down: texts scrubbed and visible, in lists and mappings too."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {visible(str(key)): HIDDEN if hides(str(key)) else clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(item) for item in value]
    return visible(scrubbed(value if isinstance(value, str) else str(value)), keep_breaks=keep_breaks)


def hides(name: str) -> bool:
    """Whether what has this name is a secret."""
    return _NAMES.search(name) is not None
