"""What the server is made of is known to the last byte, and audited."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("run.lock", "test.lock")


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    """The program behind `make audit`."""
    spec = importlib.util.spec_from_file_location("audit_program", ROOT / "requirements" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_one_version_and_its_hashes(name: str):  # N06
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert len(lines) > 40
    for line in lines:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==\S+ .*--hash=sha256:[0-9a-f]{64}", line), line


def test_the_bill_of_materials_names_every_locked_package(audit: ModuleType, tmp_path: Path):  # N06
    found = audit.write_sbom(tmp_path / "sbom.json")
    assert (found.is_good, found.details) == (True, ())
    document = json.loads((tmp_path / "sbom.json").read_text(encoding="utf-8"))
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["name"] == "usermgmt"
    named = {(part["name"].lower(), part["version"]) for part in document["components"]}
    locked = audit.locked()
    assert named == set(locked.items())
    assert {"quart", "sqlalchemy", "cryptography"} <= set(locked)
    hashes = [each for part in document["components"] for link in part["externalReferences"] for each in link["hashes"]]
    assert len(hashes) >= len(locked)


def test_an_empty_one_is_none(audit: ModuleType, tmp_path: Path):  # N06
    lock = tmp_path / "other.lock"
    lock.write_text("no-such-thing==\n", encoding="utf-8")
    assert not audit.write_sbom(tmp_path / "sbom.json", lock).is_good


def test_no_finding_in_the_code_is_of_high_severity(audit: ModuleType):  # N06
    found = audit.audit_code()
    assert (found.is_good, found.details) == (True, ())


def test_a_finding_of_high_severity_fails(audit: ModuleType, tmp_path: Path):  # N06
    (tmp_path / "bad.py").write_text("import hashlib\nhashlib.md5(b'x')\n", encoding="utf-8")
    found = audit.audit_code(tmp_path)
    assert not found.is_good
    assert "bad.py:2" in found.details[0]


HOLE = {"id": "PYSEC-2026-1", "fix_versions": ["2.0"], "aliases": [], "description": "…"}


@pytest.mark.parametrize(
    ("report", "is_good", "words"),
    [
        ([{"name": "Quart_Cors", "version": "1", "vulns": []}], True, "0 known holes in 1 packages"),
        ([{"name": "quart-cors", "version": "1", "vulns": [HOLE]}], False, "PYSEC-2026-1, mended in 2.0"),
        (
            [{"name": "quart-cors", "skip_reason": "not found"}],
            False,
            "NOT AUDITED: the service told nothing of 1",
        ),
        ([], False, "quart-cors: no answer"),
    ],
)
def test_a_package_that_nobody_could_tell_of_is_not_a_good_one(  # N06
    audit: ModuleType, report: list[dict[str, Any]], is_good: bool, words: str
):
    found = audit.told(report, {"quart-cors": "1"})
    assert found.is_good == is_good
    assert words in f"{found.summary} {found.details}"
