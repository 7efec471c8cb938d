"""The imports, read without running anything: every arrow is one that the architecture allows."""

import ast
import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "usermgmt"
SLICES = (
    "auth",
    "personal_data",
    "users",
    "sessions",
    "groups",
    "roles",
    "throttle",
    "ip_rules",
    "audit",
    "idempotency",
    "signing_keys",
    "health",
    "imports",
    "maintenance",
    "root_secrets",
)
SHARED = ("http", "security", "settings", "storage", "telemetry")

# what a slice may call, the lower slices; audit, idempotency and signing_keys stand on nothing but audit
BELOW: dict[str, tuple[str, ...]] = {
    "auth": ("users", "sessions", "groups", "roles", "throttle", "audit"),
    "personal_data": ("users", "sessions", "groups", "roles", "idempotency", "audit"),
    "users": ("sessions", "groups", "roles", "throttle", "idempotency", "audit"),
    "sessions": ("groups", "roles", "audit"),
    "groups": ("roles", "audit"),
    "roles": ("audit",),
    "throttle": (),
    "ip_rules": ("roles", "audit"),
    "signing_keys": ("audit",),
    "audit": (),
    "idempotency": (),
    "health": (),
    "imports": ("users", "groups", "roles", "audit"),
    "maintenance": (),
    "root_secrets": (),
}

FILES = {"__init__", "routes", "schemas", "service", "queries", "models"}
MORE_FILES = {
    # the list with its statements, the coalesced read, each kind of use case with the proof before changes, what
    # stands between these and HTTP, and the fields of requests fill a file each
    "users": {
        "lists",
        "list_statements",
        "reads",
        "rows",
        "registration",
        "changes",
        "grants",
        "ownership",
        "translation",
        "fields",
    },
    "ip_rules": {"in_force"},  # what every call is held against, beside keeping the rules
    "auth": {"refreshing"},  # what becomes of a stolen refresh token is a subject of its own beside signing in
    "roles": {"held"},  # what an account holds, as columns of others' statements
    "health": {"measures"},  # what is counted is taken apart from telling it
    "imports": {
        "reading",
        "rows",
        "batches",
        "exporting",
    },  # files as they come and go, what a row may hold, and rows becoming accounts
    "groups": {"reach"},  # the WHERE clause that confines a statement to whom a right reaches
    # the vocabulary, which the marks above handlers use too, and the seals
    "audit": {"events", "digests", "seals", "verification", "measures"},
}

ANY_SHARED = (
    "errors",
    "permissions",
    "identifiers",
    "clock",
    "settings",
    "settings.values",
    "security.*",
    "storage.*",
    "runtime",
    "telemetry.metrics",
)
# what a statement may join or be confined by: the account that its rows belong to, and the groups that it is in
OWNERS = ("users.models", "groups.models", "groups.reach", "roles.held")

# use cases beside those of a slice's service
MORE_USE_CASES = (
    "auth.refreshing",
    "ip_rules.in_force",
    "users.registration",
    "users.changes",
    "users.grants",
    "imports.batches",
    "imports.exporting",
)

