"""Files of predictions that are continued: after kill, with files that were moved, and with other parameters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from tests.harness.waiting import until
from wholetrack.cli.files import Content
from wholetrack.cli.results_file import ResultsFile, ResultsFileError

FACTS = {"model.name": "one", "model.version": "1"}
CONTENT = Content("a" * 64, 3)


def line(filename: str, content: Content = CONTENT, **model: object) -> str:
    facts = {"name": "one", "version": "1"} | model
    return json.dumps({"track": {"filename": filename, "sha256": content.sha256}, "model": facts}) + "\n"


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(each) for each in path.read_text().splitlines()]


def test_what_was_appended_is_known_to_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with ResultsFile(path, FACTS) as file:
        assert not file.knows(CONTENT)
        file.append(CONTENT, "a.mp3", line("a.mp3"))
        assert file.knows(CONTENT)
    with ResultsFile(path, FACTS) as file:
        assert file.n_earlier == 1
        assert file.knows(CONTENT)
        file.repeat(CONTENT, "a.mp3")
        file.repeat(CONTENT, "moved.mp3")
        file.repeat(CONTENT, "moved.mp3")
    first, second = lines(path)
    assert first["track"] == {"filename": "a.mp3", "sha256": CONTENT.sha256}
    assert second == first | {"track": {"filename": "moved.mp3", "sha256": CONTENT.sha256}}


def test_an_incomplete_last_line_is_removed(tmp_path: Path) -> None:
    path, other = tmp_path / "out.jsonl", Content("b" * 64, 3)
    path.write_text(line("a.mp3") + line("b.mp3", other)[:-5])
    with ResultsFile(path, FACTS) as file:
        assert not file.knows(other)
        file.append(other, "b.mp3", line("b.mp3", other))
    assert len(lines(path)) == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("text\n", "line 1 of .* is not a prediction"),
        (line("a.mp3") + "[]\n", "line 2 of .* is not a prediction"),
        (line("a.mp3", version="2"), "predictions with model.version 2, not 1: write to another file"),
    ],
)
def test_other_files_are_refused_and_stay(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text(text)
    with pytest.raises(ResultsFileError, match=problem):
        ResultsFile(path, FACTS)
    assert path.read_text() == text


def test_two_processes_do_not_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with ResultsFile(path, FACTS), pytest.raises(ResultsFileError, match="another process is writing"):
        ResultsFile(path, FACTS)
    with pytest.raises(ResultsFileError, match="cannot write .*: Is a directory"):
        ResultsFile(tmp_path, FACTS)


def test_a_library_is_predicted_once_although_the_command_is_killed_twice(
    tmp_path: Path, tune: NDArray[np.float32]
) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i:02}.wav").write_bytes(wav_bytes(np.roll(tune[: 4 * 22050], 1000 * i), 22050))
    (folder / "copy of 03.wav").write_bytes((folder / "03.wav").read_bytes())
    (folder / "bad.mp3").write_bytes(b"no audio")
    output = tmp_path / "genres.jsonl"
    command = [sys.executable, "-m", "wholetrack", "predict", str(folder), "--format", "json", "-o", str(output)]
    environment = os.environ | {"WHOLETRACK_DEVICE": "cpu"}

    def n_lines() -> int:
        return output.read_bytes().count(b"\n") if output.exists() else 0

    def kill_at(wanted: int) -> None:
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            until(lambda: n_lines() >= wanted, seconds=100, poll_s=0.01)
            run.send_signal(signal.SIGKILL)

    kill_at(3)
    kill_at(6)
    before = n_lines()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{before} predictions of earlier runs" in done.stderr
    assert "bad.mp3: " in done.stderr
    assert "1 of 14 files failed" in done.stderr
    found = Counter(str(each["track"]["filename"]) for each in lines(output))  # type: ignore[index]
    assert found == Counter(str(path) for path in folder.iterdir() if path.name != "bad.mp3")
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "13 predictions of earlier runs" in again.stderr
    assert n_lines() == 13


def test_another_model_does_not_continue_the_file(tmp_path: Path, tune: NDArray[np.float32]) -> None:
    song, output = tmp_path / "song.wav", tmp_path / "genres.jsonl"
    song.write_bytes(wav_bytes(tune[: 4 * 22050], 22050))
    for model, status in (("hilsdorf-crnn", 0), ("campana-crnn", 1)):
        command = [sys.executable, "-m", "wholetrack", "predict", str(song), "--format", "json", "--model", model]
        done = subprocess.run(
            [*command, "--windows", "none", "-o", str(output)],
            env=os.environ | {"WHOLETRACK_DEVICE": "cpu"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status
    assert "write to another file" in done.stderr
    (only,) = lines(output)
    assert "probabilities" not in only["windows"]  # type: ignore[operator]
