from datetime import timedelta
from uuid import uuid4

import pytest

from tests.people import Server
from tests.users.accounts import refusal, stored, user_of


@pytest.mark.parametrize(
    ("caller", "expected"),
    [
        ("nobody", (401, "missing_credentials")),
        ("stranger", (403, "permission_missing")),
        ("self", 200),
        ("manager", 200),
        ("admin", 200),
    ],
)
async def test_who_may_read_an_account(as_, ada, caller, expected):
    response = await as_(caller).get(f"/api/users/{ada.id}")
    if expected != 200:
        assert await refusal(response) == expected
        return
    user = await user_of(response)
    assert (user["id"], user["username"], user["roles"]) == (ada.id, "ada", ["user"])
    assert response.headers["ETag"] == '"1"'
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert "Authorization" in response.headers["Vary"]


async def test_me_is_the_caller(server: Server, ada, admin):
    assert await user_of(await ada.get("/api/users/me")) == await user_of(await ada.get(f"/api/users/{ada.id}"))
    assert (await user_of(await admin.get("/api/users/me")))["id"] == admin.id
    assert await refusal(await server.nobody().get("/api/users/me")) == (401, "missing_credentials")


async def test_reading_needs_no_body_and_takes_no_parameter(ada):
    assert await refusal(await ada.get("/api/users/me?fields=id")) == (422, "validation_failed")


async def test_a_known_version_is_not_sent_again(ada):
    for header, status in (
        ('"1"', 304),
        ('W/"1"', 304),
        ("*", 304),
        (' "0" ,W/"1","2"', 304),
        ('"2"', 200),
        ('"0", "2"', 200),
        ("1", 200),
        ('"1', 200),
        ("", 200),
        ("garbage, more; of=it", 200),
    ):
        response = await ada.get("/api/users/me", headers={"If-None-Match": header})
        assert response.status_code == status, header
        assert response.headers["ETag"] == '"1"'
        assert response.headers["Cache-Control"] == "private, no-cache"
        assert (await response.get_data() == b"") == (status == 304)


async def test_a_change_makes_a_new_entity_tag(ada):
    changed = await ada.put("/api/users/me", json={"display_name": "Ada"})
    assert changed.headers["ETag"] == '"2"'
    fresh = await ada.get("/api/users/me", headers={"If-None-Match": '"1"'})
    assert (fresh.status_code, fresh.headers["ETag"]) == (200, '"2"')


async def test_head_says_what_get_says(as_, ada):  # G08; that the body stays away is the web server's part
    for caller in ("self", "stranger", "nobody", "admin"):
        got, head = [await as_(caller).call(method, f"/api/users/{ada.id}") for method in ("GET", "HEAD")]
        assert head.status_code == got.status_code
        assert head.headers.pop("X-Request-ID") != got.headers.pop("X-Request-ID")
        assert list(head.headers) == list(got.headers)


async def test_a_stranger_cannot_tell_an_account_from_none(server: Server, ada, bob):  # G02, B06
    before = await stored(server)
    for method, body in (
        ("GET", {}),
        ("HEAD", {}),
        ("PUT", {"json": {"display_name": "x"}}),
        ("PUT", {"json": {"nosuch": 1}}),
        ("PATCH", {"json": {"email": "bob2@example.com"}}),
        ("DELETE", {}),
    ):
        answers = [await bob.call(method, f"/api/users/{user_id}", **body) for user_id in (ada.id, uuid4())]
        assert {answer.status_code for answer in answers} == {403}
        ids = [answer.headers["X-Request-ID"] for answer in answers]
        existing, random = [(await a.get_data(as_text=True), list(a.headers)) for a in answers]
        assert str(existing).replace(ids[0], "") == str(random).replace(ids[1], "")
    assert await stored(server) == before
    denied = await server.events("access.denied")
    assert len(denied) == 12
    assert {(str(event.actor_id), event.outcome) for event in denied} == {(bob.id, "failure")}


async def test_somebody_with_the_permission_is_told_that_there_is_none(admin, manager):
    for caller in (admin, manager):
        assert await refusal(await caller.get(f"/api/users/{uuid4()}")) == (404, "user_not_found")


async def test_an_id_has_one_spelling(ada, admin):  # H07
    upper, plain = ada.id.upper(), ada.id.replace("-", "")
    odd = (
        *("0", "-1", "1", "2147483648", "9223372036854775808", str(2**70), "9" * 5000, "1e3", "0x1", "007", "null"),
        *("%D9%A1", "%2e%2e", "..", ".", "ME", "Me", "me%20", "%20me", "me%0A", "me%00", "me/", "undefined", "None"),
        *(upper, plain, f"%7B{ada.id}%7D", f"urn:uuid:{ada.id}", f"{ada.id}%20", f"{ada.id}%0A", f"{ada.id}/"),
        *(f"{ada.id}%00", f"0{ada.id}", ada.id[:-1], ada.id.replace("-", "%2D%2D"), ada.id.replace("0", "٠")),
    )
    for spelling in odd:
        for caller in (ada, admin):
            response = await caller.get(f"/api/users/{spelling}")
            assert await refusal(response) == (404, "not_found"), spelling[:80]


async def test_a_deleted_account_is_not_found(admin, manager, ada):
    assert (await admin.delete(f"/api/users/{ada.id}")).status_code == 204
    for caller in (admin, manager):
        assert await refusal(await caller.get(f"/api/users/{ada.id}")) == (404, "user_not_found")
    assert await refusal(await ada.get(f"/api/users/{ada.id}")) == (401, "session_ended")


async def test_an_expired_token_reads_nothing(server: Server, ada):
    server.clock.move(timedelta(minutes=10, seconds=1))
    assert await refusal(await ada.get("/api/users/me")) == (401, "invalid_token")
