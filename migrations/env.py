"""Runs migrations on the connection that `usermgmt db` hands over; plain `alembic` opens one from the settings."""

import asyncio

from alembic import context
from sqlalchemy import Connection

from usermgmt.operator import schema_state
from usermgmt.schema import metadata
from usermgmt.settings import load_settings


def run(connection: Connection) -> None:
    """Migrate on `connection`, each migration in a transaction of its own on both databases."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_type=True,
        transaction_per_migration=True,
        transactional_ddl=True,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_alone() -> None:
    """Open a connection from the settings, as `alembic revision --autogenerate` needs it."""
    async with schema_state.connected(load_settings(development=True).database) as connection:
        await connection.run_sync(run)


given = context.config.attributes.get("connection")
if given is None:
    asyncio.run(run_alone())
else:
    run(given)
