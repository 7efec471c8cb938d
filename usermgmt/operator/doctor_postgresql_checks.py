"""What `usermgmt doctor` finds about a PostgreSQL server: whose the connections are, how many, and what is kept."""

from collections.abc import AsyncIterator
from typing import Any

from usermgmt.operator.doctor_findings import Checklist, Finding, error, note, ok, warning
from usermgmt.operator.doctor_installation import Installation, Needs
from usermgmt.settings.values import DatabaseUrl, ReplicaUrl, masked_url
from usermgmt.storage.database import Database

OLDEST = 14
MOST_SHARE_USED = 0.8
MOST_SECONDS_BEHIND = 10.0
MOST_BYTES_HELD = 1 << 30

check = Checklist()


@check("postgresql.version", Needs.POSTGRESQL)
async def version_is_maintained(installation: Installation) -> AsyncIterator[Finding]:
    """The server is of a version that its makers maintain."""
    ((number, name),) = await _rows(
        installation, "SELECT current_setting('server_version_num')::int, current_setting('server_version')"
    )
    if number // 10_000 < OLDEST:
        yield warning(f"PostgreSQL {name} is no longer maintained.", f"Upgrade it to {OLDEST} or later.")
    else:
        yield ok(f"PostgreSQL {name} is maintained.")


@check("postgresql.role", Needs.POSTGRESQL)
async def application_is_no_superuser(installation: Installation) -> AsyncIterator[Finding]:
    """The application has a role of its own, without rights over the whole server."""
    ((name, is_super),) = await _rows(
        installation, "SELECT rolname, rolsuper FROM pg_roles WHERE rolname = current_user"
    )
    if is_super:
        yield warning(
            f"The application is the superuser {name}: whoever gets its password has the whole server.",
            "Give it a role of its own: CREATE ROLE usermgmt LOGIN PASSWORD '…'; ALTER DATABASE … OWNER TO usermgmt;"
            " and ALTER TABLE … OWNER TO usermgmt for each table.",
        )
    else:
        yield ok(f"The application is {name}, no superuser.")


@check("postgresql.connections", Needs.POSTGRESQL)
async def connections_suffice(installation: Installation) -> AsyncIterator[Finding]:
    """All processes together may open as many connections as they hold: their pools, and one that watches."""
    settings, instances = installation.settings, installation.instances
    is_pooled = settings.database.is_pooled
    needed = instances * settings.server.workers * (settings.database.pool_size + (not is_pooled))
    each = "database.pool_size" if is_pooled else "(database.pool_size + 1)"
    told = f"{instances} × server.workers × {each} = {needed} connections"
    if is_pooled:
        yield ok(f"{told} go to the pooler, which decides how many reach the server.")
        return
    ((limit, reserved, of_role, of_database),) = await _rows(installation, _LIMITS)
    most = min([limit - reserved, *(one for one in (of_role, of_database) if one >= 0)])
    mend = "Lower database.pool_size, raise max_connections, or put pgbouncer in between (database.pooler)."
    if needed > most:
        yield error(f"{told} may be wanted, but the server gives {most}.", mend)
    elif needed > most * MOST_SHARE_USED:
        yield warning(f"{told} may be wanted of the {most} that the server gives: little is left for others.", mend)
    else:
        yield ok(f"{told} may be wanted of the {most} that the server gives.")


_LIMITS = """
    SELECT current_setting('max_connections')::int,
           current_setting('superuser_reserved_connections')::int
               + coalesce(current_setting('reserved_connections', true)::int, 0),
           (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
           (SELECT datconnlimit FROM pg_database WHERE datname = current_database())
"""


