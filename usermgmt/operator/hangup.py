"""SIGHUP means two things: an operator asks for a reload, or the terminal that the server was started from is gone."""

import os
import sys


class Hangup:
    """Made at the start; tells the two apart later."""

    def __init__(self) -> None:
        self._had_terminal = _is_terminal()

    @property
    def is_terminal_gone(self) -> bool:
        """Whether there was a terminal and is none anymore. A server that outlived it could be stopped by nobody who
        does not look for it.
        """
        return self._had_terminal and not _is_terminal()


def _is_terminal() -> bool:
    """Whether standard input is a terminal that still answers."""
    try:
        return os.isatty(sys.__stdin__.fileno()) if sys.__stdin__ is not None else False
    except (OSError, ValueError):
        return False
