"""`usermgmt verify-deployment`: our server holds, a bad one does not, and nothing is left behind."""

import asyncio
import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.operator.conftest import PASSWORD, PATIENCE, PROGRAM, CommandLine, Start, environment
from tests.servers import free_port
from usermgmt.operator.deployment_forgeries import hostile_origins, spellings_of_key
from usermgmt.operator.deployment_operations import BUILT_IN, documented
from usermgmt.operator.verify_deployment_command import ACCOUNT_CHECKS, STRANGER_CHECKS

ROOT = {
    "USERMGMT_BOOTSTRAP__ADMIN_USERNAME": "root",
    "USERMGMT_BOOTSTRAP__ADMIN_EMAIL": "root@example.com",
    "USERMGMT_BOOTSTRAP__ADMIN_PASSWORD": PASSWORD,
}
AS_ROOT = ("--username", "root", "--password-stdin")
QUICK = ("--pairs", "3", "--timing-tolerance", "1000")  # the machine may be busy


async def say_yes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer everything with a success, tell what it is, and let everybody read it."""
    await reader.readuntil(b"\r\n\r\n")
    body = json.dumps({"id": "x", "access_token": "a.b.c", "refresh_token": "r", "told": "\x1b[31mTraceback"}).encode()
    headers = b"Server: x\r\nAccess-Control-Allow-Origin: *\r\nContent-Type: application/json\r\nConnection: close\r\n"
    writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (headers, len(body), body))
    await writer.drain()
    writer.close()


@pytest.fixture
def careless() -> Iterator[str]:
    """The address of a server that says yes to everything."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(say_yes, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def serving(start: Start, database_url: str, **more: str) -> str:
    """Start a server with an administrator; its address."""
    process = start("serve", "--port", "0", environ={**environment(database_url, **more), **ROOT})
    address: str = json.loads(process.wait_for('"serving"'))["url"]
    return address


def outcomes(report: Any, outcome: str) -> list[str]:
    """The checks that came out like this."""
    return [f"{each['check']} {each['detail']}" for each in report["checks"] if each["outcome"] == outcome]


def test_our_server_holds_and_nothing_is_left(start: Start, line: CommandLine, database_url: str):
    url = serving(start, database_url)
    report = line.document("verify-deployment", url, *AS_ROOT, *QUICK, given=f"{PASSWORD}\n")
    assert outcomes(report, "failed") + outcomes(report, "not_checked") == []
    assert len(outcomes(report, "ok")) == len(STRANGER_CHECKS) + len(ACCOUNT_CHECKS) - 1
    assert ["https" in told for told in outcomes(report, "warning")] == [True]
    assert report["requests"] < 600
    assert [account["username"] for account in line.documents("users", "list")] == ["root"]
    assert len(line.documents("audit", "list", "--event", "user.erased")) == 2
    assert line.documents("sessions", "list", "root") == []


def test_an_interrupted_attack_leaves_nothing(start: Start, line: CommandLine, database_url: str):
    words = ("verify-deployment", serving(start, database_url), *AS_ROOT)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([PROGRAM, *words], text=True, **pipes) as attack:
        assert attack.stdin is not None
        assert attack.stderr is not None
        attack.stdin.write(PASSWORD)
        attack.stdin.close()
        assert attack.stderr.readline().endswith(" to be erased at the end.\n")
        attack.send_signal(signal.SIGINT)
        assert attack.wait(timeout=PATIENCE) == 130
        assert attack.stderr.read().strip() == ""
    assert [account["username"] for account in line.documents("users", "list")] == ["root"]


def test_anybody_gets_a_report_to_read(start: Start, line: CommandLine, database_url: str):
    url = serving(start, database_url, docs__enabled="true")
    told = line.done("verify-deployment", url, "--username", "root", *QUICK)
    assert "ok            Ambiguous framing is refused, and the connection closed. [I05]" in told
    assert "anybody can read /docs, /openapi.json" in told
    assert "the medians differ by" in told
    assert f"0 FAILED, 2 warning, {len(ACCOUNT_CHECKS)} not checked" in told.splitlines()[-1]
    some = line.document("verify-deployment", url, "--only", "names", "--only", "guessing")
    assert {each["group"] for each in some["checks"]} == {"names", "guessing"}
    assert [told.endswith("needs --username") for told in outcomes(some, "not_checked")] == [True, False]


