"""Files that once revealed an error, each reduced to what caused it."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.corpus import SECONDS
from tests.harness.recordings import Recorder, generate_tune, wav_bytes
from wholetrack.contracts import StreamInfo
from wholetrack.decoding.audio_parts import find_audio_parts
from wholetrack.decoding.decoder import DecodedAudio, FfmpegDecoder
from wholetrack.decoding.ffmpeg_log import FfmpegLog

RATE = 22050
QUICK_S = 0.1
"""CPU time to reject a file without audio, in seconds."""


@pytest.fixture
def mp3(recorder: Recorder, tmp_path: Path) -> bytes:
    """A tune without tags."""
    wav, target = tmp_path / "tune.wav", tmp_path / "tune.mp3"
    wav.write_bytes(wav_bytes(generate_tune(SECONDS), RATE))
    recorder.run("-i", wav, "-map_metadata", "-1", "-id3v2_version", "0", target)
    return target.read_bytes()


def decode(decoder: FfmpegDecoder, path: Path) -> DecodedAudio:
    with decoder.open(path, sample_rate=RATE, max_duration_s=60) as decoding:
        for _ in decoding.blocks():
            pass
        return decoding.summary()


def tagged(name: str, content: bytes) -> bytes:
    """Prefix an mp3 with an ID3 tag whose only entry has this name, which ffmpeg writes to its log unchanged."""
    entry = b"\x03" + name.encode() + b"\0value"
    frame = b"TXXX" + struct.pack(">I", len(entry)) + b"\0\0" + entry
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + frame + content


def test_a_tag_that_imitates_a_duration_of_400_digits(decoder: FfmpegDecoder, mp3: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tagged.mp3"
    path.write_bytes(tagged("\n[info]   Duration: " + "9" * 400 + ":00:00.00\n", mp3))
    assert decode(decoder, path).duration_s == pytest.approx(SECONDS, abs=0.1)


def test_a_tag_that_imitates_the_start_of_decoding(decoder: FfmpegDecoder, mp3: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tagged.mp3"
    path.write_bytes(tagged("\n[info] Output #0\n", mp3))
    assert decode(decoder, path).stream.codec == "mp3"


def test_a_tag_that_imitates_a_stream(decoder: FfmpegDecoder, mp3: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tagged.mp3"
    path.write_bytes(tagged("\n[info]   Stream #0:0: Audio: mine, " + "9" * 400 + " Hz, 77 channels\n", mp3))
    assert decode(decoder, path).stream == StreamInfo("mp3", "mp3", RATE, 1)


def test_many_tags_that_almost_imitate_a_stream() -> None:
    log = FfmpegLog("0123456789abcdef:")
    began = time.thread_time()
    log.feed(b"[info] Input #0, mp3, from 'x':\n" + (b"[info]   Stream #0:" + b"9" * 900 + b"\n") * 280)
    log.feed((b"[info]   Stream #0:0: Audio: " + b"1" * 40 + b", " * 40 + b"\n") * 2800)
    assert time.thread_time() - began < QUICK_S


def test_a_wav_with_a_million_empty_chunks(tmp_path: Path) -> None:
    whole = wav_bytes(generate_tune(SECONDS), RATE)
    path = tmp_path / "chunks.wav"
    path.write_bytes(whole[:36] + b"junk\0\0\0\0" * 1_000_000 + whole[36:])
    began = time.thread_time()
    assert not find_audio_parts(path).is_truncated
    assert time.thread_time() - began < QUICK_S


@pytest.mark.parametrize(
    "content",
    [
        b"OggS\0\2" + bytes(21) + b"OggS\0\0" + bytes(21),
        b"ID3TAG",
        b"LYRICSBEGINLYRICSEND",
        b"TAG" + bytes(125),
        b"OggS" + bytes(22) + b"\xff",
    ],
    ids=["pages", "beginnings", "lyrics", "tags", "incomplete pages"],
)
def test_a_file_of_nothing_but_tags_or_pages(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "many"
    path.write_bytes(b"\xff\xfb" * (content[0] != ord("O")) + content * (5_000_000 // len(content)))
    began = time.thread_time()
    find_audio_parts(path)
    assert time.thread_time() - began < 20 * QUICK_S


def test_ambisonic_audio_has_channels(decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path) -> None:
    wav, path = tmp_path / "four.wav", tmp_path / "ambisonic.opus"
    wav.write_bytes(wav_bytes(np.stack([generate_tune(SECONDS)] * 4, axis=1), RATE))
    ambisonic = "channelmap=map=0|1|2|3:channel_layout=ambisonic 1,aresample=48000"
    recorder.run("-i", wav, "-af", ambisonic, "-c:a", "libopus", "-mapping_family", "2", path)
    decoded = decode(decoder, path)
    assert decoded.duration_s == pytest.approx(SECONDS, abs=0.1)
    assert decoded.stream.channels == 4
