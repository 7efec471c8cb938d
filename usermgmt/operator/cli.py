"""`usermgmt`: every command there is, on one screen."""

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click
from click.shell_completion import get_completion_class

from usermgmt import __version__
from usermgmt.errors import ApiError, DatabaseUnavailable, FieldError
from usermgmt.operator.console import Console, Exit, Reason, Refusal, cause_of, pooler_refusal, tell_refusal
from usermgmt.operator.grammar import CONTEXT, Lazy, OperatorGroup, pass_console

NAME = "usermgmt"
EPILOG = """\b
Exit codes:
   0  done
   1  refused or failed
   2  the command line is wrong
  69  the database is away (serve waits for it, then ends with 1)
  78  the settings are wrong, or the schema is not that of this release
 130  interrupted at the keyboard

Settings come from flags, USERMGMT_SECTION__KEY, USERMGMT_SECTION__KEY_FILE and settings.toml, the same for
every command. Where no secret is set but <data_dir>/secret.key exists, the commands take the settings of
`serve --dev`: what was started with it is administered without any option.

Users are named by username, e-mail address or id. A password is asked for, or read from standard
input with --password-stdin; it is never an argument.
"""


class CommandLine(OperatorGroup):
    """The whole command line: a person's mistakes become lines on standard error and an exit code."""

    def main(self, args: Sequence[str] | None = None, *_: Any, **options: Any) -> NoReturn:
        """Run one command, and end the process."""
        words = list(sys.argv[1:] if args is None else args)
        sys.exit(self._run(words, str(options.get("prog_name") or NAME)))

    def _run(self, words: list[str], name: str) -> int:
        """The exit code of one command."""
        is_json = "--json" in words
        try:
            code = super().main(words, prog_name=name, complete_var="_USERMGMT_COMPLETE", standalone_mode=False)
        except click.UsageError as error:
            return _misused(error, is_json=is_json)
        except click.ClickException as error:
            tell_refusal(Refusal(error.format_message()), is_json=is_json)
            return Exit.FAILURE
        except (click.Abort, KeyboardInterrupt):
            click.echo(err=True)
            return Exit.INTERRUPTED
        except (Refusal, ApiError) as error:
            refusal = error if isinstance(error, Refusal) else _refusal_of(error)
            tell_refusal(refusal, is_json=is_json)
            return refusal.exit_code
        return code if isinstance(code, int) else Exit.OK


def _misused(error: click.UsageError, *, is_json: bool) -> int:
    if is_json:
        tell_refusal(Refusal(error.format_message(), code="usage"), is_json=True)
    else:
        error.show()
    return Exit.USAGE


def _refusal_of(error: ApiError) -> Refusal:
    """What the server would have answered, told here: a field a line, an absent database by its cause."""
    if isinstance(error, DatabaseUnavailable):
        if (refusal := pooler_refusal(error)) is not None:
            return refusal
        causes = [Reason(cause_of(error))]
        return Refusal(error.detail, reasons=causes, code=error.code, exit_code=Exit.UNAVAILABLE)
    reasons = [Reason(field.detail, _field_name(field)) for field in error.errors]
    return Refusal(error.detail, reasons=reasons, code=error.code)


def _field_name(field: FieldError) -> str:
    return field.parameter or (field.pointer or "").removeprefix("/")


def _group(summary: str, /, **commands: tuple[str, str]) -> OperatorGroup:
    """A group of lazy commands: name = (where it is, its summary)."""
    lazy = {name: Lazy(f"usermgmt.operator.{path}", text) for name, (path, text) in commands.items()}
    return OperatorGroup(help=summary, lazy={name.replace("_", "-"): lazy[name] for name in lazy})


