"""Pinned packages, the audit of their vulnerabilities, and the bill of materials."""

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

from requirements.audit import CANARY, EXCEPTION_LIFETIME, AuditError, Pin, audit, main, read_exceptions, read_pins
from requirements.sbom import complete
from tests.harness.paths import PROJECT

SERVICE = sorted((PROJECT / "requirements").glob("service-*.txt"))
HASHED = [path for path in sorted((PROJECT / "requirements").glob("*.txt")) if path.name != "audit-exceptions.txt"]
TODAY = datetime.now(UTC).date()


def _lines(path: Path) -> list[str]:
    """Return the lines of a requirements file, with continued lines joined."""
    joined = path.read_text().replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("path", HASHED, ids=lambda path: path.name)
def test_every_pin_has_a_hash(path: Path) -> None:
    pin = re.compile(r"[a-z0-9][a-z0-9.-]*==[^\s;]+( ;[^-]+)?(\s+--hash=sha256:[0-9a-f]{64})+\s*")
    assert [line for line in _lines(path) if not pin.fullmatch(line)] == []


@pytest.mark.parametrize("path", SERVICE, ids=lambda path: path.name)
def test_the_constraints_have_the_same_versions(path: Path) -> None:
    # In the constraints, torch requires NVIDIA's libraries in the versions of its own release. The service has no
    # torch and uses the versions that onnxruntime requires.
    pins = {pin for pin in read_pins(path) if not pin.name.startswith("nvidia-")}
    assert pins <= set(read_pins(PROJECT / "constraints.txt"))


def test_only_one_package_of_onnxruntime_is_pinned_per_device() -> None:
    pinned = {path.name: {pin.name for pin in read_pins(path)} for path in SERVICE}
    onnxruntime = {"onnxruntime", "onnxruntime-gpu"}
    assert {name: names & onnxruntime for name, names in pinned.items()} == {
        "service-cpu.txt": {"onnxruntime"},
        "service-gpu.txt": {"onnxruntime-gpu"},
    }


@pytest.mark.parametrize("path", SERVICE, ids=lambda path: path.name)
def test_every_direct_dependency_is_pinned_to_an_allowed_version(path: Path) -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    device = path.stem.removeprefix("service-")
    pins = list(read_pins(path))
    for text in [*project["dependencies"], *project["optional-dependencies"][device]]:
        wanted = Requirement(text)
        versions = [pin.version for pin in pins if pin.name == canonicalize_name(wanted.name)]
        assert versions, f"{wanted.name} is not pinned: make lock"
        assert all(wanted.specifier.contains(version) for version in versions), text


