"""Routes of others: the example of docs/extending.md, and every plugin with which the server does not start."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import settings_for
from tests.people import Person, Server
from tests.problems import problem_of
from usermgmt import extending
from usermgmt.app import MarksMissing, create_app
from usermgmt.http.openapi import document
from usermgmt.http.plugins import PluginRefused
from usermgmt.settings.sources import SettingsError

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
HANDLER = """
from quart import Blueprint
from usermgmt.extending import answer, authenticated, limited, no_content, public
blueprint = Blueprint({name!r}, __name__)
{marks}
async def handler(**_):
    return no_content()
"""
MARKED = "@authenticated\n@limited('read')"


def block(language: str) -> str:
    """The one block of code in this language on the page."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write a plugin where it can be imported; its import path."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source: str) -> str:
        name = f"plugin_{len(list(tmp_path.iterdir()))}_{abs(hash(tmp_path))}"
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        return f"{name}:blueprint"

    return write


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings of a server with the page's example."""
    (tmp_path / "notes.py").write_text(block("python"), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    plenty = dict.fromkeys(("limits.login", "limits.read", "limits.admin"), "1000/m")
    return {"plugins.blueprints": "notes:blueprint", "limits.enabled": True, **plenty, "limits.write": "5/m"}


async def test_the_example_has_everything_that_our_own_routes_have(server: Server, admin: Person, ada: Person) -> None:
    await server.execute(block("sql").replace(";", ""))
    path = f"/api/notes/{ada.id}"
    try:
        await problem_of(await server.nobody().get(path), 401, "missing_credentials")
        await problem_of(await ada.get(path), 403, "permission_missing")
        (denied,) = await server.events("access.denied")
        assert denied.target_id == "GET /api/notes/<user_ref:user_id>"
        await problem_of(await admin.get(path), 404, "note_not_found")
        await problem_of(await admin.get(f"{path}?x=1"), 422, "validation_failed")
        for body in ({}, {"text": ""}, {"text": "x", "more": 1}):
            await problem_of(await admin.put(path, json=body), 422, "validation_failed")
        made = await (await admin.put(path, json={"text": "Calls on Mondays."})).get_json()
        assert await (await admin.get(path)).get_json() == made
        (event,) = await server.events("extension.acted")
        assert (event.actor_name, str(event.owner_id)) == ("root", ada.id)
        assert event.details == {"action": "note.written"}
        assert (await admin.put("/api/notes/me", json={"text": "Mine."})).status_code == 200
        await problem_of(await admin.put(path, json={"text": "x"}), 429, "rate_limited")
        await server.execute("DELETE FROM users WHERE username = 'ada'")
        assert [row.text for row in await server.rows("SELECT text FROM notes")] == ["Mine."]
    finally:
        await server.execute("DROP TABLE notes")


async def test_the_example_is_documented(server: Server) -> None:
    paths = json.loads(document(server.app))["paths"]
    operations = paths["/api/notes/{user_id}"]
    assert sorted(operations) == ["get", "put"]
    assert operations["put"]["operationId"] == "notes_set_note"
    assert {"401", "403", "422", "429", "503"} <= set(operations["put"]["responses"])
    assert (await server.nobody().get("/problems/note-not-found")).status_code == 200


def test_the_page_lists_what_may_be_imported() -> None:
    listed = set(re.findall(r"`(\w+)`", PAGE.partition("| for | names |")[2]))
    assert listed == set(extending.__all__)
    assert all(hasattr(extending, name) for name in listed)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("x = 1", "has no attribute 'blueprint'"),
        ("blueprint = 1", "is no quart.Blueprint but a int"),
        ("import nowhere_to_be_found", "No module named 'nowhere_to_be_found'"),
        ("1 / 0", "ZeroDivisionError: division by zero (plugin_"),
        ("raise SyntaxError", "cannot be imported: SyntaxError"),
        (HANDLER.format(name="users", marks=f"@blueprint.get('/x')\n{MARKED}"), "is called 'users'"),
        (HANDLER.format(name="metrics", marks=f"@blueprint.get('/x')\n{MARKED}"), "is called 'metrics'"),
        (HANDLER.format(name="p", marks=f"@blueprint.get('/api/users')\n{MARKED}"), "GET /api/users, /api/users"),
        (HANDLER.format(name="p", marks=f"@blueprint.get('/api/users/me')\n{MARKED}"), "/api/users/me"),
        (HANDLER.format(name="p", marks=f"@blueprint.put('/api/users/<id:x>')\n{MARKED}"), "/api/users/"),
        (HANDLER.format(name="p", marks=f"@blueprint.get('/api/<path:x>')\n{MARKED}"), ""),
        (HANDLER.format(name="p", marks=f"@blueprint.websocket('/x')\n{MARKED}"), "has a websocket"),
        (
            HANDLER.format(name="p", marks=f"@blueprint.get('/x')\n{MARKED}").replace("async def", "def"),
            "not `async def`",
        ),
        (
            HANDLER.format(name="p", marks=f"@blueprint.get('/x')\n{MARKED}") + "blueprint.before_app_request(handler)",
            "adds steps or error handlers",
        ),
        (
            HANDLER.format(name="p", marks=f"@blueprint.get('/x')\n{MARKED}")
            + "blueprint.app_errorhandler(404)(handler)",
            "adds steps or error handlers",
        ),
    ],
)
def test_a_plugin_that_cannot_be_served_is_refused(written: Callable[[str], str], source: str, reason: str) -> None:
    path = written(source)
    settings = settings_for("sqlite+aiosqlite:///:memory:", **{"plugins.blueprints": path})
    if not reason:  # it takes only paths that nobody has
        assert create_app(settings)
        return
    with pytest.raises(PluginRefused, match=re.escape(reason)) as refusal:
        create_app(settings)
    assert str(refusal.value).startswith(path)


@pytest.mark.parametrize(
    "path", ["notes", "notes.blueprint", "notes:", ":blueprint", "no tes:b", "a:b:c", "../a:b", "1:b"]
)
def test_what_is_no_import_path_is_told(path: str) -> None:
    with pytest.raises(SettingsError, match=r"plugins\.blueprints: item 1 must be an import path"):
        settings_for("sqlite+aiosqlite:///:memory:", **{"plugins.blueprints": path})


@pytest.mark.parametrize("marks", ["", "@authenticated", "@limited('read')"])
def test_a_plugin_without_marks_is_refused_by_name(written: Callable[[str], str], marks: str) -> None:
    path = written(HANDLER.format(name="odd", marks=f"@blueprint.get('/x')\n{marks}"))
    with pytest.raises(MarksMissing, match=rf"odd\.handler \(of {path}\)"):
        create_app(settings_for("sqlite+aiosqlite:///:memory:", **{"plugins.blueprints": path}))


def test_two_plugins_do_not_take_each_others_routes(written: Callable[[str], str]) -> None:
    paths = [written(HANDLER.format(name=name, marks=f"@blueprint.get('/x')\n{MARKED}")) for name in ("one", "two")]
    with pytest.raises(PluginRefused, match="GET /x"):
        create_app(settings_for("sqlite+aiosqlite:///:memory:", **{"plugins.blueprints": ",".join(paths)}))
