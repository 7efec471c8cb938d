"""What is remembered of paths changes no answer, and has an end."""

from uuid import uuid4

import pytest
from quart.testing import WebsocketResponseError

from tests.people import Person, Server
from usermgmt.http.routing import LONGEST_REMEMBERED, REMEMBERED_PATHS, Application


async def test_a_path_that_was_seen_has_its_methods_and_no_others(server: Server, ada: Person):
    for _ in range(2):
        assert (await ada.get("/api/users/me")).status_code == 200
        assert (await ada.call("HEAD", "/api/users/me")).status_code == 200
        refused = await ada.call("POST", "/api/users/me")
        assert refused.status_code == 405
        assert set(refused.headers["Allow"].split(", ")) == {"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"}
        assert (await ada.get("/api/users/mes")).status_code == 404
        assert (await ada.get("//api/users/me")).status_code == 404


async def test_a_path_that_somebody_asked_for_is_the_next_ones_own(ada: Person, bob: Person):
    for _ in range(2):
        for person in (ada, bob):
            assert (await (await person.get("/api/users/me")).get_json())["id"] == str(person.id)


async def test_a_path_that_was_seen_is_no_websocket(server: Server):
    await server.nobody().get("/health/live")
    with pytest.raises(WebsocketResponseError) as refused:
        async with server.app.test_client().websocket("/health/live"):
            pass
    assert refused.value.response.status_code == 400


async def test_what_is_remembered_has_an_end(server: Server, ada: Person):
    assert isinstance(server.app, Application)
    matches = server.app._matches
    path, found = next(iter(matches.items()))
    matches.update({("GET", f"/api/users/{uuid4()}"): found for _ in range(REMEMBERED_PATHS - len(matches))})
    assert len(matches) == REMEMBERED_PATHS
    assert (await ada.get(f"/problems/{'a' * LONGEST_REMEMBERED}")).status_code == 404
    assert (await ada.get("/nowhere")).status_code == 404
    assert (len(matches), path in matches) == (REMEMBERED_PATHS, True)
    assert (await ada.get(f"/api/users/{uuid4()}")).status_code == 403
    assert len(matches) == 1
