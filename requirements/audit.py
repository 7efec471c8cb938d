"""Are the locked dependencies, and our own code, known to have holes? Writes the list of parts that a server is.

    make audit          # a table of three lines, and build/sbom.json (CycloneDX)

What cannot be told is a failure, too: a service of vulnerabilities that is away, or does not know a package, audited
nothing.
"""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements" / "run.lock"
SBOM = ROOT / "build" / "sbom.json"
SECONDS = 300
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one audit found: whether all is well, in one sentence, and what is wrong line by line."""

    audit: str
    is_good: bool
    summary: str
    details: tuple[str, ...] = ()


def locked(lock: Path = LOCK) -> dict[str, str]:
    """Every package of a lock and its version."""
    return {normal(name): version for name, version in _PIN.findall(lock.read_text(encoding="utf-8"))}


def normal(name: str) -> str:
    """A package's name in the one spelling that counts."""
    return re.sub(r"[-_.]+", "-", name).lower()


def write_sbom(path: Path = SBOM, lock: Path = LOCK) -> Finding:
    """Write the bill of materials of everything that is installed to serve."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = ["--output-reproducible", "--of", "JSON", "--pyproject", str(ROOT / "pyproject.toml"), "-o", str(path)]
    ended = _run("cyclonedx-py", "requirements", str(lock), *options)
    if ended.returncode != 0:
        return Finding("sbom", is_good=False, summary="was not written", details=_last_lines(ended.stderr))
    parts = json.loads(path.read_text(encoding="utf-8")).get("components", [])
    missing = sorted(set(locked(lock).items()) - {(normal(part["name"]), part["version"]) for part in parts})
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    lines = tuple(f"not in it: {package} {version}" for package, version in missing)
    return Finding("sbom", bool(parts) and not missing, f"{len(parts)} parts in {name}", lines)


def audit_code(*paths: Path) -> Finding:
    """Look for dangerous code in the server. What bandit calls high fails."""
    where = [str(path) for path in paths or (ROOT / "usermgmt",)]
    ended = _run("bandit", "--quiet", "--recursive", "--format", "json", *where)
    try:
        report = json.loads(ended.stdout)
    except ValueError:
        return Finding("code", is_good=False, summary="bandit did not run", details=_last_lines(ended.stderr))
    high = [each for each in report["results"] if each["issue_severity"] == "HIGH"]
    wrong = [f"{each['filename']}:{each['line_number']}: {each['issue_text']} ({each['test_id']})" for each in high]
    wrong += [f"{each['filename']}: {each['reason']}" for each in report["errors"]]
    lines = report["metrics"]["_totals"]["loc"]
    return Finding("code", not wrong, f"{len(high)} findings of high severity in {lines} lines", tuple(wrong))


def audit_packages(lock: Path = LOCK) -> Finding:
    """Ask the Python packaging advisory database about every locked package."""
    options = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    try:
        ended = _run("pip-audit", "--requirement", str(lock), *options)
        report = json.loads(ended.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return Finding("packages", is_good=False, summary=f"NOT AUDITED: no answer within {SECONDS} s")
    except (ValueError, KeyError):
        summary = "NOT AUDITED: the service of vulnerabilities cannot be reached"
        return Finding("packages", is_good=False, summary=summary, details=_last_lines(ended.stderr))
    return told(report, locked(lock))


def told(report: list[dict[str, Any]], packages: dict[str, str]) -> Finding:
    """What a report of pip-audit says of the locked packages."""
    audited = {normal(each["name"]) for each in report if "skip_reason" not in each}
    unknown = sorted(set(packages) - audited)
    holes = [
        f"{each['name']} {each['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no release'}"
        for each in report
        for hole in each.get("vulns", ())
    ]
    if unknown:
        reasons = {normal(each["name"]): each["skip_reason"] for each in report if "skip_reason" in each}
        lines = [f"{name}: {reasons.get(name, 'no answer')}" for name in unknown]
        summary = f"NOT AUDITED: the service told nothing of {len(unknown)} of {len(packages)} packages"
        return Finding("packages", is_good=False, summary=summary, details=(*holes, *lines[:3]))
    return Finding("packages", not holes, f"{len(holes)} known holes in {len(packages)} packages", tuple(holes))


def main() -> int:
    """Do all three; the exit code is 1 when one of them is not good."""
    findings = [write_sbom(), audit_code(), audit_packages()]
    for each in findings:
        print(f"{each.audit:9} {'good' if each.is_good else 'BAD ':4}  {each.summary}")
        for line in each.details:
            print(f"{'':15} {line}")
    return 0 if all(each.is_good for each in findings) else 1


def _run(program: str, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [str(Path(sys.executable).with_name(program)), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS, cwd=ROOT)


def _last_lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines()[-3:])


if __name__ == "__main__":
    sys.exit(main())
