"""Files that are not complete recordings lead to accurate warnings and errors."""

from __future__ import annotations

import signal
import tarfile
import zipfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.decoding import RATE, decode, error_kind
from tests.harness.processes import only_ffmpeg
from tests.harness.recordings import LOSSLESS, LOSSY, Kind, Recorder, wav_bytes
from wholetrack.contracts import WarningCode
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.ffmpeg import Ffmpeg
from wholetrack.errors import ErrorKind, ServiceError


@pytest.fixture
def wav(tmp_path: Path, tune: NDArray[np.float32]) -> Path:
    path = tmp_path / "tune.wav"
    path.write_bytes(wav_bytes(tune, RATE))
    return path


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
def test_a_wav_whose_header_does_not_state_the_size_is_complete(
    decoder: FfmpegDecoder, tmp_path: Path, tune: NDArray[np.float32], stated: int
) -> None:
    path = tmp_path / "open.wav"
    content = bytearray(wav_bytes(tune, RATE))
    content[40:44] = stated.to_bytes(4, "little")
    path.write_bytes(bytes(content))
    found, summary = decode(decoder, path)
    assert len(found) == len(tune)
    assert summary.warnings == ()


def test_a_video_longer_than_its_audio_is_not_truncated(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    path = tmp_path / "video.mp4"
    recorder.run("-f", "lavfi", "-i", "testsrc=d=20:s=64x64", "-i", wav, "-map", "0", "-map", "1", path)
    _, summary = decode(decoder, path)
    assert summary.duration_s == pytest.approx(10, abs=0.1)
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
        video = tmp_path / "video.mkv"
        recorder.run("-y", "-i", wav, "-c:a", codec, video)
        with pytest.raises(ServiceError, match=f"contains {codec} audio, which is not supported") as caught:
            decode(decoder, video)
        assert caught.value.kind is ErrorKind.UNSUPPORTED_MEDIA


def test_a_header_without_a_codec_is_corrupt(decoder: FfmpegDecoder, tmp_path: Path) -> None:
    """The error does not advise converting such a file, because no program could."""
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


def test_a_file_that_looks_like_audio_but_cannot_be_opened_is_undecodable(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    whole = recorder.convert(recorder.load(wav, "pcm_f32le"), LOSSY[3], tmp_path / "whole.m4a")
    path = tmp_path / "no-index.m4a"
    path.write_bytes(whole.read_bytes()[:50_000])
    assert error_kind(decoder, path) is ErrorKind.UNDECODABLE_AUDIO
    flac = recorder.convert(recorder.load(wav, "pcm_f32le"), LOSSLESS[4], tmp_path / "whole.flac")
    path.write_bytes(flac.read_bytes()[:200])
    assert error_kind(decoder, path) is ErrorKind.UNDECODABLE_AUDIO


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
    recorder.run("-f", "lavfi", "-i", "sine=r=8000", "-t", "1200", path)
    with decoder.open(path, sample_rate=RATE, max_duration_s=10_000) as decoding:
        blocks = decoding.blocks()
        next(blocks)
        child = only_ffmpeg()
        child.send_signal(number)
        for _ in blocks:
            pass
        with pytest.raises(ServiceError) as caught:
            decoding.summary()
    assert caught.value.kind is kind


def test_an_ffmpeg_that_cannot_be_executed_is_an_internal_error(wav: Path, ffmpeg: Ffmpeg) -> None:
    with closing(FfmpegDecoder(ffmpeg)) as decoder:
        decoder.ffmpeg = replace(ffmpeg, path=Path("/nowhere/ffmpeg"))
        assert error_kind(decoder, wav) is ErrorKind.INTERNAL_ERROR