cli = CommandLine(
    name=NAME,
    help="Run and administer the user-management server.",
    epilog=EPILOG,
    context_settings=CONTEXT,
    lazy={
        "serve": Lazy("usermgmt.operator.serve:serve", "Run the server; --dev for a first look."),
        "seed": Lazy("usermgmt.operator.seed_command:seed", "Make many accounts for load tests."),
        "healthcheck": Lazy("usermgmt.operator.healthcheck:healthcheck", "Ask a running server whether it is ready."),
        "doctor": Lazy("usermgmt.operator.doctor_command:doctor", "Find what is wrong or risky, and how to mend it."),
        "explain": Lazy("usermgmt.operator.explain_command:explain", "Tell why somebody may do something, or may not."),
        "verify-deployment": Lazy(
            "usermgmt.operator.verify_deployment_command:verify_deployment",
            "Attack a running server, and report what held.",
        ),
        "maintain": Lazy("usermgmt.operator.maintain_command:maintain", "Do every chore once, now."),
        "openapi": Lazy("usermgmt.operator.openapi_command:openapi", "Print the OpenAPI document of the API."),
    },
)
cli.add_command(
    _group(
        "Write, check and show the settings.",
        init=("config_commands:init", "Write a settings.toml that documents every key."),
        check=("config_commands:check", "List everything that is wrong with the settings."),
        show=("config_commands:show", "Print the settings; secrets stay hidden."),
    ),
    "config",
)
cli.add_command(
    _group(
        "Make secrets, and see what still needs an old one.",
        list=("secret_commands:list_secrets", "List the root secrets, and what was made with each."),
        generate=("secret_commands:generate", "Print a new root secret."),
    ),
    "secrets",
)
cli.add_command(
    _group(
        "Migrate the database, back it up, move it.",
        upgrade=("db_commands:upgrade", "Apply the migrations that are pending."),
        downgrade=("db_commands:downgrade", "Undo migrations."),
        current=("db_commands:current", "Print the revision of the database."),
        check=("db_commands:check", "Tell by the exit code whether the schema is current."),
        plan=("plan_command:plan", "Tell what migrations would lock, and for how long."),
        backup=("backup_commands:backup", "Write the whole database to a file."),
        restore=("backup_commands:restore", "Put a backup into the database."),
        copy=("copy_command:copy", "Move everything to another database: SQLite, PostgreSQL."),
    ),
    "db",
)
cli.add_command(
    _group(
        "Make administrators, and let one back in.",
        create=("admin_commands:create", "Make an account with the admin role."),
        reset_password=("admin_commands:reset_password", "Set a password and enable the account: the way back in."),
    ),
    "admin",
)
cli.add_command(
    _group(
        "Look after accounts.",
        list=("user_commands:list_users", "List accounts."),
        show=("user_commands:show", "Show one account."),
        create=("user_commands:create", "Make an account."),
        disable=("user_commands:disable", "Keep an account from signing in; its sessions end."),
        enable=("user_commands:enable", "Let an account sign in again."),
        unlock=("user_commands:unlock", "Forget the failed sign-ins of an account."),
        erase=("user_commands:erase", "Erase an account for good."),
        export=("import_commands:export", "Write every account to a file."),
        **{"import": ("import_commands:import_file", "Make the accounts of a file, with the hashes they have.")},
    ),
    "users",
)
cli.add_command(
    _group(
        "Measure what hashing costs here.",
        calibrate=("calibrate_command:calibrate", "Propose the settings of hashing for this machine."),
    ),
    "passwords",
)
cli.add_command(
    _group(
        "See roles, give them and take them away.",
        list=("role_commands:list_roles", "List roles."),
        show=("role_commands:show", "Show what a role permits."),
        grant=("role_commands:grant", "Give a role to an account."),
        revoke=("role_commands:revoke", "Take a role from an account."),
    ),
    "roles",
)
cli.add_command(
    _group(
        "Put accounts into groups, over which roles can be held.",
        list=("group_commands:list_groups", "List the groups."),
        create=("group_commands:create", "Make a group."),
        delete=("group_commands:delete", "Remove a group."),
        add=("group_commands:add", "Put an account into a group."),
        remove=("group_commands:remove", "Take an account out of a group."),
    ),
    "groups",
)
cli.add_command(
    _group(
        "See who is signed in where, and end it.",
        list=("session_commands:list_sessions", "List the sessions of an account."),
        revoke=("session_commands:revoke", "End a session, or all of an account."),
    ),
    "sessions",
)
cli.add_command(
    _group(
        "Read the record of who did what, and verify it.",
        list=("audit_commands:list_events", "List what is on record."),
        verify=("audit_commands:verify", "Tell whether somebody touched the record."),
        checkpoint=("audit_commands:checkpoint", "Print the end of the chain, to keep elsewhere."),
        prune=("audit_commands:prune", "Remove what is older than its retention."),
    ),
    "audit",
)
cli.add_command(
    _group(
        "Decide which networks may call.",
        list=("ip_rule_commands:list_rules", "List the IP rules."),
        add=("ip_rule_commands:add", "Allow or deny a network."),
        remove=("ip_rule_commands:remove", "Remove a rule."),
        check=("ip_rule_commands:check", "Tell whether an address may call, and why."),
        suspend=("ip_rule_commands:suspend", "Break the glass: let everybody call again."),
    ),
    "ip-rules",
)
cli.add_command(
    _group(
        "Rotate the keys that sign access tokens.",
        list=("key_commands:list_keys", "List the signing keys."),
        rotate=("key_commands:rotate", "Make a new key; nobody is signed out."),
        retire=("key_commands:retire", "Stop trusting a key at once."),
    ),
    "keys",
)


@cli.command()
@pass_console
def version(console: Console) -> None:
    """Print the version."""
    console.show({"version": __version__}, f"usermgmt {__version__}")


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@pass_console
def completion(console: Console, shell: str) -> None:
    """Print the completion script of a shell.

    For example, in ~/.bashrc: eval "$(usermgmt completion bash)"
    """
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(cli, {}, NAME, "_USERMGMT_COMPLETE").source()
    console.show({"shell": shell, "script": script}, script)


def main() -> NoReturn:
    """Run the command that the process was called with."""
    cli.main()