@check("postgresql.durability", Needs.POSTGRESQL)
async def what_is_acknowledged_is_kept(installation: Installation) -> AsyncIterator[Finding]:
    """What was acknowledged survives a crash, and the tables are looked after."""
    names = ("fsync", "full_page_writes", "synchronous_commit", "autovacuum")
    (values,) = await _rows(installation, f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}")
    off = [name for name, value in zip(names, values, strict=True) if value == "off"]
    for name in off:
        finding = error if name in ("fsync", "full_page_writes") else warning
        yield finding(f"{name} is off: {_MEANS[name]}.", f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();")
    if not off:
        yield ok("What was acknowledged survives a crash, and autovacuum is on.")


_MEANS = {
    "fsync": "a crash of the machine can destroy the whole database",
    "full_page_writes": "a crash of the machine can destroy pages",
    "synchronous_commit": "a crash loses what was acknowledged in the last moment, a revoked session too",
    "autovacuum": "tables grow without end, and lists get slow",
}


@check("postgresql.pooler", Needs.POSTGRESQL)
async def pooler_is_known(installation: Installation) -> AsyncIterator[Finding]:
    """Where a pooler shares connections, the settings say so."""
    async with installation.reading() as reading:
        here = (await reading.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one()
        driver: Any = (
            await reading.get_raw_connection()
        ).driver_connection  # asyncpg's, which SQLAlchemy leaves untyped
        is_pooled = driver.get_server_pid() != here  # a pooler answers a new client under a number of its own
    is_declared = installation.settings.database.is_pooled
    if is_pooled and not is_declared:
        yield warning(
            "A pooler is between here and PostgreSQL, and database.pooler is none.",
            "Set database.pooler = transaction, unless it gives each client a connection of its own.",
        )
    elif is_declared and not is_pooled:
        yield note(
            "database.pooler is transaction, but no pooler is in between: every statement is prepared anew.",
            "Set it to none.",
        )
    else:
        yield ok("A pooler is in between, as declared." if is_pooled else "No pooler is in between, as declared.")


@check("postgresql.slots", Needs.POSTGRESQL)
async def nobody_holds_the_log(installation: Installation) -> AsyncIterator[Finding]:
    """No replica that is gone keeps the server from removing its log."""
    rows = await _rows(installation, _SLOTS, MOST_BYTES_HELD)
    for name, held in rows:
        yield warning(
            f"The replication slot {name} serves nobody and holds {held >> 20} MiB of the log: the disk fills.",
            f"Start its replica again, or SELECT pg_drop_replication_slot('{name}').",
        )
    if not rows:
        yield ok("No unused replication slot holds the log.")


_SLOTS = """
    SELECT slot_name, pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
           ELSE pg_current_wal_lsn() END, restart_lsn)::bigint
    FROM pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL
    AND pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
        restart_lsn) >= {0} ORDER BY 1
"""


@check("postgresql.primary", Needs.POSTGRESQL)
async def database_takes_writes(installation: Installation) -> AsyncIterator[Finding]:
    """The database is the one that takes writes."""
    ((is_standby, is_read_only),) = await _rows(
        installation, "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on'"
    )
    if is_standby or is_read_only:
        what = "a standby" if is_standby else "read-only"
        yield error(f"database.url leads to a server that is {what}.", "Let it lead to the primary.")
    else:
        yield ok("The database takes writes.")


@check("postgresql.replica", Needs.POSTGRESQL)
async def replica_keeps_up(installation: Installation) -> AsyncIterator[Finding]:
    """The replica for lists answers, is one, and keeps up."""
    settings = installation.settings.database
    if not settings.read_url:
        yield ok("No replica is configured.")
        return
    there = settings.model_copy(update={"url": DatabaseUrl(settings.read_url), "read_url": ReplicaUrl("")})
    replica = Database(there)
    try:
        async with replica.read() as session:
            state: Any = (await (await session.connection()).exec_driver_sql(_BEHIND)).one()
            is_standby, behind = state
    except Exception as fault:  # noqa: BLE001 - whatever is wrong with it, lists are read elsewhere
        yield warning(
            f"The replica {masked_url(settings.read_url)} does not answer ({type(fault.__cause__ or fault).__name__}):"
            " lists are read from the database itself.",
            "Start it, or correct database.read_url.",
        )
        return
    finally:
        await replica.close()
    if not is_standby:
        yield warning(
            "database.read_url leads to no standby: what it gives may be as old as it likes.",
            "Let it lead to a streaming replica of database.url, or leave it empty.",
        )
    elif behind > MOST_SECONDS_BEHIND:
        yield warning(f"The replica is {behind:.0f} s behind: lists are that old.", "Look at its log and its load.")
    else:
        yield ok(f"The replica is {behind:.1f} s behind.")


_BEHIND = """
    SELECT pg_is_in_recovery(), CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
        ELSE coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0) END::float
"""


async def _rows(installation: Installation, statement: str, *values: int) -> list[Any]:
    """What a statement of ours finds; the numbers are put into it."""
    async with installation.reading() as reading:
        return list((await reading.exec_driver_sql(statement.format(*values) if values else statement)).all())
