"""The commands of the README and the guides are run as printed; figures and examples match records and service."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.paths import PROJECT
from tests.harness.ports import free_port
from tests.harness.recordings import LOSSY, Recorder, wav_bytes
from tests.harness.server import is_ready, running_server
from tests.harness.waiting import until

README = (PROJECT / "README.md").read_text()
# `make serve` runs during the test. The others have been run, would run this test, or need a Docker engine
# (tests/containers runs that one).
NOT_RUN = {"make serve", "make setup-training", "make test", "docker compose up"}


@pytest.mark.curl
@pytest.mark.torch
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("page", "known"),
    [
        ("README.md", {"make serve", "make test"}),
        ("docs/deployment.md", set()),
        pytest.param("docs/training.md", set(), marks=pytest.mark.long),
    ],
)
def test_the_commands_of_the_readme_and_the_guides_succeed(
    tmp_path: Path, recorder: Recorder, tune: NDArray[np.float32], page: str, known: set[str]
) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (PROJECT / page).read_text(), re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if line]
    assert known <= set(commands)
    _make_song_and_music_folder(tmp_path, recorder, tune)
    with _make_serve() as port:
        for command in commands:
            if command in NOT_RUN:
                continue
            line = command.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace(".venv/bin", f"{sys.prefix}/bin")
            line = line.replace("curl ", "curl --silent --show-error --fail ", 1)
            done = subprocess.run(
                line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
            )
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            assert done.stdout.strip(), command


def _make_song_and_music_folder(folder: Path, recorder: Recorder, tune: NDArray[np.float32]) -> None:
    """Create what the commands read: ``song.mp3``, and ``music`` with two genres of six recordings each."""
    wav = folder / "song.wav"
    wav.write_bytes(wav_bytes(tune, 22050))
    recorder.convert(recorder.load(wav, "pcm_f32le"), LOSSY[0], folder / "song.mp3")
    for genre, gain in (("one", 0.5), ("other", -1.0), ("third", 0.1)):
        (folder / "music" / genre).mkdir(parents=True)
        for i in range(6):
            samples = np.roll(tune, 9000 * i) * np.float32(gain)
            (folder / "music" / genre / f"{i}.wav").write_bytes(wav_bytes(samples[: 22050 * (5 + i)], 22050))


@contextmanager
def _make_serve() -> Iterator[int]:
    """Run ``make serve`` during the block, and yield its port."""
    port = free_port()
    environment = os.environ | {"WHOLETRACK_PORT": str(port)}
    serve = ["make", "--directory", str(PROJECT), "serve", f"VENV={sys.prefix}"]
    with subprocess.Popen(serve, env=environment, start_new_session=True) as serving:

        def ready() -> bool:
            assert serving.poll() is None
            return is_ready(f"http://127.0.0.1:{port}")

        try:
            until(ready, seconds=120, poll_s=0.1)
            yield port
        finally:
            os.killpg(serving.pid, signal.SIGTERM)


@pytest.mark.data
def test_the_example_of_a_response_is_what_the_service_returns(tmp_path: Path, music: Path) -> None:
    example = re.search(r"```json\n(.*?)```", README, re.DOTALL)
    assert example
    with running_server(tmp_path) as server:
        returned = server.post(music / "audio/full/lets-go-fishin.ogg", "song.ogg", top_k=1).json()
    _assert_is_shortened(json.loads(example[1]), returned)


def _assert_is_shortened(shown: Any, returned: Any, name: str = "") -> None:
    """Assert that every value shown is the returned one, rounded. Objects and lists may be shown in part."""
    if isinstance(shown, dict):
        for key, value in shown.items():
            _assert_is_shortened(value, returned[key], f"{name}.{key}")
    elif isinstance(shown, list):
        for i, value in enumerate(shown):
            _assert_is_shortened(value, returned[i], f"{name}[{i}]")
    elif isinstance(shown, float) and not name.startswith(".timing_ms"):
        assert shown == pytest.approx(returned, abs=0.006), name
    elif not isinstance(shown, float):
        assert shown == returned, name


_PAGES = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
_PAGES += sorted((PROJECT / "docs").glob("*.md")) + sorted((PROJECT / "deploy").rglob("*.md"))


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_links_between_files_work(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize(
    "generator",
    ["bench.readme_table", "bench.performance", "bench.containers.page", "bench.reliability", "bench.scale.page"],
)
def test_generated_documentation_matches_the_records(generator: str) -> None:
    command = [sys.executable, "-m", generator, "--check"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
