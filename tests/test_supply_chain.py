"""What the service is made of: every package pinned by hash, vulnerabilities looked for, the bill of it complete."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from requirements.audit import CANARY, EXCEPTION_LASTS, AuditError, Pin, judge, main, read_exceptions, read_pins
from requirements.sbom import complete
from tests.harness.paths import PROJECT

SERVICE = sorted((PROJECT / "requirements").glob("service-*.txt"))
HASHED = [*SERVICE, PROJECT / "requirements/supply-chain.txt"]
TODAY = datetime.now(UTC).date()


def _lines(path: Path) -> list[str]:
    """The lines of a requirements file, those joined that a backslash continues."""
    joined = path.read_text().replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("path", HASHED, ids=lambda path: path.name)
def test_every_pin_has_a_hash(path: Path) -> None:
    pin = re.compile(r"[a-z0-9][a-z0-9.-]*==[^\s;]+( ;[^-]+)?(\s+--hash=sha256:[0-9a-f]{64})+\s*")
    assert [line for line in _lines(path) if not pin.fullmatch(line)] == []


@pytest.mark.parametrize("path", SERVICE, ids=lambda path: path.name)
def test_the_constraints_have_the_same_versions(path: Path) -> None:
    # torch holds NVIDIA's libraries in the constraints to those of its own release; the service, which has no torch,
    # takes what onnxruntime asks for.
    pins = {pin for pin in read_pins(path) if not pin.name.startswith("nvidia-")}
    assert pins <= set(read_pins(PROJECT / "constraints.txt"))


def test_the_two_packages_of_onnxruntime_are_never_together() -> None:
    pinned = {path.name: {pin.name for pin in read_pins(path)} for path in SERVICE}
    together = {"onnxruntime", "onnxruntime-gpu"}
    assert {name: names & together for name, names in pinned.items()} == {
        "service-cpu.txt": {"onnxruntime"},
        "service-gpu.txt": {"onnxruntime-gpu"},
    }


@pytest.mark.parametrize("path", SERVICE, ids=lambda path: path.name)
def test_every_direct_dependency_is_pinned_to_a_version_that_it_allows(path: Path) -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    device = path.stem.removeprefix("service-")
    pins = list(read_pins(path))
    for text in [*project["dependencies"], *project["optional-dependencies"][device]]:
        wanted = Requirement(text)
        versions = [pin.version for pin in pins if pin.name == canonicalize_name(wanted.name)]
        assert versions, f"{wanted.name} is not pinned: make lock"
        assert all(wanted.specifier.contains(version) for version in versions), text


# A pip-audit whose databases answer as planned: what they know, by pin; an error; or that it is itself broken.
FAKE = """
import json, sys
plan, arguments = json.loads({plan!r}), sys.argv[1:]
pins = [line.split("==") for line in open(arguments[-1]).read().split()]
assert len({{name for name, _ in pins}}) == len(pins), "as pip-audit: a package in two versions"
if "--dry-run" in arguments:
    sys.exit(plan.get("broken", 0))
database = plan[arguments[arguments.index("--vulnerability-service") + 1]]
if isinstance(database, str):
    sys.exit(database)
entries = []
for name, version in pins:
    vulnerabilities = database.get(name + "==" + version, database.get("others"))
    if vulnerabilities is None:
        entries.append({{"name": name, "skip_reason": "Dependency not found on PyPI and could not be audited"}})
    else:
        known = [{{"id": id, "fix_versions": ["9.9"], "aliases": ["CVE-of-" + id]}} for id in vulnerabilities]
        entries.append({{"name": name, "version": version, "vulns": known}})
