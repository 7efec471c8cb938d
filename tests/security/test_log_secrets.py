"""What a fault must not put into the log."""

import logging
from collections.abc import Iterator

import pytest
import structlog

from usermgmt.settings import LogsSettings
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


def _fail(password: str) -> None:
    raise RuntimeError(f"a fault with {len(password)} characters")
