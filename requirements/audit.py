#!/usr/bin/env python3
"""Fail if a pinned package has a known vulnerability.

The exit status of pip-audit is ambiguous. It is 1 for a vulnerability, but also if a database does not respond. It is
0 if nothing was found, but also if the database knows none of the packages, like an index that mirrors files without
advisories. Three measures resolve this:

- A dry run, which contacts no database: if it fails, pip-audit itself does not work.
- A report in JSON: a pin counts as audited only if the report has a list of vulnerabilities for it, empty or not.
- A canary, which is a package with a well-known vulnerability: a database that does not report it has no advisories,
  and its results without vulnerabilities are ignored.

A vulnerability without an exception is a failure. Pins that no database could audit are a failure only with --complete,
but they are always reported.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

EXCEPTIONS = Path(__file__).with_name("audit-exceptions.txt")
EXCEPTION_LIFETIME = timedelta(days=180)

_PIP_AUDIT = (sys.executable, "-m", "pip_audit")
# In this order. The second database gets the pins that the first could not audit.
_DATABASES = ("pypi", "osv")
_SOCKET_TIMEOUT_S = 10
_TIMEOUT_S = 180

_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)")


class Pin(NamedTuple):
    """A package in one version, its name normalised."""

    name: str
    version: str

    def __str__(self) -> str:
        """Return the pin in pip's notation."""
        return f"{self.name}=={self.version}"


# It has CVE-2020-14343, and the service does not use it.
CANARY = Pin("pyyaml", "5.3.1")


@dataclass(frozen=True, slots=True)
class Vulnerability:
    """A known vulnerability of a pin.

    Attributes:
        pin: The vulnerable pin.
        names: Its identifier, followed by its aliases.
        fixed_in: Versions without it.
    """

    pin: Pin
    names: tuple[str, ...]
    fixed_in: tuple[str, ...]

    def __str__(self) -> str:
        """Return a line for the report."""
        remedy = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "no fixed version"
        return f"{self.pin}: {', '.join(self.names)}; {remedy}"


@dataclass(frozen=True, slots=True)
class AuditResult:
    """The result for all pins.

    Attributes:
        vulnerabilities: Vulnerabilities found.
        unaudited: Pins that no database could audit.
        reasons: The reason, for each database that could not audit all pins.
    """

    vulnerabilities: tuple[Vulnerability, ...]
    unaudited: frozenset[Pin]
    reasons: tuple[str, ...]


class AuditError(Exception):
    """The audit is not possible, and the network is not the cause; the message says what to fix."""


Findings = Mapping[Pin, Sequence[Vulnerability]]
"""Vulnerabilities of every pin that was audited; an empty sequence for none."""


def read_pins(path: Path) -> Iterator[Pin]:
    """Yield every pin of a requirements file, for all platforms and versions of Python.

    Raises:
        AuditError: If a line is not a pin.
    """
    for line in path.read_text().splitlines():
        if not line.strip() or line.lstrip().startswith(("#", "--hash=")):
            continue
        found = _PIN.match(line)
        if not found:
            raise AuditError(f"{path.name}: not a pin: {line}")
        yield Pin(re.sub(r"[-_.]+", "-", found[1]).lower(), found[2])


def read_exceptions(path: Path, today: date) -> dict[str, str]:
    """Return the reason for every exception, by identifier.

    Raises:
        AuditError: If an exception has no date or no reason, if its date is in the future, or if it has expired.
    """
    reasons = {}
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        try:
            identifier, day, reason = line.split(maxsplit=2)
            age = today - date.fromisoformat(day)
        except ValueError as error:
            raise AuditError(f"{path.name}: expected 'identifier date reason': {line}") from error
        if age < timedelta():
            raise AuditError(f"{path.name}: the date is in the future: {line}")
        if age > EXCEPTION_LIFETIME:
            raise AuditError(f"{path.name}: last reviewed {age.days} days ago, review it again: {line}")
        reasons[identifier] = reason
    return reasons


