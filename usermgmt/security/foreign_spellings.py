"""How other systems write password hashes: Django, passlib and PHC, Werkzeug, better-auth, Keycloak, Auth0, Firebase.

Recognised in the forms in which these give them away; refused what is no hash, and plain digests, which protect nobody.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from usermgmt.security.foreign_hashes import (
    ARGON2,
    ARGON2_KINDS,
    VERSION,
    Argon2,
    BcryptOfSha256,
    Firebase,
    HashRefused,
    Pbkdf2,
    Scrypt,
    argon2_of,
    bounded,
    check_cost,
    kept_bcrypt,
    parsed,
    unpadded,
)
from usermgmt.security.hashing import OWN_VERSION

OWN = re.compile(rf"{OWN_VERSION}\$[^$]{{1,64}}\$\$2b\$(\d\d)\$[./A-Za-z0-9]{{53}}")


def recognised(given: object) -> str:
    """The form in which a hash is kept. `given` is a text, or the document of Keycloak, Auth0 or Firebase.

    Raises `HashRefused`.
    """
    if isinstance(given, str):
        found = _from_text(given.strip())
    elif isinstance(given, Mapping):
        found = _from_document(given)
    else:
        found = None
    if found is None:
        raise HashRefused("This is no password hash that is known here.")
    return found


def _from_text(text: str) -> str | None:
    """The kept form of a hash that is one text."""
    if (own := OWN.fullmatch(text)) is not None:  # only who imports says that it is ours: it is bounded like others
        check_cost(own[1])
        return text
    if text.startswith("$2"):
        return kept_bcrypt(text)
    if text.startswith(f"{VERSION}$"):
        found = parsed(text)
        return found.kept() if isinstance(found, Pbkdf2 | Scrypt | Firebase | BcryptOfSha256) else None
    for prefix, reader in _SPELLINGS:
        if text.startswith(prefix):
            try:
                return reader(text.removeprefix(prefix))
            except (ValueError, KeyError, binascii.Error) as error:
                if isinstance(error, HashRefused):
                    raise
                raise HashRefused(f"The hash begins like {prefix!r} and does not go on so.") from None
    match = _BETTER_AUTH.fullmatch(text)
    if match is not None:
        return Scrypt(16384, 16, 1, match[1].encode(), bytes.fromhex(match[2])).kept()
    return None


def _from_document(given: Mapping[str, Any]) -> str | None:
    """The kept form of what an export has as an object."""
    try:
        if "credentialData" in given or "hashIterations" in given:
            return _keycloak(given)
        if "signer_key" in given:
            return _firebase(given)
        if "algorithm" in given and "hash" in given:
            return _auth0(given)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        if isinstance(error, HashRefused):
            raise
        raise HashRefused("The document of the hash is not complete.") from None
    return None


def _keycloak(given: Mapping[str, Any]) -> str:
    """A credential of Keycloak's export, with its two texts of JSON or (before version 8) flat."""
    if "credentialData" in given:
        data, secret = json.loads(given["credentialData"]), json.loads(given["secretData"])
    else:
        data, secret = given, given
    algorithm, rounds = str(data["algorithm"]), int(data["hashIterations"])
    salt, value = base64.b64decode(secret["salt"]), base64.b64decode(secret["value"])
    if algorithm.startswith("argon2"):
        more = {name: values[0] for name, values in data["additionalParameters"].items()}
        kind = f"argon2{more.get('type', 'id')}"
        if kind not in ARGON2_KINDS:
            raise HashRefused("Argon2 is known as argon2id, argon2i and argon2d.")
        return Argon2(kind, int(more["memory"]), rounds, int(more["parallelism"]), salt, value).kept()
    digest = {"pbkdf2": "sha1", "pbkdf2-sha256": "sha256", "pbkdf2-sha512": "sha512"}.get(algorithm)
    if digest is None:
        raise HashRefused("Of Keycloak's algorithms pbkdf2, pbkdf2-sha256, pbkdf2-sha512 and argon2 are known.")
    return Pbkdf2(digest, rounds, salt, value).kept()


