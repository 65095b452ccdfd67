"""Commands without the packages that they need: one sentence that names the extra to install, and no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = (
    ["serve", "--port", "0"],
    ["predict", "song.mp3"],
    ["models"],
    ["settings"],
    ["key", "alice"],
    ["health"],
    ["verify", "song.mp3"],
    ["--version"],
    ["--help"],
)


def run_without(folder: Path, hidden: list[str], arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a process to which some packages do not seem to be installed."""
    program = f"""
import sys
sys.modules.update(dict.fromkeys({hidden}))
from wholetrack.cli.app import main
sys.argv = ["wholetrack", *{arguments}]
main()
"""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_without_onnxruntime_every_command_names_both_extras(tmp_path: Path, arguments: list[str]) -> None:
    done = run_without(tmp_path, ["onnxruntime"], arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("wholetrack: onnxruntime is not installed")
    assert "wholetrack[cpu]" in sentence
    assert "wholetrack[gpu]" in sentence


def test_the_folder_that_an_uninstalled_package_leaves_behind_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "leftover").mkdir()
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from wholetrack.cli.packages import missing_packages
print(missing_packages("leftover", "json"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "['leftover']\n"


@pytest.mark.parametrize("hidden", ["librosa", "pydub"])
def test_verify_without_its_packages_names_its_extra(tmp_path: Path, hidden: str) -> None:
    done = run_without(tmp_path, [hidden], ["verify", "song.mp3"])
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith(f"wholetrack: {hidden} is not installed")
    assert "wholetrack[verify]" in sentence
