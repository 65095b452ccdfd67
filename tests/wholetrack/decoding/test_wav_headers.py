"""WAV files whose headers ffmpeg misinterprets, or which do not state how long they are."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.decoding import RATE, decode, error_kind
from tests.harness.recordings import LOSSLESS, Kind, Recorder, generate_tune, wav_bytes
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.wav import read_w64
from wholetrack.errors import ErrorKind

SECONDS = 5
PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")


@pytest.fixture(scope="module")
def tune16() -> NDArray[np.int16]:
    return np.round(generate_tune(SECONDS) * 32767).astype(np.int16)


def chunk(name: bytes, content: bytes, *, size: int | None = None, order: str = "<") -> bytes:
    return name + struct.pack(f"{order}I", len(content) if size is None else size) + content + bytes(len(content) % 2)


def wav(
    data: bytes,
    *,
    bits: int = 16,
    sample_bytes: int = 2,
    extensible: bool = False,
    data_size: int | None = None,
    behind: bytes = b"",
) -> bytes:
    """Return a mono WAV of integers."""
    tag, container_bits = (0xFFFE, 8 * sample_bytes) if extensible else (1, bits)
    fmt = struct.pack("<HHIIHH", tag, 1, RATE, RATE * sample_bytes, sample_bytes, container_bits)
    if extensible:
        fmt += struct.pack("<HHI", 22, bits, 4) + PCM_GUID
    body = b"WAVE" + chunk(b"fmt ", fmt) + chunk(b"data", data, size=data_size) + behind
    return b"RIFF" + struct.pack("<I", min(len(body), 0xFFFFFFFF)) + body


def integers(tune: NDArray[np.int16], sample_bytes: int) -> bytes:
    """Return samples with the value in the upper bits of ``sample_bytes`` bytes."""
    words = tune.astype("<i4") << 16
    return words.view(np.uint8).reshape(-1, 4)[:, 4 - sample_bytes :].tobytes()


@pytest.mark.parametrize(
    ("bits", "sample_bytes"), [(24, 4), (20, 4), (16, 4), (20, 3), (16, 3), (12, 2), (24, 3), (32, 4)], ids=str
)
@pytest.mark.parametrize("header", ["extensible", "plain"])
def test_fewer_valid_bits_than_a_sample_holds(
    each_decoder: FfmpegDecoder,
    tmp_path: Path,
    tune16: NDArray[np.int16],
    bits: int,
    sample_bytes: int,
    header: str,
) -> None:
    path = tmp_path / "wide.wav"
    data = integers(tune16, sample_bytes)
    path.write_bytes(wav(data, bits=bits, sample_bytes=sample_bytes, extensible=header == "extensible"))
    samples, summary = decode(each_decoder, path)
    np.testing.assert_allclose(samples, tune16 / 32768, atol=1e-6)
    assert summary.warnings == ()


def test_a_big_endian_wav_is_refused_instead_of_decoded_to_noise(
    each_decoder: FfmpegDecoder, tmp_path: Path, tune16: NDArray[np.int16]
) -> None:
    data = tune16.astype(">i2").tobytes()
    fmt = struct.pack(">HHIIHH", 1, 1, RATE, RATE * 2, 2, 16)
    body = b"WAVE" + chunk(b"fmt ", fmt, order=">") + chunk(b"data", data, order=">")
    path = tmp_path / "rifx.wav"
    for prefix in (b"", b"ID3\3\0\0\0\0\0\0"):
        path.write_bytes(prefix + b"RIFX" + struct.pack(">I", len(body)) + body)
        assert error_kind(each_decoder, path) is ErrorKind.UNSUPPORTED_MEDIA


@pytest.mark.parametrize(
    "size", [0, 0x7FFFFFFF, 0x7FFFFFFF - 36, 0x7FFFF000, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFF - 44, 0xFFFFFF00], ids=hex
)
def test_a_wav_from_a_pipe_does_not_state_its_size(
    each_decoder: FfmpegDecoder, tmp_path: Path, tune16: NDArray[np.int16], size: int
) -> None:
    path = tmp_path / "pipe.wav"
    path.write_bytes(wav(tune16.tobytes(), data_size=size))
    samples, summary = decode(each_decoder, path)
    assert len(samples) == len(tune16)
    assert summary.warnings == ()


def test_samples_behind_a_size_that_is_too_small_are_decoded(
    each_decoder: FfmpegDecoder, tmp_path: Path, tune16: NDArray[np.int16]
) -> None:
    path = tmp_path / "small.wav"
    path.write_bytes(wav(tune16.tobytes(), data_size=2 * RATE))
    samples, summary = decode(each_decoder, path)
    assert len(samples) == len(tune16)
    assert summary.warnings == ()


@pytest.mark.parametrize(
    "behind",
    [
        chunk(b"LIST", b"INFO" + chunk(b"INAM", b"Title")),
        chunk(b"id3 ", bytes(333)),
        bytes(4000),
        b"TAG" + bytes(125),
    ],
    ids=["list", "id3", "padding", "ID3v1"],
)
def test_what_follows_the_samples_is_not_decoded(
    each_decoder: FfmpegDecoder, tmp_path: Path, tune16: NDArray[np.int16], behind: bytes
) -> None:
    path = tmp_path / "chunks.wav"
    path.write_bytes(wav(tune16.tobytes(), behind=behind))
    samples, summary = decode(each_decoder, path)
    assert len(samples) == len(tune16)
    assert summary.warnings == ()


@pytest.mark.parametrize("kind", [LOSSLESS[0], LOSSLESS[2], LOSSLESS[3]], ids=str)
def test_half_a_file_is_truncated(
    each_decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path, tune16: NDArray[np.int16], kind: Kind
) -> None:
    source, path = tmp_path / "tune.wav", tmp_path / f"half.{kind.suffix}"
    source.write_bytes(wav(tune16.tobytes()))
    recorder.run("-i", source, path)
    path.write_bytes(path.read_bytes()[: 4 * (path.stat().st_size // 8)])
    _, summary = decode(each_decoder, path)
    assert 2 < summary.duration_s < 3
    assert [warning.code for warning in summary.warnings] == ["truncated"]


def test_a_long_wav_states_its_size_elsewhere(
    each_decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path, tune16: NDArray[np.int16]
) -> None:
    source, path = tmp_path / "tune.wav", tmp_path / "long.wav"
    source.write_bytes(wav(tune16.tobytes()))
    recorder.run("-i", source, "-rf64", "always", path)
    whole = path.read_bytes()
    assert whole.startswith(b"RF64")
    assert decode(each_decoder, path)[1].warnings == ()
    # A program that writes to a pipe cannot fill in the sizes.
    for size in (0, 1 << 62):
        sizes = whole.index(b"ds64") + 8
        path.write_bytes(whole[: sizes + 8] + struct.pack("<Q", size) + whole[sizes + 16 :])
        samples, summary = decode(each_decoder, path)
        assert len(samples) == len(tune16)
        assert summary.warnings == ()
    path.write_bytes(whole[: len(whole) // 2])
    assert [warning.code for warning in decode(each_decoder, path)[1].warnings] == ["truncated"]


def test_float_samples_are_unaffected(each_decoder: FfmpegDecoder, tmp_path: Path) -> None:
    path = tmp_path / "float.wav"
    path.write_bytes(wav_bytes(generate_tune(SECONDS), RATE))
    np.testing.assert_array_equal(decode(each_decoder, path)[0], generate_tune(SECONDS))


@pytest.fixture(scope="module")
def w64(tmp_path_factory: pytest.TempPathFactory, recorder: Recorder, tune16: NDArray[np.int16]) -> bytes:
    folder = tmp_path_factory.mktemp("w64")
    (folder / "tune.wav").write_bytes(wav(tune16.tobytes()))
    recorder.run("-i", folder / "tune.wav", folder / "tune.w64")
    return (folder / "tune.w64").read_bytes()


def test_a_wave64_file_is_truncated_if_it_ends_before_its_samples(w64: bytes) -> None:
    assert not read_w64(io.BytesIO(w64), 0, len(w64))
    for n_bytes in (len(w64) - 1, len(w64) // 2, 120, 60, 40):
        assert read_w64(io.BytesIO(w64[:n_bytes]), 0, n_bytes)


@pytest.mark.parametrize("size", [1 << 20, 1 << 62, 1 << 63, (1 << 64) - 1])
def test_a_chunk_of_a_wave64_file_may_state_any_size(w64: bytes, size: int, tmp_path: Path) -> None:
    """Offsets beyond 2**63 - 1 cannot be sought."""
    damaged = w64[:56] + struct.pack("<Q", size) + w64[64:]
    path = tmp_path / "damaged.w64"
    path.write_bytes(damaged)
    with path.open("rb") as file:
        assert read_w64(file, 0, len(damaged))
