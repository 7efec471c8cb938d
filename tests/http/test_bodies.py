"""Every route that reads a body refuses what is not strict JSON of its own shape, in the same words."""

import gzip
import json
import time
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel

from tests.loopback import exchange, head, listening
from tests.people import PASSWORD, Person, Server
from tests.problems import pointers_of, problem_of
from tests.walks import Route, routes_with_body
from usermgmt.errors import InvalidBody
from usermgmt.strict_json import MAX_DEPTH, parse_object

JSON = {"Content-Type": "application/json"}
LIMIT = 65_536
GENEROUS_SECONDS = 2.0  # a blow-up takes minutes; a busy test machine is merely slow


def nested(depth: int, *, opening: str = "[", closing: str = "]") -> bytes:
    """An object with that many levels, itself included."""
    return f'{{"attributes": {opening * (depth - 1)}{closing * (depth - 1)}}}'.encode()


async def send(person: Person, route: Route, body: bytes, **headers: str) -> Any:
    return await person.call(route.method, route.path, data=body, headers={**JSON, **headers})


UNREADABLE = {
    "H01-truncated": [b'{"username": "a', b'{"username":', b"{", b'{"a": 1,}', b"[1,", b'"', b"{} {}", b'{"a": tru}'],
    "H01-not-json": [
        b"   ",
        b"username=a",
        b"{'a': 1}",
        b"{a: 1}",
        b'/* */ {"a": 1}',
        b"<a/>",
        b"\x00",
        b'{"a": "\n"}',
    ],
    "H02-33-levels": [nested(MAX_DEPTH + 1), nested(MAX_DEPTH + 1, opening='{"a":', closing="1}")],
    "H02-900-levels": [nested(900), nested(900, opening='{"a":[', closing="]}"), b"[" * 900, b'{"a":' * 900],
    "H02-30000-levels": [nested(30_000), b"[" * 60_000, b"]" * 60_000],
    "H05-not-a-number": [b'{"n": NaN}', b'{"n": Infinity}', b'{"n": -Infinity}', b'{"attributes": {"n": NaN}}'],
    "H05-too-large": [
        b'{"n": 1e999}',
        b'{"n": -1e999}',
        b'{"n": ' + b"9" * 5_000 + b"}",
        b'{"n": [' + b"1" * 20 + b"]}",
    ],
    "H05-not-a-form": [b'{"n": 007}', b'{"n": 0x1}', b'{"n": +1}', b'{"n": .5}', b'{"n": 1.}', b'{"n": 1_0}'],
    "H12-twice": [
        b'{"role": "user", "role": "admin"}',
        b'{"password": "x", "pass\\u0077ord": "y"}',
        b'{"attributes": {"a": 1, "a": 2}}',
        b'{"a": [{"b": 1, "b": 1}]}',
    ],
    "surrogates": [b'{"username": "\\ud800"}', b'{"\\udfff": 1}', b'{"attributes": {"a": ["\\udc00\\ud800"]}}'],
    "encoding": [
        b'{"username": "\xff"}',
        b'{"username": "\xc0\x80"}',
        b'{"username": "\xed\xa0\x80"}',
        b'{"username": "\xf4\x90\x80\x80"}',
        b'\xef\xbb\xbf{"username": "a"}',
        '{"username": "a"}'.encode("utf-16"),
        '{"username": "a"}'.encode("utf-16-le"),
        '{"username": "a"}'.encode("utf-32"),
    ],
}


@pytest.mark.parametrize("case", UNREADABLE)
async def test_what_cannot_be_read_is_400(server: Server, admin: Person, case: str):
    for route in routes_with_body(server.app):
        for body in UNREADABLE[case]:
            started = time.perf_counter()
            problem = await problem_of(await send(admin, route, body), 400, "invalid_json")
            assert time.perf_counter() - started < GENEROUS_SECONDS, f"{route} {body[:40]!r}"
            assert "errors" not in problem


async def test_what_is_not_an_object_is_422(server: Server, admin: Person):  # H01
    for route in routes_with_body(server.app):
        for body in (b"null", b"[]", b'"x"', b"1", b"true", b'[{"username": "a"}]'):
            problem = await problem_of(await send(admin, route, body), 422, "validation_failed")
            assert pointers_of(problem) == {"": "wrong_type"}


