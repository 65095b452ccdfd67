"""The README's commands, run as they stand."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from bench import containers, reliability
from bench.performance import DOCS, page, records, summary
from bench.table import table
from tests.conftest import PROJECT
from tests.harness.recordings import LOSSY, Recorder, wav_bytes
from tests.harness.server import running_server

README = (PROJECT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines() if line]
# These run for hours, are what runs this test, or need a Docker engine and are run by tests/containers.
LEFT_OUT = {"make train", "make test", "docker compose up"}


@pytest.mark.curl
@pytest.mark.torch
def test_the_commands_of_the_readme(tmp_path: Path, recorder: Recorder, tune: NDArray[np.float32]) -> None:
    assert {"make serve", "make test"} <= set(COMMANDS)
    wav = tmp_path / "song.wav"
    wav.write_bytes(wav_bytes(tune, 22050))
    recorder.convert(recorder.load(wav, "pcm_f32le"), LOSSY[0], tmp_path / "song.mp3")
    for genre in ("one", "other"):
        (tmp_path / "music" / genre).mkdir(parents=True)
        for i in range(6):
            sound = np.roll(tune, 9000 * i) * np.float32(0.5 if genre == "one" else -1.0)
            (tmp_path / "music" / genre / f"{i}.wav").write_bytes(wav_bytes(sound[: 22050 * (5 + i)], 22050))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"WHOLETRACK_PORT": str(port)}
    serve = ["make", "--directory", str(PROJECT), "serve", f"VENV={sys.prefix}"]
    with subprocess.Popen(serve, env=environment, start_new_session=True) as serving:
        try:
            _wait_until_ready(serving, port)
            for command in COMMANDS:
                if command in LEFT_OUT or command == "make serve":
                    continue
                line = command.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace(".venv/bin", f"{sys.prefix}/bin")
                line = line.replace("curl ", "curl --silent --show-error --fail ", 1)
                done = subprocess.run(
                    line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
                )
                assert done.returncode == 0, (command, done.stdout, done.stderr)
                assert done.stdout.strip(), command
        finally:
            os.killpg(serving.pid, signal.SIGTERM)


def _wait_until_ready(serving: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert serving.poll() is None
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail("make serve did not become ready")


def test_the_figures_are_those_recorded() -> None:
    assert table() in README


@pytest.mark.data
def test_the_example_of_an_answer_is_a_real_one(tmp_path: Path, music: Path) -> None:
    found = re.search(r"```json\n(.*?)```", README, re.DOTALL)
    assert found
    with running_server(tmp_path) as server:
        given = server.post(music / "audio/full/lets-go-fishin.ogg", "song.ogg", top_k=1).json()
    print(json.dumps(given)[:2000])
    _assert_shortened(json.loads(found[1]), given)


def _assert_shortened(shown: Any, given: Any, name: str = "") -> None:
    """Every value that is shown is the one that is given, rounded; lists may be shown in part."""
    if isinstance(shown, dict):
        for key, value in shown.items():
            _assert_shortened(value, given[key], f"{name}.{key}")
    elif isinstance(shown, list):
        for i, value in enumerate(shown):
            _assert_shortened(value, given[i], f"{name}[{i}]")
    elif isinstance(shown, float) and not name.startswith(".timing_ms"):
        assert shown == pytest.approx(given, abs=0.006), name
    elif not isinstance(shown, float):
        assert shown == given, name


def test_the_files_that_the_readme_points_to_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (PROJECT / target).exists(), target


def test_the_page_about_containers_is_that_of_the_record() -> None:
    assert containers.PAGE.read_text() == containers.page(*containers.records())


def test_the_page_about_reliability_is_that_of_the_records() -> None:
    assert (DOCS / "RELIABILITY.md").read_text() == reliability.page(reliability.records())


def test_the_performance_pages_are_those_of_the_records() -> None:
    found = records()
    assert (DOCS / "PERFORMANCE.md").read_text() == page(found)
    assert json.loads((DOCS / "performance.json").read_text()) == summary(found)
