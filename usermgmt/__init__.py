"""An asynchronous user-management server."""

__version__ = "0.1.0"
