"""How much audio a file contains is counted in samples, whatever its timestamps are."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.harness.decoding import RATE, decode, error_kind
from tests.harness.recordings import Recorder, generate_tune, wav_bytes
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.errors import ErrorKind

SECONDS = 20
OPUS, AAC = ("-c:a", "libopus"), ("-c:a", "aac")
# Expressions of ffmpeg's setts filter.
LATE, GAP, LONG_GAP = "18000/TB", r"if(gte(TS*TB\,8)\,5/TB\,0)", r"if(gte(TS*TB\,8)\,14400/TB\,0)"


@pytest.fixture(scope="session")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timestamps") / "tune.wav"
    path.write_bytes(wav_bytes(generate_tune(SECONDS), RATE))
    return path


def shifted(recorder: Recorder, wav: Path, target: Path, codec: Sequence[str], shift: str) -> Path:
    """Encode a recording and add to its timestamps."""
    plain = target.with_name(f"plain{target.suffix}")
    recorder.run("-i", wav, *codec, plain)
    recorder.run("-i", plain, "-c", "copy", "-bsf:a", f"setts=ts=TS+{shift}", target)
    return target


@pytest.mark.parametrize(
    ("suffix", "codec", "shift"),
    [
        ("webm", OPUS, LATE),
        ("webm", OPUS, GAP),
        ("mka", AAC, GAP),
        ("mka", ("-c:a", "flac"), LATE),
        ("m4a", AAC, GAP),
        ("m4a", AAC, LONG_GAP),
    ],
)
def test_late_or_jumping_timestamps_lose_nothing(
    each_decoder: FfmpegDecoder,
    recorder: Recorder,
    wav: Path,
    tmp_path: Path,
    suffix: str,
    codec: Sequence[str],
    shift: str,
) -> None:
    path = shifted(recorder, wav, tmp_path / f"shifted.{suffix}", codec, shift)
    _, summary = decode(each_decoder, path, limit_s=SECONDS + 1)
    assert summary.duration_s == pytest.approx(SECONDS, abs=0.1)
    assert summary.warnings == ()


def test_the_limit_counts_samples_and_not_timestamps(
    each_decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    path = shifted(recorder, wav, tmp_path / "shifted.m4a", AAC, LONG_GAP)
    assert error_kind(each_decoder, path, limit_s=SECONDS - 1) is ErrorKind.AUDIO_TOO_LONG


def test_an_ogg_that_starts_late_is_complete(
    each_decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    """As one that was cut out of a longer recording."""
    path = tmp_path / "late.opus"
    recorder.run("-i", wav, *OPUS, path)
    content = bytearray(path.read_bytes())
    position = 0
    while position < len(content):
        (granule,) = struct.unpack_from("<q", content, position + 6)
        if granule > 0:
            struct.pack_into("<q", content, position + 6, granule + 5 * 3600 * 48000)
        n_segments = content[position + 26]
        end = position + 27 + n_segments + sum(content[position + 27 : position + 27 + n_segments])
        struct.pack_into("<I", content, position + 22, 0)
        struct.pack_into("<I", content, position + 22, ogg_checksum(content[position:end]))
        position = end
    path.write_bytes(bytes(content))
    _, summary = decode(each_decoder, path)
    assert summary.duration_s == pytest.approx(SECONDS, abs=0.1)
    assert summary.warnings == ()


@pytest.mark.parametrize(("suffix", "codec"), [("m4a", (*AAC, "-movflags", "+faststart")), ("mka", AAC)])
def test_a_file_that_was_cut_is_still_truncated(
    each_decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path, suffix: str, codec: Sequence[str]
) -> None:
    path = tmp_path / f"cut.{suffix}"
    recorder.run("-i", wav, *codec, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _, summary = decode(each_decoder, path)
    assert 5 < summary.duration_s < 15
    assert [warning.code for warning in summary.warnings] == ["truncated"]


def ogg_checksum(page: bytes | bytearray) -> int:
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ 0x04C11DB7 if checksum & 0x80000000 else checksum << 1) & 0xFFFFFFFF
    return checksum