# A pip-audit with fixed results: the vulnerabilities in each database by pin, an error of a database, or one of its
# own.
FAKE = """
import json, sys
plan, arguments = json.loads({plan!r}), sys.argv[1:]
pins = [line.split("==") for line in open(arguments[-1]).read().split()]
assert len({{name for name, _ in pins}}) == len(pins), "pip-audit does not accept two versions of a package"
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
    """An audit of two pins with fixed results of the databases."""

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
def fake_audit(tmp_path: Path) -> Audit:
    return Audit(tmp_path)


def test_pins_without_a_known_vulnerability_pass(fake_audit: Audit, capsys: pytest.CaptureFixture[str]) -> None:
    assert fake_audit.run("--complete", pypi=HEALTHY) == 0
    printed = capsys.readouterr()
    assert "2 of 2 pins audited, 0 vulnerabilities found" in printed.out
    assert printed.err == ""


def test_a_vulnerability_fails(fake_audit: Audit, capsys: pytest.CaptureFixture[str]) -> None:
    assert fake_audit.run(pypi=HEALTHY | {"two-more==2.0": ["PYSEC-7"]}) == 1
    assert "VULNERABLE: two-more==2.0: PYSEC-7, CVE-of-PYSEC-7; fixed in 9.9" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["PYSEC-7", "CVE-of-PYSEC-7"])
def test_an_exception_by_identifier_or_alias_passes(
    fake_audit: Audit, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_audit.exceptions.write_text(f"{name} {TODAY} not called here\nPYSEC-8 {TODAY} gone\n")
    assert fake_audit.run(pypi=HEALTHY | {"one==1.0": ["PYSEC-7"]}) == 0
    printed = capsys.readouterr().out
    assert "excepted: one==1.0" in printed
    assert "not called here" in printed
    assert "unused exceptions: PYSEC-8" in printed
    assert fake_audit.run(pypi=HEALTHY | {"one==1.0": ["PYSEC-7", "PYSEC-9"]}) == 1


def test_an_exception_expires_after_180_days(tmp_path: Path) -> None:
    path = tmp_path / "exceptions.txt"
    path.write_text(f"# why\n\nPYSEC-7 {TODAY - EXCEPTION_LIFETIME} not called here\n")
    assert read_exceptions(path, TODAY) == {"PYSEC-7": "not called here"}
    with pytest.raises(AuditError, match="181 days ago"):
        read_exceptions(path, TODAY + timedelta(days=1))


@pytest.mark.parametrize(
    "line", ["PYSEC-7", f"PYSEC-7 {TODAY}", "PYSEC-7 soon nobody", f"PYSEC-7 {TODAY.year + 1}-01-01 x"]
)
def test_an_exception_without_a_reason_or_a_valid_date_fails(fake_audit: Audit, line: str) -> None:
    fake_audit.exceptions.write_text(line)
    assert fake_audit.run(pypi=HEALTHY) == 1


@pytest.mark.parametrize(
    ("database", "reason"),
    [
        (UNREACHABLE, UNREACHABLE),
        # For an index that mirrors only files, pip-audit skips all packages and exits with status 0.
        ({}, "has no advisories"),
        # An index that mirrors pages without advisories reports no vulnerabilities at all.
        ({"others": []}, "has no advisories"),
    ],
)
def test_a_useless_database_is_reported_and_fails_only_a_complete_audit(
    fake_audit: Audit, database: Database, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fake_audit.run(pypi=database) == 0
    printed = capsys.readouterr()
    assert "0 of 2 pins audited" in printed.out
    assert "NOT AUDITED: 2 of 2 pinned packages" in printed.err
    assert f"pypi: {reason}" in printed.err
    assert f"osv: {UNREACHABLE}" in printed.err
    assert fake_audit.run("--complete", pypi=database) == 1


@pytest.mark.parametrize("database", [UNREACHABLE, {}, {"others": []}])
def test_the_second_database_is_queried_if_the_first_is_useless(fake_audit: Audit, database: Database) -> None:
    assert fake_audit.run("--complete", pypi=database, osv=HEALTHY) == 0
    assert fake_audit.run(pypi=database, osv=HEALTHY | {"one==1.0": ["GHSA-1"]}) == 1


def test_the_second_database_is_queried_only_for_pins_that_the_first_could_not_audit(fake_audit: Audit) -> None:
    first = {str(CANARY): ["PYSEC-1"], "one==1.0": []}
    second = {str(CANARY): ["PYSEC-1"], "one==1.0": ["GHSA-1"], "two-more==2.0": []}
    assert fake_audit.run("--complete", pypi=first, osv=second) == 0


def test_a_pin_that_no_database_knows_is_reported(fake_audit: Audit, capsys: pytest.CaptureFixture[str]) -> None:
    assert fake_audit.run(pypi={str(CANARY): ["PYSEC-1"], "one==1.0": []}) == 0
    printed = capsys.readouterr().err
    assert "NOT AUDITED: 1 of 2" in printed
    assert "not audited: two-more==2.0" in printed


def test_a_vulnerability_counts_even_from_a_database_that_is_not_trusted(fake_audit: Audit) -> None:
    assert fake_audit.run(pypi={"one==1.0": ["PYSEC-7"], "others": []}) == 1


def test_a_pip_audit_that_does_not_work_fails(fake_audit: Audit, capsys: pytest.CaptureFixture[str]) -> None:
    assert fake_audit.run(pypi=HEALTHY, broken="unrecognized arguments") == 1
    assert "pip-audit does not work: unrecognized arguments" in capsys.readouterr().err
    assert main(["--exceptions", str(fake_audit.exceptions), str(fake_audit.pins)], pip_audit=["/nonexistent"]) == 1


def test_all_versions_of_a_package_that_depend_on_python_are_audited(fake_audit: Audit) -> None:
    pins = [Pin("one", "1.0"), Pin("one", "1.1"), Pin("two", "2.0")]
    result = audit(
        pins, pip_audit=fake_audit.command(pypi=HEALTHY | {"one==1.0": ["PYSEC-1"], "one==1.1": ["PYSEC-2"]})
    )
    assert [found.pin for found in result.vulnerabilities] == pins[:2]
    assert not result.unaudited


def test_a_line_that_is_not_a_pin_fails(fake_audit: Audit) -> None:
    fake_audit.pins.write_text("one>=1.0\n")
    assert fake_audit.run(pypi=HEALTHY) == 1


def test_the_bill_of_materials_contains_the_version_ffmpeg_the_models_and_the_packages_of_the_page(
    tmp_path: Path,
) -> None:
    binary = tmp_path / "ffmpeg-linux-x86_64-v9.0.2"
    binary.write_bytes(b"ffmpeg")
    sbom = complete(
        {
            "metadata": {"component": {"name": "wholetrack"}},
            "components": [{"bom-ref": "L1", "name": "imageio-ffmpeg"}],
            "dependencies": [{"ref": "L1"}],
        },
        binary,
        [PROJECT / "models/wholetrack-crnn-gtzan/1/model.json"],
        PROJECT / "page/package-lock.json",
    )
    assert sbom["metadata"]["component"]["version"]
    _, model, *packages, font, ffmpeg = sbom["components"]
    assert (font["name"], font["version"]) == ("dejavu-fonts", "2.37")
    assert (ffmpeg["name"], ffmpeg["version"]) == ("ffmpeg", "9.0.2")
    assert ffmpeg["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(b"ffmpeg").hexdigest()}]
    assert sbom["dependencies"][0] == {"ref": "L1", "dependsOn": [ffmpeg["bom-ref"]]}
    assert (model["name"], model["version"]) == ("wholetrack-crnn-gtzan", "1")
    bundled = json.loads((PROJECT / "page/package.json").read_text())["dependencies"]
    assert {package["name"]: package["version"] for package in packages} == bundled
    serif = next(package for package in packages if package["name"] == "@fontsource/instrument-serif")
    assert serif["purl"] == f"pkg:npm/%40fontsource/instrument-serif@{serif['version']}"
    assert serif["licenses"] == [{"license": {"id": "OFL-1.1"}}]
    assert [(entry["alg"], len(entry["content"])) for entry in serif["hashes"]] == [("SHA-512", 128)]
    assert {package["bom-ref"] for package in packages} <= {each["ref"] for each in sbom["dependencies"]}
    network = next(each for each in model["components"] if each["name"] == "model.onnx")
    content = (PROJECT / "models/wholetrack-crnn-gtzan/1/model.onnx").read_bytes()
    assert network["hashes"][0]["content"] == hashlib.sha256(content).hexdigest()
