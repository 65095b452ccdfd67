"""The example scripts, run against a service, and the command line."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
import wave
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.paths import PROJECT
from tests.harness.recordings import wav_bytes
from tests.harness.server import Server

RATE = 22050
uses_curl = pytest.mark.curl


@pytest.fixture
def song(tmp_path: Path, tune: NDArray[np.float32]) -> Path:
    path = tmp_path / "song.wav"
    path.write_bytes(wav_bytes(tune, RATE))
    return path


def run_example(server: Server | str, name: str, *arguments: Path | str, key: str = "") -> str:
    url = server if isinstance(server, str) else server.url
    environment = os.environ | {"WHOLETRACK_URL": url, "WHOLETRACK_KEY": key}
    command = [str(PROJECT / "examples" / name), *map(str, arguments)]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout


def wholetrack(*arguments: str | Path, check: bool = True, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"WHOLETRACK_DEVICE": "cpu"} | settings
    command = [sys.executable, "-m", "wholetrack", *map(str, arguments)]
    return subprocess.run(
        command, env=environment, check=check, capture_output=True, text=True, timeout=120, cwd=PROJECT
    )


def test_every_example_is_tested_in_this_file() -> None:
    text = Path(__file__).read_text()
    for script in (PROJECT / "examples").glob("*.*"):
        # The others use this one.
        assert f'"{script.name}"' in text or script.name == "service.sh"


@uses_curl
def test_a_form_and_a_raw_body_give_the_same_prediction(server: Server, song: Path) -> None:
    form = json.loads(run_example(server, "predict.sh", song))
    raw = json.loads(run_example(server, "raw-body.sh", song))
    assert_same_prediction(form["prediction"], raw["prediction"])
    assert form["windows"] == {"count": 8, "silent": []}


def assert_same_prediction(one: object, other: object) -> None:
    """Check equality up to rounding: the batch that a window is in affects the last bits of its probabilities."""
    if isinstance(one, dict):
        assert isinstance(other, dict)
        assert list(one) == list(other)
        assert_same_prediction(list(one.values()), list(other.values()))
    elif isinstance(one, list):
        assert isinstance(other, list)
        assert len(one) == len(other)
        for here, there in zip(one, other, strict=True):
            assert_same_prediction(here, there)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-6)
    else:
        assert one == other


@uses_curl
def test_the_genre_of_every_window_is_printed(server: Server, song: Path) -> None:
    lines = run_example(server, "every-window.sh", song).splitlines()
    assert len(lines) == 15
    assert lines[0].split()[:2] == ["0.00", "s"]
    assert lines[2].split()[:2] == ["1.00", "s"]


def test_a_recording_is_sent_live(server: Server, tune: NDArray[np.float32], tmp_path: Path) -> None:
    song = tmp_path / "song.wav"
    with wave.open(str(song), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((tune[: 5 * RATE] * 32767).astype("<i2").tobytes())
    environment = os.environ | {"WHOLETRACK_URL": server.url}
    command = [sys.executable, str(PROJECT / "examples" / "live.py"), str(song)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60)
    *windows, last = done.stdout.splitlines()
    assert [line.split()[:2] for line in windows] == [["0.00", "s"], ["1.00", "s"], ["2.00", "s"]]
    assert last.startswith("whole recording: ")


@uses_curl
def test_a_folder_is_processed_completely_despite_errors(server: Server, song: Path) -> None:
    song.with_name("text.mp3").write_text("not a song\n" * 100)
    lines = run_example(server, "folder.sh", song.parent).splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("song.wav")
    assert lines[1].startswith("unsupported_media")


@uses_curl
def test_models_and_readiness_are_printed(server: Server) -> None:
    assert json.loads(run_example(server, "models.sh"))["models"]
    assert json.loads(run_example(server, "models.sh", "hilsdorf-crnn"))["card"]["metrics"]
    assert json.loads(run_example(server, "ready.sh"))["status"] == "ready"


@uses_curl
@pytest.mark.parametrize("name", ['"quoted" \\ song.wav', "it's; a, song.wav", "[live] {1,2} $x `y`.wav", " ö .wav"])
def test_a_file_may_have_any_name(server: Server, song: Path, name: str) -> None:
    renamed = song.rename(song.with_name(name))
    for script in ("predict.sh", "raw-body.sh"):
        assert json.loads(run_example(server, script, renamed))["track"]["duration_s"] == 10.0
    assert len(run_example(server, "every-window.sh", renamed).splitlines()) == 15
    assert run_example(server, "folder.sh", song.parent).endswith(f"{renamed}\n")


class Busy(BaseHTTPRequestHandler):
    """Answers with 429 until the third request, and records the keys."""

    keys: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.keys.append(self.headers["Authorization"])
        body = b'{"code": "overloaded"}' if len(self.keys) < 3 else b'{"models": []}'
        self.send_response(429 if len(self.keys) < 3 else 200)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@uses_curl
def test_a_busy_service_is_asked_again_with_the_key() -> None:
    with HTTPServer(("127.0.0.1", 0), Busy) as busy:
        threading.Thread(target=busy.serve_forever, daemon=True).start()
        output = run_example(f"http://127.0.0.1:{busy.server_port}", "models.sh", key="the-key")
        busy.shutdown()
    assert output == '{"models": []}'
    assert Busy.keys == ["Bearer the-key"] * 3


@uses_curl
def test_a_failing_example_prints_the_problem(server: Server, song: Path) -> None:
    song.write_text("not a song\n" * 100)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run_example(server, "predict.sh", song)
    assert "unsupported_media" in caught.value.stdout
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run_example(server, "every-window.sh", song)
    assert "unsupported_media" in caught.value.stderr


def test_the_command_line_and_the_service_give_the_same_prediction(server: Server, song: Path) -> None:
    by_http = server.post(song).json()
    (line,) = wholetrack("predict", song, "--format", "json").stdout.splitlines()
    by_command = json.loads(line)
    assert_same_prediction(by_command["windows"], by_http["windows"])
    assert_same_prediction(by_command["prediction"], by_http["prediction"])
    assert by_command["track"]["sha256"] == by_http["track"]["sha256"]


def test_the_command_line_accepts_folders_and_continues_after_an_error(song: Path) -> None:
    song.with_name("broken.mp3").write_text("not a song\n" * 100)
    song.with_name("notes.txt").write_text("ignored")
    done = wholetrack("predict", song.parent, "--format", "csv", "--top-k", "2", check=False)
    assert done.returncode == 1
    assert "broken.mp3: unsupported_media" in done.stderr
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    assert row["file"] == str(song)
    assert row["windows"] == "8"
    assert 0 < float(row["summed_share_2"]) <= float(row["summed_share_1"]) < 1


def test_the_command_line_ranks_at_most_all_genres(song: Path) -> None:
    # A list of this many column names would not fit in memory.
    done = wholetrack("predict", song, "--format", "csv", "--top-k", "1000000000")
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    assert "summed_genre_16" in row
    assert "summed_genre_17" not in row


def test_the_table_lists_genres_with_their_shares(song: Path) -> None:
    header, line = wholetrack("predict", song, "--top-k", "1").stdout.splitlines()
    assert header.split()[:2] == ["file", "seconds"]
    assert line.split()[1] == "10.0"
    assert "%" in line


def test_invalid_options_are_reported_once(song: Path) -> None:
    for options in (["--model", "nobody"], ["--hop-s", "9"]):
        done = wholetrack("predict", song, song, *options, check=False)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("wholetrack: ")
    missing = wholetrack("predict", song.with_name("missing.mp3"), check=False)
    assert "neither a file nor a folder" in missing.stderr


def test_models_and_settings_are_listed() -> None:
    assert "wholetrack-crnn (default)" in wholetrack("models").stdout
    lines = wholetrack("settings", WHOLETRACK_PORT="9000").stdout.splitlines()
    (port,) = [line.split() for line in lines if line.startswith("WHOLETRACK_PORT ")]
    assert port[1:3] == ["9000", "environment"]
    (host,) = [line.split() for line in lines if line.startswith("WHOLETRACK_HOST ")]
    assert host[1:3] == ["127.0.0.1", "default"]


def test_an_invalid_configuration_ends_with_a_sentence_that_says_what_to_change(tmp_path: Path) -> None:
    for settings, expected in (
        ({"WHOLETRACK_DEVICE": "cuda"}, "WHOLETRACK_DEVICE=cpu"),
        ({"WHOLETRACK_MODELS_DIR": str(tmp_path)}, f"no model in {tmp_path}"),
        ({"WHOLETRACK_FFMPEG": "/nowhere/ffmpeg"}, "/nowhere/ffmpeg"),
        ({"WHOLETRACK_MAX_REQUESTS": "many"}, "WHOLETRACK_MAX_REQUESTS"),
        ({"WHOLETRACK_CUDA_DEVICES": "[]"}, "WHOLETRACK_CUDA_DEVICES"),
        ({"WHOLETRACK_CUDA_DEVICES": "0,1"}, '"cuda_devices"'),
    ):
        done = wholetrack("serve", "--port", "0", check=False, **settings)
        assert done.returncode == 1, done.stderr
        assert expected in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        "full/vibe-ace.ogg",
        pytest.param("full/fantasma.mp3", marks=pytest.mark.long),
        pytest.param("gtzan/jazz/jazz.00001.flac", marks=pytest.mark.long),
    ],
)
def test_the_service_and_the_reference_implementation_agree(music: Path, name: str) -> None:
    done = wholetrack("verify", music / "audio" / name)
    assert "the service and the reference agree" in done.stdout


def test_the_service_imports_no_package_that_only_training_or_verify_needs() -> None:
    program = """
import sys
import wholetrack.api.app, wholetrack.cli.commands, wholetrack.server.draining, wholetrack.startup
unwanted = ("librosa", "numba", "scipy", "pydub", "torch", "onnx", "wholetrack_training")
print([name for name in unwanted if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=PROJECT)
    assert done.stdout.strip() == "[]"
