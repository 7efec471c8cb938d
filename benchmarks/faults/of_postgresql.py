"""What PostgreSQL, and the way to it, can do to a server."""

import asyncio
from time import monotonic
from uuid import uuid4

import asyncpg

from benchmarks.faults.fault import NOTHING, Fault
from benchmarks.faults.scene import Scene
from benchmarks.faults.traffic import PATIENCE
from benchmarks.load import Client, request

HUNG_SECONDS = 10.0
TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'usermgmt'"
CONFLICTS = """
    CREATE SEQUENCE turns;
    CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('turns') % 10 = 0 THEN RAISE EXCEPTION 'provoked' USING ERRCODE = '40001'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER conflicts BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION conflict();
"""
DEADLOCKS = 5


async def stopped(scene: Scene) -> None:
    """It is stopped at once, and started after a while."""
    scene.begin_fault()
    await asyncio.to_thread(scene.server.stop)
    await scene.wait(6)
    await asyncio.to_thread(scene.server.start)
    scene.heal()


async def restarted_idle(scene: Scene) -> None:
    """It is restarted while nobody asks; the next requests find dead connections in the pool."""
    await scene.load.rest()
    scene.begin_fault()
    await asyncio.to_thread(scene.server.stop)
    await asyncio.to_thread(scene.server.start)
    scene.heal()
    await asyncio.gather(*(scene.load.ask() for _ in range(20)))
    scene.load.go_on()


async def failed_over(scene: Scene) -> None:
    """The primary dies; after a while its synchronous standby takes over: at the same address where there is a proxy,
    else at its own, which the server was told from the beginning.
    """
    assert scene.standby is not None
    old = scene.server
    scene.begin_fault()
    await asyncio.to_thread(old.stop)
    await scene.wait(4)
    await asyncio.to_thread(scene.standby.promote)
    scene.postgresql, scene.standby = scene.standby, old
    if scene.proxy is not None:
        scene.proxy.upstream = scene.server.port
    scene.heal()


async def hung(scene: Scene) -> None:
    """None of its processes runs; connections are taken by the kernel, and nothing answers."""
    scene.begin_fault()
    await asyncio.to_thread(scene.server.hang)
    try:
        await scene.wait(HUNG_SECONDS)
    finally:
        await asyncio.to_thread(scene.server.go_on)
    scene.heal()


async def swallowed(scene: Scene) -> None:
    """The network takes bytes and brings none."""
    assert scene.proxy is not None
    scene.begin_fault()
    with scene.proxy.swallowing():
        await scene.wait(HUNG_SECONDS)
    scene.heal()


async def read_only(scene: Scene) -> None:
    """It takes no writes, as a standby, and then does."""
    scene.begin_fault()
    await scene.command("ALTER DATABASE faults SET default_transaction_read_only = on")
    await scene.command(TERMINATE)
    await scene.wait(4)
    await scene.command("ALTER DATABASE faults RESET default_transaction_read_only")
    await scene.command(TERMINATE)
    scene.heal()


async def connections_killed(scene: Scene) -> None:
    """Connections are killed again and again, in the middle of whatever they do."""
    connection = await asyncpg.connect(scene.server.url("faults").replace("+asyncpg", ""))
    scene.begin_fault()
    killed = 0
    ends = monotonic() + 6 * scene.pace
    while monotonic() < ends:
        killed += len(await connection.fetch(f"{TERMINATE} AND state <> 'idle' AND random() < 0.5"))
        await asyncio.sleep(0.01)
    scene.heal()
    await connection.close()
    scene.notes.append(f"{killed} connections killed at work")
    if not killed:
        scene.broken.append("no connection was killed")


async def cut_at_commit(scene: Scene) -> None:
    """The connection breaks at a COMMIT: by turns before PostgreSQL has it, and after it has done it."""
    assert scene.proxy is not None
    scene.begin_fault()
    with scene.proxy.cutting(5):
        await scene.wait(6)
    scene.heal()
    scene.notes.append(f"{scene.proxy.cuts} connections cut")
    if scene.proxy.cuts < 10:
        scene.broken.append("hardly any connection was cut")


