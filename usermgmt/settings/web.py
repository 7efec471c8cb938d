"""What is served besides the API itself, and to which pages: other origins, documentation, plugins."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from usermgmt.settings.kinds import Section, Switch
from usermgmt.settings.values import read_list

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?")
_IMPLIED_PORT = re.compile(r"http://.*:80|https://.*:443")
_PLUGIN_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def _cors_origin(text: str) -> str:
    if text != "*" and not _ORIGIN.fullmatch(text):
        raise ValueError("must be * or scheme://host[:port] in lower case, without a path")
    if _IMPLIED_PORT.fullmatch(text):
        raise ValueError("must leave out the port that its scheme implies, as browsers do")
    return text


def _plugin_path(text: str) -> str:
    if not _PLUGIN_PATH.fullmatch(text):
        raise ValueError("must be an import path such as package.module:blueprint")
    return text


CorsOrigin = Annotated[str, AfterValidator(_cors_origin)]
PluginPath = Annotated[str, AfterValidator(_plugin_path)]


class CorsSettings(Section):
    """Which web pages of other origins may call."""

    origins: Annotated[tuple[CorsOrigin, ...], BeforeValidator(read_list)] = Field(
        default=(), description="Allowed origins, scheme://host[:port] each, or *; empty: none."
    )
    credentials: Switch = Field(default=False, description="Whether pages may send credentials, true or false.")


class DocsSettings(Section):
    """The documentation page of the API."""

    enabled: Switch = Field(default=False, description="Whether the page is served, true or false.")


class PluginsSettings(Section):
    """Further routes, from packages that are installed beside this one."""

    blueprints: Annotated[tuple[PluginPath, ...], BeforeValidator(read_list)] = Field(
        default=(), description="Import paths of blueprints, package.module:attribute each; they obey the same marks."
    )
