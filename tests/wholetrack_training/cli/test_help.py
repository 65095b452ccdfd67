"""The command line works without the packages for training, up to the point where a command needs one."""

from __future__ import annotations

import subprocess
import sys

import pytest

PACKAGES = ("torch", "librosa", "sklearn", "scipy", "matplotlib", "onnx", "onnxruntime", "onnxscript", "pydub")
WITHOUT_PACKAGES = f"""
import sys
sys.modules.update(dict.fromkeys({PACKAGES}))
from wholetrack_training.cli import main
main()
"""


def run_without_packages(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_PACKAGES, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_help_needs_no_training_packages() -> None:
    for arguments, expected in (
        (["--help"], "refresh-card"),
        (["fit", "--help"], "--protocol"),
        (["build", "--help"], "deepsound-crnn"),
        (["import", "network", "--help"], "--licence"),
    ):
        done = run_without_packages(*arguments)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
        assert "restate" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "package"),
    [(["fit", "run", "--data", "music"], "torch"), (["clips", "music", "clips"], "pydub")],
)
def test_a_missing_package_is_reported_with_the_command_that_installs_it(arguments: list[str], package: str) -> None:
    done = run_without_packages(*arguments)
    assert done.returncode == 1
    assert done.stderr == (
        f"wholetrack-train: this command needs the package {package}, which is not installed; "
        "install the extra 'train': pip install -c constraints.txt -e '.[cpu,train]' -e training\n"
    )
