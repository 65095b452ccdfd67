"""An ffmpeg process is limited, can be stopped at any time, and leaves nothing behind."""

from __future__ import annotations

import math
import os
import resource
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from tests.harness.decoding import RATE, decode
from tests.harness.processes import ffmpegs, only_ffmpeg
from tests.harness.recordings import Recorder, wav_bytes
from tests.harness.waiting import until
from wholetrack.decoding.cpu_affinity import CpuAllocator
from wholetrack.decoding.decoder import Decoding, FfmpegDecoder
from wholetrack.decoding.ffmpeg import Ffmpeg
from wholetrack.decoding.plan import QUICK, THOROUGH, DecodingPlan
from wholetrack.errors import StartupError

pytestmark = pytest.mark.timing


@pytest.fixture(scope="session")
def long_song(tmp_path_factory: pytest.TempPathFactory, tune: NDArray[np.float32]) -> Path:
    song = tmp_path_factory.mktemp("long") / "song.wav"
    song.write_bytes(wav_bytes(np.tile(tune, 60), 22050))
    return song


@pytest.fixture
def wav(tmp_path: Path, tune: NDArray[np.float32]) -> Path:
    path = tmp_path / "tune.wav"
    path.write_bytes(wav_bytes(tune, RATE))
    return path


@pytest.mark.parametrize("plan", [QUICK, THOROUGH], ids=["quick", "thorough"])
def test_a_stopped_ffmpeg_yields_empty_blocks_until_it_continues(
    decoder: FfmpegDecoder, long_song: Path, plan: DecodingPlan
) -> None:
    whole, _ = decode(decoder, long_song, limit_s=3600, plan=plan)
    with decoder.open(long_song, sample_rate=RATE, max_duration_s=3600, plan=plan) as decoding:
        blocks, decoded = decoding.blocks(), list[NDArray[np.float32]]()
        child = psutil.Process(decoding._run.process.pid)
        child.suspend()
        while not decoded or len(decoded[-1]):
            decoded.append(next(blocks))
        assert decoding.stalled
        child.resume()
        decoded += blocks
        assert decoding.ended
        decoding.summary()
    assert np.array_equal(np.concatenate(decoded), whole)


def test_killing_ends_the_blocks_and_leaves_nothing_behind(
    decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path
) -> None:
    path = tmp_path / "long.flac"
    recorder.run("-f", "lavfi", "-i", "sine=r=8000", "-t", "7200", path)
    threads = threading.active_count()
    with decoder.open(path, sample_rate=RATE, max_duration_s=10_000) as decoding:
        blocks = decoding.blocks()
        next(blocks)
        child = only_ffmpeg()
        decoding.kill()
        assert sum(1 for _ in blocks) < 100
    assert not child.is_running()
    assert threading.active_count() == threads


def test_closing_early_leaves_nothing_behind(decoder: FfmpegDecoder, wav: Path) -> None:
    descriptors = psutil.Process().num_fds()
    with decoder.open(wav, sample_rate=RATE, max_duration_s=60):
        pass
    assert ffmpegs() == []
    assert psutil.Process().num_fds() == descriptors


def test_a_sandbox_that_does_not_start_is_a_startup_error(ffmpeg: Ffmpeg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(StartupError, match="ffmpeg's sandbox cannot be started: .* exited with status 1"):
        FfmpegDecoder(ffmpeg)


def test_ffmpeg_inherits_no_environment(
    decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHOLETRACK_API_KEY", "secret")
    path = tmp_path / "long.flac"
    recorder.run("-f", "lavfi", "-i", "sine=r=8000", "-t", "3600", path)
    with decoder.open(path, sample_rate=RATE, max_duration_s=10_000) as decoding:
        next(decoding.blocks())
        child = only_ffmpeg()
        assert child.environ() == {"LC_ALL": "C", "AV_LOG_FORCE_NOCOLOR": "1", "MALLOC_ARENA_MAX": "1"}


def test_the_kernel_enforces_the_limits(decoder: FfmpegDecoder, long_song: Path) -> None:
    with decoder.open(long_song, sample_rate=22050, max_duration_s=1000) as decoding:
        next(decoding.blocks())
        pid = decoding._run.process.pid
        assert resource.prlimit(pid, resource.RLIMIT_DATA) == (256 << 20, 256 << 20)
        address_space, _ = resource.prlimit(pid, resource.RLIMIT_AS)
        mapped = psutil.Process(pid).memory_info()
        # 256 MiB besides the program, whose size is known to 192 MiB at worst.
        assert mapped.vms - mapped.data + (256 << 20) <= address_space <= mapped.vms - mapped.data + (448 << 20)
        assert resource.prlimit(pid, resource.RLIMIT_STACK) == (1 << 20, 1 << 20)
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (32, 32)
        assert resource.prlimit(pid, resource.RLIMIT_FSIZE) == (0, 0)
        assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
        # 30 s, up to a twentieth of the longest recording more; the hard limit is one second above that.
        assert resource.prlimit(pid, resource.RLIMIT_CPU) == (30, 30 + 1000 // 20 + 1)


def test_the_cpu_limit_rises_with_the_decoded_audio(decoder: FfmpegDecoder, long_song: Path) -> None:
    with decoder.open(long_song, sample_rate=22050, max_duration_s=1000) as decoding:
        blocks = decoding.blocks()
        decoded_s = 0.0
        while decoded_s < 110:
            decoded_s += len(next(blocks)) / 22050
        # 30 s and a twentieth of what was decoded, raised in steps of at least 5 s.
        raised = range(35, math.ceil(30 + decoded_s / 20) + 1)
        until(lambda: resource.prlimit(decoding._run.process.pid, resource.RLIMIT_CPU)[0] in raised)
        assert resource.prlimit(decoding._run.process.pid, resource.RLIMIT_CPU)[1] == 81


def test_ffmpeg_runs_as_a_batch_job(decoder: FfmpegDecoder, long_song: Path) -> None:
    with decoder.open(long_song, sample_rate=22050, max_duration_s=3600) as decoding:
        next(decoding.blocks())
        threads = threads_of(decoding)
        assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}
        assert all(os.sched_getaffinity(thread) == os.sched_getaffinity(0) for thread in threads)


def test_processes_are_distributed_evenly_over_the_cpus(ffmpeg: Ffmpeg, long_song: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    allocator = CpuAllocator(cpus)

    def cpu_of(decoding: Decoding[NDArray[np.float32]]) -> int:
        next(decoding.blocks())
        (cpu,) = set[int]().union(*(os.sched_getaffinity(thread) for thread in threads_of(decoding)))
        return cpu

    with (
        closing(FfmpegDecoder(ffmpeg, cpus=allocator)) as decoder,
        decoder.open(long_song, sample_rate=22050, max_duration_s=3600) as first,
    ):
        taken = cpu_of(first)
        # The others run one after another, each on a CPU without a process if there is one.
        for _ in range(3):
            with decoder.open(long_song, sample_rate=22050, max_duration_s=3600) as other:
                assert cpu_of(other) != taken or len(cpus) == 1
    assert set(allocator._n_processes.values()) == {0}


def threads_of(decoding: Decoding[NDArray[np.float32]]) -> list[int]:
    return [int(task.name) for task in Path(f"/proc/{decoding._run.process.pid}/task").iterdir()]
