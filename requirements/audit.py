#!/usr/bin/env python3
"""Whether a pinned package has a known vulnerability: asks pip-audit, and does not take its silence for an answer.

pip-audit's exit status says too little. It is 1 for a vulnerability, and also for a database that does not answer; it
is 0 for nothing found, and also where the database knows none of the packages, as an index that mirrors files but no
advisories does. So three things are asked of it:

- a dry run, which asks no database: if that fails, the fault is here and not in the network;
- a report in JSON: a pin counts as judged only if the report has a list of vulnerabilities for it, empty or not;
- a vulnerability that everybody knows, among the pins: a database that does not report it has none to report, and what
  it calls clean is not believed.

A vulnerability without an exception fails. Pins that no database judged do not, unless --complete is given; but they
are counted out loud.
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
EXCEPTION_LASTS = timedelta(days=180)

_PIP_AUDIT = (sys.executable, "-m", "pip_audit")
# In this order; the second is asked about what the first did not judge.
_DATABASES = ("pypi", "osv")
_SOCKET_TIMEOUT_S = 10
_TIMEOUT_S = 180

_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)")


class Pin(NamedTuple):
    """A package in one version, its name normalised."""

    name: str
    version: str

    def __str__(self) -> str:
        """As pip writes it."""
        return f"{self.name}=={self.version}"


# CVE-2020-14343, and nothing that the service could ever use.
CANARY = Pin("pyyaml", "5.3.1")


@dataclass(frozen=True, slots=True)
class Vulnerability:
    """One that a database knows of a pin.

    Attributes:
        pin: that has it.
        names: its identifier, then the aliases.
        fixed_in: versions without it.
    """

    pin: Pin
    names: tuple[str, ...]
    fixed_in: tuple[str, ...]

    def __str__(self) -> str:
        """A line for a person."""
        remedy = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "no version without it"
        return f"{self.pin}: {', '.join(self.names)}; {remedy}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of all pins.

    Attributes:
        vulnerabilities: found.
        unjudged: pins about which no database could be asked.
        silences: why, one sentence for each database that was of no use.
    """

    vulnerabilities: tuple[Vulnerability, ...]
    unjudged: frozenset[Pin]
    silences: tuple[str, ...]


class AuditError(Exception):
    """The audit cannot be made, and not because of the network; the message says what to mend."""


Answers = Mapping[Pin, Sequence[Vulnerability]]


def read_pins(path: Path) -> Iterator[Pin]:
    """Every pin of a requirements file, whatever machine it is meant for.

    Raises:
        AuditError: for a line that pins nothing.
    """
    for line in path.read_text().splitlines():
        if not line.strip() or line.lstrip().startswith(("#", "--hash=")):
            continue
        found = _PIN.match(line)
        if not found:
            raise AuditError(f"{path.name}: not a pin: {line}")
        yield Pin(re.sub(r"[-_.]+", "-", found[1]).lower(), found[2])


def read_exceptions(path: Path, today: date) -> dict[str, str]:
    """The reason of every exception, by identifier.

    Raises:
        AuditError: for one without a date or a reason, of the future, or too old.
    """
    reasons = {}
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        try:
            identifier, day, reason = line.split(maxsplit=2)
            age = today - date.fromisoformat(day)
        except ValueError as error:
            raise AuditError(f"{path.name}: not 'identifier date reason': {line}") from error
        if age < timedelta():
            raise AuditError(f"{path.name}: of the future: {line}")
        if age > EXCEPTION_LASTS:
            raise AuditError(f"{path.name}: {age.days} days old, look at it again: {line}")
        reasons[identifier] = reason
    return reasons


