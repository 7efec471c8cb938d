"""Blueprints of others, named by `plugins.blueprints`: found, registered, and held to what our own routes are held to.

A plugin may add routes. It may not take one that is there, nor add steps before or after the requests of others.
"""

import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from quart import Blueprint, Quart
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule

from usermgmt.http import patterns

RESERVED = frozenset({"documentation", "health", "metrics", "static"})
"""Names of blueprints that the pipeline treats otherwise, whether they are there or not."""
IMPLIED = {"HEAD", "OPTIONS"}
HOOKS = ("before_request_funcs", "after_request_funcs", "teardown_request_funcs", "url_value_preprocessors")
SAMPLES = ("01890000-0000-7000-8000-000000000000", "me", "a", "1", "1.5", "a/b", *("x" * n for n in range(2, 65)))
"""What path parameters may be; those that a parameter accepts are tried."""


class PluginRefused(Exception):
    """A plugin that cannot be served: which one, and why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} {reason}")


def load(path: str) -> Blueprint:
    """The blueprint at `package.module:attribute`. Raises `PluginRefused`."""
    module, _, attribute = path.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:
        raise PluginRefused(path, f"cannot be imported: {_told(error)}") from error
    if not isinstance(found, Blueprint):
        raise PluginRefused(path, f"is no quart.Blueprint but a {type(found).__name__}")
    return found


def install(app: Quart, paths: tuple[str, ...]) -> Mapping[str, str]:
    """Register plugins after our own blueprints; gives the plugin of each of their endpoints.

    Raises `PluginRefused`.
    """
    owners: dict[str, str] = {}
    for path in paths:
        known, hooks = set(app.view_functions), _hooks(app)
        _register(app, path, load(path))
        if _hooks(app) != hooks:
            raise PluginRefused(path, "adds steps or error handlers for the requests of others; keep them to itself")
        owners |= dict.fromkeys(set(app.view_functions) - known, path)
    if owners:
        _check_routes(app, owners)
    return owners


def _register(app: Quart, path: str, blueprint: Blueprint) -> None:
    if blueprint.name in RESERVED | set(app.blueprints):
        raise PluginRefused(path, f"is called {blueprint.name!r}, as another blueprint is; give it a name of its own")
    try:
        app.register_blueprint(blueprint)
    except Exception as error:
        raise PluginRefused(path, f"cannot be registered: {_told(error)}") from error


def _check_routes(app: Quart, owners: Mapping[str, str]) -> None:
    """Refuse what the pipeline would not cover, and two routes for one request."""
    for rule in app.url_map.iter_rules():
        owner = owners.get(rule.endpoint)
        if owner is not None and rule.websocket:
            raise PluginRefused(owner, f"has a websocket at {rule.rule}, which no mark and no budget would cover")
        if owner is not None and not inspect.iscoroutinefunction(app.view_functions[rule.endpoint]):
            raise PluginRefused(owner, f"answers {rule.rule} with a function that is not `async def`")
        for method, other in _taken(app, rule):
            guilty = owner or owners.get(other.endpoint)
            if guilty is not None:
                raise PluginRefused(guilty, f"has a route that another one takes: {method} {rule.rule}, {other.rule}")


def _taken(app: Quart, rule: Rule) -> Iterator[tuple[str, Rule]]:
    """The methods of a rule whose requests another rule answers, and that other."""
    routes = app.url_map.bind("")
    for path in _paths(rule):
        for method in sorted((rule.methods or set()) - IMPLIED):
            try:
                answering, _ = routes.match(path, method, return_rule=True)
            except HTTPException:  # not one of its own paths after all: a sample that its converter refuses
                continue
            if answering.endpoint != rule.endpoint:
                yield method, answering


def _paths(rule: Rule) -> set[str]:
    """Paths that a rule is for."""
    accepted = {
        name: [sample for sample in SAMPLES if re.fullmatch(converter.regex, sample)] or ["x"]
        for name, converter in rule._converters.items()
    }

    def path(turn: int) -> str:
        return patterns.PARAMETER.sub(
            lambda found: (values := accepted[found[1]])[min(turn, len(values) - 1)], rule.rule
        )

    return {path(turn) for turn in range(4)}


def _hooks(app: Quart) -> dict[str, Any]:
    """What is done for every request."""
    handlers = {code: dict(found) for code, found in app.error_handler_spec.get(None, {}).items() if found}
    steps: dict[str, list[Callable[..., Any]]] = {name: list(getattr(app, name).get(None, ())) for name in HOOKS}
    return {**steps, "error_handler_spec": handlers}


def _told(error: Exception) -> str:
    """An exception in one line, and where it was raised if that is in a file of the plugin."""
    told = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    ours = [frame for frame in frames if "importlib" not in frame.filename and Path(frame.filename).is_file()]
    if not ours or ours[-1].filename.startswith(sys.base_prefix):
        return told
    return f"{told} ({Path(ours[-1].filename).name}, line {ours[-1].lineno})"
