"""Servers with plugins: what is wrong with one is told before anything is touched, and what is right is served."""

import json
import signal
from pathlib import Path

from tests.operator.calls import DIRECT, call
from tests.operator.conftest import CommandLine, Start, environment

GOOD = """
from quart import Blueprint
from usermgmt.extending import limited, no_content, public
blueprint = Blueprint("hello", __name__)

@blueprint.get("/hello")
@public
@limited("read")
async def hello():
    "Say nothing."
    return no_content()
"""
UNMARKED = GOOD.replace("@public\n", "")
TAKEN = GOOD.replace('"/hello"', '"/health/live"')


def written(folder: Path, url: str, *names: str, **more: str) -> dict[str, str]:
    """The variables of a server with the plugins of a folder."""
    for name, source in (("good", GOOD), ("unmarked", UNMARKED), ("taken", TAKEN)):
        (folder / f"{name}_plugin.py").write_text(source.replace('"hello"', f'"{name}"', 1), encoding="utf-8")
    paths = ",".join(f"{name}_plugin:blueprint" for name in names)
    return {**environment(url, plugins__blueprints=paths, **more), "PYTHONPATH": str(folder)}


def test_a_plugin_that_cannot_be_served_is_78_and_nothing_was_done(
    start: Start, empty_database_url: str, tmp_path: Path
) -> None:
    for names, told in (
        (("missing", "nowhere"), ["missing_plugin:blueprint cannot be imported", "nowhere_plugin:blueprint cannot"]),
        (("unmarked",), ["unmarked.hello (of unmarked_plugin:blueprint)"]),
        (("taken",), ["taken_plugin:blueprint has a route that another one takes: GET /health/live"]),
    ):
        environ = written(tmp_path, empty_database_url, *names)
        process = start("serve", "--migrate", "--port", "0", environ=environ)
        assert process.end() == 78
        explanation = process.errors()
        assert [text in explanation for text in told] == [True] * len(told), explanation
        assert "Traceback" not in explanation
    assert CommandLine(environment(empty_database_url)).document("db", "current")["current"] is None


def test_plugins_are_served_in_this_process_and_found_by_the_documentation(
    start: Start, database_url: str, tmp_path: Path
) -> None:
    environ = written(tmp_path, database_url, "good")
    process = start("serve", "--port", "0", environ=environ)
    url = json.loads(process.wait_for('"serving"'))["url"]
    assert call(f"{url}/health/ready")[0] == 200
    with DIRECT.open(f"{url}/hello") as answer:
        assert answer.status == 204
    assert process.end(signal.SIGTERM) == 0
    document = start("openapi", environ=environ)
    assert document.end() == 0
    assert '"/hello"' in document.output
