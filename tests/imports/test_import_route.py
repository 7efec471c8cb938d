"""`POST /api/users/import`: a file of accounts, and what becomes of each row."""

import asyncio
import json
from typing import Any

import pytest
from quart import Response

from tests.imports.cells import BAD_CELLS, bad_cells
from tests.people import PASSWORD, Person, Server
from tests.problems import problem_of
from usermgmt.errors import Overloaded, SessionEnded
from usermgmt.imports import routes
from usermgmt.users import service as users

IMPORT = "/api/users/import"
NDJSON = {"Content-Type": "application/x-ndjson"}
CSV = {"Content-Type": "text/csv; charset=utf-8"}
BCRYPT = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"  # of "U*U", from the tests of crypt_blowfish


@pytest.fixture
async def admin(server: Server) -> Person:
    """Who imports."""
    return await server.person("chief", roles=["admin"])


def rows(*documents: dict[str, Any]) -> bytes:
    return "".join(json.dumps(document) + "\n" for document in documents).encode()


def person(name: str, **more: Any) -> dict[str, Any]:
    return {"username": name, "email": f"{name}@example.com", **more}


async def lines(response: Response) -> list[dict[str, Any]]:
    """The documents of an answer."""
    text = await response.get_data(as_text=True)
    assert (response.status_code, response.content_type) == (200, "application/x-ndjson"), text
    return [json.loads(line) for line in text.splitlines()]


async def count(server: Server) -> int:
    """How many accounts there are."""
    ((number,),) = await server.rows("SELECT count(*) FROM users")
    return int(number)


async def test_rows_become_accounts_and_each_is_reported(server: Server, admin: Person):
    text = rows(person("ada", password_hash=BCRYPT, attributes={"plan": "pro"}), person("chief"), person("x y"))
    first, second, third, total = await lines(await admin.post(IMPORT, data=text, headers=NDJSON))
    assert (first["line"], first["outcome"]) == (1, "created")
    assert (second["line"], second["outcome"], second["id"]) == (2, "exists", admin.id)
    assert (third["outcome"], third["errors"][0]["pointer"]) == ("refused", "/username")
    assert total == {"created": 1, "exists": 1, "refused": 1, "dry_run": False}
    shown = await (await admin.get(f"/api/users/{first['id']}")).get_json()
    assert (shown["username"], shown["attributes"], shown["roles"]) == ("ada", {"plan": "pro"}, ["user"])
    signed_in = await server.nobody().post("/api/auth/login", json={"username": "ada", "password": "U*U"})
    assert signed_in.status_code == 200
    (event,) = await server.events("users.imported")
    assert (str(event.actor_id), event.details) == (admin.id, {"count": 1})


async def test_the_same_file_again_changes_nothing(server: Server, admin: Person):
    text = rows(*(person(f"user{number}") for number in range(100)))
    made = await lines(await admin.post(IMPORT, data=text, headers=NDJSON))
    again = await lines(await admin.post(IMPORT, data=text, headers=NDJSON))
    assert (made[-1]["created"], again[-1]["created"], again[-1]["exists"]) == (100, 0, 100)
    assert [row["id"] for row in again[:-1]] == [row["id"] for row in made[:-1]]
    assert await count(server) == 101


async def test_csv_is_a_file_too(admin: Person):
    text = b"username,email,attributes.team\nada,ada@example.com,blue\nbob\n"
    first, second, total = await lines(await admin.post(IMPORT, data=text, headers=CSV))
    assert (first["outcome"], second["code"], total["refused"]) == ("created", "unreadable_row", 1)
    shown = await (await admin.get(f"/api/users/{first['id']}")).get_json()
    assert shown["attributes"] == {"team": "blue"}


async def test_a_password_in_a_cell_is_taken_as_it_stands(server: Server, admin: Person):
    password = "'=a phrase;'=as it stands"
    text = f"username,email,password\nada,ada@example.com,{password}\n".encode()
    first, _ = await lines(await admin.post(IMPORT, data=text, headers=CSV))
    assert first["outcome"] == "created"
    body = {"username": "ada", "password": password}
    assert (await server.nobody().post("/api/auth/login", json=body)).status_code == 200


async def test_a_cell_that_no_line_could_hold_is_refused_and_the_other_rows_are_made(server: Server, admin: Person):
    first, *refused, last, total = await lines(await admin.post(IMPORT, data=bad_cells().encode(), headers=CSV))
    assert (first["outcome"], last["outcome"], total["refused"]) == ("created", "created", len(BAD_CELLS))
    assert [each["code"] for each in refused] == [code for _, _, code, _ in BAD_CELLS]
    assert all(each["detail"] for each in refused)
    assert await count(server) == 3


async def test_a_dry_run_makes_nothing(server: Server, admin: Person):
    *_, total = await lines(await admin.post(f"{IMPORT}?dry_run=true", data=rows(person("ada")), headers=NDJSON))
    assert total == {"created": 1, "exists": 0, "refused": 0, "dry_run": True}
    assert await count(server) == 1


async def test_who_asks_for_refusals_is_not_told_the_rest(admin: Person):
    text = rows(person("ada"), person("x y"), person("bob"))
    row, total = await lines(await admin.post(f"{IMPORT}?report=refused", data=text, headers=NDJSON))
    assert (row["line"], total["created"]) == (2, 2)


async def test_an_empty_file_is_no_accounts(admin: Person):
    assert await lines(await admin.post(IMPORT, data=b"", headers=NDJSON)) == [
        {"created": 0, "exists": 0, "refused": 0, "dry_run": False}
    ]