def _firebase(given: Mapping[str, Any]) -> str:
    """A row of Firebase's export, with the parameters of its project."""
    return Firebase(
        rounds=int(given["rounds"]),
        mem_cost=int(given["mem_cost"]),
        signer_key=unpadded(given["signer_key"]),
        separator=unpadded(given.get("salt_separator", "")),
        salt=unpadded(given["salt"]),
        expected=unpadded(given["hash"]),
    ).kept()


def _auth0(given: Mapping[str, Any]) -> str | None:
    """Auth0's `custom_password_hash`."""
    algorithm, value = given["algorithm"], given["hash"]["value"]
    if algorithm in {"bcrypt", "argon2", "pbkdf2"}:
        return _from_text(value)
    if algorithm != "scrypt":
        raise HashRefused(
            "Of Auth0's algorithms bcrypt, argon2, pbkdf2 and scrypt are known; a digest protects nobody."
        )
    read: dict[str, Callable[[str], bytes]] = {"hex": bytes.fromhex, "base64": base64.b64decode, "utf8": str.encode}
    salt = given["salt"]
    return Scrypt(
        int(given.get("cost", 16384)),
        int(given.get("blockSize", 8)),
        int(given.get("parallelization", 1)),
        read[salt.get("encoding", "utf8")](salt["value"]),
        read[given["hash"].get("encoding", "base64")](value),
    ).kept()


def _django_pbkdf2(digest: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        rounds, salt, value = text.split("$")
        return Pbkdf2(digest, int(rounds), salt.encode(), base64.b64decode(value)).kept()

    return read


def _passlib_pbkdf2(digest: str) -> Callable[[str], str]:
    """Passlib's `rounds$salt$hash`, and the PHC form `i=rounds,l=length$salt$hash`."""

    def read(text: str) -> str:
        rounds, salt, value = text.split("$")
        if rounds.startswith("i="):
            rounds = rounds.removeprefix("i=").partition(",")[0]
        return Pbkdf2(digest, int(rounds), unpadded(salt), unpadded(value)).kept()

    return read


def _django_scrypt(text: str) -> str:
    salt, n, r, p, value = text.split("$")
    return Scrypt(int(n), int(r), int(p), salt.encode(), base64.b64decode(value)).kept()


def _phc_scrypt(text: str) -> str:
    parameters, salt, value = text.split("$")
    named = dict(each.split("=") for each in parameters.split(","))
    log_n = int(named["ln"])
    bounded("scrypt's ln", log_n, 1, 30)
    return Scrypt(1 << log_n, int(named["r"]), int(named["p"]), unpadded(salt), unpadded(value)).kept()


def _werkzeug_pbkdf2(text: str) -> str:
    method, salt, value = text.split("$")
    digest, rounds = method.split(":")
    return Pbkdf2(digest, int(rounds), salt.encode(), bytes.fromhex(value)).kept()


def _werkzeug_scrypt(text: str) -> str:
    method, salt, value = text.split("$")
    n, r, p = map(int, method.split(":"))
    return Scrypt(n, r, p, salt.encode(), bytes.fromhex(value)).kept()


def _phc_argon2(text: str) -> str:
    match = ARGON2.fullmatch(f"$argon2{text}")
    if match is None:
        raise HashRefused("Argon2 is known in its version 19, as $argon2id$v=19$m=…,t=…,p=…$salt$hash.")
    return argon2_of(match).kept()


_SPELLINGS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("pbkdf2_sha256$", _django_pbkdf2("sha256")),
    ("pbkdf2_sha1$", _django_pbkdf2("sha1")),
    ("argon2$argon2", _phc_argon2),
    ("$argon2", _phc_argon2),
    ("bcrypt_sha256$", lambda text: BcryptOfSha256(text).kept()),
    ("bcrypt$", kept_bcrypt),
    ("scrypt$", _django_scrypt),
    ("$scrypt$", _phc_scrypt),
    ("$pbkdf2-sha256$", _passlib_pbkdf2("sha256")),
    ("$pbkdf2-sha512$", _passlib_pbkdf2("sha512")),
    ("$pbkdf2-sha1$", _passlib_pbkdf2("sha1")),
    ("$pbkdf2$", _passlib_pbkdf2("sha1")),
    ("pbkdf2:", _werkzeug_pbkdf2),
    ("scrypt:", _werkzeug_scrypt),
)
_BETTER_AUTH = re.compile(r"([0-9a-f]{32}):([0-9a-f]{128})")
