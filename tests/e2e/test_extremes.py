"""Files with extreme sample rates, channels, streams, tags or nesting: each gets a documented response quickly."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from tests.harness.recordings import Recorder
from tests.harness.server import Server, running_server

pytestmark = pytest.mark.timing

_RATE = 22050
_NOISE = np.random.default_rng(0).integers(-8000, 8000, 6 * _RATE).astype("<i2").tobytes()
_MAX_RESPONSE_S = 30.0


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("strict")
    with running_server(folder, max_duration_s=60, request_timeout_s=_MAX_RESPONSE_S) as started:
        yield started


@dataclass(frozen=True)
class Originals:
    """Six seconds of noise as mp3, flac and m4a, and in 150 streams at once."""

    mp3: bytes
    flac: bytes
    m4a: bytes
    streams: bytes


@pytest.fixture(scope="module")
def originals(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Originals:
    folder = tmp_path_factory.mktemp("originals")
    noise = folder / "noise.wav"
    noise.write_bytes(wav())
    for suffix in ("mp3", "flac", "m4a"):
        recorder.run("-i", noise, folder / f"noise.{suffix}")
    recorder.run("-i", noise, *["-map", "0"] * 150, "-c:a", "flac", folder / "streams.mka")
    names = ("noise.mp3", "noise.flac", "noise.m4a", "streams.mka")
    return Originals(*((folder / name).read_bytes() for name in names))


def wav(*, rate: int = _RATE, channels: int = 1, bits: int = 16, before: bytes = b"", times: int = 1) -> bytes:
    """Return a WAV with the given header around repeated noise.

    Args:
        rate: Sample rate in the header.
        channels: Number of channels in the header.
        bits: Bits per sample in the header.
        before: Chunks before the format chunk.
        times: Number of repetitions of the noise.
    """
    block = channels * bits // 8
    fmt = struct.pack("<HHIIHH", 1, channels, rate, rate * block % 2**32, block % 2**16, bits)
    data = _NOISE * times
    body = before + b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body


def id3(frame: bytes) -> bytes:
    size = len(frame)
    return b"ID3\x03\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + frame


def tag(name: bytes, content: bytes) -> bytes:
    return name + struct.pack(">I", len(content)) + b"\0\0" + content


def nested(m4a: bytes, depth: int) -> bytes:
    """Return an mp4 whose index consists of boxes nested that deep."""
    inner = b""
    for _ in range(depth):
        inner = struct.pack(">I", len(inner) + 8) + b"moov" + inner
    return m4a[: m4a.index(b"moov") - 4] + inner


# Content and expected outcome: ok or an error code, or two where versions of ffmpeg differ.
EXTREMES: dict[str, tuple[Callable[[Originals], bytes], str]] = {
    "1 sample per second": (lambda _: wav(rate=1), "audio_too_long or unsupported_media"),
    "3,999 samples per second": (lambda _: wav(rate=3999), "unsupported_media"),
    "4 kHz": (lambda _: wav(rate=4000), "ok"),
    "0 samples per second": (lambda _: wav(rate=0), "undecodable_audio"),
    "768 kHz": (lambda _: wav(rate=768_000, times=4), "ok"),
    "2 GHz": (lambda _: wav(rate=2**31 - 1), "unsupported_media"),
    "4 GHz": (lambda _: wav(rate=2**32 - 1), "undecodable_audio"),
    "64 channels": (lambda _: wav(channels=64, times=8), "ok"),
    "255 channels": (lambda _: wav(channels=255, times=8), "undecodable_audio"),
    "65,535 channels": (lambda _: wav(channels=65_535, times=8), "undecodable_audio"),
    "0 bits per sample": (lambda _: wav(bits=0), "undecodable_audio"),
    "64 bits per sample": (lambda _: wav(bits=64), "unsupported_media"),
    "150 streams": (lambda original: original.streams, "ok"),
    "a title of 30 MB": (lambda original: id3(tag(b"TIT2", b"\3" + b"a" * 30_000_000)) + original.mp3, "ok"),
    "a picture of 30 MB": (
        lambda original: id3(tag(b"APIC", b"\0image/png\0\3\0\x89PNG" + b"a" * 30_000_000)) + original.mp3,
        "ok",
    ),
    "100,000 tags": (lambda original: id3(tag(b"TXXX", b"\3a\0bc") * 100_000) + original.mp3, "ok"),
    "20,000 nested boxes": (lambda original: nested(original.m4a, 20_000), "undecodable_audio"),
    "a million empty chunks": (lambda _: wav(before=b"LIST\0\0\0\0" * 1_000_000), "undecodable_audio"),
    "200,000 empty metadata blocks": (
        lambda original: original.flac[:4] + b"\2\0\0\4abcd" * 200_000 + original.flac[4:],
        "undecodable_audio",
    ),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_an_extreme_file_gets_a_response_quickly(strict: Server, originals: Originals, name: str) -> None:
    make, expected = EXTREMES[name]
    began = time.monotonic()
    response = strict.post(make(originals), "song")
    assert time.monotonic() - began < _MAX_RESPONSE_S
    body = response.json()
    assert (body["code"] if response.is_error else "ok") in expected.split(" or "), body
    if response.is_success:
        rows = np.array(body["windows"]["probabilities"])
        np.testing.assert_allclose(rows.sum(axis=1), 1.0, atol=1e-3)
    assert strict.get("/readyz").status_code == 200
