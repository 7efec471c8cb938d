"""Names and settings that the next release no longer has: until then they are understood, and warned of."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic.fields import FieldInfo

from usermgmt.settings.sources import Layers, SettingsProblem

Declared = Iterable[tuple[str, FieldInfo]]
Mark = TypeVar("Mark")


@dataclass(frozen=True, slots=True)
class Formerly:
    """Marks a setting that was renamed, with the whole `section.key` that it had: `Annotated[…, Formerly("a.b")]`."""

    name: str

    def __str__(self) -> str:
        return f"Formerly {self.name}."


@dataclass(frozen=True, slots=True)
class Leaving:
    """Marks a setting that is about to go, with a sentence that says what is to be done instead."""

    instead: str

    def __str__(self) -> str:
        return f"Goes in the next release: {self.instead}"


def former_names(declared: Declared) -> dict[str, str]:
    """Every former name, and the key that it stands for now."""
    return {mark.name: key for key, mark in _marked(declared, Formerly)}


def clashes(layers: Layers) -> Iterator[SettingsProblem]:
    """The settings that are given under both their names: nobody can tell which is meant."""
    for key, names in layers.names.items():
        former = [name for name in names if name != key]
        if key in names and former:
            message = f"is also given under its former name {former[0]}; take that away"
            yield SettingsProblem(key, ", ".join(names.values()), message)


def farewells(layers: Layers, declared: Declared) -> Iterator[SettingsProblem]:
    """What is given and works, but no longer will in the next release."""
    leaving: Mapping[str, Leaving] = dict(_marked(declared, Leaving))
    for key, names in layers.names.items():
        for name, origin in names.items():
            if name != key:
                yield SettingsProblem(key, origin, f"is given under its former name {name}; write {key}")
            elif key in leaving:
                yield SettingsProblem(key, origin, f"goes in the next release: {leaving[key].instead}")


def _marked(declared: Declared, kind: type[Mark]) -> Iterator[tuple[str, Mark]]:
    for key, field in declared:
        yield from ((key, mark) for mark in field.metadata if isinstance(mark, kind))
