"""One ffmpeg process per file: correct samples, accurate warnings and errors, and nothing left running."""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import tarfile
import threading
import zipfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import LOSSLESS, LOSSY, Kind, Recorder, ffmpegs, wav_bytes
from tests.harness.waiting import until
from wholetrack.contracts import WarningCode
from wholetrack.decoding.cpu_affinity import CpuAllocator
from wholetrack.decoding.decoder import DecodedAudio, Decoding, FfmpegDecoder
from wholetrack.decoding.ffmpeg import Ffmpeg, find_ffmpeg
from wholetrack.decoding.self_test import self_test
from wholetrack.errors import ErrorKind, ServiceError, StartupError

RATE = 22050


def decode(decoder: FfmpegDecoder, path: Path, limit_s: float = 60.0) -> tuple[NDArray[np.float32], DecodedAudio]:
    with decoder.open(path, sample_rate=RATE, max_duration_s=limit_s) as decoding:
        blocks = list(decoding.blocks())
        summary = decoding.summary()
    return np.concatenate(blocks), summary


def error_kind(decoder: FfmpegDecoder, path: Path, limit_s: float = 60.0) -> ErrorKind:
    with pytest.raises(ServiceError) as caught:
        decode(decoder, path, limit_s)
    assert str(path) not in caught.value.detail
    return caught.value.kind


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


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_channels_are_averaged_and_resampled_as_librosa_does(
    decoder: FfmpegDecoder, tmp_path: Path, rng: np.random.Generator, channels: int, rate: int
) -> None:
    time = np.arange(2 * rate) / rate
    pitches = rng.uniform(100, 3000, channels)
    samples = (0.5 * np.sin(2 * np.pi * time[:, None] * pitches)).astype(np.float32)
    path = tmp_path / "channels.wav"
    path.write_bytes(wav_bytes(samples, rate))
    found, summary = decode(decoder, path)
    expected = librosa.resample(librosa.to_mono(samples.T), orig_sr=rate, target_sr=RATE, res_type="soxr_hq")
    assert summary.stream.channels == channels
    assert summary.stream.sample_rate_hz == rate
    assert len(found) == len(expected)
    # Resamplers differ in how they treat what lies beyond the ends.
    np.testing.assert_allclose(found[200:-200], expected[200:-200], atol=1e-4)


@pytest.mark.parametrize("kind", [*LOSSLESS, *LOSSY], ids=str)
def test_every_container_and_codec_is_decoded(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path, tune: NDArray[np.float32], kind: Kind
) -> None:
    path = recorder.convert(recorder.load(wav, "pcm_f32le"), kind, tmp_path / f"converted.{kind.suffix}")
    found, summary = decode(decoder, path)
    assert summary.duration_s == pytest.approx(10.0, abs=0.15)
    assert summary.warnings == ()
    if kind in LOSSLESS:
        np.testing.assert_allclose(found, tune, atol=2 / 32768)
    else:
        # An encoder may delay the audio, which does not change its spectrum.
        ours, theirs = np.abs(np.fft.rfft(found[: 9 * RATE])), np.abs(np.fft.rfft(tune[: 9 * RATE]))
        assert np.corrcoef(ours[:20_000], theirs[:20_000])[0, 1] > 0.9


def test_cover_art_and_further_streams_are_ignored(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path, tune: NDArray[np.float32]
) -> None:
    picture = tmp_path / "cover.png"
    recorder.picture(picture)
    song = tmp_path / "song.flac"
    recorder.run("-i", wav, "-i", picture, "-map", "0", "-map", "1", "-disposition:v", "attached_pic", song)
    np.testing.assert_allclose(decode(decoder, song)[0], tune, atol=2 / 32768)
    film = tmp_path / "film.mkv"
    recorder.run(
        *("-f", "lavfi", "-i", "testsrc=d=10:s=64x64", "-i", wav, "-f", "lavfi", "-i", "sine=d=10"),
        *("-map", "0", "-map", "1", "-map", "2", "-c:a", "flac", film),
    )
    np.testing.assert_allclose(decode(decoder, film)[0], tune, atol=2 / 32768)