def audit(pins: Collection[Pin], *, pip_audit: Sequence[str] = _PIP_AUDIT) -> AuditResult:
    """Query one database after another for the pins that are not audited yet.

    Args:
        pins: Pins to audit.
        pip_audit: Command of pip-audit.

    Raises:
        AuditError: If pip-audit cannot even read the pins.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = list(_write({*pins, CANARY}, Path(folder)))
        for file in files:
            dry = _run([*pip_audit, "--dry-run", *_options(file)])
            if isinstance(dry, str) or dry.returncode != 0:
                raise AuditError(f"pip-audit does not work: {dry if isinstance(dry, str) else _last_line(dry.stderr)}")

    unaudited, vulnerabilities, reasons = frozenset(pins), set[Vulnerability](), []
    for database in _DATABASES:
        findings, reason = _query(database, unaudited, pip_audit)
        vulnerabilities |= {found for pin in unaudited for found in findings.get(pin, ())}
        if reason:
            reasons.append(f"{database}: {reason}")
        unaudited -= findings.keys()
        if not unaudited:
            break
    return AuditResult(tuple(sorted(vulnerabilities, key=str)), unaudited, tuple(reasons))


def _query(database: str, pins: Collection[Pin], pip_audit: Sequence[str]) -> tuple[Findings, str]:
    """Return the findings of a database, and why it could not audit the other pins, or an empty string."""
    findings: dict[Pin, Sequence[Vulnerability]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for file in _write({*pins, CANARY}, Path(folder)):
            done = _run([*pip_audit, "--vulnerability-service", database, *_options(file)])
            if isinstance(done, str):
                return _only_vulnerable(findings), done
            try:
                findings |= _read_report(done.stdout)
            except (ValueError, LookupError, TypeError, AttributeError):
                return _only_vulnerable(findings), _last_line(done.stderr) or f"no report, status {done.returncode}"
    if not findings.get(CANARY):
        return _only_vulnerable(findings), f"has no advisories: it does not report the vulnerability of {CANARY}"
    missing = len(set(pins) - findings.keys())
    return findings, f"does not know {missing} of {len(pins)} pins" if missing else ""


def _only_vulnerable(findings: Findings) -> Findings:
    """Return the pins with vulnerabilities, which count even if the rest of the findings cannot be trusted."""
    return {pin: found for pin, found in findings.items() if found}


def _read_report(text: str) -> dict[Pin, Sequence[Vulnerability]]:
    """Return the findings in pip-audit's JSON for every pin that has a list of vulnerabilities."""
    report: dict[str, Any] = json.loads(text)
    findings: dict[Pin, Sequence[Vulnerability]] = {}
    for entry in report["dependencies"]:
        if "vulns" in entry:
            pin = Pin(entry["name"], entry["version"])
            findings[pin] = [
                Vulnerability(pin, (each["id"], *sorted(each["aliases"])), tuple(each["fix_versions"]))
                for each in entry["vulns"]
            ]
    return findings


def _write(pins: Iterable[Pin], folder: Path) -> Iterator[Path]:
    """Write the pins to as few files as possible with each package once per file, and yield the files.

    A package has several pins if its version depends on that of Python.
    """
    left = sorted(pins)
    for number in count():
        if not left:
            return
        first = {pin.name: pin for pin in reversed(left)}
        left = [pin for pin in left if pin not in first.values()]
        file = folder / f"{number}.txt"
        file.write_text("".join(f"{pin}\n" for pin in sorted(first.values())))
        yield file


def _options(file: Path) -> tuple[str, ...]:
    quiet = ("--progress-spinner", "off", "--format", "json", "--timeout", str(_SOCKET_TIMEOUT_S))
    # Hashes are not needed, because nothing is installed; `make setup` checks them.
    return (*quiet, "--aliases", "on", "--desc", "off", "--disable-pip", "--no-deps", "--requirement", str(file))


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str] | str:
    """Return the finished process, or why there is none."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"no response within {_TIMEOUT_S} seconds"
    except OSError as error:
        return str(error)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2][:300]


def _report(result: AuditResult, exceptions: Mapping[str, str], n_pins: int) -> bool:
    """Print the result, and return whether there is a vulnerability without an exception."""
    excepted = {found: set(found.names) & exceptions.keys() for found in result.vulnerabilities}
    for found, names in excepted.items():
        reasons = (f"({exceptions[name]})" for name in sorted(names))
        print(f"{'excepted' if names else 'VULNERABLE'}: {found}", *reasons)
    if unused := exceptions.keys() - set().union(*excepted.values()):
        print(f"unused exceptions: {', '.join(sorted(unused))}")
    print(f"{n_pins - len(result.unaudited)} of {n_pins} pins audited, {len(excepted)} vulnerabilities found")
    if result.unaudited:
        _report_unaudited(result, n_pins)
    return not all(excepted.values())


def _report_unaudited(result: AuditResult, n_pins: int) -> None:
    bar = "!" * 100
    lines = [bar, f"NOT AUDITED: {len(result.unaudited)} of {n_pins} pinned packages."]
    lines += [f"  {reason}" for reason in result.reasons]
    if len(result.unaudited) < n_pins:
        lines.append(f"  not audited: {', '.join(map(str, sorted(result.unaudited)))}")
    lines += ["Their vulnerabilities are unknown. Run `make audit` with access to a database.", bar]
    print("\n".join(lines), file=sys.stderr)


def main(arguments: Sequence[str] | None = None, *, pip_audit: Sequence[str] = _PIP_AUDIT) -> int:
    """Return the exit status: 1 for a vulnerability, an expired exception, or an audit that is not possible."""
    parser = argparse.ArgumentParser(description="Fail if a pinned package has a known vulnerability.")
    parser.add_argument("requirements", nargs="+", type=Path, help="requirements files with pins")
    parser.add_argument(
        "--exceptions", type=Path, default=EXCEPTIONS, help="file of vulnerabilities that do not count as failures"
    )
    parser.add_argument("--complete", action="store_true", help="also fail if a pin could not be audited")
    options = parser.parse_args(arguments)
    try:
        exceptions = read_exceptions(options.exceptions, datetime.now(UTC).date())
        pins = {pin for path in options.requirements for pin in read_pins(path)}
        result = audit(pins, pip_audit=pip_audit)
    except (AuditError, OSError) as error:
        print(f"audit: {error}", file=sys.stderr)
        return 1
    vulnerable = _report(result, exceptions, len(pins))
    return int(vulnerable or (options.complete and bool(result.unaudited)))


if __name__ == "__main__":
    sys.exit(main())
