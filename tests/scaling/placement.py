"""Where each table lies once the database is distributed, and what of a schema would forbid that.

The one place that says so: `deploy/citus.sql` is checked against it, and so is every statement.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import ForeignKeyConstraint, MetaData, PrimaryKeyConstraint, Table, UniqueConstraint


@dataclass(frozen=True, slots=True)
class Distributed:
    """Rows lie where the value of `column` says; equal values of one family's tables lie together."""

    column: str
    family: str


class Reference:
    """Small, and whole on every node: may be joined with anything, and is written on all nodes at once."""


class Local:
    """Whole, on the first node alone: for what one process at a time writes and no statement joins with accounts."""


Place = Distributed | Reference | Local

PLACES: Mapping[str, Place] = {
    "users": Distributed("id", family="users"),
    "sessions": Distributed("user_id", family="users"),
    "role_grants": Distributed("user_id", family="users"),
    "group_members": Distributed("user_id", family="users"),
    "audit_events": Distributed("owner_id", family="users"),
    "login_names": Distributed("name", family="login_names"),
    "throttles": Distributed("key", family="throttles"),
    "idempotency_keys": Distributed("principal", family="idempotency_keys"),
    "roles": Reference(),
    "role_permissions": Reference(),
    "groups": Reference(),
    "ip_rules": Reference(),
    "ip_rule_version": Reference(),
    "signing_keys": Reference(),
    "root_secrets": Reference(),
    "audit_seals": Local(),
    "audit_head": Local(),
    "chores": Local(),
}


def schema_faults(metadata: MetaData, places: Mapping[str, Place]) -> list[str]:
    """What in these tables could not be distributed so, one sentence each."""
    names = set(metadata.tables)
    faults = [f"{name} has no place" for name in sorted(names - set(places))]
    faults += [f"{name} has a place and does not exist" for name in sorted(set(places) - names)]
    placed = [table for name, table in sorted(metadata.tables.items()) if name in places]
    for table in placed:
        faults += _key_faults(table, places[table.name])
        faults += _link_faults(table, places)
    return [*faults, *_family_faults(placed, places)]


def _key_faults(table: Table, place: Place) -> Iterator[str]:
    """Uniqueness can only be kept where equal values lie together."""
    if not isinstance(place, Distributed):
        return
    if place.column not in table.c:
        yield f"{table.name} has no column {place.column}"
        return
    if table.c[place.column].nullable:
        yield f"{table.name}.{place.column} may be null"
    keys = {
        str(each.name): each.columns.keys()
        for each in table.constraints
        if isinstance(each, PrimaryKeyConstraint | UniqueConstraint)
    }
    keys |= {str(index.name): index.columns.keys() for index in table.indexes if index.unique}
    for name, columns in sorted(keys.items()):
        if place.column not in columns:
            yield f"{name} is unique without {table.name}.{place.column}"


def _link_faults(table: Table, places: Mapping[str, Place]) -> Iterator[str]:
    """A foreign key can only be kept between rows that lie together."""
    here = places[table.name]
    for link in table.constraints:
        if not isinstance(link, ForeignKeyConstraint):
            continue
        there = places.get(link.referred_table.name)
        if isinstance(there, Reference) or (isinstance(here, Local) and isinstance(there, Local)):
            continue
        is_together = (
            isinstance(here, Distributed)
            and isinstance(there, Distributed)
            and here.family == there.family
            and (here.column, there.column) in [(each.parent.name, each.column.name) for each in link.elements]
        )
        if not is_together:
            yield f"{link.name} leads from {table.name} to {link.referred_table.name}, whose rows lie elsewhere"


def _family_faults(tables: list[Table], places: Mapping[str, Place]) -> Iterator[str]:
    """Equal values lie together only where they are of one type."""
    types: dict[str, tuple[str, str]] = {}
    for table in tables:
        place = places[table.name]
        if isinstance(place, Distributed) and place.column in table.c:
            kind = repr(table.c[place.column].type)
            first = types.setdefault(place.family, (table.name, kind))
            if first[1] != kind:
                yield f"{table.name}.{place.column} is {kind}, and {first[0]} of its family goes by {first[1]}"