@pytest.mark.parametrize("kind", [LOSSY[0], LOSSY[1], LOSSY[2], LOSSLESS[0], LOSSLESS[3], LOSSLESS[4]], ids=str)
def test_a_file_cut_in_the_middle_is_decoded_up_to_there_with_a_warning(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path, kind: Kind
) -> None:
    whole = recorder.convert(recorder.load(wav, "pcm_f32le"), kind, tmp_path / f"whole.{kind.suffix}")
    half = tmp_path / f"half.{kind.suffix}"
    # Cut between two samples, so that only the header reveals it.
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 8 * 4])
    _, summary = decode(decoder, half)
    assert 3 < summary.duration_s < 7
    assert [warning.code for warning in summary.warnings] == [WarningCode.TRUNCATED]


def test_a_wav_shorter_than_its_header_states_is_truncated(
    decoder: FfmpegDecoder, tmp_path: Path, tune: NDArray[np.float32]
) -> None:
    path = tmp_path / "short.wav"
    path.write_bytes(wav_bytes(tune, RATE, stated_bytes=2_000_000_000))
    found, summary = decode(decoder, path)
    assert len(found) == len(tune)
    assert [warning.code for warning in summary.warnings] == [WarningCode.TRUNCATED]


@pytest.mark.parametrize("stated", [0, 0xFFFFFFFF])
def test_a_wav_whose_writer_left_the_size_open_is_complete(
    decoder: FfmpegDecoder, tmp_path: Path, tune: NDArray[np.float32], stated: int
) -> None:
    path = tmp_path / "open.wav"
    content = bytearray(wav_bytes(tune, RATE))
    content[40:44] = stated.to_bytes(4, "little")
    path.write_bytes(bytes(content))
    found, summary = decode(decoder, path)
    assert len(found) == len(tune)
    assert summary.warnings == ()


