"""The output of ``wholetrack predict``: names of any bytes, files that fail, rows as they come, interruptions."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from wholetrack.api import exports
from wholetrack.api.responses import SourceFile, prediction_response
from wholetrack.api.rows import rows
from wholetrack.api.schemas import WindowDetail
from wholetrack.cli.files import FileResult, find_recordings, predict_files
from wholetrack.cli.render import Format, print_predictions
from wholetrack.contracts import TrackPrediction
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings

_LATIN = os.fsdecode(b"caf\xe9.wav")
_SHORT_S = 4


@pytest.fixture
def song(tmp_path: Path, tune: NDArray[np.float32]) -> Path:
    path = tmp_path / "song.wav"
    path.write_bytes(wav_bytes(tune[: _SHORT_S * 22050], 22050))
    return path


@pytest.fixture
def prediction(pipeline: Pipeline, song: Path) -> TrackPrediction:
    return pipeline.predict(song, max_duration_s=60)


def command(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    program = [sys.executable, "-m", "wholetrack", "predict", *map(str, arguments)]
    variables = os.environ | {"WHOLETRACK_DEVICE": "cpu"} | environment
    return subprocess.run(program, env=variables, capture_output=True, timeout=120, check=False)


def printed(
    capsys: pytest.CaptureFixture[str], paths: Sequence[Path], prediction: TrackPrediction, output_format: Format
) -> list[str]:
    """Return the lines that are printed for these paths, all with the same prediction."""
    results = [FileResult(path, 0.0, prediction) for path in paths]
    assert print_predictions(results, output_format, files=paths, labels=prediction.card.labels, top_k=3)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("output_format", ["table", "csv", "json"])
def test_a_name_that_is_not_utf_8_is_printed_as_valid_utf_8(song: Path, output_format: str) -> None:
    path = song.rename(song.with_name(_LATIN))
    # With this locale, Python would print in ASCII.
    done = command(path, "--format", output_format, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", LC_ALL="C")
    assert done.stderr == b""
    assert done.returncode == 0
    output = done.stdout.decode()
    name = f"{path.parent}/caf\\xe9.wav"
    if output_format == "json":
        assert json.loads(output)["track"]["filename"] == name
    elif output_format == "csv":
        (row,) = csv.DictReader(io.StringIO(output))
        assert row["file"] == name
    else:
        assert output.splitlines()[1].startswith(f"{name}  ")


@pytest.mark.parametrize("output_format", ["csv", "json"])
def test_other_names_are_printed_in_utf_8_in_any_locale(song: Path, output_format: str) -> None:
    path = song.rename(song.with_name("Größe ☃.wav"))
    done = command(path, "--format", output_format, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", LC_ALL="C")
    assert "Größe ☃.wav" in done.stdout.decode()


def test_missing_broken_and_empty_paths_do_not_stop_the_others(song: Path) -> None:
    broken, empty, missing = song.with_name("a.mp3"), song.with_name("empty"), song.with_name("missing.wav")
    broken.write_text("not a song\n" * 100)
    empty.mkdir()
    done = command(missing, empty, broken, song, song / "below-a-file", "--format", "csv")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        f"wholetrack: {missing} is neither a file nor a folder",
        f"wholetrack: {empty} contains no recordings",
        f"wholetrack: {song}/below-a-file is neither a file nor a folder",
        f"{broken}: unsupported_media: Send audio as wav, flac, mp3, ogg, opus, m4a, aac, aiff, wma or webm.",
        "1 of 2 files failed",
    ]
    (row,) = csv.DictReader(io.StringIO(done.stdout.decode()))
    assert row["file"] == str(song)


def test_without_any_recording_no_model_is_loaded(tmp_path: Path) -> None:
    done = command(tmp_path, WHOLETRACK_FFMPEG="/nowhere/ffmpeg")
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.decode() == f"wholetrack: {tmp_path} contains no recordings\n"


def test_an_output_that_cannot_be_written_is_one_sentence(song: Path) -> None:
    program = f"{sys.executable} -m wholetrack predict {song} > /dev/full"
    done = subprocess.run(["sh", "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr == "wholetrack: cannot write the output: No space left on device\n"


def test_a_progress_bar_on_a_terminal_does_not_take_the_output(song: Path) -> None:
    terminal, end = os.openpty()
    program = [sys.executable, "-m", "wholetrack", "predict", str(song), "--format", "json"]
    variables = os.environ | {"WHOLETRACK_DEVICE": "cpu", "TERM": "xterm"}
    done = subprocess.run(program, env=variables, stdout=subprocess.PIPE, stderr=end, timeout=120, check=True)
    os.close(end)
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        assert b"1 of 1 files, 0 failed" in screen.read(10_000)
    assert json.loads(done.stdout)["track"]["filename"] == str(song)


def test_recordings_in_folders_are_found_in_order_whatever_their_names(tmp_path: Path) -> None:
    names = ["b.mp3", "a/c.WAV", _LATIN, "notes.txt", "a/folder.wav/x.flac"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_recordings([tmp_path]) == (sorted(tmp_path / name for name in names if name != "notes.txt"), [])


def test_a_pipe_and_a_name_that_is_too_long_are_reported(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    recordings, problems = find_recordings([tmp_path / "pipe.wav", tmp_path / ("x" * 300), Path("a\x1b[31m\nb")])
    assert recordings == []
    assert problems == [
        f"{tmp_path}/pipe.wav is neither a file nor a folder",
        f"cannot read {tmp_path}/{'x' * 300}: File name too long",
        r"a\x1b[31m\nb is neither a file nor a folder",
    ]


def test_a_folder_that_cannot_be_read_is_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(folder: Path, onerror: Callable[[OSError], None]) -> Iterator[tuple[str, list[str], list[str]]]:
        onerror(PermissionError(errno.EACCES, "Permission denied", str(folder)))
        yield from ()

    monkeypatch.setattr(os, "walk", walk)
    assert find_recordings([tmp_path]) == ([], [f"cannot read {tmp_path}: Permission denied"])


@pytest.mark.parametrize("output_format", [Format.TABLE, Format.JSON, Format.CSV])
def test_rows_are_printed_as_they_come(
    output_format: Format, song: Path, prediction: TrackPrediction, capsys: pytest.CaptureFixture[str]
) -> None:
    n_lines: list[int] = []

    def results() -> Iterator[FileResult]:
        for _ in range(3):
            n_lines.append(len(capsys.readouterr().out.splitlines()))
            yield FileResult(song, 0.0, prediction)

    assert print_predictions(results(), output_format, files=[song] * 3, labels=prediction.card.labels, top_k=3)
    assert n_lines == [0 if output_format is Format.JSON else 1, 1, 1]


def test_every_verdict_section_and_window_can_have_a_line(
    prediction: TrackPrediction, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines are those of the HTTP interface, with the name of the file in front."""
    paths = [Path("music", name) for name in ("one,two.wav", "café.wav")]
    source = SourceFile(None, sha256="", n_bytes=0, began=0.0)
    content = prediction_response(prediction, source, top_k=1, detail=WindowDetail.FULL)
    lines = [json.loads(line) for line in printed(capsys, paths, prediction, Format.ROWS_JSONL)]
    assert lines == [{"file": str(path), **row} for path in paths for row in rows(content)]
    assert {line["kind"] for line in lines} == {"summed_score", "majority_vote", "section", "window"}
    table = list(csv.reader(printed(capsys, paths, prediction, Format.ROWS_CSV)))
    header, *expected = csv.reader(io.StringIO(exports.csv_text(content)))
    assert table[0] == ["file", *header]
    assert table[1:] == [[str(path), *cells] for path in paths for cells in expected]