async def test_a_file_without_the_columns_is_refused_whole(server: Server, admin: Person):
    await problem_of(await admin.post(IMPORT, data=b"name;mail\na;b\n", headers=CSV), 400, "unreadable_file")
    assert await count(server) == 1


async def test_a_file_that_breaks_off_says_so_in_its_last_line(server: Server, admin: Person):
    text = b"username,email\nada,ada@example.com\n" + b'"bob,bob@example.com\n' + b"x" * 10
    *_, total = await lines(await admin.post(IMPORT, data=text, headers=CSV))
    assert (total["code"], total["created"]) == ("unreadable_file", 0)
    assert await count(server) == 1


@pytest.mark.parametrize(
    "headers",
    [{}, {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}, {**NDJSON, "Content-Encoding": "gzip"}],
)
async def test_what_is_no_such_file_is_refused(server: Server, admin: Person, headers: dict[str, str]):
    await problem_of(await admin.post(IMPORT, data=rows(person("ada")), headers=headers), 415, "unsupported_media_type")
    assert await count(server) == 1


@pytest.mark.parametrize("flags", [{"server.max_upload_bytes": 4096, "server.max_body_bytes": 1024}])
async def test_a_file_has_a_bound_of_its_own(server: Server, admin: Person):
    text = rows(*(person(f"user{number}") for number in range(50)))
    assert 1024 < len(text) < 4096
    assert (await lines(await admin.post(IMPORT, data=text, headers=NDJSON)))[-1]["created"] == 50
    await problem_of(await admin.post(IMPORT, data=text * 2, headers=NDJSON), 413, "body_too_large")
    body = {"username": "ada", "email": "ada@example.com", "password": PASSWORD, "attributes": {"x": "y" * 1024}}
    await problem_of(await admin.post("/api/users", json=body), 413, "body_too_large")


async def test_nobody_gives_roles_beyond_their_own_by_a_file(server: Server, admin: Person):
    role = {"name": "clerk", "permissions": ["users:read", "users:write"]}
    assert (await admin.post("/api/roles", json=role)).status_code == 201
    clerk = await server.person("clerk", roles=["clerk"])
    text = rows(person("ada", roles=["admin"]), person("bob", roles=["nothing"]), person("eve"))
    first, second, third, _ = await lines(await clerk.post(IMPORT, data=text, headers=NDJSON))
    assert [each["errors"][0]["code"] for each in (first, second)] == ["exceeds_own_rights", "unknown_role"]
    assert third["outcome"] == "created"


async def test_passwords_that_are_clear_wait_for_those_who_sign_in(server: Server, admin: Person):
    full, free = asyncio.Event(), server.runtime.hasher.hash

    async def hash_later(password: str) -> str:
        if not full.is_set():
            full.set()
            raise Overloaded(retry_after=1)
        return await free(password)

    server.runtime.hasher.hash = hash_later  # type: ignore[method-assign]  # which has no thread at first
    text = rows(person("ada", password="a quite long password"))
    first, _ = await lines(await admin.post(IMPORT, data=text, headers=NDJSON))
    assert first["outcome"] == "created"
    body = {"username": "ada", "password": "a quite long password"}
    assert (await server.nobody().post("/api/auth/login", json=body)).status_code == 200


async def test_two_files_with_the_same_rows_at_once_make_each_account_once(server: Server, admin: Person):
    text = rows(*(person(f"user{number}") for number in range(200)))
    both = await asyncio.gather(*(admin.post(IMPORT, data=text, headers=NDJSON) for _ in range(2)))
    totals = [(await lines(response))[-1] for response in both]
    assert sum(total["created"] for total in totals) == 200
    assert sum(total["exists"] for total in totals) == 200
    assert await count(server) == 201


async def test_rights_that_end_while_a_file_is_sent_make_no_account(
    server: Server, admin: Person, monkeypatch: pytest.MonkeyPatch
):
    received = routes._rows

    async def revoked(upload: Any) -> Any:
        rows = await received(upload)
        assert (await admin.post("/api/auth/logout")).status_code == 204
        return rows

    monkeypatch.setattr(routes, "_rows", revoked)
    (total,) = await lines(await admin.post(IMPORT, data=rows(person("ada", roles=["admin"])), headers=NDJSON))
    assert (total["created"], total["code"]) == (0, "session_ended")
    assert await count(server) == 1


async def test_the_id_of_an_erased_account_is_given_to_nobody(server: Server, admin: Person):
    ada = await server.person("ada")
    assert (await admin.post(f"/api/users/{ada.id}/erase")).status_code == 204
    refused, _ = await lines(await admin.post(IMPORT, data=rows(person("bob", id=ada.id)), headers=NDJSON))
    assert (refused["outcome"], refused["code"]) == ("refused", "id_taken")


async def test_a_stream_ends_with_the_session_of_who_reads_it(
    server: Server, admin: Person, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(users, "STREAM_BATCH", 1)
    await server.person("ada")
    listed = users.list_users

    async def once(*args: Any, **named: Any) -> Any:
        found = await listed(*args, **named)
        await admin.post("/api/auth/logout")
        return found

    monkeypatch.setattr(users, "list_users", once)

    async def read() -> None:
        answer = await admin.get("/api/users", headers={"Accept": "application/x-ndjson"})
        await answer.get_data()

    with pytest.raises(SessionEnded):
        await read()
