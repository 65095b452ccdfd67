"""Former names of settings work for one release and log a warning; the current name takes precedence."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wholetrack.deprecated_settings import RENAMED, former_names_in_use, warn_about_former_names
from wholetrack.settings import Settings

FORMER, CURRENT = "WHOLETRACK_REPEATS_MB", "WHOLETRACK_CACHE_MB"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(FORMER, raising=False)
    monkeypatch.delenv(CURRENT, raising=False)


def test_current_names_are_settings_and_former_names_are_not() -> None:
    assert set(RENAMED.values()) <= set(Settings.model_fields)
    assert not set(RENAMED) & set(Settings.model_fields)


def test_a_former_name_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORMER, "7")
    assert Settings().cache_mb == 7
    assert former_names_in_use(Settings) == [(FORMER, CURRENT)]


def test_a_former_name_is_read_from_the_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"{FORMER}=8\n")
    assert Settings().cache_mb == 8
    assert former_names_in_use(Settings) == [(FORMER, CURRENT)]


def test_the_current_name_takes_precedence_wherever_it_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORMER, "7")
    monkeypatch.setenv(CURRENT, "9")
    assert Settings().cache_mb == 9
    monkeypatch.delenv(CURRENT)
    (tmp_path / ".env").write_text(f"{CURRENT}=10\n")
    assert Settings().cache_mb == 10
    assert Settings(cache_mb=11).cache_mb == 11


def test_each_former_name_in_use_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    warn_about_former_names(Settings)
    assert caplog.messages == []
    monkeypatch.setenv(FORMER, "7")
    warn_about_former_names(Settings)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert (
        record.getMessage() == f"{FORMER} is deprecated and will be removed in the next release: use {CURRENT} instead"
    )


def run(*command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "wholetrack", *command]
    return subprocess.run(arguments, env=os.environ | settings, capture_output=True, text=True, check=False)


def test_the_settings_command_lists_the_current_name_only() -> None:
    done = run("settings", **{FORMER: "7"})
    (line,) = [line.split() for line in done.stdout.splitlines() if line.startswith(CURRENT)]
    assert line[1:3] == ["7", "environment"]
    assert FORMER not in done.stdout
    assert FORMER in done.stderr


def test_the_service_logs_the_warning_in_its_own_format() -> None:
    done = run("serve", **{FORMER: "7", "WHOLETRACK_FFMPEG": "/nowhere/ffmpeg"})
    record = json.loads(done.stderr.splitlines()[0])
    assert record["level"] == "WARNING"
    assert FORMER in record["message"]
