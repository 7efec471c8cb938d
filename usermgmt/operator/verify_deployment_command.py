"""`usermgmt verify-deployment`: attack a running server from outside, and report what held."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import urlsplit

import click

from usermgmt.operator import deployment_account_checks, deployment_checks, deployment_http_checks
from usermgmt.operator.checklist import NotChecked
from usermgmt.operator.console import Console, Exit, Refusal, printable
from usermgmt.operator.deployment_account_checks import sign_in, throw_away_accounts, tokens_for
from usermgmt.operator.deployment_checklist import FAILED, OUTCOMES, Line, word
from usermgmt.operator.deployment_checks import Stranger
from usermgmt.operator.deployment_client import Deployment, Unreachable
from usermgmt.operator.grammar import command, pass_console
from usermgmt.operator.passwords import password_option, presented_password

STRANGER_CHECKS = (*deployment_checks.check, *deployment_http_checks.check)
ACCOUNT_CHECKS = deployment_account_checks.check
GROUPS = tuple(dict.fromkeys([each.group for each in STRANGER_CHECKS] + [each.group for each in ACCOUNT_CHECKS]))


@dataclass(frozen=True, slots=True)
class Credentials:
    """An administrator's name and password."""

    username: str
    password: str


@command("verify-deployment")
@click.argument("url")
@click.option("--username", help="Somebody who exists: refused sign-ins to this name and to made-up ones are compared.")
@click.option(
    "--accounts",
    "has_accounts",
    is_flag=True,
    help="Sign in as --username, an administrator, and make, attack and erase two throw-away accounts. "
    "Goes without saying with --password-stdin.",
)
@password_option
@click.option("--only", "groups", type=click.Choice(GROUPS), multiple=True, help="Make the checks of this group only.")
@click.option(
    "--pairs", type=click.IntRange(3, 40), default=40, show_default=True, help="Timed pairs of refused sign-ins."
)
@click.option(
    "--timing-tolerance",
    type=click.FloatRange(1, 1000),
    default=15,
    show_default=True,
    help="By how many per cent their medians may differ.",
)
@pass_console
def verify_deployment(
    console: Console,
    *,
    url: str,
    username: str | None,
    has_accounts: bool,
    password_stdin: bool,
    groups: tuple[str, ...],
    pairs: int,
    timing_tolerance: float,
) -> int:
    """Attack the server at URL from outside, with some hundred requests, and report what held.

    Only what you may attack. Wrong passwords are among it, up to 95 with --accounts: they count against the network
    that you are in, so run it once in a quarter of an hour. The exit code is 1 when a check fails, 69 when the server
    does not answer.
    """
    credentials = _credentials(username, has_accounts=has_accounts or password_stdin, from_stdin=password_stdin)
    site = Deployment(_checked(url))
    stranger = Stranger(site, username, pairs=pairs, tolerance=timing_tolerance / 100)
    try:
        _meet(site)
        lines = _lines(console, stranger, credentials=credentials, groups=groups or GROUPS)
    except Unreachable as problem:
        raise Refusal(
            f"The server does not answer: {problem}", code="unreachable", exit_code=Exit.UNAVAILABLE
        ) from None
    _report(console, site, lines)
    return Exit.FAILURE if any(line.outcome == FAILED for line in lines) else Exit.OK


def _credentials(username: str | None, *, has_accounts: bool, from_stdin: bool) -> Credentials | None:
    """Who makes the accounts, if anybody does. Asks for the password."""
    if not has_accounts:
        return None
    if username is None:
        raise click.UsageError("--accounts and --password-stdin need --username.")
    return Credentials(username, presented_password(from_stdin=from_stdin, is_new=False))


def _checked(url: str) -> str:
    """The base URL of a server; a wrong one is a wrong command line."""
    try:
        parts = urlsplit(url)
        is_fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number
        is_fit = False
    if not is_fit or "@" in parts.netloc or parts.query or parts.fragment or not url.isascii() or " " in url:
        raise click.UsageError("URL must be http://host[:port][/path] or https://host[:port][/path].")
    return url


def _meet(site: Deployment) -> None:
    """Ask for a sign of life. Refused when the server is another one than the URL says."""
    try:
        answer = site.call("GET", "/health/live")
    except NotChecked as reason:
        raise Refusal(f"Nothing can be checked now: {reason}.", code="throttled") from None
    if 300 <= answer.status < 400:
        target = printable(answer.headers.get("location", "somewhere else"))
        raise Refusal(f"{site.url} redirects to {target}; verify that.", code="redirected")


def _lines(
    console: Console, stranger: Stranger, *, credentials: Credentials | None, groups: Collection[str]
) -> list[Line]:
    """Make the checks of these groups, those of accounts if these can be made."""
    if credentials is None:
        return [*_made(stranger, groups=groups), *_skipped("needs --accounts", groups=groups)]
    token = _token(stranger.site, credentials)
    with ExitStack() as accounts:
        try:
            ground = accounts.enter_context(throw_away_accounts(stranger.site, token))
        except (NotChecked, Unreachable) as problem:
            return [*_made(stranger, groups=groups), *_skipped(str(problem), groups=groups)]
        console.note(f"Made {ground.ada.username} and {ground.bob.username}, to be erased at the end.")
        again = partial(sign_in, stranger.site, ground.ada)
        insider = replace(stranger, known_name=ground.ada.username, sign_in=again)
        attacked = (each.made(ground) for each in ACCOUNT_CHECKS if each.group in groups)
        return [*_made(insider, groups=groups), *attacked]


def _made(stranger: Stranger, *, groups: Collection[str]) -> Iterator[Line]:
    return (each.made(stranger) for each in STRANGER_CHECKS if each.group in groups)


def _skipped(reason: str, *, groups: Collection[str]) -> Iterator[Line]:
    return (each.skipped(reason) for each in ACCOUNT_CHECKS if each.group in groups)


def _token(site: Deployment, credentials: Credentials) -> str:
    try:
        return tokens_for(site, credentials.username, credentials.password)[0]
    except NotChecked as reason:
        raise Refusal(f"{reason}.", code="not_signed_in") from None


def _report(console: Console, site: Deployment, lines: list[Line]) -> None:
    counts = {outcome: sum(line.outcome == outcome for line in lines) for outcome in OUTCOMES}
    told = [f"{site.url}, {site.requests} requests"]
    for group in GROUPS:
        if own := [str(line) for line in lines if line.group == group]:
            told += ["", group, *own]
    told += ["", ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count or outcome == FAILED)]
    document = {
        "url": site.url,
        "requests": site.requests,
        "checks": [line.document for line in lines],
        "counts": {word(outcome): count for outcome, count in counts.items()},
    }
    console.show(document, "\n".join(told))
