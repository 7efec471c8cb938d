"""`usermgmt doctor` without a database: settings, files, this machine, the network."""

import asyncio
import json
import resource
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.conftest import SECRET
from tests.operator.conftest import CommandLine
from tests.servers import Valkey, free_port
from usermgmt.operator import doctor_machine_checks
from usermgmt.operator.doctor_command import CHECKS
from usermgmt.operator.doctor_findings import Severity
from usermgmt.operator.doctor_installation import Installation
from usermgmt.settings import load_settings

OK, NOTE, WARNING, ERROR = Severity.OK, Severity.NOTE, Severity.WARNING, Severity.ERROR
BY_ID = {check.id: check for check in CHECKS}
PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"
HIDDEN = "a-hidden-word-0123456789"
POSTGRESQL = "postgresql://app@db.internal/app"


def installation(**flags: Any) -> Installation:
    """What the settings describe, with nothing asked of it."""
    named = {key.replace("__", ".", 1): value for key, value in flags.items()}
    return Installation(load_settings(flags={"secret.keys": SECRET, "database.url": POSTGRESQL, **named}, environ={}))


async def worst(check: str, subject: Installation) -> tuple[Severity, str]:
    """The worst that a check finds, and all that it says."""
    findings = [line.finding for line in await BY_ID[check].lines(subject)]
    order = list(Severity)
    told = " ".join(f"{finding.found} {finding.mend}" for finding in findings)
    return max((finding.severity for finding in findings), key=order.index), told


@pytest.mark.parametrize(
    ("check", "flags", "severity", "told"),
    [
        ("settings.plugins", {}, OK, "0 plugins"),
        (
            "settings.plugins",
            {"plugins__blueprints": "nowhere:blueprint"},
            ERROR,
            "nowhere:blueprint cannot be imported",
        ),
        ("settings.secret", {}, OK, "32 bytes"),
        ("settings.secret", {"secret__keys": f"{SECRET},{SECRET[::-1]}"}, NOTE, "1 older root secret"),
        ("settings.risks", {"registration__mode": "closed"}, OK, ""),
        ("settings.risks", {"registration__mode": "open"}, NOTE, "registration.mode"),
        ("settings.risks", {"limits__enabled": False}, WARNING, "limits.enabled is false"),
        ("settings.risks", {"throttle__enabled": False}, ERROR, "throttle.enabled is false"),
        ("settings.risks", {"throttle__account": "1000/15m"}, WARNING, "throttle.account"),
        ("settings.risks", {"passwords__min_length": 4}, WARNING, "passwords.min_length"),
        ("settings.risks", {"cors__origins": "*"}, WARNING, "cors.origins"),
        ("settings.risks", {"docs__enabled": True}, NOTE, "docs.enabled"),
        ("settings.risks", {"tokens__algorithm": "HS256"}, NOTE, "tokens.algorithm"),
        ("settings.risks", {"metrics__token": "short"}, WARNING, "metrics.token"),
        ("settings.risks", {"logs__level": "error"}, NOTE, "logs.level"),
        ("proxy.trust", {}, OK, ""),
        ("proxy.trust", {"network__trusted_proxies": "10.0.0.0/8", "server__public_url": "https://a.example"}, OK, ""),
        ("proxy.trust", {"network__trusted_proxies": "0.0.0.0/0"}, ERROR, "0.0.0.0/0"),
        ("proxy.trust", {"network__trusted_proxies": "::/0"}, ERROR, "::/0"),
        ("proxy.trust", {"server__public_url": "https://a.example"}, WARNING, "all clients are one address"),
        ("proxy.encryption", {"server__host": "127.0.0.1"}, OK, ""),
        ("proxy.encryption", {"server__host": "0.0.0.0"}, WARNING, "in the clear"),
        ("proxy.encryption", {"server__host": "::", "network__trusted_proxies": "10.0.0.0/8"}, NOTE, "public_url"),
        ("proxy.encryption", {"server__host": "::", "server__public_url": "https://a.example"}, OK, ""),
        ("limits.shared", {}, OK, "alone"),
        ("limits.shared", {"valkey__url": "valkey://127.0.0.1:1/0"}, OK, "together"),
        ("limits.valkey", {}, OK, "No Valkey"),
        ("machine.hash", {"passwords__bcrypt_cost": 4}, ERROR, "below cost 10"),
        ("machine.files", {"server__max_connections": 1_000_000}, WARNING, "LimitNOFILE=1000084"),
        ("machine.files", {"server__max_connections": 16}, OK, ""),
        ("machine.python", {}, OK, "Hypercorn"),
        ("clock.steady", {}, OK, ""),
    ],
)
async def test_what_is_found(check: str, flags: dict[str, Any], severity: Severity, told: str) -> None:
    found, text = await worst(check, installation(**flags))
    assert (found, told in text) == (severity, True), text


