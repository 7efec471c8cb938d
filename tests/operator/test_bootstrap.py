"""The first administrator, when several starts make it at the same moment."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from tests.conftest import settings_for
from tests.operator.conftest import PASSWORD
from usermgmt.operator.bootstrap import make_configured_admin, make_generated_admin
from usermgmt.runtime import Runtime, build_runtime
from usermgmt.security.principal import OPERATOR
from usermgmt.users import changes, registration, service
from usermgmt.users.changes import Changes, Demand
from usermgmt.users.lists import Count, Filters, Order
from usermgmt.users.models import Status
from usermgmt.users.service import UserView

STARTS = 5
ROOT = {
    "bootstrap.admin_username": "root",
    "bootstrap.admin_email": "root@example.com",
    "bootstrap.admin_password": PASSWORD,
}


@pytest.fixture
async def runtimes(database_url: str) -> AsyncIterator[list[Runtime]]:
    """Several processes' worth of runtimes on one database."""
    made = [build_runtime(settings_for(database_url, **ROOT)) for _ in range(STARTS)]
    yield made
    for runtime in made:
        await runtime.close()


async def admins(runtime: Runtime) -> list[UserView]:
    found = await service.list_users(
        runtime, OPERATOR, Filters(role="admin"), order=Order.CREATED, position=None, limit=100, count=Count.NONE
    )
    return list(found.page.items)


async def test_one_of_many_makes_the_configured_administrator(runtimes: list[Runtime]) -> None:  # G15
    made = await asyncio.gather(*map(make_configured_admin, runtimes))
    assert sum(admin is not None for admin in made) == 1
    assert [view.user.username for view in await admins(runtimes[0])] == ["root"]


async def test_one_of_many_makes_the_generated_administrator(runtimes: list[Runtime]) -> None:
    made = await asyncio.gather(*map(make_generated_admin, runtimes))
    (admin,) = filter(None, made)
    (view,) = await admins(runtimes[0])
    assert (admin.username, view.user.username) == ("admin", "admin")
    async with runtimes[0].database.read() as session:
        stored = (await session.execute(text("SELECT password_hash FROM users WHERE username = 'admin'"))).scalar_one()
    assert (await runtimes[0].hasher.verify(admin.password or "", stored)).matches


async def test_a_disabled_administrator_is_none(runtimes: list[Runtime]) -> None:
    runtime = runtimes[0]
    await make_configured_admin(runtime)
    other = registration.NewUser(username="other", email="other@example.com", password=PASSWORD, roles=["admin"])
    assert isinstance(await registration.register_user(runtime, OPERATOR, other), UserView)
    (root, second) = await admins(runtime)
    await changes.update_user(runtime, OPERATOR, root.user.id, Demand(Changes(status=Status.DISABLED)))
    assert await make_generated_admin(runtime) is None
    await changes.update_user(runtime, OPERATOR, second.user.id, Demand(Changes(roles=["admin", "user"])))
    assert await make_generated_admin(runtime) is None


async def test_generated_passwords_differ_and_satisfy_the_policy(runtimes: list[Runtime]) -> None:
    made = await make_generated_admin(runtimes[0])
    assert made is not None
    assert runtimes[0].password_policy.problem(made.password or "", names=[made.username]) is None
