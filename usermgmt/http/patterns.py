"""How ids and the names of roles are spelled, in paths, queries and bodies alike."""

import re

ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
ROLE_NAME = r"[a-z][a-z0-9_-]{0,63}"
PARAMETER = re.compile(r"<(?:[^<>]*:)?([A-Za-z_][A-Za-z0-9_]*)>")
"""A parameter in the template of a path, as Werkzeug writes it."""