# Who may import what, inside the package; the first row whose pattern fits decides. {own} is the slice itself, {below}
# each slice beneath it. Everything not listed is refused.
ALLOWED: tuple[tuple[str, tuple[str, ...]], ...] = (
    # what everything stands on knows nothing of what stands on it
    ("errors", ()),
    ("permissions", ()),
    ("identifiers", ()),
    ("clock", ()),
    ("strict_json", ("errors",)),  # bodies, files and what a database gives back share its bounds
    ("settings*", ("settings*",)),
    ("security.*", ("errors", "permissions", "identifiers", "security.*")),
    ("storage.*", ("errors", "settings", "strict_json", "security.*", "storage.*", "telemetry.*")),
    ("telemetry.*", ("settings", "telemetry.*", "")),
    ("runtime", ("clock", "settings", "security.*", "storage.*", "telemetry.metrics", "telemetry.tracing")),
    # the command that writes the README's table makes an application to read its routes
    ("http.route_table", ("app", "settings", "http.*")),
    # marks name events, so that documentation, enforcement and tests read one line
    ("http.access", ("errors", "permissions", "settings", "audit.events")),
    ("http.paging", ("http.*", "storage.pages")),
    ("http.budgets", ("errors", "settings", "runtime", "http.*", "storage.counters", "telemetry.metrics")),
    ("http.pipeline", ("errors", "permissions", "runtime", "security.*", "http.*", "telemetry.*")),
    ("http.fields", ("clock", "http.patterns")),  # a time that is kept is one that a clock could have told
    ("http.traces", ("http.management", "telemetry.*")),
    ("http.problems", ("errors", "http.*", "telemetry.error_tracking")),
    ("http.*", ("errors", "permissions", "settings", "runtime", "strict_json", "security.*", "http.*", "")),
    # tables stand on types alone; statements may join the tables of lower slices
    ("{slice}.models", ("storage.types",)),
    ("{slice}.events", ()),
    ("imports.reading", ("errors", "strict_json")),
    ("imports.rows", ("errors", "clock", "security.*", "users.models")),
    ("health.measures", ("runtime", "telemetry.metrics")),
    (
        "health.routes",
        ("errors", "http.*", "telemetry.metrics", "{own}.measures", "{own}.service", "{own}.schemas"),
    ),
    ("users.fields", ("http.fields", "http.patterns", "security.names", "{own}.models")),
    (
        "imports.routes",
        (
            "http.*",
            "errors",
            "permissions",
            "runtime",
            "security.principal",
            "audit.events",
            "{own}.*",
        ),
    ),
    ("imports.schemas", ("errors", "http.fields", "{own}.service", "{own}.batches")),
    ("imports.queries", ("{own}.rows", "{below}.models", "storage.*", "permissions")),
    ("audit.digests", ("{own}.events",)),
    ("audit.queries", ("{own}.models", "{own}.events", *OWNERS, "storage.*", "permissions")),
    ("audit.seals", (*ANY_SHARED, "{own}.*")),
    ("audit.verification", (*ANY_SHARED, "{own}.*")),
    ("audit.measures", ("runtime", "telemetry.metrics", "{own}.*")),
    ("groups.reach", ("{own}.models", "permissions", "storage.wanted")),
    ("roles.held", ("{own}.models", "permissions", "storage.wanted")),
    # what a token's issuing is on record as
    ("auth.queries", ("{below}.models", "audit.events", *OWNERS, "storage.*", "permissions")),
    ("{slice}.queries", ("{own}.models", "{below}.models", *OWNERS, "storage.*", "permissions", "errors")),
    ("users.rows", ("groups.reach", "roles.held")),
    ("users.reads", ("{own}.models", "{own}.rows", *OWNERS, "storage.*")),
    ("{slice}.list_statements", ("{own}.models", "{own}.rows", "{below}.models", *OWNERS, "permissions")),
    (
        "{slice}.lists",
        ("{own}.models", "{own}.rows", "{own}.list_statements", *OWNERS, "storage.*", "permissions", "errors"),
    ),
    # use cases never see HTTP
    (
        "users.ownership",
        (*ANY_SHARED, "{own}.queries", "{own}.models", "{below}.service", "{below}.events"),
    ),
    # what a chore fails with is told to whoever collects errors
    ("maintenance.service", (*ANY_SHARED, "{own}.*", "telemetry.error_tracking")),
    (
        "imports.exporting",  # what is exported is a list
        (
            *ANY_SHARED,
            "{own}.*",
            "users.lists",
            "{below}.service",
            "{below}.queries",
            "{below}.models",
            "{below}.events",
        ),
    ),
    (
        "{slice}.service",
        (*ANY_SHARED, "{own}.*", "{below}.service", "{below}.queries", "{below}.models", "{below}.events"),
    ),
    *(
        (module, (*ANY_SHARED, "{own}.*", "{below}.service", "{below}.queries", "{below}.models", "{below}.events"))
        for module in MORE_USE_CASES
    ),
    # schemas name what use cases take and give, and validate by the password policy of the runtime
    (
        "{slice}.schemas",
        (
            "http.answers",
            "http.fields",
            "http.patterns",
            "permissions",
            "runtime",
            "security.names",
            "security.address",
            "security.rule_book",
            "{own}.models",
            "{own}.fields",
            "{below}.models",
            "{own}.events",
            "{own}.lists",
            "{own}.queries",
            "{own}.service",
            "{below}.queries",
            "{below}.service",
            "{below}.schemas",
        ),
    ),
    # what a request asks for and what an answer shows, where that fills more than the routes
    (
        "users.translation",
        (
            "http.*",
            "errors",
            "storage.pages",
            "{own}.schemas",
            "{own}.service",
            "{own}.registration",
            "{own}.changes",
            "{own}.models",
            "{below}.service",
        ),
    ),
    # routes translate: they know HTTP, their own slice, and the refusals of lower ones
    (
        "{slice}.routes",
        (
            "http.*",
            "errors",
            "permissions",
            "settings",
            "storage.pages",
            "audit.events",
            "{own}.schemas",
            "{own}.service",
            "{own}.refreshing",
            "{own}.registration",
            "{own}.changes",
            "{own}.grants",
            "{own}.ownership",
            "{own}.translation",
            "{own}.models",
            "{below}.service",
        ),
    ),
    # what puts the parts together
    ("schema", ("{slice}.models", "storage.types")),
    (
        "app",
        (
            "http.*",
            "runtime",
            "settings",
            "chores",
            "{slice}.routes",
            "{slice}.service",
            "ip_rules.in_force",
            "audit.seals",
            "health.*",
            "telemetry.tracing",
            "telemetry.error_tracking",
        ),
    ),
    # the one place that plugins import from: nothing of its own but short ways to what others have
    (
        "extending",
        (
            "http.access",
            "http.answers",
            "http.context",
            "http.fields",
            "errors",
            "permissions",
            "identifiers",
            "audit.service",
            "audit.events",
        ),
    ),
    (
        "chores",
        ("settings", "{slice}.service", "ip_rules.in_force", "audit.seals", "audit.measures", "health.measures"),
    ),
    ("operator.*", ("*",)),
    ("", ()),
)

