"""The user's own document: its endpoints with its bodies, from registering to logging out."""

from tests.people import Server

REGISTRATION = {"username": "newuser", "email": "user@example.com", "password": "secure_password"}
SIGN_IN = {"username": "newuser", "password": "secure_password"}


async def test_the_seeds_bodies_work_as_they_stand(server: Server, admin):
    person = server.nobody()

    made = await person.post("/api/users", json=REGISTRATION)
    assert made.status_code == 201
    user = await made.get_json()
    assert made.headers["Location"] == f"/api/users/{user['id']}"

    signed_in = await person.post("/api/auth/login", json=SIGN_IN)
    assert signed_in.status_code == 200
    tokens = await signed_in.get_json()
    assert {"access_token", "refresh_token"} <= tokens.keys()
    assert tokens["access_token"].startswith("eyJhbG")
    person.keep(tokens)

    path = f"/api/users/{user['id']}"
    assert (await person.get(path)).status_code == 200
    changed = await person.put(path, json={"email": "other@example.com"})
    assert changed.status_code == 200
    assert (await changed.get_json())["email"] == "other@example.com"
    assert [u["username"] for u in (await (await admin.get("/api/users")).get_json())["items"]] == ["root", "newuser"]

    refreshed = await person.post("/api/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert refreshed.status_code == 200
    person.keep(await refreshed.get_json())
    assert (await person.post("/api/auth/logout")).status_code == 204
    assert (await person.get(path)).status_code == 401

    assert (await admin.delete(path)).status_code == 204
    assert (await admin.get(path)).status_code == 404
    assert (await person.post("/api/auth/login", json=SIGN_IN)).status_code == 401
