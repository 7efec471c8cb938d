"""Every query string is read strictly: percent-encoded UTF-8, each parameter once, none that the route has not."""

import time
from typing import Any

from tests.http.test_bodies import holds
from tests.people import Person, Server
from tests.problems import pointers_of, problem_of
from tests.walks import Route, routes_of
from usermgmt.http.body import MAX_PARAMETERS

GENEROUS_SECONDS = 2.0


def api_routes(server: Server) -> list[Route]:
    return [route for route in routes_of(server.app) if route.path.startswith("/api/")]


async def ask(person: Person, route: Route, query: bytes) -> Any:
    return await person.call(route.method, route.path, scope_base={"query_string": query})


UNREADABLE = [
    b"a=%", b"a=%z", b"a=%zz", b"a=%f", b"%=a", b"a=1&b=%2", b"limit=%u0031",  # broken percent
    b"a=%ff", b"a=%c0%80", b"a=%ed%a0%80", b"%ff=1", b"a=\xff", "a=é".encode(),  # not UTF-8, or not encoded
    b"a=%00", b"%00=a", b"q=a%00b",  # NUL
    b"&".join(b"a%d=1" % number for number in range(MAX_PARAMETERS + 1)), b"&" * 60_000, b"=&" * 5_000,  # too many
]  # fmt: skip


async def test_a_query_that_cannot_be_read_is_400_on_every_route(server: Server, admin: Person):
    for route in api_routes(server):
        for query in UNREADABLE:
            started = time.perf_counter()
            response = await ask(admin, route, query)
            assert response.status_code == 400, f"{route} {query[:40]!r}"
            await problem_of(response, 400, "invalid_query")
            assert time.perf_counter() - started < GENEROUS_SECONDS


async def test_a_parameter_that_a_route_has_not_is_422_and_named(server: Server, admin: Person):
    for route in api_routes(server):
        known = set(route.inputs.query.model_fields) if route.inputs.query is not None else set()
        for query, names in [
            (b"nope=1", {"nope"}),
            (b"nope", {"nope"}),
            (b"=1", {""}),
            (b"n%C3%B6pe=1&Limit=2", {"nöpe", "Limit"}),
            (b"id=1&user_id=2", {"id", "user_id"}),
            (b"access_token=x", {"access_token"}),
            (b"limit=1&scope=this&sort=email", {"limit", "scope", "sort"} - known),
            (b"&".join(b"a%d=1" % number for number in range(MAX_PARAMETERS)), None),
        ]:
            response = await ask(admin, route, query)
            found = pointers_of(await problem_of(response, 422, "validation_failed"))
            unknown = {name for name, code in found.items() if code == "unknown_parameter"}
            assert unknown == (names or {f"a{number}" for number in range(MAX_PARAMETERS)}), str(route)


async def test_a_parameter_given_twice_is_422(server: Server, admin: Person):  # G03, H12
    for route in api_routes(server):
        for query, name in [
            (b"limit=1&limit=1", "limit"),
            (b"limit=1&%6cimit=2", "limit"),
            (b"id=1&b=2&id=3", "id"),
            (b"a&a", "a"),
        ]:
            problem = await problem_of(await ask(admin, route, query), 422, "validation_failed")
            assert pointers_of(problem) == {name: "duplicate_parameter"}, str(route)


async def test_a_long_name_is_not_given_back_whole(server: Server, admin: Person):
    for query in (b"n" * 10_000 + b"=1", b"n" * 10_000 + b"&" + b"n" * 10_000):
        response = await ask(admin, api_routes(server)[0], query)
        await problem_of(response, 422)
        assert len(await response.get_data()) < 1_000


async def test_an_empty_query_is_none(server: Server, admin: Person):
    for query in (b"", b"&", b"&&&"):
        for path in ("/api/users", "/api/users/me", "/api/roles"):
            assert (await admin.get(path, scope_base={"query_string": query})).status_code == 200


async def test_probes_and_public_keys_do_not_look_at_a_query(server: Server):
    for path in ("/livez", "/readyz", "/.well-known/jwks.json"):
        for query in (b"a=1", b"a=%zz", b"\xff"):
            assert (await server.nobody().get(path, scope_base={"query_string": query})).status_code == 200


async def test_credentials_come_before_the_query(server: Server, ada: Person):  # G09
    for query in (b"nope=1", b"a=%zz"):
        raw = {"query_string": query}
        await problem_of(await server.nobody().get("/api/users", scope_base=raw), 401, "missing_credentials")
        await problem_of(await ada.get("/api/users", scope_base=raw), 403, "permission_missing")


# (model, parameter): the longest value that is accepted, what it is answered, the code beyond it
LIMITS: dict[tuple[str, str], tuple[str, int, str]] = {
    ("ListUsers", "q"): ("é" * 254, 200, "too_long"),
    ("ListUsers", "email"): ("e" * 308 + "@example.com", 200, "too_long"),
    ("ListUsers", "username"): ("u" * 255, 200, "too_long"),
    ("ListUsers", "role"): ("r" * 64, 200, "too_long"),
    ("ListUsers", "cursor"): ("c" * 2048, 400, "too_long"),
    ("ListUsers", "fields"): ("id,username,email", 200, "not_an_option"),
    ("ListActivity", "cursor"): ("c" * 2048, 400, "too_long"),
    ("ListEvents", "cursor"): ("c" * 2048, 400, "too_long"),
    ("ListEvents", "target"): ("é" * 320, 200, "too_long"),
    ("ListEvents", "address"): ("2001:db8:1111:2222:3333:4444:5555:6666", 200, "invalid_address"),
}


async def test_a_text_parameter_has_a_limit_on_both_databases(server: Server, admin: Person):  # H16
    listed = {
        (route.inputs.query.__name__, name): route
        for route in api_routes(server)
        if route.inputs.query is not None
        for name, field in route.inputs.query.model_fields.items()
        if holds(field.annotation, str)
    }
    assert set(listed) == set(LIMITS)
    for (model, name), (longest, status, code) in LIMITS.items():
        route = listed[model, name]
        at_limit = await admin.call(route.method, route.path, query_string={name: longest})
        assert at_limit.status_code == status, f"{name}: {await at_limit.get_data(as_text=True)}"
        for beyond in (longest + "x", longest + "x" * 10_000):
            response = await admin.call(route.method, route.path, query_string={name: beyond})
            assert pointers_of(await problem_of(response, 422, "validation_failed")) == {name: code}


async def test_text_that_no_database_could_mean_is_refused_or_finds_nothing(admin: Person):  # H10, H11
    for text in ("%", "_", "\\", "'", '"', "' OR 1=1--", "%" * 254, "\u202e", "\ufeff", "😀", "ﷺ" * 254, "\U0010ffff"):
        for name in ("q", "email", "username", "role"):
            if name == "role" and len(text) > 64:
                continue
            started = time.perf_counter()
            response = await admin.get("/api/users", query_string={name: text})
            assert response.status_code == 200, f"{name}={text!r}"
            assert (await response.get_json())["items"] == []
            assert time.perf_counter() - started < GENEROUS_SECONDS
    for name in ("sort", "count", "status", "fields", "limit", "created_after"):
        for text in (
            "'",
            "id; DROP TABLE x",
            "created_at, id",
            "secret",
            "(1)",
            "-",
            "NaN",
            "1e3",
            "٣",
        ):
            response = await admin.get("/api/users", query_string={name: text})
            assert set(pointers_of(await problem_of(response, 422, "validation_failed"))) == {name}