async def test_a_required_body_must_be_there(server: Server, admin: Person):  # H01
    for route in routes_with_body(server.app):
        if not route.inputs.is_body_optional:
            await problem_of(await send(admin, route, b""), 400, "invalid_json")


async def test_an_optional_body_may_be_absent_whatever_its_type(server: Server, admin: Person):
    optional = [route for route in routes_with_body(server.app) if route.inputs.is_body_optional]
    assert {str(route) for route in optional} == {
        "DELETE /api/users/<user_ref:user_id>",
        "POST /api/auth/logout",
        "POST /api/auth/refresh",
    }
    made = await server.person("eve")
    assert (await made.post("/api/auth/logout", headers={"Content-Type": "text/plain"})).status_code == 204
    assert (await admin.delete(f"/api/users/{made.id}")).status_code == 204


async def test_thirty_two_levels_are_read(admin: Person, server: Server):  # H02
    deep: Any = "bottom"
    for _ in range(MAX_DEPTH - 2):
        deep = {"a": deep}
    body = {"username": "deep", "email": "deep@example.com", "password": PASSWORD, "attributes": {"a": deep}}
    assert json.dumps(body).count("{") == MAX_DEPTH
    made = await admin.post("/api/users", json=body)
    assert made.status_code == 201
    read = await admin.get(f"/api/users/{(await made.get_json())['id']}")
    assert (await read.get_json())["attributes"] == {"a": deep}


async def test_brackets_inside_text_are_not_levels(admin: Person):  # H02
    text = '[{"' * 20 + "\\" + "[" * 100
    made = await admin.put("/api/users/me", json={"attributes": {"a": text}})
    assert (made.status_code, (await made.get_json())["attributes"]) == (200, {"a": text})


@pytest.mark.parametrize("unit", ["[", '{"a":', '[{"a":'])
def test_a_hundred_thousand_levels_are_refused_before_anything_recurses(unit: str):  # H02
    started = time.perf_counter()
    with pytest.raises(InvalidBody):
        parse_object(b'{"a":' + unit.encode() * 100_000)
    assert time.perf_counter() - started < GENEROUS_SECONDS


BLOW_UPS = {
    "quotes": b'"\\' * 30_000,
    "escapes": b'{"a": "' + b"\\\\" * 30_000,
    "brackets-in-text": b'{"a": "' + b"[" * 60_000,
    "text-in-brackets": b'["",' * 15_000,
    "spaces": b"{" + b" " * 60_000,
    "digits": b'{"n": ' + b"1" * 60_000,
    "fraction": b'{"n": 0.' + b"1" * 60_000,
    "exponent": b'{"n": 1e' + b"9" * 60_000,
}


@pytest.mark.parametrize("case", BLOW_UPS)
def test_no_text_makes_the_reader_slow(case: str):  # H17
    started = time.perf_counter()
    with pytest.raises(InvalidBody):
        parse_object(BLOW_UPS[case])
    assert time.perf_counter() - started < GENEROUS_SECONDS


async def test_no_name_makes_validation_slow(server: Server, admin: Person):  # H17
    for text in (
        "a" * 50_000 + "!",
        "(" * 10_000,
        "@" * 10_000,
        "a@" * 10_000,
        "." * 10_000 + "@a.b",
        "\u0301" * 10_000,
    ):
        started = time.perf_counter()
        for field in ("username", "email", "display_name", "password"):
            body = COMPLETE["CreateUser"] | {field: text}
            await problem_of(await server.nobody().post("/api/users", json=body), 422)
        await problem_of(await server.nobody().post("/api/auth/login", json={"username": text, "password": "x"}), 422)
        if text.isascii():
            assert (await admin.get("/api/users/me", headers={"User-Agent": text})).status_code == 200
        assert time.perf_counter() - started < 3 * GENEROUS_SECONDS


async def test_an_unknown_field_is_422_and_named(server: Server, admin: Person):  # H12
    body = json.dumps(dict.fromkeys(["nope", "", "a/b~c", "__proto__", "Password"], 1)).encode()
    for route in routes_with_body(server.app):
        found = pointers_of(await problem_of(await send(admin, route, body), 422, "validation_failed"))
        unknown = {pointer for pointer, code in found.items() if code == "unknown_field"}
        assert unknown == {"/nope", "/", "/a~1b~0c", "/__proto__", "/Password"}, str(route)