def test_damage_in_the_middle_is_reported(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    path = recorder.convert(recorder.load(wav, "pcm_f32le"), LOSSLESS[4], tmp_path / "damaged.flac")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = np.random.default_rng(5).bytes(3000)
    path.write_bytes(bytes(content))
    _, summary = decode(decoder, path)
    assert {warning.code for warning in summary.warnings} <= {WarningCode.DAMAGED, WarningCode.TRUNCATED}
    assert summary.warnings


def test_an_unsupported_codec_in_an_accepted_container_is_rejected(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    for codec in ("ac3", "adpcm_yamaha"):
        film = tmp_path / "film.mkv"
        recorder.run("-y", "-i", wav, "-c:a", codec, film)
        with pytest.raises(ServiceError, match=f"contains {codec} audio, which is not supported") as caught:
            decode(decoder, film)
        assert caught.value.kind is ErrorKind.UNSUPPORTED_MEDIA


def test_pictures_are_never_decoded(decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path) -> None:
    """Not even to describe them, so a picture cannot exploit its decoder."""
    song, picture = tmp_path / "song.mp3", tmp_path / "cover.png"
    recorder.picture(picture)
    recorder.run("-i", wav, "-i", picture, "-map", "0", "-map", "1", "-disposition:v", "attached_pic", song)
    command = decoder.ffmpeg.decode_command(0, sample_rate=RATE, max_duration_s=10)
    with song.open("rb") as file:
        stderr = subprocess.run(command, stdin=file, capture_output=True, check=True).stderr.decode()
    # ffmpeg would know the size of a picture that it had decoded.
    assert "Could not find codec parameters for stream 1 (Video: png, none): unspecified size" in stderr
    assert decode(decoder, song)[1].warnings == ()


def test_a_header_without_a_codec_is_corrupt(decoder: FfmpegDecoder, tmp_path: Path) -> None:
    """The error does not advise to convert such a file, because no program could."""
    content = bytearray(wav_bytes(np.zeros(RATE, np.float32), RATE))
    content[34:36] = bytes(2)  # bits per sample, which select the codec of a WAV
    path = tmp_path / "no codec.wav"
    path.write_bytes(content)
    assert error_kind(decoder, path) is ErrorKind.UNDECODABLE_AUDIO


def test_a_file_that_is_not_audio_is_rejected(decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path) -> None:
    text = tmp_path / "text.mp3"
    text.write_text("La la la.\n" * 10_000)
    picture = tmp_path / "picture.mp3"
    recorder.picture(picture)
    unicode = tmp_path / "unicode.mp3"
    unicode.write_text("La la la.\n" * 10_000, encoding="utf-16")
    noise = tmp_path / "noise.mp3"
    noise.write_bytes(np.random.default_rng(3).bytes(300_000))
    for path in (text, picture, unicode, noise):
        assert error_kind(decoder, path) is ErrorKind.UNSUPPORTED_MEDIA


def test_an_archive_that_contains_audio_is_rejected(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    """An uncompressed mp3 in an archive looks like an mp3 with junk around it."""
    song = recorder.convert(recorder.load(wav, "pcm_f32le"), LOSSY[0], tmp_path / "song.mp3")
    archive = tmp_path / "archive.mp3"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as opened:
        opened.write(song)
    assert error_kind(decoder, archive) is ErrorKind.UNSUPPORTED_MEDIA
    with tarfile.open(archive, "w") as packed:
        packed.add(song, "song.mp3")
    assert error_kind(decoder, archive) is ErrorKind.UNSUPPORTED_MEDIA
    # A stream whose recording started in the middle is accepted.
    stream = tmp_path / "stream.mp3"
    stream.write_bytes(song.read_bytes()[10_001:])
    assert decode(decoder, stream)[1].stream.codec == "mp3"


def test_a_playlist_never_opens_another_file(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    hls = tmp_path / "hls.mp3"
    hls.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{wav}\n#EXT-X-ENDLIST\n")
    script = tmp_path / "script.mp3"
    script.write_text(f"ffconcat version 1.0\nfile {wav}\n")
    for path in (hls, script):
        assert error_kind(decoder, path) is ErrorKind.UNSUPPORTED_MEDIA
    # Without the whitelist, ffmpeg opens the file that the script names, so this test can fail.
    assert recorder.output("-f", "concat", "-safe", "0", "-i", script, "-f", "f32le", "-") != b""


def test_a_video_without_audio_is_rejected(decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "mute.mp4"
    recorder.run("-f", "lavfi", "-i", "testsrc=d=2:s=64x64", path)
    assert error_kind(decoder, path) is ErrorKind.NO_AUDIO_STREAM


def test_a_file_without_bytes_or_samples_is_empty(decoder: FfmpegDecoder, tmp_path: Path) -> None:
    path = tmp_path / "empty.wav"
    path.write_bytes(b"")
    assert error_kind(decoder, path) is ErrorKind.EMPTY_AUDIO
    path.write_bytes(wav_bytes(np.zeros(0, dtype=np.float32), RATE))
    assert error_kind(decoder, path) is ErrorKind.EMPTY_AUDIO


def test_a_file_that_starts_like_audio_but_cannot_be_opened_is_undecodable(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    whole = recorder.convert(recorder.load(wav, "pcm_f32le"), LOSSY[3], tmp_path / "whole.m4a")
    path = tmp_path / "no-index.m4a"
    path.write_bytes(whole.read_bytes()[:50_000])
    assert error_kind(decoder, path) is ErrorKind.UNDECODABLE_AUDIO
    flac = recorder.convert(recorder.load(wav, "pcm_f32le"), LOSSLESS[4], tmp_path / "whole.flac")
    path.write_bytes(flac.read_bytes()[:200])
    assert error_kind(decoder, path) is ErrorKind.UNDECODABLE_AUDIO


def test_invalid_samples_are_replaced_with_a_warning(
    decoder: FfmpegDecoder, tmp_path: Path, tune: NDArray[np.float32]
) -> None:
    path = tmp_path / "odd.wav"
    for value, limit in ((np.nan, 0.0), (np.inf, 1e6), (-np.inf, 1e6), (1e25, 1e6)):
        odd = tune.copy()
        odd[70_000] = value
        path.write_bytes(wav_bytes(odd, RATE))
        found, summary = decode(decoder, path)
        assert np.isfinite(found).all()
        assert np.abs(found).max() <= max(limit, 1.0)
        assert [warning.code for warning in summary.warnings] == [WarningCode.DAMAGED], value


def test_a_video_longer_than_its_audio_is_not_truncated(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    path = tmp_path / "film.mp4"
    recorder.run("-f", "lavfi", "-i", "testsrc=d=20:s=64x64", "-i", wav, "-map", "0", "-map", "1", path)
    _, summary = decode(decoder, path)
    assert summary.duration_s == pytest.approx(10, abs=0.1)
    assert summary.warnings == ()


def test_many_chapters_and_tags_do_not_hide_the_stream(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    tags = ";FFMETADATA1\n" + "".join(
        f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={10 * i}\nEND={10 * i + 10}\ntitle=Chapter {i} {'x' * 200}\n"
        for i in range(900)
    )
    described = tmp_path / "chapters.txt"
    described.write_text(tags)
    path = tmp_path / "book.m4a"
    recorder.run("-i", wav, "-i", described, "-map_metadata", "1", "-map_chapters", "1", "-ar", "44100", path)
    _, summary = decode(decoder, path)
    assert (summary.stream.codec, summary.stream.sample_rate_hz) == ("aac", 44100)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (signal.SIGKILL, ErrorKind.INTERNAL_ERROR),
        (signal.SIGSEGV, ErrorKind.UNDECODABLE_AUDIO),
        # ffmpeg handles these two and exits: the first is sent at its CPU limit, the second by an operator.
        (signal.SIGXCPU, ErrorKind.UNDECODABLE_AUDIO),
        (signal.SIGTERM, ErrorKind.INTERNAL_ERROR),
    ],
)
def test_a_killed_ffmpeg_is_an_error_instead_of_half_a_recording(
    decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path, number: signal.Signals, kind: ErrorKind
) -> None:
    path = tmp_path / "long.flac"
    recorder.run("-f", "lavfi", "-i", "sine=r=8000", "-t", "7200", path)
    with decoder.open(path, sample_rate=RATE, max_duration_s=10_000) as decoding:
        blocks = decoding.blocks()
        next(blocks)
        (child,) = ffmpegs()
        child.send_signal(number)
        for _ in blocks:
            pass
        with pytest.raises(ServiceError) as caught:
            decoding.summary()
    assert caught.value.kind is kind


def test_a_recording_that_is_too_long_is_rejected_while_it_is_decoded(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    path = tmp_path / "long.flac"
    recorder.run("-f", "lavfi", "-i", "sine=r=8000", "-t", "7200", path)
    with decoder.open(path, sample_rate=RATE, max_duration_s=60) as decoding, pytest.raises(ServiceError) as caught:
        list(decoding.blocks())
    assert caught.value.kind is ErrorKind.AUDIO_TOO_LONG
    assert decoding._pcm.n_samples <= 60 * RATE + 262_144
    assert error_kind(decoder, wav, limit_s=9.9) is ErrorKind.AUDIO_TOO_LONG
    assert len(decode(decoder, wav, limit_s=10.0)[0]) == 10 * RATE


def test_a_low_sample_rate_is_rejected_while_it_is_decoded(decoder: FfmpegDecoder, tmp_path: Path) -> None:
    path = tmp_path / "slow.wav"
    path.write_bytes(wav_bytes(np.zeros(20_000, dtype=np.float32), 100))
    with (
        decoder.open(path, sample_rate=RATE, max_duration_s=10_000) as decoding,
        pytest.raises(ServiceError) as caught,
    ):
        next(decoding.blocks())
    assert caught.value.kind is ErrorKind.UNSUPPORTED_MEDIA


def test_a_stopped_ffmpeg_yields_empty_blocks_until_it_continues(decoder: FfmpegDecoder, long_song: Path) -> None:
    whole, _ = decode(decoder, long_song, limit_s=3600)
    with decoder.open(long_song, sample_rate=RATE, max_duration_s=3600) as decoding:
        blocks, decoded = decoding.blocks(), list[NDArray[np.float32]]()
        child = psutil.Process(decoding._process.pid)
        child.suspend()
        while not decoded or len(decoded[-1]):
            decoded.append(next(blocks))
        assert decoding.stalled
        child.resume()
        decoded += blocks
        assert decoding.ended
        decoding.summary()
    assert np.array_equal(np.concatenate(decoded), whole)


def test_an_ffmpeg_that_cannot_be_executed_is_an_internal_error(wav: Path, ffmpeg: Ffmpeg) -> None:
    with closing(FfmpegDecoder(replace(ffmpeg, path=Path("/nowhere/ffmpeg")))) as decoder:
        assert error_kind(decoder, wav) is ErrorKind.INTERNAL_ERROR


def test_a_failure_to_start_a_thread_leaves_nothing_behind(
    decoder: FfmpegDecoder, wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError(f"can't start {thread.name}")

    descriptors = psutil.Process().num_fds()
    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", refuse)
        with pytest.raises(OSError, match="thread"):
            decoder.open(wav, sample_rate=RATE, max_duration_s=60)
    assert psutil.Process().num_fds() == descriptors
    assert ffmpegs() == []


def test_killing_ends_the_blocks_and_leaves_nothing_behind(
    decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path
) -> None:
    path = tmp_path / "long.flac"
    recorder.run("-f", "lavfi", "-i", "sine=r=8000", "-t", "7200", path)
    threads = threading.active_count()
    with decoder.open(path, sample_rate=RATE, max_duration_s=10_000) as decoding:
        blocks = decoding.blocks()
        next(blocks)
        (child,) = ffmpegs()
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


def test_ffmpeg_inherits_no_environment(
    decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHOLETRACK_API_KEY", "secret")
    path = tmp_path / "long.flac"
    recorder.run("-f", "lavfi", "-i", "sine=r=8000", "-t", "3600", path)
    with decoder.open(path, sample_rate=RATE, max_duration_s=10_000) as decoding:
        next(decoding.blocks())
        (child,) = ffmpegs()
        assert child.environ() == {"LC_ALL": "C", "AV_LOG_FORCE_NOCOLOR": "1", "MALLOC_ARENA_MAX": "1"}


def test_a_program_that_is_not_ffmpeg_is_a_startup_error(tmp_path: Path) -> None:
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\necho something else\n")
    fake.chmod(0o755)
    with pytest.raises(StartupError, match="is not ffmpeg"):
        find_ffmpeg(fake)
    with pytest.raises(StartupError, match="cannot be executed"):
        find_ffmpeg(tmp_path / "missing")


def test_the_self_test_detects_an_ffmpeg_that_cannot_decode(decoder: FfmpegDecoder, tmp_path: Path) -> None:
    self_test(decoder)
    for name, change in (("lacking", '"${@/aresample/nofilter}"'), ("mute", '"${@/-af/-an}"')):
        path = tmp_path / name
        path.write_text(f"#!/bin/bash\nexec {decoder.ffmpeg.path} {change}\n")
        path.chmod(0o755)
        with pytest.raises(StartupError, match="cannot decode a WAV|does not decode a known WAV correctly"):
            self_test(FfmpegDecoder(find_ffmpeg(path)))


def test_ffmpeg_on_the_path_is_preferred(
    decoder: FfmpegDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ffmpeg").symlink_to(decoder.ffmpeg.path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_ffmpeg().origin == "PATH"
    monkeypatch.setenv("PATH", "")
    assert find_ffmpeg().origin == "imageio-ffmpeg"


def test_a_sandbox_that_does_not_start_is_a_startup_error(ffmpeg: Ffmpeg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(StartupError, match="the process that starts ffmpeg cannot run: .* exited with status 1"):
        FfmpegDecoder(ffmpeg)


def test_the_kernel_enforces_the_limits(decoder: FfmpegDecoder, long_song: Path) -> None:
    with decoder.open(long_song, sample_rate=22050, max_duration_s=1000) as decoding:
        next(decoding.blocks())
        pid = decoding._process.pid
        assert resource.prlimit(pid, resource.RLIMIT_DATA) == (256 << 20, 256 << 20)
        assert resource.prlimit(pid, resource.RLIMIT_AS) == (1 << 30, 1 << 30)
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
        raised = (math.ceil(30 + decoded_s / 20), 81)
        until(lambda: resource.prlimit(decoding._process.pid, resource.RLIMIT_CPU) == raised)


def test_ffmpeg_runs_as_a_batch_job(decoder: FfmpegDecoder, long_song: Path) -> None:
    with decoder.open(long_song, sample_rate=22050, max_duration_s=3600) as decoding:
        next(decoding.blocks())
        threads = threads_of(decoding)
        assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}
        assert all(os.sched_getaffinity(thread) == os.sched_getaffinity(0) for thread in threads)


def test_processes_are_distributed_evenly_over_the_cpus(ffmpeg: Ffmpeg, long_song: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    allocator = CpuAllocator(cpus)

    def cpu_of(decoding: Decoding) -> int:
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


def threads_of(decoding: Decoding) -> list[int]:
    return [int(task.name) for task in Path(f"/proc/{decoding._process.pid}/task").iterdir()]
