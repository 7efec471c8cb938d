"""The README's table of routes is what the marks say."""

from pathlib import Path

from tests.conftest import settings_for
from usermgmt.app import create_app
from usermgmt.http.route_table import route_table, with_table

README = Path(__file__).parents[1] / "README.md"


def test_the_readme_has_the_routes_as_they_are():
    table = route_table(create_app(settings_for("sqlite+aiosqlite:///:memory:")))
    text = README.read_text(encoding="utf-8")
    assert with_table(text, table) == text, "renew it: python -m usermgmt.http.route_table README.md (make format does)"
