"""Lists from a replica: as old as it is, as new as a client asks for, and from the database itself while it is away."""

import os

from tests.conftest import settings_for
from tests.people import PASSWORD, Server
from tests.servers import PostgreSQL


async def test_a_list_is_as_old_as_the_replica_and_as_new_as_is_asked_for(postgresql: PostgreSQL) -> None:
    name = f"t{os.urandom(6).hex()}"
    url, copy = postgresql.create(name, template="template"), f"{name}-copy"
    async with (before := Server(settings_for(url))).running():
        await before.person("root", roles=["admin"])
    read_url = postgresql.create(copy, template=name)
    server = Server(settings_for(url, **{"database.read_url": read_url}))
    try:
        async with server.running():
            signed_in = await server.nobody().post("/api/auth/login", json={"username": "root", "password": PASSWORD})
            head = {"Authorization": f"Bearer {(await signed_in.get_json())['access_token']}"}
            await server.person("ada")

            async def names(**more: str) -> list[str]:
                answer = await server.nobody().get("/api/users?sort=username", headers={**head, **more})
                assert answer.status_code == 200, await answer.get_json()
                return [user["username"] for user in (await answer.get_json())["items"]]

            assert await names() == ["root"]
            assert await names(**{"Cache-Control": "no-cache"}) == ["ada", "root"]
            assert (await server.nobody().get("/api/users/me", headers=head)).status_code == 200
            postgresql.drop(copy)
            assert await names() == ["ada", "root"]
    finally:
        postgresql.drop(name)
