"""What a fault must not put into the log."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from usermgmt.settings import LogsSettings
from usermgmt.telemetry import current_request
from usermgmt.telemetry.logs import configure_logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave the logging of other tests as it was."""
    root = logging.getLogger()
    handlers, level, configured = root.handlers, root.level, structlog.get_config()
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.configure(**configured)


@pytest.mark.parametrize("form", ["json", "pretty"])
def test_a_fault_is_logged_with_its_traceback_and_without_local_variables(  # K02
    form, capsys: pytest.CaptureFixture[str]
):
    configure_logs(LogsSettings(format=form, level="debug"))
    try:
        _fail("-".join(["canary", "4711"]))
    except RuntimeError as error:
        structlog.get_logger("usermgmt.http").error("request_failed", exc_info=error)
    shown = capsys.readouterr().out
    assert "request_failed" in shown
    assert "test_log_secrets.py" in shown
    assert "canary-4711" not in shown


TEXTS = [
    "login with password=canary-4711 refused",
    "{'password': 'canary-4711 with blanks', 'username': 'ada'}",
    'body {"refresh_token": "canary-4711", "scope": "all"}',
    "Authorization: Bearer canary-4711",
    "GET / with header Authorization: Basic canary-4711=",
    "Cookie: session=x; refresh=canary-4711",
    "cannot reach postgresql://app:canary-4711@db/app",
    "token eyJhbGciOiJFUzI1NiJ9.canary-4711.c2lnbmF0dXJl was refused",
    "um1$abcdef$2b$12$canary-4711",
    "sentry_dsn=https://canary-4711@errors.example/1",
]


@pytest.mark.parametrize("form", ["json", "pretty"])
@pytest.mark.parametrize("text", TEXTS)
def test_a_secret_in_a_text_of_anybody_is_taken_out(form, text: str, capsys: pytest.CaptureFixture[str]):
    configure_logs(LogsSettings(format=form, level="debug"))
    logging.getLogger("some.library").warning(text)
    structlog.get_logger("usermgmt.http").warning("told", reason=text, reasons=[text], facts={"why": text})
    try:
        raise RuntimeError(text)
    except RuntimeError as error:
        structlog.get_logger("usermgmt.http").error("request_failed", exc_info=error)
    shown = capsys.readouterr().out
    assert len([line for line in shown.splitlines() if "told" in line or "request_failed" in line]) == 2
    assert shown.count("(hidden)") >= 5
    assert "canary" not in shown


@pytest.mark.parametrize("form", ["json", "pretty"])
def test_what_is_called_a_secret_is_not_shown(form, capsys: pytest.CaptureFixture[str]):
    configure_logs(LogsSettings(format=form, level="debug"))
    structlog.get_logger("usermgmt.http").warning("told", password="canary", refresh_token="canary", key_id="shown")
    shown = capsys.readouterr().out
    assert "canary" not in shown
    assert "shown" in shown


@pytest.mark.parametrize("form", ["json", "pretty"])
def test_no_text_can_forge_a_line_or_move_a_cursor(form, capsys: pytest.CaptureFixture[str]):
    configure_logs(LogsSettings(format=form, level="debug"))
    text = "a\nb\rc\x1b[2Jd\x00e\x7ff\x9bg\u202eh\u2028i"
    logging.getLogger("some.library").warning(text)
    structlog.get_logger("usermgmt.http").warning(text, reason=text)
    shown = capsys.readouterr().out
    assert shown.count("\n") == 2
    assert not set(shown) & set("\r\x1b\x00\x7f\x9b\u202e\u2028")


def test_a_line_of_one_of_several_workers_tells_which(capsys: pytest.CaptureFixture[str]):
    configure_logs(LogsSettings(format="json", level="info"), worker=4711)
    logging.getLogger("some.library").warning("told")
    structlog.get_logger("usermgmt.http").info("told")
    assert [json.loads(line)["worker"] for line in capsys.readouterr().out.splitlines()] == [4711, 4711]


async def test_every_line_for_a_request_has_its_id(capsys: pytest.CaptureFixture[str]):
    configure_logs(LogsSettings(format="json", level="info"))
    current_request.begin("request-4711")
    logging.getLogger("some.library").warning("told")
    structlog.get_logger("usermgmt.http").info("told")
    assert [json.loads(line)["request_id"] for line in capsys.readouterr().out.splitlines()] == ["request-4711"] * 2


def _fail(password: str) -> None:
    raise RuntimeError(f"a fault with {len(password)} characters")
