"""The launcher imports its packages from where the service does, and from nowhere else, however they are installed."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import landlockpy
import psutil
import pytest

import wholetrack
from tests.harness.sandboxed_python import PYTHON, python_sandbox
from wholetrack.sandbox.client import Sandbox
from wholetrack.sandbox.connection import LauncherError, _import_folders
from wholetrack.sandbox.target import Program

_WHOLETRACK, _LANDLOCKPY = Path(wholetrack.__file__).parent, Path(landlockpy.__file__).parent

_SERVICE = """
from pathlib import Path
from wholetrack.sandbox.client import Sandbox
from wholetrack.sandbox.limits import Limits
from wholetrack.sandbox.target import Program
sandbox = Sandbox(Program(Path("/bin/true")))
limits = Limits(
    cpu_s=5, max_cpu_s=5, data_bytes=1 << 28, address_space_bytes=1 << 30, stack_bytes=1 << 23, open_files=32
)
with open("/dev/null") as file:
    process = sandbox.spawn(["/bin/true"], input_file=file.fileno(), limits=limits, environment={})
print(process.wait(30))
"""

Installation = tuple[Path, dict[str, str]]
"""The interpreter of the service, and its environment variables."""


def install(target: Path) -> Path:
    """Copy what the launcher imports into a folder."""
    for package in (_WHOLETRACK, _LANDLOCKPY):
        shutil.copytree(package, target / package.name)
    return target


def new_venv(folder: Path) -> tuple[Path, Path]:
    """Create an empty virtual environment, and return its interpreter and its site-packages."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    command = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return python, Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def target_folder(folder: Path) -> Installation:
    """As by ``pip install --target``."""
    return PYTHON, {"PYTHONPATH": str(install(folder / "target"))}


def relative_path(folder: Path) -> Installation:
    install(folder / "target")
    return PYTHON, {"PYTHONPATH": "target"}


def two_folders(folder: Path) -> Installation:
    """A checkout and its dependencies."""
    dependencies = folder / "dependencies"
    dependencies.mkdir()
    (dependencies / "landlockpy").symlink_to(_LANDLOCKPY)
    return PYTHON, {"PYTHONPATH": f"{_WHOLETRACK.parent}{os.pathsep}{dependencies}"}


def virtual_environment(folder: Path) -> Installation:
    python, site_packages = new_venv(folder / "venv")
    install(site_packages)
    return python, {}


def editable(folder: Path) -> Installation:
    """As by ``pip install --editable``: a .pth file that names the checkout."""
    python, site_packages = new_venv(folder / "venv")
    shutil.copytree(_LANDLOCKPY, site_packages / "landlockpy")
    (site_packages / "_wholetrack.pth").write_text(f"{_WHOLETRACK.parent}\n")
    return python, {}


def user_site(folder: Path) -> Installation:
    """As by ``pip install --user``."""
    variables = {"userbase": str(folder / "user")}
    install(Path(sysconfig.get_path("purelib", "posix_user", variables)))
    return PYTHON, {"PYTHONUSERBASE": str(folder / "user")}


@pytest.mark.parametrize(
    "installed", [target_folder, relative_path, two_folders, virtual_environment, editable, user_site]
)
def test_the_launcher_finds_its_packages(installed: Callable[[Path], Installation], tmp_path: Path) -> None:
    python, environment = installed(tmp_path)
    result = subprocess.run(
        [python, "-c", _SERVICE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "0\n", "")


@pytest.mark.parametrize("place", ["the current folder", "a folder of packages"])
def test_the_launcher_imports_no_other_code(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of the standard library are imported from there, even if a file of the same name is somewhere else."""
    for name in ("json", "selectors", "socket", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} was imported from {tmp_path}')")
    if place == "the current folder":
        monkeypatch.chdir(tmp_path)
    else:
        monkeypatch.setattr("wholetrack.sandbox.connection._import_folders", lambda: [str(install(tmp_path))])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with closing(python_sandbox()) as sandbox:
        assert sandbox.layers


def test_the_launcher_imports_only_what_it_needs() -> None:
    """Packages such as numpy and pydantic would slow down its start."""
    program = (
        f"import json, sys; sys.path += {_import_folders()}\n"
        "before = set(sys.modules); import wholetrack.sandbox.launcher\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))"
    )
    command = [sys.executable, "-I", "-S", "-c", program]
    imported = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert set(imported) - sys.stdlib_module_names == {"wholetrack", "landlockpy"}


def interpreter(folder: Path, script: str) -> str:
    """Write a shell script to use in place of the Python interpreter, and return its path."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_missing_module_is_named_and_the_traceback_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(_WHOLETRACK, tmp_path / "wholetrack")
    monkeypatch.setattr("wholetrack.sandbox.connection._import_folders", lambda: [str(tmp_path)])
    with pytest.raises(LauncherError) as caught:
        Sandbox(Program(PYTHON))
    assert str(caught.value) == ("the launcher exited with status 1: ModuleNotFoundError: No module named 'landlockpy'")
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "Traceback (most recent call last)" in record.getMessage()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", "exited with status 3"),
        ("echo Cannot load libc. >&2; exit 127", "exited with status 127: Cannot load libc."),
        ("kill -SYS $$", "was killed by signal 31 (Bad system call)"),
        ("exec sleep 60", "was not ready within 0.3 seconds"),
    ],
)
def test_a_launcher_that_does_not_start_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, script))
    if script == "exec sleep 60":
        monkeypatch.setattr("wholetrack.sandbox.connection._READY_TIMEOUT_S", 0.3)
    before = (psutil.Process().num_fds(), psutil.Process().children())
    with pytest.raises(LauncherError) as caught:
        Sandbox(Program(PYTHON))
    assert str(caught.value) == f"the launcher {message}"
    assert (psutil.Process().num_fds(), psutil.Process().children()) == before


def test_an_interpreter_that_cannot_be_executed_is_an_error_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    descriptors = psutil.Process().num_fds()
    with pytest.raises(FileNotFoundError, match="/nowhere/python"):
        Sandbox(Program(PYTHON))
    assert psutil.Process().num_fds() == descriptors


def test_the_service_exits_with_one_sentence_if_the_launcher_does_not_start() -> None:
    program = """
import sys
from wholetrack.cli.app import main
sys.executable, sys.argv = "/nowhere/python", ["wholetrack", "models"]
main()
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("wholetrack: ffmpeg's sandbox cannot be started: ")
    assert result.stderr.count("\n") == 1