async def test_nul_is_422_at_its_place(server: Server, admin: Person):
    for route in routes_with_body(server.app):
        for body, pointer in [
            ({"username": "a\0b"}, "/username"),
            ({"a": {"b/c": ["x", {"d": "\0"}]}}, "/a/b~1c/1/d"),
            ({"a": {"b\0": 1}}, "/a"),
        ]:
            problem = await problem_of(await send(admin, route, json.dumps(body).encode()), 422, "validation_failed")
            assert pointers_of(problem) == {pointer: "nul_character"}, str(route)


async def test_all_field_errors_are_told_at_once_but_not_without_end(server: Server, admin: Person):
    body = {f"nope{number}": number for number in range(200)}
    for route in routes_with_body(server.app):
        problem = await problem_of(await send(admin, route, json.dumps(body).encode()), 422, "validation_failed")
        assert len(problem["errors"]) == 50


# Media types


MULTIPART = b"".join(b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' for _ in range(1_000)) + b"--x--"
MEDIA_TYPES: dict[str, tuple[dict[str, str], bytes]] = {
    "missing": ({}, b"{}"),
    "empty": ({"Content-Type": ""}, b"{}"),
    "text": ({"Content-Type": "text/plain"}, b"{}"),
    "form": ({"Content-Type": "application/x-www-form-urlencoded"}, b"username=a&password=b"),
    "multipart": ({"Content-Type": "multipart/form-data; boundary=x"}, MULTIPART),
    "garbage": ({"Content-Type": ";;;="}, b"{}"),
    "near": ({"Content-Type": "application/jsonp"}, b"{}"),
    "suffix": ({"Content-Type": "application/problem+json"}, b"{}"),
    "two": ({"Content-Type": "application/json, text/plain"}, b"{}"),
    "latin-1": ({"Content-Type": "application/json; charset=latin-1"}, b"{}"),
    "utf-16": ({"Content-Type": "application/json; charset=utf-16"}, '{"a": 1}'.encode("utf-16")),
    "utf-7": ({"Content-Type": 'application/json; charset="utf-7"'}, b"{}"),
    "gzip": ({**JSON, "Content-Encoding": "gzip"}, gzip.compress(b" " * 10_000_000)),
    "deflate": ({**JSON, "Content-Encoding": "deflate"}, b"{}"),
    "twice-encoded": ({**JSON, "Content-Encoding": "identity, gzip"}, b"{}"),
}


async def test_what_is_not_plain_json_is_415_whatever_its_content(server: Server, admin: Person):  # H18, J03
    for route in routes_with_body(server.app):
        for case, (headers, body) in MEDIA_TYPES.items():
            response = await admin.call(route.method, route.path, data=body, headers=headers)
            assert response.status_code == 415, f"{route} {case}"
            await problem_of(response, 415, "unsupported_media_type")


async def test_plain_json_is_read_however_its_type_is_spelled(server: Server, admin: Person):  # H18
    for headers in (
        JSON,
        {"Content-Type": "APPLICATION/JSON"},
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": 'application/json;charset="UTF-8"'},
        {**JSON, "Content-Encoding": "identity"},
    ):
        for route in routes_with_body(server.app):
            response = await admin.call(route.method, route.path, data=b'{"nope": 1}', headers=headers)
            await problem_of(response, 422, "validation_failed")


async def test_a_merge_patch_has_a_type_of_its_own(admin: Person):
    merge_patch = {"Content-Type": "application/merge-patch+json"}
    assert (await admin.patch("/api/users/me", data=b"{}", headers=merge_patch)).status_code == 200
    await problem_of(await admin.put("/api/users/me", data=b"{}", headers=merge_patch), 415)


# Sizes


def padded(size: int) -> bytes:
    return b'{"nope": "' + b"a" * (size - 12) + b'"}'


async def test_a_body_is_read_up_to_64_kibibytes(server: Server, admin: Person):  # A05, I01
    for size, status in [(LIMIT - 1, 422), (LIMIT, 422), (LIMIT + 1, 413), (2**20, 413)]:
        for route in routes_with_body(server.app):
            await problem_of(await send(admin, route, padded(size)), status)


async def test_the_limit_holds_whatever_way_a_body_arrives(server: Server):  # I01
    def chunked(size: int) -> bytes:
        body = padded(size)
        pieces = [body[start : start + 10_000] for start in range(0, size, 10_000)]
        return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

    async with listening(server.app) as port:
        for size, status in [(LIMIT, 422), (LIMIT + 1, 413), (10 * LIMIT, 413)]:
            sized = head("POST", "/api/auth/login", "Content-Type: application/json", f"Content-Length: {size}")
            assert (await exchange(port, sized + padded(size))).status == status
            unsized = head("POST", "/api/auth/login", "Content-Type: application/json", "Transfer-Encoding: chunked")
            answer = await exchange(port, unsized + chunked(size))
            assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
        announced = head("POST", "/api/auth/login", "Content-Type: application/json", "Content-Length: 99999999999")
        assert (await exchange(port, announced)).status == 413  # refused before a byte of it came


async def test_a_length_that_is_none_is_refused_and_the_connection_closed(server: Server):  # I01
    async with listening(server.app) as port:
        for framing in ("Content-Length: -1", "Content-Length: x", "Transfer-Encoding: gzip", "Content-Length: 1, 2"):
            request = head("POST", "/api/auth/login", "Content-Type: application/json", framing)
            request = request.replace(b"Connection: close\r\n", b"")
            assert (await exchange(port, request + b"{}")).status in (400, 501)


# Fields


def email_of(length: int) -> str:
    """An address of exactly that many characters."""
    labels = ("d" * 61 + ".") * 4
    domain = labels[: length - 65 - 4] + "e.io"
    return f"{'l' * (length - 1 - len(domain))}@{domain}"


def attributes_of(length: int) -> dict[str, str]:
    return {"a": "x" * (length - len('{"a": ""}'))}


def repeated(text: str) -> Callable[[int], Any]:
    return lambda length: text * length


def phrase_of(length: int) -> str:
    return ("no such phrase " * length)[: length - 1] + "!"


# (model, field): a value of a given size, the largest size, what the largest is answered, the code beyond it
LIMITS: dict[tuple[str, str], tuple[Callable[[int], Any], int, int, str]] = {
    ("CreateUser", "username"): (repeated("u"), 64, 201, "invalid_username"),
    ("CreateUser", "email"): (email_of, 254, 201, "invalid_email"),
    ("CreateUser", "display_name"): (repeated("😀"), 100, 201, "invalid_display_name"),
    ("CreateUser", "password"): (phrase_of, 1024, 201, "password_too_long"),
    ("CreateUser", "attributes"): (attributes_of, 8192, 201, "too_long"),
    ("CreateUser", "roles"): (lambda length: ["r" * length], 64, 422, "invalid_format"),
    ("UpdateUser", "username"): (repeated("é"), 64, 200, "invalid_username"),
    ("UpdateUser", "email"): (email_of, 254, 200, "invalid_email"),
    ("UpdateUser", "display_name"): (repeated("字"), 100, 200, "invalid_display_name"),
    ("UpdateUser", "password"): (phrase_of, 1024, 422, "password_too_long"),  # lacks the current password
    ("UpdateUser", "current_password"): (phrase_of, LIMIT - 1_000, 200, ""),
    ("UpdateUser", "attributes"): (attributes_of, 8192, 200, "too_long"),
    ("UpdateUser", "roles"): (lambda length: ["r" * length], 64, 422, "invalid_format"),
    ("PatchUser", "username"): (repeated("ü"), 64, 200, "invalid_username"),
    ("PatchUser", "email"): (email_of, 254, 200, "invalid_email"),
    ("PatchUser", "display_name"): (repeated("x"), 100, 200, "invalid_display_name"),
    ("PatchUser", "password"): (phrase_of, 1024, 422, "password_too_long"),
    ("PatchUser", "current_password"): (phrase_of, LIMIT - 1_000, 200, ""),
    ("PatchUser", "attributes"): (attributes_of, 8192, 200, "too_long"),
    ("PatchUser", "roles"): (lambda length: ["r" * length], 64, 422, "invalid_format"),
    ("DeleteUser", "current_password"): (phrase_of, LIMIT - 1_000, 403, ""),
    ("LogIn", "username"): (repeated("u"), 320, 401, "too_long"),
    ("LogIn", "email"): (email_of, 320, 401, "too_long"),
    ("LogIn", "password"): (phrase_of, 4096, 401, "too_long"),
    ("Refresh", "refresh_token"): (repeated("a"), 4096, 401, "too_long"),
    ("LogOut", "refresh_token"): (repeated("a"), 4096, 401, "too_long"),
    ("CreateRole", "name"): (repeated("r"), 64, 201, "invalid_format"),
    ("CreateRole", "description"): (repeated("😀"), 255, 201, "too_long"),
    ("UpdateRole", "description"): (repeated("é"), 255, 404, "too_long"),
    ("CreateGroup", "name"): (repeated("字"), 64, 201, "invalid_name"),
    ("CreateGroup", "description"): (repeated("😀"), 255, 201, "too_long"),
    ("UpdateGroup", "name"): (repeated("字"), 64, 404, "invalid_name"),
    ("UpdateGroup", "description"): (repeated("é"), 255, 404, "too_long"),
    ("CreateIpRule", "network"): (lambda length: "2001:db8::" + "0" * (length - 10), 14, 201, "invalid_network"),
    ("CreateIpRule", "subject"): (lambda length: "role:" + "r" * (length - 5), 69, 422, "invalid_format"),
    ("CreateIpRule", "note"): (repeated("😀"), 255, 201, "too_long"),
    ("UpdateIpRule", "network"): (lambda length: "2001:db8::" + "0" * (length - 10), 14, 404, "invalid_network"),
    ("UpdateIpRule", "subject"): (lambda length: "role:" + "r" * (length - 5), 69, 422, "invalid_format"),
    ("UpdateIpRule", "note"): (repeated("é"), 255, 404, "too_long"),
}
COMPLETE: dict[str, dict[str, Any]] = {
    "CreateUser": {"username": "eve", "email": "eve@example.com", "password": PASSWORD},
    "LogIn": {"username": "eve", "password": PASSWORD},
    "CreateRole": {"name": "auditor"},
    "CreateGroup": {"name": "Readers"},
    "CreateIpRule": {"network": "203.0.113.0/24", "action": "deny"},
}


def holds(annotation: Any, kind: type) -> bool:
    """Whether a field's type has room for a value of this kind; the choices of a Literal are no free text."""
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return False
    if origin is Annotated:
        return holds(typing.get_args(annotation)[0], kind)
    if origin in (typing.Union, types.UnionType, list, dict):
        return annotation is kind or any(holds(option, kind) for option in typing.get_args(annotation))
    return annotation is kind


def text_fields(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if holds(field.annotation, str)]


async def test_the_table_of_limits_has_every_field(server: Server):  # H16
    models = [route.inputs.body for route in routes_with_body(server.app)]
    assert {(model.__name__, name) for model in models if model for name in text_fields(model)} == set(LIMITS)


@pytest.mark.parametrize("model", sorted({model for model, _ in LIMITS}))
async def test_a_field_is_accepted_up_to_its_limit_and_no_further(server: Server, admin: Person, model: str):
    """H16: the same on both databases."""
    (route,) = [r for r in routes_with_body(server.app) if r.inputs.body and r.inputs.body.__name__ == model]
    for field, (make, limit, accepted, code) in {f: row for (m, f), row in LIMITS.items() if m == model}.items():
        others = dict(COMPLETE.get(model, {}))
        for unique in ("username", "email", "name"):
            if unique in others:
                others[unique] = f"{field.replace('_', '-')}-{others[unique]}"
        if (model, field) == ("LogIn", "email"):
            del others["username"]
        at_limit = await send(admin, route, json.dumps(others | {field: make(limit)}, ensure_ascii=False).encode())
        assert at_limit.status_code == accepted, f"{field}: {await at_limit.get_data(as_text=True)}"
        if code:
            body = json.dumps(others | {field: make(limit + 1)}, ensure_ascii=False).encode()
            found = pointers_of(await problem_of(await send(admin, route, body), 422, "validation_failed"))
            assert found == {f"/{field}" + ("/0" if field == "roles" else ""): code}


async def test_a_name_that_grows_when_folded_fits_or_is_refused(server: Server, admin: Person):
    """H16: on PostgreSQL a longer key would not fit its column."""
    for number, (field, text, status) in enumerate(
        [
            ("username", "㌖" * 64, 422),  # one character that folds to six
            ("username", "ﬃ" * 64, 201),
            ("email", "ﷺ" * 40 + "@example.com", 422),  # one that folds to eighteen
            ("email", "ﬃ" * 60 + "@example.com", 201),
            ("display_name", "ﷺ" * 100, 201),
            ("display_name", "ß" * 100, 201),
        ]
    ):
        body = {"username": f"eve{number}", "email": f"eve{number}@example.com", "password": PASSWORD, field: text}
        made = await admin.post("/api/users", json=body)
        assert made.status_code == status, await made.get_data(as_text=True)
        if status == 201:
            read = await admin.get(f"/api/users/{(await made.get_json())['id']}")
            assert (await read.get_json())[field] == text
        changed = await admin.patch("/api/users/me", json={field: text})
        refused = 409 if status == 201 and field != "display_name" else 422
        assert changed.status_code == (200 if (status, field) == (201, "display_name") else refused)


async def test_a_value_of_another_type_is_refused_and_not_coerced(server: Server, admin: Person):
    for route in routes_with_body(server.app):
        assert route.inputs.body is not None
        fields = route.inputs.body.model_fields
        texts = {f"/{name}" for name in text_fields(route.inputs.body)} - {"/roles", "/permissions", "/attributes"}
        for wrong in (12, 1.5, True, [], {}, ["a"]):
            response = await send(admin, route, json.dumps(dict.fromkeys(fields, wrong)).encode())
            found = pointers_of(await problem_of(response, 422, "validation_failed"))
            assert {pointer for pointer in texts if found.get(pointer) != "wrong_type"} == set(), str(route)


async def test_a_choice_a_list_and_an_object_are_not_coerced_either(admin: Person):
    wrong: dict[str, list[Any]] = {
        "status": [True, "ACTIVE", 1, None, ["active"]],
        "roles": ["admin", [1], {"admin": True}, None],
        "attributes": [[], "{}", 1],
        "username": [None],
        "email": [None],
        "password": [None],
    }
    for method in ("PUT", "PATCH"):
        for name, values in wrong.items():
            for value in values:
                response = await admin.call(method, "/api/users/me", json={name: value})
                found = pointers_of(await problem_of(response, 422, "validation_failed"))
                assert all(pointer.startswith(f"/{name}") for pointer in found)


async def test_a_number_comes_back_as_strict_json_and_the_same(admin: Person):  # H05
    numbers = (
        "0 -0 -0.0 2147483648 9223372036854775807 9223372036854775808 9999999999999999999 -999999999999999999 "
        "1e16 1e18 1e19 1e22 1e308 -1e308 1.7976931348623157e308 5e-324 1e-400 0.1 123456789.123456789"
    )
    for number in numbers.split():
        body = f'{{"attributes": {{"n": {number}}}}}'.encode()
        assert (await admin.put("/api/users/me", data=body, headers=JSON)).status_code == 200, number
        for path in ("/api/users/me", "/api/users", "/api/auth/session"):
            response = await admin.get(path)
            assert response.status_code == 200, f"{path} {number}"
            read = json.loads(await response.get_data(as_text=True), parse_constant=pytest.fail)
            user = read["items"][0] if path == "/api/users" else read.get("user", read)
            assert user["attributes"] == {"n": json.loads(number)}
            again = json.dumps({"attributes": user["attributes"]}).encode()
            assert (await admin.put("/api/users/me", data=again, headers=JSON)).status_code == 200, number


async def test_control_characters_stay_out_of_names(admin: Person):  # H15
    for text, as_username, as_display_name in [
        ("a\u202eb", 422, 200),
        ("\ufeffab", 422, 200),
        ("a\r\nb", 422, 422),
        ("a\x1bb", 422, 422),
        ("a\x7fb", 422, 422),
        ("a\x85b", 422, 422),
        ("a b", 422, 200),
        ("Ada Łovelace 😀", 422, 200),
    ]:
        assert (await admin.patch("/api/users/me", json={"username": text})).status_code == as_username, repr(text)
        changed = await admin.patch("/api/users/me", json={"display_name": text})
        assert changed.status_code == as_display_name, repr(text)
        if as_display_name == 200:
            assert (await (await admin.get("/api/users/me")).get_json())["display_name"] == text


async def test_a_client_that_does_not_finish_its_body_gets_408(server: Server):
    async with listening(server.app) as port:
        request = head("POST", "/api/auth/login", "Content-Type: application/json", "Content-Length: 10") + b"{"
        answer = await exchange(port, request)
    assert (answer.status, json.loads(answer.body)["code"]) == (408, "request_timeout")


@pytest.fixture
def flags(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A short patience with slow clients where the test is about them."""
    return {"server.request_timeout": "300ms"} if "408" in request.node.name else {}
