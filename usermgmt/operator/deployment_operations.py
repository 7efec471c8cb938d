"""Which operations a deployment has, and how to call each against somebody else's account."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from usermgmt.operator.deployment_client import Deployment

METHODS = ("get", "put", "post", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation that needs a token, and unless everybody may who has one, a right."""

    method: str
    path: str
    can_forbid: bool = True

    def filled(self, values: Mapping[str, str]) -> str:
        """Its path with these values; raises `KeyError` for a name without one."""
        return self.path.format_map(values)


SIGNED_IN_ONLY = ("/api/auth/session", "/api/permissions")
RESTRICTED: Mapping[str, str] = {
    "/api/audit": "GET",
    "/api/groups": "GET POST",
    "/api/groups/{group_id}": "DELETE GET PUT",
    "/api/groups/{group_id}/members/{user_id}": "DELETE PUT",
    "/api/ip-rules": "GET POST",
    "/api/ip-rules/{rule_id}": "DELETE GET PUT",
    "/api/roles": "GET POST",
    "/api/roles/{name}": "DELETE GET PUT",
    "/api/users": "GET",
    "/api/users/import": "POST",
    "/api/users/{user_id}": "DELETE GET PATCH PUT",
    "/api/users/{user_id}/activity": "GET",
    "/api/users/{user_id}/erase": "POST",
    "/api/users/{user_id}/export": "GET",
    "/api/users/{user_id}/restore": "POST",
    "/api/users/{user_id}/roles": "GET",
    "/api/users/{user_id}/roles/{role}": "DELETE PUT",
    "/api/users/{user_id}/sessions": "DELETE GET",
    "/api/users/{user_id}/sessions/{session_id}": "DELETE",
}
BUILT_IN = (
    *(Operation("GET", path, can_forbid=False) for path in SIGNED_IN_ONLY),
    *(Operation(method, path) for path, methods in RESTRICTED.items() for method in methods.split()),
)
"""The operations of this release."""


def operations_of(site: Deployment) -> Sequence[Operation]:
    """The operations that need a token: those the deployment documents, else those of this release."""
    answer = site.call("GET", "/openapi.json")
    document = answer.json() if answer.status == 200 else None
    return documented(document) if isinstance(document, dict) and document.get("paths") else BUILT_IN


def documented(document: Mapping[str, Any]) -> list[Operation]:
    """The operations of an OpenAPI document that cannot be called without a token."""
    return [
        Operation(method.upper(), path, "403" in operation["responses"])
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS and operation.get("security") and {} not in operation["security"]
    ]
