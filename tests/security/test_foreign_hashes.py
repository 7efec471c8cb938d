"""Password hashes of other systems, by known answers of theirs."""

import asyncio
import base64
import hashlib
import json

import bcrypt
import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given
from hypothesis import strategies as st

from tests.people import PASSWORD, Server
from usermgmt.security.foreign_hashes import HashRefused, parsed
from usermgmt.security.foreign_spellings import recognised
from usermgmt.security.hashing import PasswordHasher

SALT = b"saltsalt"


def b64(binary: bytes) -> str:
    return base64.b64encode(binary).decode()


def pbkdf2(digest: str, rounds: int = 1000, password: str = "secret") -> bytes:
    return hashlib.pbkdf2_hmac(digest, password.encode(), SALT, rounds)


FIREBASE = {  # the example of github.com/firebase/scrypt
    "signer_key": "jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==",
    "salt_separator": "Bw==",
    "rounds": 8,
    "mem_cost": 14,
    "salt": "42xEC+ixf3L2lw==",
    "hash": "lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ==",
}
KEYCLOAK = {
    "type": "password",
    "secretData": json.dumps({"value": b64(pbkdf2("sha512")), "salt": b64(SALT), "additionalParameters": {}}),
    "credentialData": json.dumps({"hashIterations": 1000, "algorithm": "pbkdf2-sha512", "additionalParameters": {}}),
}
KEYCLOAK_ARGON2 = {  # the reference implementation's known answer, as Keycloak 24 and later write it
    "secretData": json.dumps({"value": "CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc=", "salt": b64(b"somesalt")}),
    "credentialData": json.dumps(
        {
            "hashIterations": 2,
            "algorithm": "argon2",
            "additionalParameters": {
                "type": ["id"],
                "version": ["1.3"],
                "memory": ["65536"],
                "parallelism": ["1"],
                "hashLength": ["32"],
            },
        }
    ),
}
SCRYPT_7914 = bytes.fromhex(  # RFC 7914, section 12
    "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
    "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"
)
AUTH0_SCRYPT = {
    "algorithm": "scrypt",
    "hash": {"value": SCRYPT_7914.hex(), "encoding": "hex"},
    "salt": {"value": "SodiumChloride", "encoding": "utf8"},
    "cost": 16384,
    "blockSize": 8,
    "parallelization": 1,
}
DIGESTED = bcrypt.hashpw(hashlib.sha256(b"secret").hexdigest().encode(), b"$2b$04$abcdefghijklmnopqrstuu").decode()
BETTER_AUTH_SALT = "00112233445566778899aabbccddeeff"
BETTER_AUTH = hashlib.scrypt(b"secret", salt=BETTER_AUTH_SALT.encode(), n=16384, r=16, p=1, maxmem=1 << 26, dklen=64)

