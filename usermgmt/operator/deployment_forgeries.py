"""What an attacker makes up: access tokens that nobody issued, and origins that look like an allowed one."""

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ABSENT_ID = "01900000-0000-7000-8000-000000000000"
LATE = 9**10  # a time in the year 2080

_HEADERS: Sequence[Mapping[str, Any]] = (
    *({"alg": alg, "typ": "at+jwt"} for alg in ("none", "None", "nOnE", "", "HS256", "HS512", "ES256", "RS512")),
    *(
        {"alg": "ES256", "typ": "at+jwt", "kid": kid}
        for kid in ("../../dev/null", "' OR 1=1--", "x" * 5_000, 1, ["a"], "\ud800")
    ),
    {"alg": "ES256", "jku": "http://127.0.0.1:1/keys", "x5u": "http://127.0.0.1:1/keys"},
    {"alg": "HS256", "jwk": {"kty": "oct", "k": "eA"}},
    {"alg": "ES256", "crit": ["x"], "b64": False},
)


def made_up_tokens() -> Iterator[str]:
    """Tokens without a real one to begin from: no algorithm, foreign keys, broken parts."""
    ids = dict.fromkeys(("sub", "sid", "jti"), ABSENT_ID)
    claims = {"iss": "usermgmt", "aud": "usermgmt", "iat": 1, "exp": LATE, **ids}
    signature = encoded(b"x" * 64)
    for header in _HEADERS:
        yield f"{segment(header)}.{segment(claims)}.{signature}"
    first = segment(_HEADERS[0])
    yield from ("", ".", "..", "a.b.c", "x" * 5_000, f"{first}..", f"{first}.{segment([1])}.{signature}")
    yield f"{encoded(b'[' * 3_000)}.{segment(claims)}.{signature}"
    yield f"{encoded(bytes([0xFF, 0xFE]))}.{segment(claims)}.{signature}"


def forgeries(token: str, keys: Sequence[Mapping[str, Any]], other_id: str) -> Iterator[str]:
    """What can be made of a real token: other spellings, other claims, other algorithms, the public key as a secret."""
    header, payload, signature = token.split(".")
    yield from (token[:-1], f"{token}=", f"{token}.", f"{header}.{payload}.", f"{header}.{payload}", token.swapcase())
    for place in range(2, 12):
        yield token[:-place] + ("A" if token[-place] != "A" else "B") + token[len(token) - place + 1 :]
    claims = _parsed(payload)
    for change in ({"sub": other_id}, {"exp": LATE}, {"aud": "other"}, {"iss": "other"}, {"sid": ABSENT_ID}):
        yield f"{header}.{segment({**claims, **change})}.{signature}"
    for change in ({"alg": "none"}, {"alg": "HS256"}, {"typ": "JWT"}, {"kid": "other"}):
        yield f"{segment({**_parsed(header), **change})}.{payload}.{signature}"
    yield f"{segment({**_parsed(header), 'alg': 'none'})}.{payload}."
    signed = f"{segment({**_parsed(header), 'alg': 'HS256'})}.{payload}"
    for key in keys:
        for secret in spellings_of_key(key):
            yield f"{signed}.{encoded(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def segment(value: Any) -> str:
    """A part of a token."""
    return encoded(json.dumps(value).encode())


def encoded(value: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _parsed(part: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(_decoded(part))
    return parsed


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


# Public keys


def spellings_of_key(jwk: Mapping[str, Any]) -> Iterator[bytes]:
    """A published key in the forms that a careless verifier would take for a shared secret."""
    yield json.dumps(jwk).encode()
    try:
        forms = list(_forms(jwk))
    except (LookupError, TypeError, ValueError):  # not a key that we know
        return
    for label, form in forms:
        body = base64.encodebytes(form).replace(b"\n", b"")
        lines = b"\n".join(body[start : start + 64] for start in range(0, len(body), 64))
        pem = b"-----BEGIN %b-----\n%b\n-----END %b-----" % (label, lines, label)
        yield from (form, pem, pem + b"\n")


def _forms(jwk: Mapping[str, Any]) -> Iterator[tuple[bytes, bytes]]:
    """The key in DER with the label that PEM gives it: RFC 5480 (EC), RFC 8410 (Ed25519), RFC 8017 (RSA)."""
    if jwk.get("crv") == "P-256":
        point = b"\x04" + _decoded(jwk["x"]) + _decoded(jwk["y"])
        yield b"PUBLIC KEY", binascii.unhexlify("3059301306072a8648ce3d020106082a8648ce3d030107034200") + point
    if jwk.get("crv") == "Ed25519":
        yield b"PUBLIC KEY", binascii.unhexlify("302a300506032b6570032100") + _decoded(jwk["x"])
    if jwk.get("kty") == "RSA":
        pkcs1 = _der(0x30, b"".join(_integer(_decoded(jwk[name])) for name in ("n", "e")))
        algorithm = binascii.unhexlify("300d06092a864886f70d0101010500")
        yield b"RSA PUBLIC KEY", pkcs1
        yield b"PUBLIC KEY", _der(0x30, algorithm + _der(0x03, b"\0" + pkcs1))


def _integer(value: bytes) -> bytes:
    digits = value.lstrip(b"\0")
    return _der(0x02, b"\0" + digits if digits[0] >= 0x80 else digits)


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + content


# Origins


def hostile_origins(own: str) -> Iterator[str]:
    """Thirty origins that are not the deployment's own: strangers, and look-alikes of it."""
    scheme, _, netloc = own.partition("://")
    host = re.sub(r":\d+$", "", netloc)
    other = "http" if scheme == "https" else "https"
    yield from ("null", "NULL", "*", "file://", "data:", "about:blank", "chrome-extension://abc", "capacitor://x")
    yield from ("https://evil.example", "http://evil.example", "http://192.0.2.1", "http://[2001:db8::1]")
    for netloc_like in (
        f"evil.{netloc}",
        f"x{netloc}",
        f"evil-{netloc}",
        f"{host}.evil.example",
        f"{host}evil.example",
        f"{host}%00.evil.example",
        f"{host}_.evil.example",
        f"{host}`.evil.example",
        f"evil.example#{netloc}",
        f"evil.example/{netloc}",
        f"{host}@evil.example",
    ):
        yield f"{scheme}://{netloc_like}"
    yield from (
        f"{own}.",
        f"{own}/",
        f"{own}, {own}",
        f"{scheme}://{host}:1",
        f"{other}://{host}:1",
        f"{scheme}:/{host}",
    )
    yield f"{scheme.upper()}://{netloc.upper()}x"
