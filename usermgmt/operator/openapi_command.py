"""`usermgmt openapi`: the description of the API, without a server, a database or a secret."""

import click

from usermgmt.http import openapi as specification
from usermgmt.operator.configuration import new_secret, operator_settings
from usermgmt.operator.console import Console
from usermgmt.operator.grammar import command, pass_console
from usermgmt.operator.startup import built


@command()
@pass_console
def openapi(console: Console) -> None:
    """Print the OpenAPI document of the API, as JSON."""
    nothing_kept = {"secret.keys": new_secret(), "database.url": "sqlite+aiosqlite:///:memory:"}
    app = built(operator_settings(console, flags=nothing_kept))
    click.echo(specification.document(app).decode())
