"""The table of routes, generated from the marks: `python -m usermgmt.http.route_table README.md` writes it there."""

import sys
from pathlib import Path

from quart import Quart

from usermgmt.http.access import AccessRule, BudgetName, Who, marks_of

BEGIN, END = "<!-- routes:begin -->", "<!-- routes:end -->"
HEADING = "| method | path | who | budget | what it does |\n|---|---|---|---|---|\n"


def route_table(app: Quart) -> str:
    """Every route in the order of paths: method, path, who may call, what it spends, what it does."""
    rows = []
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        marks = marks_of(view)
        assert marks.access is not None
        (method,) = (rule.methods or set()) - {"HEAD", "OPTIONS"}
        budget = "–" if marks.budget in (None, BudgetName.NONE) else str(marks.budget)
        says = (view.__doc__ or "").strip().partition("\n")[0]
        rows.append((_plain(rule.rule), method, f"{who_may(marks.access)} | {budget} | {says}"))
    return HEADING + "".join(f"| {method} | `{path}` | {rest} |\n" for path, method, rest in sorted(rows))


def who_may(rule: AccessRule) -> str:
    """A rule in words."""
    if rule.who is Who.ANYONE:
        return "anyone"
    if rule.who is Who.IDENTIFIED:
        return "anyone with a token"
    words = f"`{rule.permission}`" if rule.permission is not None else "signed in"
    if rule.confinable:
        words += " (also over a group)"
    if rule.or_self is not None:
        words = f"self, or {words}"
    if rule.or_when is not None:
        words = f"anyone while {rule.or_when.__name__.replace('_', ' ')}, else {words}"
    return f"{words}, recently signed in" if rule.fresh else words


def with_table(text: str, table: str) -> str:
    """A document with its table renewed between the two markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table}{END}{after}"


def _plain(path: str) -> str:
    """A path as documentation writes it: `<id>` rather than the router's converters."""
    return path.replace("<user_ref:user_id>", "<id>").replace("<role_name:", "<").replace("<id:", "<")


def main(path: Path) -> None:
    """Renew the table in a file."""
    from usermgmt.app import create_app  # noqa: PLC0415 - the application imports this package
    from usermgmt.settings import load_settings  # noqa: PLC0415

    keyless = {"secret.keys": "nothing-is-signed-while-a-table-is-made", "database.url": "sqlite+aiosqlite:///:memory:"}
    app = create_app(load_settings(flags=keyless, environ={}))
    path.write_text(with_table(path.read_text(encoding="utf-8"), route_table(app)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