def test_a_base_path_and_documented_operations_are_used(start: Start, line: CommandLine, database_url: str):
    url = serving(start, database_url, docs__enabled="true")
    report = line.document("verify-deployment", f"{url}/", *AS_ROOT, "--only", "access", given=PASSWORD)
    assert outcomes(report, "failed") + outcomes(report, "not_checked") == []
    line.refused(1, "verify-deployment", url, *AS_ROOT, given="wrong")


def test_a_careless_server_fails(careless: str):
    result = CommandLine({}).run("verify-deployment", careless, "--username", "root", *QUICK)
    assert result.exit_code == 1
    for told in (
        "FAILED        Every answer, errors included, has the security headers.",
        "there is no Server header. [I11]\n                /health/live: server is 'x'",
        "FAILED        Made-up access tokens are refused",
        "FAILED        A body one byte beyond 64 KiB is refused",
        "FAILED        Ambiguous framing is refused",
        "FAILED        None of thirty strange or similar origins is allowed, nor is *.",
        "warning       The documentation and the metrics are not public.",
    ):
        assert told in result.stdout
    assert "\x1b" not in result.stdout
    report = json.loads(CommandLine({}).run("verify-deployment", careless, "--json").stdout)
    assert len(outcomes(report, "failed")) >= len(STRANGER_CHECKS) * 2 // 3


def test_a_server_on_which_no_account_can_be_made_is_checked_without(careless: str):
    result = CommandLine({}).run("verify-deployment", careless, *AS_ROOT, "--json", "--only", "access", given="x")
    report = json.loads(result.stdout)
    assert len(outcomes(report, "not_checked")) == len(report["checks"]) > 0
    assert "no account could be made: 200" in outcomes(report, "not_checked")[0]


def test_what_cannot_be_reached_is_told():
    CommandLine({}).refused(69, "verify-deployment", f"http://127.0.0.1:{free_port()}")


@pytest.mark.parametrize(
    "words",
    [
        ["ftp://127.0.0.1"],
        ["nonsense"],
        ["http://127.0.0.1:x"],
        ["http://root:secret@127.0.0.1"],
        ["http://127.0.0.1/?a=b"],
        ["http://127.0.0.1", "--accounts"],
        ["http://127.0.0.1", "--password-stdin"],
        ["http://127.0.0.1", "--only", "nonsense"],
    ],
)
def test_a_wrong_command_line_is_2(words: list[str]):
    CommandLine({}).refused(2, "verify-deployment", *words, given="x")


def test_every_check_says_what_it_is_about_and_names_its_cases():
    listed = [*STRANGER_CHECKS, *ACCOUNT_CHECKS]
    assert all(each.text.endswith(".") for each in listed)
    assert all(each.cases.split() for each in listed)
    assert len({each.text for each in listed}) == len(listed)


def test_the_built_in_operations_are_those_of_this_release():
    assert set(BUILT_IN) == set(documented(CommandLine({}).document("openapi")))
    assert len(set(BUILT_IN)) == len(BUILT_IN)


def test_there_are_thirty_hostile_origins():
    for own in ("https://users.example.org", "http://127.0.0.1:8000"):
        origins = list(hostile_origins(own))
        assert len(set(origins)) == len(origins) == 30
        assert own not in origins


def test_a_public_key_is_spelled_as_a_library_spells_it():
    keys: list[tuple[Any, Any]] = [
        (ECAlgorithm, ec.generate_private_key(ec.SECP256R1()).public_key()),
        (OKPAlgorithm, ed25519.Ed25519PrivateKey.generate().public_key()),
        (RSAAlgorithm, rsa.generate_private_key(65_537, 2_048).public_key()),
    ]
    for algorithm, key in keys:
        spelled = list(spellings_of_key(json.loads(algorithm.to_jwk(key))))
        assert key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) in spelled
        assert key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) in spelled
    assert keys[-1][1].public_bytes(Encoding.PEM, PublicFormat.PKCS1) in spelled
    assert list(spellings_of_key({"kty": "new", "crv": "P-256"})) == [b'{"kty": "new", "crv": "P-256"}']