# Libraries that only some may know, and why
LIBRARIES: dict[str, tuple[str, ...]] = {
    "quart": ("http.*", "*.routes"),  # HTTP ends at the routes
    "werkzeug": ("http.*",),
    "quart_cors": ("http.cross_origin",),
    "quart_rate_limiter": ("http.budgets",),
    "redis": ("storage.counters",),
    "quart_schema": ("http.openapi",),
    "hypercorn": ("operator.*", "http.connection", "http.requests"),  # there the types of its messages
    "h11": ("operator.http1",),
    "h2": ("operator.http2",),
    "hyperframe": ("operator.http2",),
    "granian": ("operator.granian_server",),
    "click": ("operator.*",),
    "alembic": ("operator.*",),
    "uvloop": ("operator.*",),
    # one place each for what must be right
    "bcrypt": ("security.hashing", "security.foreign_hashes", "operator.calibrate_command",),
    "jwt": ("security.*",),
    "cryptography": ("security.*", "operator.doctor_network_checks"),  # there it reads certificates
    "precis_i18n": ("security.names",),
    "email_validator": ("security.names",),
    "uuid_utils": ("identifiers",),
    "sqlalchemy": ("storage.*", "*.models", "*.queries", "users.lists", "users.list_statements", "users.reads",
                   "groups.reach", "roles.held", "*.service", *MORE_USE_CASES,
                   "audit.seals", "audit.verification", "operator.*", "settings.values", "extending"),
    "asyncpg": ("storage.faults", "storage.engines", "storage.rows", "storage.bulk", "storage.watchdog", "operator.*"),
    "pydantic": ("http.*", "*.schemas", "users.fields", "settings*", "operator.*"),
    "pydantic_core": ("http.*", "settings*"),
    "msgspec": ("http.*", "*.schemas", "*.routes", "users.translation", "operator.*"),
    "prometheus_client": ("telemetry.metrics",),
    # extras, imported only where a setting asks for them
    "opentelemetry": ("telemetry.spans",),
    "sentry_sdk": ("telemetry.sentry",),
    "structlog": ("maintenance.service", "root_secrets.service", "audit.seals",
                  "storage.counters", "storage.watchdog", "http.*", "telemetry.*", "operator.*"),
    "hypothesis": (),
    "pytest": (),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Arrow:
    """One import."""

    module: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"usermgmt/{self.module.replace('.', '/')}.py:{self.line} imports {self.imported or 'usermgmt'}"


@cache
def trees() -> dict[str, ast.Module]:
    """Every module of the package, by its name inside it."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix("__init__").rstrip(".") if name.endswith("__init__") else name] = ast.parse(
            path.read_text(encoding="utf-8")
        )
    return found


def imports(name: str) -> Iterator[tuple[str, int]]:
    """What a module imports, by full name; relative imports are refused on sight."""
    for node in ast.walk(trees()[name]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno} imports relatively"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def arrows() -> list[Arrow]:
    """Every import of one module of ours by another."""
    found = []
    for name in trees():
        for imported, line in imports(name):
            package, _, inner = imported.partition(".")
            if package == "usermgmt":
                module = inner if inner in trees() else inner.rpartition(".")[0]
                assert module in trees(), f"{name}:{line} imports {imported}"
                found.append(Arrow(name, module, line))
    return found


def slice_of(module: str) -> str | None:
    first = module.partition(".")[0]
    return first if first in SLICES else None


def fits(module: str, pattern: str) -> bool:
    if "{slice}" in pattern:
        return any(fnmatch.fnmatch(module, pattern.replace("{slice}", name)) for name in SLICES)
    return fnmatch.fnmatch(module, pattern)


def allowed(arrow: Arrow) -> bool:
    patterns = next((patterns for pattern, patterns in ALLOWED if fits(arrow.module, pattern)), ())
    own = slice_of(arrow.module)
    for pattern in patterns:
        if "{below}" in pattern:
            candidates = [pattern.replace("{below}", name) for name in BELOW[own or ""]]
        else:
            candidates = [pattern.replace("{own}", own or "")]
        if any(fits(arrow.imported, candidate) for candidate in candidates):
            return True
    return False


def test_every_import_is_an_allowed_arrow():
    assert [str(arrow) for arrow in arrows() if not allowed(arrow)] == []


def test_the_rules_notice_what_they_are_for():
    for module, imported in [
        ("users.service", "http.context"),  # a use case that knows HTTP
        ("users.queries", "users.service"),
        ("users.queries", "audit.service"),
        ("roles.service", "users.queries"),  # upwards
        ("sessions.service", "auth.service"),
        ("audit.service", "users.models"),
        ("security.hashing", "users.models"),
        ("storage.database", "runtime"),
        ("http.pipeline", "audit.service"),
        ("http.body", "users.schemas"),
        ("users.models", "roles.models"),
        ("users.routes", "users.queries"),
        ("users.routes", "auth.refreshing"),
        ("users.grants", "auth.service"),
        ("users.routes", "sessions.queries"),
        ("users.schemas", "http.context"),
        ("auth.routes", "operator.serve"),
        ("errors", "settings"),
        ("health.service", "users.queries"),
        ("nowhere.special", "errors"),
    ]:
        assert not allowed(Arrow(module, imported, 1)), f"{module} -> {imported}"


def test_no_import_goes_in_a_circle():
    known: dict[str, set[str]] = {name: set() for name in trees()}
    for arrow in arrows():
        is_inside_a_function = arrow.module == "http.route_table"  # imports the application when it is run
        if not is_inside_a_function:
            known[arrow.module].add(arrow.imported)
    list(TopologicalSorter(known).static_order())


def test_only_those_who_need_a_library_know_it():
    wrong = [
        f"{name}:{line} imports {imported}"
        for name in trees()
        for imported, line in imports(name)
        if (library := imported.partition(".")[0]) in LIBRARIES
        if not any(fnmatch.fnmatch(name, pattern) for pattern in LIBRARIES[library])
    ]
    assert wrong == []


# Folders and files


def test_a_slice_has_the_files_of_a_slice_and_no_folder():
    for name in SLICES:
        folder = PACKAGE / name
        assert [path.name for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"] == []
        files = {path.stem for path in folder.iterdir() if path.is_file()}
        assert files - FILES - MORE_FILES.get(name, set()) == set(), name
        empty = [path.name for path in folder.glob("*.py") if path.stem != "__init__" and not path.read_text().strip()]
        assert empty == []


def test_every_folder_is_a_slice_or_shared():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - {"operator", "migrations"} == {*SLICES, *SHARED}


def test_an_init_holds_nothing_but_the_version_and_the_names_of_the_settings():
    for path in PACKAGE.rglob("__init__.py"):
        code = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if not isinstance(node, ast.Expr)]
        # one module a subject inside, one place to name them from outside
        of_settings = ["__all__"] if path.parent == PACKAGE / "settings" else []
        expected = ["__version__"] if path.parent == PACKAGE else of_settings
        held = [node for node in code if not (of_settings and isinstance(node, ast.ImportFrom))]
        assert [ast.unparse(node).partition(" ")[0] for node in held] == expected, path


# What each kind of file holds


def functions(*patterns: str) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    return [
        (f"{name}.{node.name}", node)
        for name, tree in trees().items()
        if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def first_argument(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    arguments = [*node.args.posonlyargs, *node.args.args]
    return arguments[0].arg if arguments else ""


def test_a_query_takes_an_open_session_and_neither_opens_nor_ends_a_transaction():
    for name, node in functions(*(f"{each}.queries" for each in SLICES), "users.lists", "users.reads"):
        if isinstance(node, ast.AsyncFunctionDef):
            gives_rows = node.name.startswith("fetch_") or name == "users.lists.list_page"
            assert first_argument(node) == ("rows" if gives_rows else "session"), name
        calls = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
        assert {"commit", "rollback", "begin", "read"} & calls == set(), name


def test_a_query_is_named_for_what_it_does():
    verbs = r"(find|fetch|list|insert|update|delete|count|lock|has|replace|estimate)_"
    for name, node in functions(*(f"{each}.queries" for each in SLICES)):
        if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_"):
            assert re.match(verbs, node.name), name


def test_a_use_case_takes_the_runtime_or_the_transaction_of_another():
    for name, node in functions(*(f"{each}.service" for each in SLICES), *MORE_USE_CASES):
        if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_"):
            assert first_argument(node) in ("runtime", "session", "connection"), name


def test_a_handler_is_short_and_touches_no_database():
    for name, node in functions(*(f"{each}.routes" for each in SLICES)):
        if not isinstance(node, ast.AsyncFunctionDef) or not node.decorator_list:
            continue
        body = node.body[1:]
        assert ast.get_docstring(node), name
        assert (body[-1].end_lineno or 0) - body[0].lineno + 1 <= 6, name
        attributes = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
        assert {"database", "begin", "session", "hasher"} & attributes == set(), name


def test_nothing_in_the_package_knows_the_operator_but_the_operator():
    known = [arrow for arrow in arrows() if arrow.imported.startswith("operator")]
    assert [str(arrow) for arrow in known if not arrow.module.startswith("operator")] == []
