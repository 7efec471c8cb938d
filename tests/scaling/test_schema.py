"""Nothing in the schema forbids distributing it."""

import pytest
from sqlalchemy import Column, ForeignKeyConstraint, Index, Integer, MetaData, String, Table, UniqueConstraint

from tests.scaling.placement import PLACES, Distributed, Local, Place, Reference, schema_faults
from tests.servers import PostgreSQL
from usermgmt import schema


def test_every_table_has_a_place_and_nothing_in_it_forbids_that():
    assert schema_faults(schema.metadata, PLACES) == []


def test_the_database_itself_has_no_triggers_and_no_keys_that_the_models_do_not_tell_of(postgresql: PostgreSQL):
    found = postgresql.execute("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal", database="template")
    assert found == ""
    keys = postgresql.execute(
        "SELECT indexrelid::regclass FROM pg_index JOIN pg_class ON pg_class.oid = indrelid"
        " WHERE indisunique AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'",
        database="template",
    )
    declared = {str(table.primary_key.name) for table in schema.metadata.tables.values()}
    declared |= {
        str(each.name)
        for table in schema.metadata.tables.values()
        for each in table.constraints
        if isinstance(each, UniqueConstraint)
    }
    assert set(keys.split()) == declared


def made(*items: object, places: dict[str, Place] | None = None) -> list[str]:
    """What is found in a small schema: users, a table of theirs with these items, a reference and a local table."""
    metadata = MetaData()
    Table("users", metadata, Column("id", Integer, primary_key=True), Column("email", String))
    Table("roles", metadata, Column("name", String, primary_key=True))
    Table("head", metadata, Column("id", Integer, primary_key=True))
    columns = [Column("user_id", Integer, primary_key=True), Column("id", Integer, primary_key=True), Column("role")]
    Table("owned", metadata, *columns, *items)  # type: ignore[arg-type]  # any item of a schema
    own: dict[str, Place] = {
        "users": Distributed("id", "users"),
        "owned": Distributed("user_id", "users"),
        "roles": Reference(),
        "head": Local(),
    }
    return schema_faults(metadata, own | (places or {}))


def owner() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_owner")


def test_a_sound_schema_has_no_faults():
    role = ForeignKeyConstraint(["role"], ["roles.name"], name="fk_role")
    assert made(owner(), role, Index("ix", "id")) == []


@pytest.mark.parametrize(
    ("items", "places", "fault"),
    [
        ([UniqueConstraint("id", name="uq")], {}, "uq is unique without owned.user_id"),
        ([Index("ix", "id", unique=True)], {}, "ix is unique without owned.user_id"),
        ([owner()], {"owned": Distributed("user_id", "other")}, "fk_owner leads from owned to users"),
        ([owner()], {"owned": Reference()}, "fk_owner leads from owned to users"),
        ([owner()], {"owned": Local()}, "fk_owner leads from owned to users"),
        ([owner()], {"owned": Distributed("id", "users")}, "fk_owner leads from owned to users"),
        ([ForeignKeyConstraint(["id"], ["head.id"], name="fk")], {}, "fk leads from owned to head"),
        ([], {"owned": Distributed("role", "users")}, "owned.role may be null"),
        ([], {"users": Distributed("email", "users")}, "is unique without users.email"),
        ([], {"owned": Distributed("nothing", "users")}, "owned has no column nothing"),
        ([Column("name", String, nullable=False)], {"owned": Distributed("name", "users")}, "of its family goes by"),
        ([], {"gone": Reference()}, "gone has a place and does not exist"),
    ],
)
def test_what_would_forbid_it_is_found(items: list[object], places: dict[str, Place], fault: str):
    found = made(*items, places=places)
    assert any(fault in each for each in found), found


def test_a_table_without_a_place_is_found():
    metadata = MetaData()
    Table("new", metadata, Column("id", Integer, primary_key=True))
    assert schema_faults(metadata, {}) == ["new has no place"]
