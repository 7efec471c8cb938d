"""The kinds of values that several sections have, and what a section is."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from usermgmt.settings.sources import read_text
from usermgmt.settings.values import Between, Duration, read_share, read_switch, read_whole

SHORTEST, LONGEST = Duration.parse("1ms"), Duration.parse("3650d")
_HTTP_URL = re.compile(r"https?://(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?(?:/[^\s?#]*)?")


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _http_url(text: str) -> str:
    if text and not _HTTP_URL.fullmatch(text):
        raise ValueError("must be empty or an http:// or https:// URL without user, query and fragment")
    return text.rstrip("/")


def _readable(path: str) -> str:
    if path:
        read_text(Path(path))
    return path


Whole = Annotated[int, BeforeValidator(read_whole)]
Switch = Annotated[bool, BeforeValidator(read_switch)]
Text = Annotated[str, AfterValidator(_filled)]
Share = Annotated[float, BeforeValidator(read_share), Between(0.0, 1.0)]
Pause = Annotated[Duration, Between(Duration(0), Duration.parse("1h"))]
Wait = Annotated[Duration, Between(SHORTEST, Duration.parse("1h"))]
Lifetime = Annotated[Duration, Between(SHORTEST, LONGEST)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
"""An address without user, query and fragment, or nothing."""
ReadablePath = Annotated[str, AfterValidator(_readable)]
"""The path of a file that can be read, or nothing."""


class Section(BaseModel):
    """A part of the settings; frozen, and refuses keys that it does not have."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
