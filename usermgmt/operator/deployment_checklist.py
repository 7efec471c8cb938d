"""How a check of a deployment is written, listed, made and told."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from usermgmt.operator.checklist import NotChecked
from usermgmt.operator.console import printable
from usermgmt.operator.deployment_client import Unreachable

OK, FAILED, WARNING, NOT_CHECKED = "ok", "FAILED", "warning", "not checked"
OUTCOMES = (OK, FAILED, WARNING, NOT_CHECKED)

Subject = TypeVar("Subject")
F = TypeVar("F", bound=Callable[..., str | None])


class Failed(Exception):
    """The deployment does not keep a promise."""


class Warned(Exception):
    """Something that may be meant, and should be."""


def expect(condition: bool, told: str) -> None:
    """Fail with a sentence unless a condition holds."""
    if not condition:
        raise Failed(told)


@dataclass(frozen=True, slots=True)
class Line:
    """What came of one check."""

    group: str
    outcome: str
    text: str
    cases: str
    detail: str = ""

    @property
    def document(self) -> dict[str, Any]:
        """The line for programs."""
        return {
            "group": self.group,
            "outcome": word(self.outcome),
            "check": self.text,
            "cases": self.cases.split(),
            "detail": self.detail,
        }

    def __str__(self) -> str:
        told = f"\n{'':16}{printable(self.detail)}" if self.detail else ""
        return f"  {self.outcome:<12}  {self.text} [{self.cases}]{told}"


def word(outcome: str) -> str:
    """An outcome for programs."""
    return outcome.lower().replace(" ", "_")


@dataclass(frozen=True, slots=True)
class Check(Generic[Subject]):
    """A check in its group. Its docstring is its line of the report, and what it returns a detail of that.

    The cases are what it covers of `tests/security/cases.toml`.
    """

    group: str
    cases: str
    function: Callable[[Subject], str | None]

    @property
    def text(self) -> str:
        """What the check is about."""
        return (self.function.__doc__ or "").strip()

    def made(self, subject: Subject) -> Line:
        """Make the check; what came of it."""
        try:
            return self._line(OK, self.function(subject) or "")
        except (Failed, Unreachable) as problem:
            return self._line(FAILED, str(problem))
        except Warned as problem:
            return self._line(WARNING, str(problem))
        except NotChecked as reason:
            return self.skipped(str(reason))
        except (LookupError, TypeError, ValueError, AttributeError) as surprise:
            return self._line(FAILED, f"an answer of another form ({type(surprise).__name__})")

    def skipped(self, reason: str) -> Line:
        """The line of a check that was not made."""
        return self._line(NOT_CHECKED, reason)

    def _line(self, outcome: str, detail: str) -> Line:
        return Line(self.group, outcome, self.text, self.cases, detail)


class Checklist(list[Check[Subject]]):
    """The checks of one kind of subject."""

    def __call__(self, group: str, cases: str) -> Callable[[F], F]:
        """List a function as a check of a group."""

        def listed(function: F) -> F:
            self.append(Check(group, cases, function))
            return function

        return listed
