"""`serve --dev`: the data directory with its secret, and the words that greet whoever starts it for the first time."""

import json
import os
import shlex
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from usermgmt import __version__
from usermgmt.operator.bootstrap import MadeAdmin
from usermgmt.operator.configuration import new_secret, unfit
from usermgmt.operator.console import Reason, Refusal, own_name, printable
from usermgmt.settings import SECRET_FILE, Settings, load_settings
from usermgmt.settings.values import masked_url


def development_settings(flags: Mapping[str, object], config: Path | None) -> Settings:
    """The settings of development mode; a root secret is made and kept if none is set. Raises `SettingsError`."""
    settings = load_settings(flags=flags, config=config, development=True)
    if settings.secret.keys:
        return settings
    if _knows_secret(settings):
        raise other_secret(settings)
    try:
        _keep_secret(settings.server.data_dir)
    except OSError as error:
        raise Refusal(f"Cannot write to {settings.server.data_dir}: {error.strerror}.") from None
    return load_settings(flags=flags, config=config, development=True)


def other_secret(settings: Settings) -> Refusal:
    """The refusal of a database in which nobody could sign in."""
    database, file = _database_name(settings), settings.server.data_dir / SECRET_FILE
    message = f"{database} was made with another secret; put {file} back, or remove {database} and every account in it"
    return unfit([Reason(message, "secret.keys")])


def _database_name(settings: Settings) -> str:
    """Its file, or its address without the password."""
    database = settings.database
    return str(database.sqlite_file.resolve()) if database.is_sqlite else masked_url(database.url)


def _knows_secret(settings: Settings) -> bool:
    """Whether a SQLite file was made with a secret. What cannot be asked is seen to when it is used."""
    if not settings.database.is_sqlite or not settings.database.sqlite_file.is_file():
        return False
    uri = f"{settings.database.sqlite_file.absolute().as_uri()}?mode=rw"
    with suppress(sqlite3.Error), closing(sqlite3.connect(uri, uri=True)) as connection:
        return connection.execute("SELECT 1 FROM root_secrets").fetchone() is not None
    return False


@dataclass(frozen=True, slots=True)
class Banner:
    """What a start in development mode prints. Only the start that made the administrator knows the password."""

    settings: Settings
    url: str
    made_admin: MadeAdmin | None
    admin: str

    @property
    def curl(self) -> str:
        """A line that works when it is pasted: signing in if the password is known, else asking for readiness."""
        if self.made_admin is None or self.made_admin.password is None:
            return f"curl {self.url}/health/ready"
        body = json.dumps({"username": self.made_admin.username, "password": self.made_admin.password})
        return f"curl {self.url}/api/auth/login -H 'Content-Type: application/json' -d {shlex.quote(body)}"

    @property
    def database(self) -> str:
        """Where the accounts are; in a shell that has settings of its own, not in the data directory."""
        return _database_name(self.settings)

    @property
    def document(self) -> dict[str, Any]:
        """What programs read."""
        return {
            "version": __version__,
            "url": self.url,
            "documentation": f"{self.url}/docs" if self.settings.docs.enabled else None,
            "data": str(self.settings.server.data_dir.resolve()),
            "database": self.database,
            "admin": self.admin,
            "password": self.made_admin.password if self.made_admin is not None else None,
            "curl": self.curl,
        }

    @property
    def text(self) -> str:
        """What people read."""
        lines = [f"usermgmt {__version__}, in development mode", "", f"  API            {self.url}"]
        if self.settings.docs.enabled:
            lines.append(f"  Documentation  {self.url}/docs")
        lines.append(f"  Data           {self.settings.server.data_dir.resolve()}")
        lines.append(f"  Database       {self.database}")
        lines += [*self._admin_lines(), "", f"  {self.curl}", ""]
        return "\n".join(["", *map(printable, lines)])

    def _admin_lines(self) -> list[str]:
        if self.made_admin is not None and self.made_admin.password is not None:
            return [
                f"  Administrator  {self.admin}",
                f"  Password       {self.made_admin.password}   (shown only this once)",
            ]
        if self.made_admin is not None:
            return [f"  Administrator  {self.admin}, with the password of bootstrap.admin_password"]
        return [f"  Administrator  {self.admin}; for a new password: {own_name()} admin reset-password {self.admin}"]


def _keep_secret(directory: Path) -> None:
    """Make the data directory and the secret in it, for nobody else to read. Of several starts the first counts."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = directory / f".{SECRET_FILE}.{os.getpid()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(new_secret() + "\n")
        _publish(draft, directory / SECRET_FILE)
    finally:
        draft.unlink()


def _publish(draft: Path, path: Path) -> None:
    """Give the whole file its name at once, unless somebody was faster."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return
