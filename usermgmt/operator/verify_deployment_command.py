"""`usermgmt verify-deployment`: attack a running server from outside, and report what held."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import click

from usermgmt.operator.console import Console, Exit, Refusal
from usermgmt.operator.deployment_account_checks import (
    ACCOUNT_CHECKS,
    Account,
    Ground,
    ListedForAccounts,
    make_account,
    remove_account,
)
from usermgmt.operator.deployment_checks import CHECKS, LOGIN, Failed, Listed, Warned
from usermgmt.operator.deployment_client import Deployment, NotChecked, Unreachable
from usermgmt.operator.grammar import command, pass_console
from usermgmt.operator.passwords import password_option, presented_password

OK, FAILED, WARNING, NOT_CHECKED = "ok", "FAILED", "warning", "not checked"


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
            "outcome": self.outcome.lower().replace(" ", "_"),
            "check": self.text,
            "cases": self.cases.split(),
            "detail": self.detail,
        }

    def __str__(self) -> str:
        told = f"\n                  {self.detail}" if self.detail else ""
        return f"  {self.outcome:<12}  {self.text} [{self.cases}]{told}"


@command("verify-deployment")
@click.argument("url")
@click.option("--username", help="An administrator; with it two throw-away accounts are made, attacked and erased.")
@password_option
@pass_console
def verify_deployment(console: Console, url: str, username: str | None, password_stdin: bool) -> int:
    """Attack the server at URL from outside, with some hundred requests, and report what held.

    Only what you may attack. Without --username it checks what anybody can see. The exit code is 1 when a check fails,
    69 when the server does not answer.
    """
    site = Deployment(_checked(url))
    password = presented_password(from_stdin=password_stdin) if username is not None else None
    try:
        site.call("GET", "/health/live")
        lines = list(_anonymous(site))
        if username is not None and password is not None:
            lines += _with_accounts(site, username, password)
    except Unreachable as problem:
        raise Refusal(
            f"The server does not answer: {problem}", code="unreachable", exit_code=Exit.UNAVAILABLE
        ) from None
    _report(console, site, lines)
    return Exit.FAILURE if any(line.outcome == FAILED for line in lines) else Exit.OK


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.UsageError("URL must begin with http:// or https://.")
    return url


def _anonymous(site: Deployment) -> Iterator[Line]:
    for listed in CHECKS:
        yield _line(listed, partial(listed.run, site))


def _with_accounts(site: Deployment, username: str, password: str) -> list[Line]:
    answer = site.call("POST", LOGIN, {"username": username, "password": password})
    if answer.status != 200:
        raise Refusal(f"{username} could not sign in: {answer.status} {answer.code}.", code="not_signed_in")
    try:
        with _accounts(site, answer.json()["access_token"]) as ground:
            return [_line(listed, partial(listed.run, ground)) for listed in ACCOUNT_CHECKS]
    except NotChecked as reason:
        return [Line(listed.group, NOT_CHECKED, listed.text, listed.cases, str(reason)) for listed in ACCOUNT_CHECKS]


@contextmanager
def _accounts(site: Deployment, admin_token: str) -> Iterator[Ground]:
    """Two accounts that are erased at the end, whatever happens."""
    made: list[Account] = []
    try:
        made += [make_account(site, admin_token)]
        made += [make_account(site, admin_token)]
        yield Ground(site, admin_token, *made)
    finally:
        left = [account.username for account in made if not remove_account(site, admin_token, account)]
        if left:
            click.echo(f"These accounts could not be removed: {', '.join(left)}", err=True)


def _line(listed: Listed | ListedForAccounts, run: Callable[[], None]) -> Line:
    """Run one check."""
    make = partial(Line, listed.group)
    try:
        run()
    except (Failed, Unreachable) as problem:
        return make(FAILED, listed.text, listed.cases, str(problem))
    except Warned as problem:
        return make(WARNING, listed.text, listed.cases, str(problem))
    except NotChecked as problem:
        return make(NOT_CHECKED, listed.text, listed.cases, str(problem))
    except (KeyError, TypeError, ValueError, AttributeError) as surprise:  # an answer that is nothing like ours
        return make(FAILED, listed.text, listed.cases, f"an answer of another form: {type(surprise).__name__}")
    return make(OK, listed.text, listed.cases)


def _report(console: Console, site: Deployment, lines: list[Line]) -> None:
    counts = {outcome: sum(line.outcome == outcome for line in lines) for outcome in (OK, FAILED, WARNING, NOT_CHECKED)}
    told = [f"{site.url}, {site.requests} requests"]
    for group in dict.fromkeys(line.group for line in lines):
        told += ["", group, *(str(line) for line in lines if line.group == group)]
    summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count or outcome == FAILED)
    told += ["", summary]
    document = {
        "url": site.url,
        "requests": site.requests,
        "checks": [line.document for line in lines],
        "counts": {outcome.lower().replace(" ", "_"): count for outcome, count in counts.items()},
    }
    console.show(document, "\n".join(told))