async def test_a_quick_and_a_slow_hash_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = installation(passwords__bcrypt_cost=10)
    monkeypatch.setattr(doctor_machine_checks, "QUICKEST_HASH", 60.0)
    assert (await worst("machine.hash", subject))[0] == WARNING
    monkeypatch.setattr(doctor_machine_checks, "QUICKEST_HASH", 0.0)
    monkeypatch.setattr(doctor_machine_checks, "SLOWEST_HASH", 60.0)
    assert (await worst("machine.hash", subject))[0] == OK
    monkeypatch.setattr(doctor_machine_checks, "SLOWEST_HASH", 0.0)
    assert "people wait" in (await worst("machine.hash", subject))[1]


async def test_a_clock_that_jumped_is_told() -> None:
    assert (await worst("clock.steady", replace(installation(), wall_ahead=time.time() - time.monotonic() - 3)))[
        0
    ] == WARNING


@pytest.mark.parametrize(("free", "severity"), [(200 << 30, OK), (900 << 20, WARNING), (90 << 20, ERROR)])
def test_a_disk_is_judged_by_what_is_left(free: int, severity: Severity) -> None:
    assert doctor_machine_checks.room(Path(), free=free, total=400 << 30).severity == severity


async def test_instances_that_count_apart_are_told() -> None:
    assert (await worst("limits.shared", replace(installation(), instances=2)))[0] == WARNING
    together = installation(valkey__url="valkey://127.0.0.1:1/0")
    assert (await worst("limits.shared", replace(together, instances=2)))[0] == OK


async def test_valkey_is_asked(valkey: Valkey) -> None:
    found, told = await worst("limits.valkey", installation(valkey__url=valkey.url, valkey__timeout="1s"))
    assert (found, "answers within" in told) == (OK, True)
    there = f"valkey://:{HIDDEN}@127.0.0.1:{free_port()}/0"
    found, told = await worst("limits.valkey", installation(valkey__url=there))
    assert (found, "cannot be used" in told, HIDDEN in told) == (WARNING, True, False)