KNOWN = [
    # passlib's documentation
    ("$pbkdf2-sha256$6400$.6UI/S.nXIk8jcbdHx3Fhg$98jZicV16ODfEsEZeYPGHU3kbrUrvUEXOPimVSQDD44", "password"),
    # RFC 6070 in Django's form
    (f"pbkdf2_sha1$4096$salt${b64(bytes.fromhex('4b007901b765489abead49d926f721d065a429c1'))}", "password"),
    (f"pbkdf2_sha256$1000${SALT.decode()}${b64(pbkdf2('sha256'))}", "secret"),
    (f"$pbkdf2-sha512$i=1000,l=64${b64(SALT)}${b64(pbkdf2('sha512'))}", "secret"),
    (f"pbkdf2:sha256:1000${SALT.decode()}${pbkdf2('sha256').hex()}", "secret"),
    # RFC 7914 in the forms of Django, passlib and Werkzeug
    (f"scrypt$SodiumChloride$16384$8$1${b64(SCRYPT_7914)}", "pleaseletmein"),
    (f"$scrypt$ln=14,r=8,p=1${b64(b'SodiumChloride')}${b64(SCRYPT_7914)}", "pleaseletmein"),
    (f"scrypt:16384:8:1$SodiumChloride${SCRYPT_7914.hex()}", "pleaseletmein"),
    # the tests of the reference implementation of Argon2
    ("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "password"),
    ("argon2$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "password"),
    (f"bcrypt_sha256${DIGESTED}", "secret"),
    (f"{BETTER_AUTH_SALT}:{BETTER_AUTH.hex()}", "secret"),
    (FIREBASE, "user1password"),
    (KEYCLOAK, "secret"),
    (
        {"algorithm": "pbkdf2-sha256", "hashIterations": 1000, "salt": b64(SALT), "value": b64(pbkdf2("sha256"))},
        "secret",
    ),
    (KEYCLOAK_ARGON2, "password"),
    (AUTH0_SCRYPT, "pleaseletmein"),
    (
        {
            "algorithm": "argon2",
            "hash": {"value": "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"},
        },
        "password",
    ),
]
BCRYPT = [  # the tests of crypt_blowfish
    ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"),
    ("$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"),
    ("bcrypt$$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"),
]


@pytest.mark.parametrize(("given", "password"), KNOWN)
def test_what_others_made_matches_its_password_and_no_other(given: object, password: str) -> None:
    kept = recognised(given)
    assert recognised(kept) == kept
    found = parsed(kept)
    assert found is not None
    assert found.matches(password)
    for other in ("", password + "x", password.upper(), password[:-1]):
        assert not found.matches(other)


@pytest.mark.parametrize(("given", "password"), BCRYPT)
async def test_bcrypt_is_kept_as_it_is(given: str, password: str) -> None:
    hasher = PasswordHasher(cost=4, peppers=[("a", b"x" * 32)])
    kept = recognised(given)
    assert parsed(kept) is None
    verdict = await hasher.verify(password, kept)
    assert (verdict.matches, verdict.is_outdated) == (True, True)
    assert not (await hasher.verify(password + "x", kept)).matches
    await hasher.close()


@pytest.mark.parametrize(
    "given",
    [
        None,
        7,
        "",
        "secret",
        "5f4dcc3b5aa765d61d8327deb882cf99",  # MD5
        "sha256$salt$" + "0" * 64,
        "$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "$2a$05$short",
        "$2a$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",  # days
        "um1$a$$2b$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",  # who imports says that it is ours
        "um1$a$$2b$03$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "pbkdf2_sha256$1$salt$" + b64(bytes(32)),
        "pbkdf2_sha256$999999999999$salt$" + b64(bytes(32)),
        "pbkdf2_sha256$-1000$salt$" + b64(bytes(32)),
        "pbkdf2:md5:100000$salt$" + "00" * 16,
        f"scrypt$salt$1073741824$8$1${b64(bytes(64))}",
        f"scrypt$salt$16383$8$1${b64(bytes(64))}",
        f"scrypt$salt$16384$8$1048576${b64(bytes(64))}",
        f"$scrypt$ln=9999999,r=8,p=1${b64(SALT)}${b64(bytes(64))}",
        "$argon2id$v=19$m=4294967295,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        "$argon2id$v=19$m=65536,t=999999,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        "$argon2id$v=16$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        {**FIREBASE, "mem_cost": 40},
        {**FIREBASE, "signer_key": ""},
        {name: value for name, value in FIREBASE.items() if name != "salt"},
        {**KEYCLOAK, "credentialData": "{"},
        {**KEYCLOAK, "credentialData": "[" * 100_000},
        {**KEYCLOAK, "credentialData": '{"algorithm": "pbkdf2-sha256", "hashIterations": Infinity}'},
        {**KEYCLOAK_ARGON2, "credentialData": KEYCLOAK_ARGON2["credentialData"].replace('["id"]', "[]")},
        {**FIREBASE, "rounds": float("inf")},
        {**AUTH0_SCRYPT, "algorithm": "md5"},
        {},
    ],
)  # fmt: skip
def test_what_protects_nobody_or_costs_too_much_is_refused(given: object) -> None:
    with pytest.raises(HashRefused) as refusal:
        recognised(given)
    assert str(refusal.value)
    assert not isinstance(given, str) or len(given) < 20 or given not in str(refusal.value)


def test_our_own_hashes_are_taken_as_they_are() -> None:
    for cost in (4, 12, 16):
        own = f"um1$a$$2b${cost:02}$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
        assert recognised(own) == own


PIECES = st.sampled_from(
    ["$", "$$", ":", ",", "=", "argon2", "argon2id", "v=19", "m=8", "pbkdf2_sha256", "scrypt", "fh1", "firebase",
     "1000", "-1", "salt", "ln=5", "r=1", "p=1", b64(bytes(32)), "bcrypt", "2b", "é", "\x00", "²"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=14).map("".join) | st.text(max_size=80))
def test_garbage_is_refused_and_never_a_fault(text: str) -> None:
    parsed(text)
    try:
        kept = recognised(text)
    except HashRefused:
        return
    assert recognised(kept) == kept


@pytest.mark.parametrize("text", ["fh1$pbkdf2$md5$1$x$y", "fh1$pbkdf2$sha256$x", "fh1$nothing$x", "fh1$", "$argon2id$"])
async def test_what_cannot_be_read_never_matches(text: str) -> None:
    hasher = PasswordHasher(cost=4, peppers=[("a", b"x" * 32)])
    assert not (await hasher.verify("x", text)).matches
    await hasher.close()


@pytest.mark.parametrize("given", [KNOWN[2][0], KNOWN[8][0], KNOWN[10][0], FIREBASE])
async def test_the_first_sign_in_replaces_it_by_ours(server: Server, given: object) -> None:
    password = {str(each): word for each, word in KNOWN}[str(given)]
    await server.person("ada")
    await server.execute("UPDATE users SET password_hash = :kept WHERE username = 'ada'", kept=recognised(given))
    nobody = server.nobody()

    async def sign_in(word: str) -> int:
        return (await nobody.post("/api/auth/login", json={"username": "ada", "password": word})).status_code

    assert await sign_in(PASSWORD) == 401
    assert await sign_in(password) == 200
    ((stored,),) = await server.rows("SELECT password_hash FROM users WHERE username = 'ada'")
    assert stored.startswith("um1$")
    assert await sign_in(password) == 200
    events = [event.event for event in await server.events()]
    assert events.count("user.password_rehashed") == 1


async def test_two_of_several_lanes_at_once_wait_for_no_one_for_ever() -> None:
    salt, lanes = b"somesalt", 4
    made = Argon2id(salt=salt, length=32, iterations=1, lanes=lanes, memory_cost=64 * lanes).derive(b"secret")
    texts = [base64.b64encode(each).decode().rstrip("=") for each in (salt, made)]
    kept = recognised(f"$argon2id$v=19$m={64 * lanes},t=1,p={lanes}${texts[0]}${texts[1]}")
    foreign = parsed(kept)
    assert foreign is not None
    found = await asyncio.gather(*(asyncio.to_thread(foreign.matches, "secret") for _ in range(40)))
    assert found == [True] * 40


@pytest.mark.parametrize(
    "given",
    [
        "$argon2id$v=19$m=128,t=16384,p=16$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        f"pbkdf2_sha512$4000000$salt${b64(bytes(64))}",
        f"pbkdf2_sha256$2000000$salt${b64(bytes(64))}",
        f"scrypt:262144:8:8$salt${bytes(64).hex()}",
    ],
)
def test_what_takes_seconds_is_refused(given: str) -> None:
    with pytest.raises(HashRefused):
        recognised(given)