def test_long_paths_that_differ_at_their_ends_are_printed_in_full(
    prediction: TrackPrediction, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    paths = [Path("/music", "long" * 60, f"{i}.wav") for i in range(2)]
    lines = printed(capsys, paths, prediction, Format.TABLE)
    assert [line.split()[0] for line in lines[1:]] == [str(path) for path in paths]


def test_the_columns_of_the_table_are_aligned(prediction: TrackPrediction, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, [Path("a.wav"), Path("a longer name.wav")], prediction, Format.TABLE)
    assert len({line.index(text) for line, text in zip(lines, ("seconds", "4.0 ", "4.0 "), strict=True)}) == 1


def test_a_name_cannot_forge_a_row_or_control_the_terminal(
    prediction: TrackPrediction, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(capsys, [Path("a\nb\x1b[31m [red].wav")], prediction, Format.TABLE)
    assert len(lines) == 2
    assert lines[1].startswith(r"a\nb\x1b[31m [red].wav  ")


@pytest.mark.parametrize("output_format", [Format.TABLE, Format.CSV])
def test_a_recording_outside_of_the_domain_has_a_remark(
    output_format: Format, prediction: TrackPrediction, capsys: pytest.CaptureFixture[str]
) -> None:
    for in_domain, expected in ((False, True), (True, False), (None, False)):
        one = replace(prediction, in_domain=in_domain, warnings=())
        line = printed(capsys, [Path("song.wav")], one, output_format)[-1]
        assert line.endswith("out_of_domain") == expected


def test_an_unexpected_error_concerns_one_file_only(song: Path, pipeline: Pipeline) -> None:
    class Failing:
        def predict(self, path: Path, **_: object) -> TrackPrediction:
            if path.name == "bad.wav":
                raise RuntimeError("a bug")
            return pipeline.predict(path, max_duration_s=60)

    paths = [song.with_name("bad.wav"), song]
    results = list(predict_files(Failing(), paths, model=None, hop_s=None, settings=Settings()))  # type: ignore[arg-type]
    assert isinstance(results[0].outcome, ServiceError)
    assert results[0].outcome.kind is ErrorKind.INTERNAL_ERROR
    assert isinstance(results[1].outcome, TrackPrediction)


def test_a_file_that_disappears_before_its_row_is_printed_is_an_error_of_that_file(
    song: Path, prediction: TrackPrediction, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [song.with_name("gone.wav"), song]
    results = [FileResult(path, 0.0, prediction) for path in paths]
    assert not print_predictions(results, Format.JSON, files=paths, labels=prediction.card.labels, top_k=3)
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        f"{paths[0]}: undecodable_audio: The file cannot be read: No such file or directory.",
        "1 of 2 files failed",
    ]
    assert json.loads(captured.out)["track"]["filename"] == str(song)


@pytest.mark.timing
def test_ctrl_c_keeps_the_rows_printed_so_far(song: Path) -> None:
    n_files = 2000
    program = [sys.executable, "-m", "wholetrack", "predict", *[str(song)] * n_files]
    variables = os.environ | {"WHOLETRACK_DEVICE": "cpu"}
    with subprocess.Popen(program, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT
    assert errors == b"wholetrack: interrupted\n"
    rows = lines[1:] + rest.splitlines(keepends=True)
    assert 2 <= len(rows) < n_files
    assert all(row.startswith(os.fsencode(song)) and row.endswith(b"\n") for row in rows)