def certificate(folder: Path, *, days: float, host: str = "a.example") -> Mapping[str, str]:
    """The flags of a server with a certificate that ends so many days from now."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=90))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "tls.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    (folder / "tls.key").chmod(0o600)
    return {"server__tls_certificate": str(folder / "tls.crt"), "server__tls_key": str(folder / "tls.key")}


@pytest.mark.parametrize(
    ("days", "url", "severity"),
    [
        (60, "https://a.example", OK),
        (20, "", WARNING),
        (3, "", ERROR),
        (-1, "", ERROR),
        (60, "https://b.example", ERROR),
    ],
)
async def test_a_certificate_is_good_long_enough(tmp_path: Path, days: float, url: str, severity: Severity) -> None:
    subject = installation(**certificate(tmp_path, days=days), server__public_url=url)
    assert (await worst("tls.certificate", subject))[0] == severity
    assert (await worst("proxy.encryption", subject))[0] == OK


async def test_a_wildcard_is_for_its_hosts(tmp_path: Path) -> None:
    files = certificate(tmp_path, days=60, host="*.a.example")
    for host, severity in (("one.a.example", OK), ("a.example", ERROR), ("x.one.a.example", ERROR)):
        subject = installation(**files, server__public_url=f"https://{host}")
        assert (await worst("tls.certificate", subject))[0] == severity, host


# The command


@pytest.fixture
def bare() -> CommandLine:
    """The command line where nothing is set but the secret."""
    return CommandLine({"USERMGMT_SECRET_KEYS": SECRET, "USERMGMT_PASSWORDS__BCRYPT_COST": "4"})


def report(line: CommandLine, *words: str, code: int = 1) -> dict[str, set[str]]:
    """What each check found: its severities."""
    result = line.run("doctor", "--json", *words)
    assert result.exit_code == code, (result.stdout, result.stderr)
    assert result.stderr == ""
    assert HIDDEN not in result.stdout
    found: dict[str, set[str]] = {}
    for row in json.loads(result.stdout)["checks"]:
        found.setdefault(row["check"], set()).add(row["severity"])
    return found


def test_everything_that_is_wrong_with_the_settings_is_told_and_the_rest_is_looked_at(bare: CommandLine) -> None:
    Path("settings.toml").write_text("[server]\nprot = 1\n[logs]\nlevel = 'loud'\n", encoding="utf-8")
    bare.environ |= {
        "USERMGMT_SERVRE__PORT": HIDDEN,
        "USERMGMT_DATABASE__URL": f"postgresql://u:{HIDDEN}@127.0.0.1:1/x",
    }
    told = bare.run("doctor").stdout
    for text in ("did you mean server.port?", "logs.level", "USERMGMT_SERVRE__PORT", "settings.toml [server] prot"):
        assert text in told
    found = report(bare)
    assert found["settings.valid"] == {"error"}
    assert found["database.answers"] == {"error"}
    assert found["accounts.names"] == {"not_checked"}
    assert found["machine.disk"] == {"ok"}


@pytest.mark.parametrize("text", ["[server\n", "[database]\nurll = 'sqlite:///x.db'\n"])
def test_a_database_that_the_settings_may_have_meant_otherwise_is_not_asked(bare: CommandLine, text: str) -> None:
    Path("settings.toml").write_text(text, encoding="utf-8")
    found = report(bare)
    assert (found["settings.valid"], found["schema.revision"]) == ({"error"}, {"not_checked"})


def test_a_secret_that_is_missing_short_or_a_sample_is_an_error(bare: CommandLine) -> None:
    for secret in ("", "short", "changeme-changeme-changeme-changeme"):
        bare.environ["USERMGMT_SECRET_KEYS"] = secret
        assert report(bare)["settings.secret"] == {"error"}


def test_files_with_secrets_that_everybody_reads_are_told(bare: CommandLine, tmp_path: Path) -> None:
    (config := tmp_path / "settings.toml").write_text(f'[metrics]\ntoken = "{HIDDEN}"\n', encoding="utf-8")
    (secret := tmp_path / "secret").write_text(SECRET, encoding="utf-8")
    del bare.environ["USERMGMT_SECRET_KEYS"]
    bare.environ["USERMGMT_SECRET_KEYS_FILE"] = str(secret)
    for folder, mode, severity in ((0o755, 0o644, "warning"), (0o755, 0o640, "ok"), (0o750, 0o644, "ok")):
        tmp_path.chmod(folder)
        config.chmod(mode)
        secret.chmod(mode)
        assert report(bare)["settings.files"] == {severity}
    tmp_path.chmod(0o755)
    assert f"chmod 640 {secret}" in bare.run("doctor").stdout


def test_development_mode_is_looked_at_as_such(bare: CommandLine, tmp_path: Path) -> None:
    del bare.environ["USERMGMT_SECRET_KEYS"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "secret.key").write_text(SECRET, encoding="utf-8")
    (tmp_path / "data" / "secret.key").chmod(0o604)
    found = report(bare)
    assert found["settings.valid"] == {"ok"}
    assert found["settings.files"] == {"warning"}
    assert "postgresql.role" not in found


def test_several_workers_that_cannot_count_together_are_an_error(bare: CommandLine) -> None:
    bare.environ["USERMGMT_SERVER__WORKERS"] = "2"
    assert report(bare)["limits.shared"] == {"error"}


def test_a_low_limit_of_open_files_is_told() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        (line,) = asyncio.run(BY_ID["machine.files"].lines(installation()))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (line.finding.severity, "Only 512 files" in line.finding.found) == (WARNING, True)


def test_the_page_lists_every_check() -> None:
    rows = [row for row in PAGE.read_text(encoding="utf-8").splitlines() if row.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [check.id for check in CHECKS]


def test_every_check_says_what_it_is_about_and_has_an_id_of_its_own() -> None:
    assert len(BY_ID) == len(CHECKS)
    assert all(check.text.endswith(".") for check in CHECKS)