print(json.dumps({{"dependencies": entries, "fixes": []}}))
sys.exit(any(entry.get("vulns") for entry in entries))
"""

Database = str | Mapping[str, list[str]]

HEALTHY: dict[str, list[str]] = {str(CANARY): ["PYSEC-1"], "others": []}
UNREACHABLE = "requests.exceptions.ConnectionError: Failed to resolve"


class Audit:
    """The audit of a few pins with databases as planned."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.exceptions = folder / "exceptions.txt"
        self.exceptions.write_text("# none\n")
        self.pins = folder / "pins.txt"
        self.pins.write_text(
            "one==1.0 \\\n    --hash=sha256:00\nTwo_more==2.0 ; python_version < '3.12' \\\n    --hash=\n"
        )

    def command(self, *, pypi: Database, osv: Database = UNREACHABLE, broken: str = "") -> list[str]:
        program = self.folder / "pip_audit.py"
        plan = {"pypi": pypi, "osv": osv} | ({"broken": broken} if broken else {})
        program.write_text(FAKE.format(plan=json.dumps(plan)))
        return [sys.executable, str(program)]

    def run(self, *options: str, pypi: Database, osv: Database = UNREACHABLE, broken: str = "") -> int:
        command = self.command(pypi=pypi, osv=osv, broken=broken)
        return main([*options, "--exceptions", str(self.exceptions), str(self.pins)], pip_audit=command)


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    return Audit(tmp_path)


