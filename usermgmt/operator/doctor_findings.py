"""How a check of `usermgmt doctor` is written, listed and made."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum

from usermgmt.operator.checklist import NotChecked
from usermgmt.operator.console import cause_of, printable
from usermgmt.operator.doctor_installation import Installation, Needs


class Severity(StrEnum):
    """How bad it is; `NOT_CHECKED` stands for what could not be found out."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"
    NOT_CHECKED = "not_checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, in a sentence, and how to mend it, in another."""

    severity: Severity
    found: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A finding with the id of its check."""

    check: str
    finding: Finding

    @property
    def group(self) -> str:
        """The part of the installation that it is about."""
        return self.check.partition(".")[0]

    @property
    def document(self) -> dict[str, str]:
        """The line for programs."""
        finding = self.finding
        return {"check": self.check, "severity": finding.severity, "found": finding.found, "mend": finding.mend}


Examine = Callable[[Installation], AsyncIterator[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at. `id` is `group.name`; `text` what it is about."""

    id: str
    needs: Needs
    examine: Examine

    @property
    def text(self) -> str:
        """What the check is about."""
        return (self.examine.__doc__ or "").strip()

    async def lines(self, installation: Installation) -> list[Line]:
        """Make the check. Whatever it meets becomes a line: the other checks are made anyway."""
        try:
            installation.require(self.needs)
            found = [finding async for finding in self.examine(installation)]
        except NotChecked as reason:
            found = [Finding(Severity.NOT_CHECKED, f"{self.text.rstrip('.')} ({reason}).")]
        except Exception as error:  # noqa: BLE001 - a doctor goes on, and says what it could not look at
            found = [warning(f"This could not be looked at: {cause_of(error)}.", "Mend what stands in the way.")]
        return [Line(self.id, finding) for finding in found]


class Checklist(list[Check]):
    """The checks of one subject."""

    def __call__(self, name: str, needs: Needs = Needs.NOTHING) -> Callable[[Examine], Examine]:
        """List a function as the check of this id."""

        def listed(function: Examine) -> Examine:
            self.append(Check(name, needs, function))
            return function

        return listed


def ok(found: str) -> Finding:
    """All is well."""
    return Finding(Severity.OK, printable(found))


def note(found: str, mend: str = "") -> Finding:
    """Something to know of; it may well be meant."""
    return Finding(Severity.NOTE, printable(found), printable(mend))


def warning(found: str, mend: str) -> Finding:
    """A risk, or what will be wrong later."""
    return Finding(Severity.WARNING, printable(found), printable(mend))


def error(found: str, mend: str) -> Finding:
    """Something is wrong now."""
    return Finding(Severity.ERROR, printable(found), printable(mend))
