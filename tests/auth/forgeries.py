"""Access tokens that nobody may accept, made from one that is good.

Those that are wrong in what they say are signed with the real key, so that only their content can be the reason to
refuse them.
"""

import base64
import hashlib
import hmac
import json
import string
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from usermgmt.security.keys import RingKey

Forgery = tuple[str, str]
"""What is wrong with a token, and the token."""

HMACS = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
BASE64URL = string.ascii_letters + string.digits + "-_"


class Forger:
    """Makes forgeries of one good token, whose key it holds."""

    def __init__(self, token: str, key: RingKey, *, now: datetime, other_user: str, refresh_token: str) -> None:
        self.token = token
        self.segments = token.split(".")
        self.header: dict[str, Any] = json.loads(decode(self.segments[0]))
        self.claims: dict[str, Any] = json.loads(decode(self.segments[1]))
        self.key = key
        self.now = int(now.timestamp())
        self.other_user = other_user
        self.refresh_token = refresh_token

    def signed(self, header: Any = None, payload: Any = None, *, key: Any = None) -> str:
        """A token with this header and payload (bytes are taken as they are), signed with the real key or this one."""
        first = self.segments[0] if header is None else encode(raw(header))
        second = self.segments[1] if payload is None else encode(raw(payload))
        algorithm = jwt.get_algorithm_by_name(self.key.algorithm)
        return f"{first}.{second}.{encode(algorithm.sign(f'{first}.{second}'.encode(), key or self.key.private))}"

    def without(self, name: str) -> dict[str, Any]:
        """The claims but one."""
        return {claim: value for claim, value in self.claims.items() if claim != name}

    def with_header(self, **fields: Any) -> str:
        """The real header with fields changed or added, signed with the real key."""
        return self.signed({**self.header, **fields})

    def with_claims(self, **fields: Any) -> str:
        """The real claims with some changed or added, signed with the real key."""
        return self.signed(None, {**self.claims, **fields})

    # E01, E02: the algorithm

    def unsigned(self) -> Iterator[Forgery]:
        """`none` in every case and with every kind of signature."""
        for algorithm in ("none", "None", "NONE", "nOnE", "", None, 0, [], ["none"], {}):
            first = encode(raw({**self.header, "alg": algorithm}))
            for signature in ("", self.segments[2], "AA", encode(b"\0" * 64)):
                yield f"alg {algorithm!r}, signature {signature[:9]!r}", f"{first}.{self.segments[1]}.{signature}"
        yield "no signature", f"{self.segments[0]}.{self.segments[1]}."
        yield "no alg", self.signed({name: value for name, value in self.header.items() if name != "alg"})

    def symmetric(self) -> Iterator[Forgery]:
        """HMAC with the public key, in every form in which it is known, taken for the secret."""
        public = self.key.private.public_key()
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        pem = public.public_bytes(serialization.Encoding.PEM, spki)
        forms = {
            "PEM": pem,
            "PEM without its last newline": pem.rstrip(),
            "DER": public.public_bytes(serialization.Encoding.DER, spki),
            "OpenSSH": public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH),
            "JWK": json.dumps(self.key.jwk()).encode(),
            "kid": self.key.kid.encode(),
            "nothing": b"",
        }
        if isinstance(public, rsa.RSAPublicKey):
            pkcs1 = serialization.PublicFormat.PKCS1
            forms["PKCS1 PEM"] = public.public_bytes(serialization.Encoding.PEM, pkcs1)
            forms["PKCS1 DER"] = public.public_bytes(serialization.Encoding.DER, pkcs1)
        else:
            point = serialization.PublicFormat.UncompressedPoint
            forms["point"] = public.public_bytes(serialization.Encoding.X962, point)
        for name, digest in HMACS.items():
            for form, secret in forms.items():
                for header in ({**self.header, "alg": name}, self.header):
                    message = f"{encode(raw(header))}.{self.segments[1]}"
                    mac = hmac.digest(secret, message.encode(), digest)
                    yield f"{name} with the public key as {form}, alg {header['alg']}", f"{message}.{encode(mac)}"

    def renamed_algorithms(self) -> Iterator[Forgery]:
        """The real signature under another algorithm's name."""
        names = [
            "ES256",
            "ES256K",
            "ES384",
            "ES512",
            "RS256",
            "RS384",
            "RS512",
            "PS256",
            "PS384",
            "PS512",
            "EdDSA",
            "Ed25519",
        ]
        for name in [
            *names,
            *HMACS,
            "es256",
            "ES256 ",
            " ES256",
            "ES256\0",
            "ES256,none",
            ["ES256"],
            {"ES256": 1},
            256,
            True,
        ]:
            if name != self.key.algorithm:
                yield f"alg {name!r}", self.with_header(alg=name)

    # E03, E04, E05: the rest of the header

    def key_names(self) -> Iterator[Forgery]:
        """A `kid` that names nothing, or something else than a key."""
        kid = self.key.kid
        names: list[Any] = ["", "unknown", kid.upper(), kid[:-1], f"{kid}0", f" {kid}", f"{kid}\0", f"{kid}/../{kid}"]
        names += ["../../dev/null", "/dev/null", "file:///dev/null", "' OR 1=1--", "' UNION SELECT 'AA'--", "\ud800"]
        names += ["k" * 10_240, "$(id)", "0", 0, 1.5, -1, True, None, [], [kid], {}, {"kid": kid}]
        for name in names:
            yield f"kid {str(name)[:40]!a}", self.with_header(kid=name)
        yield "no kid", self.signed({field: value for field, value in self.header.items() if field != "kid"})

    def led_elsewhere(self, listener: str) -> Iterator[Forgery]:
        """A key, or the way to one, brought along in the header; signed with that key, and with the real one."""
        own = ec.generate_private_key(ec.SECP256R1())
        jwk = jwt.get_algorithm_by_name("ES256").to_jwk(own.public_key(), as_dict=True)
        der = own.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        ways: dict[str, Any] = {
            "jku": f"{listener}/jwks.json",
            "x5u": f"{listener}/chain.pem",
            "jwk": {**jwk, "kid": self.key.kid},
            "x5c": [base64.b64encode(der).decode()],
            "x5t": encode(hashlib.sha1(der).digest()),
            "x5t#S256": encode(hashlib.sha256(der).digest()),
            "iss": listener,
            "url": listener,
        }
        for name, value in ways.items():
            for kid in (self.key.kid, "mine", None):
                header = {**self.header, name: value, "kid": kid}
                yield f"{name}, kid {kid}, signed by a stranger", self.signed(header, key=own)
                yield f"{name}, kid {kid}, signed by us", self.signed(header)
        yield "signed by a stranger", self.signed(key=own)

    def extended_headers(self) -> Iterator[Forgery]:
        """Fields that would change how the rest is read."""
        for crit in (["x"], ["b64"], ["exp"], [], "x", None, {}, [1], ["alg", "kid", "typ"]):
            yield f"crit {crit!r}", self.with_header(crit=crit, x=1, b64=True)
        for fields in ({"b64": False}, {"b64": False, "crit": ["b64"]}, {"zip": "DEF"}, {"cty": "JWT"}, {"x": 1}):
            yield f"header {fields!r}", self.with_header(**fields)
        for fields in ({"enc": "A128GCM"}, {"p2c": 10**9}, {"epk": {}}, {"apu": ""}, {"": ""}):
            yield f"header {fields!r}", self.with_header(**fields)

    def types(self) -> Iterator[Forgery]:
        """Another kind of token (RFC 8725, section 3.11)."""
        names: list[Any] = ["JWT", "jwt", "AT+JWT", "at+JWT", "application/at+jwt", "at+jwt ", "rt+jwt", "refresh", ""]
        names += ["reset+jwt", "verify+jwt", "logout+jwt", "secevent+jwt", "JOSE", None, 1, True, ["at+jwt"], {}]
        for name in names:
            yield f"typ {name!r}", self.with_header(typ=name)
        yield "no typ", self.signed({field: value for field, value in self.header.items() if field != "typ"})

    def other_headers(self) -> Iterator[Forgery]:
        """The same header spelled otherwise, and what is no header."""
        yield "spaced header", self.signed(json.dumps(self.header).encode())
        yield "reversed header", self.signed(dict(reversed(self.header.items())))
        yield "header with a final newline", self.signed(raw(self.header) + b"\n")
        yield "alg twice, first none", self.signed(raw(self.header).replace(b"{", b'{"alg":"none",'))
        yield "alg twice, last none", self.signed(raw(self.header).replace(b"}", b',"alg":"none"}'))
        yield "kid twice", self.signed(raw(self.header).replace(b"}", b',"kid":"x"}'))
        for name, value in no_objects():
            yield f"header {name}", self.signed(value)

    # E07, E09, E13: what the token says

    def audiences(self) -> Iterator[Forgery]:
        """`aud` and `iss` that are not ours."""
        for claim in ("aud", "iss"):
            ours = self.claims[claim]
            values: list[Any] = ["", "other", ours[:-1], f"{ours}x", f"x{ours}", ours.upper(), f" {ours}", f"{ours}\0"]
            values += [f"{ours},other", f"https://{ours}", "*", None, 0, True, [], [ours], [ours, "other"], ["other"]]
            values += [{}, {ours: 1}, [[ours]], [None]]
            for value in values:
                yield f"{claim} {value!r}", self.with_claims(**{claim: value})

    def missing_claims(self) -> Iterator[Forgery]:
        """Each claim missing, and of another type."""
        for name, ours in self.claims.items():
            yield f"no {name}", self.signed(None, self.without(name))
            for value in (None, True, [], [ours], {}, {"value": ours}):
                yield f"{name} {value!r}", self.with_claims(**{name: value})
        for name in ("sub", "sid", "jti"):
            for value in (0, 1.5, 10**30):
                yield f"{name} {value!r}", self.with_claims(**{name: value})
        yield "no claims", self.signed(None, {})

    def subjects(self) -> Iterator[Forgery]:
        """`sub` and `sid` spelled otherwise, of others, or of nobody."""
        for name in ("sub", "sid"):
            ours = self.claims[name]
            others: list[Any] = [ours.upper(), ours.replace("-", ""), f"{{{ours}}}", f"urn:uuid:{ours}", f" {ours}"]
            others += [f"{ours}\n", ours[:-1], f"{ours}0", "", "me", "admin", str(UUID(int=0)), str(uuid4()), "*"]
            others += [f"{ours}' OR '1'='1", UUID(ours).int, list(UUID(ours).bytes), "\ud800"]
            for value in others:
                yield f"{name} {str(value)[:50]!a}", self.with_claims(**{name: value})
        yield "sub of another", self.with_claims(sub=self.other_user)
        yield "sub and sid swapped", self.with_claims(sub=self.claims["sid"], sid=self.claims["sub"])

    def times(self, lifetime: timedelta, skew: timedelta) -> Iterator[Forgery]:
        """Expired, not yet issued, living too long, or no time at all."""
        now, long, ahead = self.now, int(lifetime.total_seconds()), int(skew.total_seconds())
        for exp in (now, now - 1, now - long, 0, -1, -(10**18), now + 0.5, 1e30, str(now + 60), "tomorrow", "", True):
            yield f"exp {exp!r}", self.with_claims(iat=now - long, exp=exp)
        for exp in (now + long + 1, now + 86_400, 10**12, 10**18, 10**30, 10**300):
            yield f"exp {exp!r}", self.with_claims(iat=now, exp=exp)
        for iat in (now + ahead + 1, now + 3600, 10**18, 10**30, -1, -(10**18), -(10**30), str(now), now + 0.5, "", 0):
            yield f"iat {iat!r}", self.with_claims(iat=iat, exp=now + 60)
        for moved in (10**12, 10**18, -(10**12), -(10**18), 10**30):
            yield f"iat and exp moved by {moved}", self.with_claims(iat=now + moved, exp=now + moved + long)
        yield "iat after exp", self.with_claims(iat=now + 10, exp=now + 5)
        for nbf in (now - 60, now, now + 60, now + 86_400, 0, -1, "", "now", None, True, 1.5, 10**30, []):
            yield f"nbf {nbf!r}", self.with_claims(nbf=nbf)
        for number in ("NaN", "Infinity", "-Infinity", "1e400", "-0.0", "1" * 1_000, "0x10", "01"):
            for claim in ("exp", "iat"):
                spelled = json.dumps({**self.claims, claim: "@"}, separators=(",", ":")).replace('"@"', number)
                yield f"{claim} {number[:12]}", self.signed(None, spelled.encode())

    def other_payloads(self) -> Iterator[Forgery]:
        """What is no object, or not spelled as we do."""
        ours = raw(self.claims)
        yield "spaced payload", self.signed(None, json.dumps(self.claims).encode())
        yield "payload with a final newline", self.signed(None, ours + b"\n")
        yield "payload with more behind", self.signed(None, ours + b"{}")
        yield "escaped payload", self.signed(None, ours.replace(b'"sub"', b'"\\u0073ub"'))
        for depth in (300, 5_000):
            nested = b',"x":' + b"[" * depth + b"]" * depth + b"}"
            yield f"nested {depth} deep and of nobody", self.signed(None, raw(self.without("sub"))[:-1] + nested)
        for name in self.claims:
            first = json.dumps({name: self.claims[name]}, separators=(",", ":")).encode()[:-1]
            yield f"{name} twice, the same", self.signed(None, first + b"," + ours[1:])
            yield f"{name} twice, first wrong", self.signed(None, b'{"%s":"x",' % name.encode() + ours[1:])
            yield f"{name} twice, last wrong", self.signed(None, ours[:-1] + b',"%s":"x"}' % name.encode())
        for name, value in no_objects():
            yield f"payload {name}", self.signed(None, value)

    # E06: tokens of other kinds

    def other_tokens(self) -> Iterator[Forgery]:
        """What is a token, but no access token."""
        yield "refresh token", self.refresh_token
        yield "refresh token without its prefix", self.refresh_token.removeprefix("umr1_")
        yield "refresh token as payload", f"{self.segments[0]}.{self.refresh_token}.{self.segments[2]}"
        yield "session id", self.claims["sid"]
        yield "token id", self.claims["jti"]
        yield (
            "JSON serialisation",
            encode(raw({"protected": self.segments[0], "payload": self.segments[1], "signature": self.segments[2]})),
        )
        yield "encrypted form", f"{self.token}.AA.AA"
        for word in ("null", "undefined", "true", "0", "[object", "token", "x", "." * 3, ".." * 1_000, "A" * 60_000):
            yield f"word {word[:9]}", word

    # E10: other spellings of the good one

    def other_spellings(self) -> Iterator[Forgery]:
        """Every other last character of each segment, each of the last characters changed, and loose base64."""
        for place, segment in enumerate(self.segments):
            for character in BASE64URL.replace(segment[-1], ""):
                yield f"segment {place} ends in {character}", self._with_segment(place, segment[:-1] + character)
            for loose in (segment[:-1], segment[1:], f"{segment}A", f"{segment}AAAA", f"{segment}=", f"{segment}=="):
                yield f"segment {place} cut or longer ({len(loose)})", self._with_segment(place, loose)
            yield f"segment {place} empty", self._with_segment(place, "")
            yield f"segment {place} with a tilde", self._with_segment(place, f"{segment}~")
        for place in range(1, 11):
            for character in "Aa0_":
                changed = self.token[:-place] + character + self.token[-place:][1:]
                if changed != self.token:
                    yield f"character -{place} is {character}", changed
        for added in ("=", "==", ".", "..", ".AA", "~", "/", "+", "-"):
            yield f"{added} behind", self.token + added
            yield f"{added} before", added + self.token
        for place in (1, 2):
            yield f"{place} segments", ".".join(self.segments[:place])
        yield "segments reversed", ".".join(reversed(self.segments))
        yield "standard alphabet", self.token.replace("-", "+").replace("_", "/") + "="
        yield "swapped case", self.token.swapcase()
        yield "twice", f"{self.token}.{self.token}"
        yield "zero signature", self._with_segment(2, encode(b"\0" * 64))
        yield (
            "DER signature",
            self._with_segment(2, encode(self.key.private.sign(self._message(), ec.ECDSA(hashes.SHA256())))),
        )

    def _with_segment(self, place: int, segment: str) -> str:
        return ".".join([*self.segments[:place], segment, *self.segments[place + 1 :]])

    def _message(self) -> bytes:
        return ".".join(self.segments[:2]).encode()


def no_objects() -> Iterator[tuple[str, bytes]]:
    """JSON that is no object, and what is no JSON."""
    for text in ("[1]", "[]", '"x"', "1", "null", "true", "", " ", "{", "}", "{}", "[{}]", "{'sub':1}", "{} {}", "x"):
        yield text or "empty", text.encode()
    yield "invalid UTF-8", b'{"sub":"\xff\xfe"}'
    yield "overlong UTF-8", b'{"sub":"\xc0\xaf"}'
    yield "UTF-16", "{}".encode("utf-16")
    yield "byte order mark", b"\xef\xbb\xbf{}"
    yield "deeply nested", b"[" * 700 + b"]" * 700
    yield "deeply nested beyond the length", b"[" * 5_000 + b"]" * 5_000
    yield "unfinished nesting", b'{"a":' * 150
    yield "NUL", b"\0"


def raw(value: Any) -> bytes:
    """JSON as our tokens spell it; bytes are taken as they are."""
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def encode(value: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def decode(segment: str) -> bytes:
    """The bytes of a segment."""
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