def test_pins_without_a_known_vulnerability_pass(audit: Audit, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.run("--complete", pypi=HEALTHY) == 0
    said = capsys.readouterr()
    assert "2 of 2 pins judged, 0 vulnerabilities found" in said.out
    assert said.err == ""


def test_a_vulnerability_fails(audit: Audit, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.run(pypi=HEALTHY | {"two-more==2.0": ["PYSEC-7"]}) == 1
    assert "VULNERABLE: two-more==2.0: PYSEC-7, CVE-of-PYSEC-7; fixed in 9.9" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["PYSEC-7", "CVE-of-PYSEC-7"])
def test_an_exception_by_identifier_or_alias_passes(
    audit: Audit, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    audit.exceptions.write_text(f"{name} {TODAY} nobody calls it here\nPYSEC-8 {TODAY} gone\n")
    assert audit.run(pypi=HEALTHY | {"one==1.0": ["PYSEC-7"]}) == 0
    said = capsys.readouterr().out
    assert "excepted: one==1.0" in said
    assert "nobody calls it here" in said
    assert "exceptions that excepted nothing today: PYSEC-8" in said
    assert audit.run(pypi=HEALTHY | {"one==1.0": ["PYSEC-7", "PYSEC-9"]}) == 1


def test_an_exception_must_be_looked_at_again_after_180_days(tmp_path: Path) -> None:
    path = tmp_path / "exceptions.txt"
    path.write_text(f"# why\n\nPYSEC-7 {TODAY - EXCEPTION_LASTS} nobody calls it\n")
    assert read_exceptions(path, TODAY) == {"PYSEC-7": "nobody calls it"}
    with pytest.raises(AuditError, match="181 days old"):
        read_exceptions(path, TODAY + timedelta(days=1))


@pytest.mark.parametrize(
    "line", ["PYSEC-7", f"PYSEC-7 {TODAY}", "PYSEC-7 soon nobody", f"PYSEC-7 {TODAY.year + 1}-01-01 x"]
)
def test_an_exception_without_a_reason_or_a_day_fails(audit: Audit, line: str) -> None:
    audit.exceptions.write_text(line)
    assert audit.run(pypi=HEALTHY) == 1


@pytest.mark.parametrize(
    ("database", "reason"),
    [
        (UNREACHABLE, UNREACHABLE),
        # An index that mirrors files only answers 404, which pip-audit skips, ending with status 0.
        ({}, "has no advisories"),
        # One that mirrors pages without their advisories calls everything clean.
        ({"others": []}, "has no advisories"),
    ],
)
def test_a_database_that_cannot_be_asked_fails_nothing_and_is_no_proof(
    audit: Audit, database: Database, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.run(pypi=database) == 0
    said = capsys.readouterr()
    assert "0 of 2 pins judged" in said.out
    assert "NOT AUDITED: 2 of 2 pinned packages" in said.err
    assert f"pypi: {reason}" in said.err
    assert f"osv: {UNREACHABLE}" in said.err
    assert audit.run("--complete", pypi=database) == 1


@pytest.mark.parametrize("database", [UNREACHABLE, {}, {"others": []}])
def test_where_the_first_database_is_silent_the_second_is_asked(audit: Audit, database: Database) -> None:
    assert audit.run("--complete", pypi=database, osv=HEALTHY) == 0
    assert audit.run(pypi=database, osv=HEALTHY | {"one==1.0": ["GHSA-1"]}) == 1


def test_the_second_database_is_asked_only_about_what_the_first_did_not_judge(audit: Audit) -> None:
    first = {str(CANARY): ["PYSEC-1"], "one==1.0": []}
    second = {str(CANARY): ["PYSEC-1"], "one==1.0": ["GHSA-1"], "two-more==2.0": []}
    assert audit.run("--complete", pypi=first, osv=second) == 0


def test_a_pin_that_no_database_knows_is_named(audit: Audit, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.run(pypi={str(CANARY): ["PYSEC-1"], "one==1.0": []}) == 0
    said = capsys.readouterr().err
    assert "NOT AUDITED: 1 of 2" in said
    assert "left: two-more==2.0" in said


def test_what_a_database_finds_counts_even_if_the_rest_of_it_is_not_believed(audit: Audit) -> None:
    assert audit.run(pypi={"one==1.0": ["PYSEC-7"], "others": []}) == 1


def test_a_pip_audit_that_does_not_work_fails(audit: Audit, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.run(pypi=HEALTHY, broken="unrecognized arguments") == 1
    assert "pip-audit does not work: unrecognized arguments" in capsys.readouterr().err
    assert main(["--exceptions", str(audit.exceptions), str(audit.pins)], pip_audit=["/nonexistent"]) == 1


def test_both_versions_of_a_package_that_differs_by_python_are_judged(audit: Audit) -> None:
    pins = [Pin("one", "1.0"), Pin("one", "1.1"), Pin("two", "2.0")]
    verdict = judge(pins, pip_audit=audit.command(pypi=HEALTHY | {"one==1.0": ["PYSEC-1"], "one==1.1": ["PYSEC-2"]}))
    assert [found.pin for found in verdict.vulnerabilities] == pins[:2]
    assert not verdict.unjudged


def test_a_line_that_pins_nothing_fails(audit: Audit) -> None:
    audit.pins.write_text("one>=1.0\n")
    assert audit.run(pypi=HEALTHY) == 1


def test_the_bill_of_materials_names_the_version_the_ffmpeg_and_the_models(tmp_path: Path) -> None:
    binary = tmp_path / "ffmpeg-linux-x86_64-v9.0.2"
    binary.write_bytes(b"ffmpeg")
    found = complete(
        {
            "metadata": {"component": {"name": "wholetrack"}},
            "components": [{"bom-ref": "L1", "name": "imageio-ffmpeg"}],
            "dependencies": [{"ref": "L1"}],
        },
        binary,
        [PROJECT / "models/wholetrack-crnn/1/model.json"],
    )
    assert found["metadata"]["component"]["version"]
    _, model, ffmpeg = found["components"]
    assert (ffmpeg["name"], ffmpeg["version"]) == ("ffmpeg", "9.0.2")
    assert ffmpeg["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(b"ffmpeg").hexdigest()}]
    assert found["dependencies"][0] == {"ref": "L1", "dependsOn": [ffmpeg["bom-ref"]]}
    assert (model["name"], model["version"]) == ("wholetrack-crnn", "1")
    network = next(each for each in model["components"] if each["name"] == "model.onnx")
    content = (PROJECT / "models/wholetrack-crnn/1/model.onnx").read_bytes()
    assert network["hashes"][0]["content"] == hashlib.sha256(content).hexdigest()
