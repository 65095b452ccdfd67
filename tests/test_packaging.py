"""The wheel and the sdist: what they contain, and that the wheel works from any folder in an empty environment."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from itertools import chain
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.paths import PROJECT
from tests.harness.recordings import wav_bytes
from wholetrack.tagging.genre_map import PRESETS

_MAX_WHEEL_BYTES = 12 << 20
_PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
# Distribution and the module it provides, for the packages that the project promises to use.
_PROMISED = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "onnxruntime-gpu": "onnxruntime",
    "librosa": "librosa",
    "pydub": "pydub",
    "pydantic": "pydantic",
    "python-multipart": "python_multipart",
}


def _build(kind: str, source: Path, target: Path) -> Path:
    command = [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return next(target.glob("*.whl" if kind == "wheel" else "*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build("wheel", PROJECT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build("sdist", PROJECT, tmp_path_factory.mktemp("sdist"))


def _contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_the_package_the_default_bundle_and_its_predecessor(wheel: Path) -> None:
    names = set(_contents(wheel))
    assert wheel.stat().st_size < _MAX_WHEEL_BYTES
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"wholetrack"}
    bundles = ("wholetrack/models/wholetrack-crnn/2", "wholetrack/models/wholetrack-crnn-gtzan/1")
    files = ("model.onnx", "model.json", "golden.npz", "CARD.md")
    assert {f"{bundle}/{file}" for bundle in bundles for file in files} <= names
    assert "wholetrack/py.typed" in names
    page = "wholetrack/api/page"
    assert {f"{page}/{file}" for file in ("index.html", "LICENCES.txt", "SHA256SUMS")} <= names
    others = [name for name in names if not name.endswith((".py", ".typed")) and ".dist-info/" not in name]
    fonts = "wholetrack/api/fonts"
    assert {f"{fonts}/{file}" for file in ("DejaVuSans.ttf", "LICENCE.txt")} <= names
    expected = (*(f"{bundle}/" for bundle in bundles), f"{page}/", f"{fonts}/", "wholetrack/tagging/maps/")
    assert {f"wholetrack/tagging/maps/{preset}.toml" for preset in PRESETS} <= names
    assert all(name.startswith(expected) or name == "wholetrack/api/palette.json" for name in others)


def test_a_wheel_built_from_the_sdist_is_the_same(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    again = _build("wheel", next(tmp_path.iterdir()), tmp_path / "dist")
    assert _contents(again) == _contents(wheel)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment into which the wheel was installed with the extra ``cpu``.

    The pinned packages are installed first, so that pip fails if the wheel requires any other.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    pinned = ["--require-hashes", "-r", "requirements/service-cpu.txt"]
    subprocess.run(["requirements/install.sh", sys.prefix, folder, *pinned], cwd=PROJECT, check=True)
    subprocess.run([*_pip(folder), "install", "--no-index", f"{wheel}[cpu]"], check=True, capture_output=True)
    return folder


def _pip(environment: Path) -> list[str]:
    """Return a command that runs this environment's pip for another environment."""
    return [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "--disable-pip-version-check"]


def _run(environment: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the installed command from the root folder."""
    variables = {"PATH": os.environ["PATH"], "HOME": str(environment)}
    command = [environment / "bin" / "wholetrack", *arguments]
    return subprocess.run(command, cwd="/", env=variables, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, tune: NDArray[np.float32]) -> Path:
    path = tmp_path_factory.mktemp("recording") / "tune.wav"
    path.write_bytes(wav_bytes(tune, 22050))
    return path


def test_an_installed_wheel_lists_its_model_and_predicts(environment: Path, recording: Path) -> None:
    listed = _run(environment, "models")
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [
        "model",
        "wholetrack-crnn",
        "wholetrack-crnn-gtzan",
    ]
    predicted = _run(environment, "predict", recording, "--format", "json")
    assert predicted.returncode == 0, predicted.stderr
    assert json.loads(predicted.stdout)["windows"]["count"] == 8


def test_an_installed_wheel_serves(environment: Path, recording: Path) -> None:
    command = [str(environment / "bin" / "wholetrack"), "serve", "--port", "0"]
    variables = {"PATH": os.environ["PATH"], "HOME": str(environment)}
    with subprocess.Popen(command, cwd="/", env=variables, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            url = next(found[0] for line in process.stderr if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
            response = httpx.post(f"{url}/v1/predict", content=recording.read_bytes(), timeout=60)
            assert response.json()["windows"]["count"] == 8
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_without_onnxruntime_every_command_names_both_extras(environment: Path, recording: Path) -> None:
    """The last test with this environment: it removes a package."""
    subprocess.run([*_pip(environment), "uninstall", "--quiet", "--yes", "onnxruntime"], check=True)
    for arguments in (
        ("serve",),
        ("predict", recording),
        ("models",),
        ("settings",),
        ("key", "x"),
        ("verify", recording),
    ):
        ended = _run(environment, *arguments)
        assert ended.returncode == 1
        assert ended.stdout == ""
        assert ended.stderr.count("\n") == 1, ended.stderr
        assert "wholetrack[cpu]" in ended.stderr
        assert "wholetrack[gpu]" in ended.stderr


def _declared() -> set[str]:
    project = _PYPROJECT["project"]
    requirements = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    return {re.split(r"[^A-Za-z0-9_-]", requirement)[0] for requirement in requirements}


def _imported() -> set[str]:
    found = set()
    for path in (PROJECT / "service" / "wholetrack").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize(("distribution", "module"), _PROMISED.items())
def test_promised_packages_are_declared_and_imported(distribution: str, module: str) -> None:
    assert distribution in _declared()
    assert module in _imported()


def test_both_distributions_have_the_same_version() -> None:
    versions = [
        re.search(r'^__version__ = "(.+)"', (PROJECT / path / "__init__.py").read_text(), re.MULTILINE)
        for path in ("service/wholetrack", "training/wholetrack_training")
    ]
    assert all(versions)
    assert len({found[1] for found in versions if found}) == 1
