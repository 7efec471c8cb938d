"""The pages that explain the API."""

from quart import Blueprint, Quart

from usermgmt.settings import Settings

blueprint = Blueprint("documentation", __name__)


def install(app: Quart, settings: Settings) -> None:
    """Serve them where the settings say so."""