def judge(pins: Collection[Pin], *, pip_audit: Sequence[str] = _PIP_AUDIT) -> Verdict:
    """Ask one database after another about what is not judged yet.

    Args:
        pins: to judge.
        pip_audit: the command.

    Raises:
        AuditError: if pip-audit does not even read the pins.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = list(_write({*pins, CANARY}, Path(folder)))
        for file in files:
            dry = _run([*pip_audit, "--dry-run", *_options(file)])
            if isinstance(dry, str) or dry.returncode != 0:
                raise AuditError(f"pip-audit does not work: {dry if isinstance(dry, str) else _last_line(dry.stderr)}")

    unjudged, vulnerabilities, silences = frozenset(pins), set[Vulnerability](), []
    for database in _DATABASES:
        answers, silence = _ask(database, unjudged, pip_audit)
        vulnerabilities |= {found for pin in unjudged for found in answers.get(pin, ())}
        if silence:
            silences.append(f"{database}: {silence}")
        unjudged -= answers.keys()
        if not unjudged:
            break
    return Verdict(tuple(sorted(vulnerabilities, key=str)), unjudged, tuple(silences))


def _ask(database: str, pins: Collection[Pin], pip_audit: Sequence[str]) -> tuple[Answers, str]:
    """What a database says of the pins that it judged, and why it is of no use for the others, if it is of none."""
    answers: dict[Pin, Sequence[Vulnerability]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for file in _write({*pins, CANARY}, Path(folder)):
            done = _run([*pip_audit, "--vulnerability-service", database, *_options(file)])
            if isinstance(done, str):
                return _only_vulnerable(answers), done
            try:
                answers |= _read_report(done.stdout)
            except (ValueError, LookupError, TypeError, AttributeError):
                return _only_vulnerable(answers), _last_line(done.stderr) or f"no report, status {done.returncode}"
    if not answers.get(CANARY):
        return _only_vulnerable(answers), f"has no advisories: it does not know the vulnerability of {CANARY}"
    missing = len(set(pins) - answers.keys())
    return answers, f"does not know {missing} of {len(pins)} pins" if missing else ""


def _only_vulnerable(answers: Answers) -> Answers:
    """What is left of an answer that cannot be trusted: what it found."""
    return {pin: found for pin, found in answers.items() if found}


def _read_report(text: str) -> dict[Pin, Sequence[Vulnerability]]:
    """The pins that pip-audit's JSON has a list of vulnerabilities for."""
    report: dict[str, Any] = json.loads(text)
    answers: dict[Pin, Sequence[Vulnerability]] = {}
    for entry in report["dependencies"]:
        if "vulns" in entry:
            pin = Pin(entry["name"], entry["version"])
            answers[pin] = [
                Vulnerability(pin, (each["id"], *sorted(each["aliases"])), tuple(each["fix_versions"]))
                for each in entry["vulns"]
            ]
    return answers


def _write(pins: Iterable[Pin], folder: Path) -> Iterator[Path]:
    """The pins in as few files as have each package once: one for most, more for what differs by Python's version."""
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
    # The hashes stay behind: `make setup` checks files against them, and there are none here.
    return (*quiet, "--aliases", "on", "--desc", "off", "--disable-pip", "--no-deps", "--requirement", str(file))


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str] | str:
    """The finished process, or why there is none."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {_TIMEOUT_S} seconds"
    except OSError as error:
        return str(error)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2][:300]


def _report(verdict: Verdict, reasons: Mapping[str, str], n_pins: int) -> bool:
    """Print what is known; whether there is a vulnerability without an exception."""
    excepted = {found: set(found.names) & reasons.keys() for found in verdict.vulnerabilities}
    for found, names in excepted.items():
        print(f"{'excepted' if names else 'VULNERABLE'}: {found}", *(f"({reasons[name]})" for name in sorted(names)))
    if unused := reasons.keys() - set().union(*excepted.values()):
        print(f"exceptions that excepted nothing today: {', '.join(sorted(unused))}")
    print(f"{n_pins - len(verdict.unjudged)} of {n_pins} pins judged, {len(excepted)} vulnerabilities found")
    if verdict.unjudged:
        bar = "!" * 100
        lines = [bar, f"NOT AUDITED: {len(verdict.unjudged)} of {n_pins} pinned packages."]
        lines += [f"  {silence}" for silence in verdict.silences]
        if len(verdict.unjudged) < n_pins:
            lines.append(f"  left: {', '.join(map(str, sorted(verdict.unjudged)))}")
        lines += ["Nothing is known of them. Run `make audit` where a database can be reached.", bar]
        print("\n".join(lines), file=sys.stderr)
    return not all(excepted.values())


def main(arguments: Sequence[str] | None = None, *, pip_audit: Sequence[str] = _PIP_AUDIT) -> int:
    """Audit; the exit status is 1 for a vulnerability, an expired exception or an audit that does not work."""
    parser = argparse.ArgumentParser(description="Fail if a pinned package has a known vulnerability.")
    parser.add_argument("requirements", nargs="+", type=Path, help="files of pins")
    parser.add_argument("--exceptions", type=Path, default=EXCEPTIONS, help="vulnerabilities that do not fail")
    parser.add_argument("--complete", action="store_true", help="fail also if a pin could not be judged")
    options = parser.parse_args(arguments)
    try:
        reasons = read_exceptions(options.exceptions, datetime.now(UTC).date())
        pins = {pin for path in options.requirements for pin in read_pins(path)}
        verdict = judge(pins, pip_audit=pip_audit)
    except (AuditError, OSError) as error:
        print(f"audit: {error}", file=sys.stderr)
        return 1
    vulnerable = _report(verdict, reasons, len(pins))
    return int(vulnerable or (options.complete and bool(verdict.unjudged)))


if __name__ == "__main__":
    sys.exit(main())