async def pool_exhausted(scene: Scene) -> None:
    """A lock holds every connection, while a hundred requests come at once."""
    connection = await asyncpg.connect(scene.server.url("faults").replace("+asyncpg", ""))
    async with connection.transaction():
        scene.begin_fault()
        await connection.execute("LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE")
        asking = [scene.load.ask() for _ in range(100)]
        await asyncio.sleep(4)
    scene.heal()
    await asyncio.gather(*asking)
    await connection.close()


async def conflicting(scene: Scene) -> None:
    """Some changes run into deadlocks, then each tenth fails a serialisation check; one change never meets both."""
    await scene.command("ALTER DATABASE faults SET deadlock_timeout = '100ms'")
    await scene.command(TERMINATE + " AND state = 'idle'")
    scene.begin_fault()
    for number in range(DEADLOCKS):
        await _deadlock(scene, number)
    await scene.execute(CONFLICTS)
    await scene.wait(5)
    ((turns,),) = await scene.rows("SELECT last_value FROM turns")
    await scene.execute("DROP TRIGGER conflicts ON users")
    scene.heal()
    scene.notes.append(f"{turns // 10} serialisation failures and {DEADLOCKS} deadlocks")
    if turns < 20:
        scene.broken.append("hardly any change failed its check")


async def _deadlock(scene: Scene, number: int) -> None:
    """Somebody takes an address and then wants an account, which a change has that wants the address."""
    account, name = scene.load.accounts[number], f"wanted{number}@example.com"
    other = await asyncpg.connect(scene.server.url("faults").replace("+asyncpg", ""))
    await other.execute("SET deadlock_timeout = '30s'")
    transaction = other.transaction()
    await transaction.start()
    await other.execute("INSERT INTO login_names VALUES ($1, 'email', $2)", name, uuid4())
    wire = request("PATCH", f"/api/users/{account.id}", token=scene.load.token, body={"email": name})
    calling = Client("127.0.0.1", scene.load.port).call(wire)
    renaming = asyncio.create_task(asyncio.wait_for(calling, PATIENCE))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%login_names%'"
    # asked on a connection of its own: within a transaction the activity of others stands still
    while not renaming.done() and not (await scene.rows(waiting))[0][0]:
        await asyncio.wait((renaming,), timeout=0.01)
    await other.execute("UPDATE users SET display_name = display_name WHERE id = $1::uuid", account.id)
    await transaction.rollback()
    await other.close()
    status, body = await renaming
    if status != 200:
        scene.broken.append(f"a change that lost to a deadlock was answered {status}: {body!r}")


FAULTS = (
    Fault("stopped", "PostgreSQL is stopped, and started", stopped, is_ready_meanwhile=False),
    Fault("restarted", "PostgreSQL restarts while the pool is idle", restarted_idle, fails=NOTHING),
    Fault("failover", "PostgreSQL fails over, its address moves", failed_over, through_proxy=True, has_standby=True,
          is_ready_meanwhile=False),
    Fault("failover-hosts", "PostgreSQL fails over, both hosts in the URL", failed_over, has_standby=True,
          is_ready_meanwhile=False),
    Fault("hung", "PostgreSQL hangs (SIGSTOP)", hung, is_ready_meanwhile=False),
    Fault("swallowed", "the network swallows every byte", swallowed, through_proxy=True, is_ready_meanwhile=False),
    Fault("read-only", "PostgreSQL only reads, and then writes", read_only),
    Fault("killed", "connections are killed at work", connections_killed),
    Fault("cut", "connections break at COMMIT", cut_at_commit, through_proxy=True, slowest=3.0),
    Fault("exhausted", "the pool is exhausted", pool_exhausted, settings={"database__pool_size": "5"}, slowest=7.0,
          is_ready_meanwhile=False),
    Fault("conflicts", "deadlocks and serialisation failures", conflicting, fails=NOTHING),
)  # fmt: skip
