"""Exporting accounts, as a use case: what is on record of an export that was not finished."""

from contextlib import aclosing

from tests.people import Person, Server
from usermgmt.imports.exporting import export_users
from usermgmt.security.principal import OPERATOR


async def test_an_export_is_on_record_before_its_first_account(server: Server, ada: Person):
    async with aclosing(export_users(server.runtime, OPERATOR, with_hashes=True)) as batches:
        ((view, stored_hash),) = await anext(batches)
        (event,) = await server.events("users.exported")
    assert (str(view.user.id), event.details, event.outcome) == (ada.id, {"hashes": True}, "success")
    assert stored_hash is not None
    assert stored_hash.startswith("um1$")
    assert len(await server.events("users.exported")) == 1


async def test_hashes_are_given_only_to_who_asks(server: Server, ada: Person):
    found = [each async for batch in export_users(server.runtime, OPERATOR, with_hashes=False) for each in batch]
    assert [stored_hash for _, stored_hash in found] == [None]
