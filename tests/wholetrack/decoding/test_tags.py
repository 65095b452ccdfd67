"""Tags before, behind and between the audio are not decoded, and are no damage."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from tests.harness.decoding import RATE, decode
from tests.harness.recordings import Recorder, generate_tune, wav_bytes
from wholetrack.decoding.audio_parts import find_audio_parts
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.padding import frame_bytes

SECONDS = 5
PICTURE = b"\xff\xd8\xff\xe0" + np.random.default_rng(4).bytes(300_000) + b"\xff\xd9"


def synchsafe(number: int) -> bytes:
    return bytes(number >> shift & 127 for shift in (21, 14, 7, 0))


def id3v2() -> bytes:
    frame = b"\0image/jpeg\0\3\0" + PICTURE
    frame = b"APIC" + struct.pack(">I", len(frame)) + b"\0\0" + frame
    return b"ID3\3\0\0" + synchsafe(len(frame)) + frame


def id3v2_with_footer() -> bytes:
    size = synchsafe(1000)
    return b"ID3\4\0\x10" + size + bytes(1000) + b"3DI\4\0\x10" + size


def id3v1() -> bytes:
    return b"TAG" + b"A title".ljust(30, b"\0") + b"An artist".ljust(30) + bytes(64) + b"\xff"


def enhanced_id3v1() -> bytes:
    return b"TAG+" + bytes(223) + id3v1()


def ape(*, with_header: bool = True) -> bytes:
    item = struct.pack("<II", len(PICTURE), 2) + b"Cover Art (Front)\0" + PICTURE
    flags = 0x80000000 if with_header else 0
    header, footer = (
        b"APETAGEX" + struct.pack("<IIII8x", 2000, len(item) + 32, 1, flags | kind) for kind in (0x20000000, 0)
    )
    return header * with_header + item + footer


def lyrics3() -> bytes:
    text = b"LYRICSBEGIN" + b"IND00002" + b"00" + b"LYR00020" + b"[00:01]la la la la\r\n"
    return text + b"%06d" % len(text) + b"LYRICS200" + id3v1()


def lyrics3_version_1() -> bytes:
    return b"LYRICSBEGIN" + b"[00:01]la la la\r\n" * 20 + b"LYRICSEND" + id3v1()


BEHIND = {
    "ID3v1": id3v1(),
    "enhanced ID3v1": enhanced_id3v1(),
    "APE": ape(),
    "APE without header": ape(with_header=False),
    "APE and ID3v1": ape() + id3v1(),
    "Lyrics3": lyrics3(),
    "Lyrics3 version 1": lyrics3_version_1(),
    "ID3v2 with footer": id3v2_with_footer(),
    "zeros": bytes(50_000),
    "one zero": bytes(1),
    "zeros and ID3v1": bytes(3000) + id3v1(),
    "all": id3v2_with_footer() + ape() + lyrics3(),
}
BETWEEN = {
    "ID3v2": id3v2(),
    "ID3v1": id3v1(),
    "ID3v1 and ID3v2": id3v1() + id3v2(),
    "APE": ape(),
    "APE without header and ID3v1": ape(with_header=False) + id3v1(),
    "Lyrics3": lyrics3(),
    "two ID3v2": id3v2() + id3v2(),
}


@pytest.fixture(scope="session")
def audio(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A tune without tags in the formats that players tag, by suffix."""
    folder = tmp_path_factory.mktemp("tags")
    wav = folder / "tune.wav"
    wav.write_bytes(wav_bytes(generate_tune(SECONDS), RATE))
    audio = {}
    for suffix in ("mp3", "flac", "aac", "ogg", "wav"):
        path = folder / f"plain.{suffix}"
        recorder.run("-i", wav, "-map_metadata", "-1", "-id3v2_version", "0", "-write_xing", "0", path)
        audio[suffix] = path.read_bytes()
    return audio


@pytest.mark.parametrize("tag", BEHIND.values(), ids=BEHIND)
@pytest.mark.parametrize("suffix", ["mp3", "flac", "aac", "ogg"])
def test_tags_behind_the_audio_are_no_damage(
    each_decoder: FfmpegDecoder, audio: dict[str, bytes], tmp_path: Path, suffix: str, tag: bytes
) -> None:
    plain, path = tmp_path / f"plain.{suffix}", tmp_path / f"tagged.{suffix}"
    plain.write_bytes(audio[suffix])
    path.write_bytes(audio[suffix] + tag)
    samples, summary = decode(each_decoder, path)
    np.testing.assert_array_equal(samples, decode(each_decoder, plain)[0])
    assert summary.warnings == ()


@pytest.mark.parametrize("suffix", ["mp3", "aac", "flac"])
def test_the_zeros_of_silent_frames_are_no_padding(
    each_decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path, suffix: str
) -> None:
    plain, path = tmp_path / f"plain.{suffix}", tmp_path / f"padded.{suffix}"
    recorder.run("-f", "lavfi", "-i", "anullsrc=r=44100", "-t", "3", "-id3v2_version", "0", plain)
    path.write_bytes(plain.read_bytes() + bytes(5000))
    samples, summary = decode(each_decoder, path)
    np.testing.assert_array_equal(samples, decode(each_decoder, plain)[0])
    assert summary.warnings == ()


@pytest.mark.parametrize(
    ("header", "n_bytes"),
    [
        ("fffb9064", 417),
        ("fffb9264", 418),
        ("fffbe064", 1044),
        ("fff340c4", 104),
        ("fffd80c0", 417),
        ("fffb0064", 0),
        ("fffbf064", 0),
        ("fff15080024000", 18),
    ],
)
def test_the_length_of_a_frame_follows_from_its_header(header: str, n_bytes: int) -> None:
    assert frame_bytes(bytes.fromhex(header).ljust(6, b"\0")[:6]) == n_bytes


@pytest.mark.parametrize("tag", BETWEEN.values(), ids=BETWEEN)
def test_tags_between_joined_files_are_no_damage(
    each_decoder: FfmpegDecoder, audio: dict[str, bytes], tmp_path: Path, tag: bytes
) -> None:
    mp3 = audio["mp3"]
    path = tmp_path / "joined.mp3"
    path.write_bytes(mp3 + tag + mp3 + tag + mp3)
    _, summary = decode(each_decoder, path)
    assert summary.duration_s == pytest.approx(3 * SECONDS, abs=0.3)
    assert summary.warnings == ()
    ranges = [span for part in find_audio_parts(path).parts for span in part.ranges]
    begins = [i * (len(mp3) + len(tag)) for i in range(3)]
    assert ranges == [(begin, begin + len(mp3)) for begin in begins]


def test_an_album_of_joined_files_is_decoded_completely(
    each_decoder: FfmpegDecoder, audio: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "album.mp3"
    path.write_bytes((id3v2() + audio["mp3"] + id3v1()) * 30)
    _, summary = decode(each_decoder, path, limit_s=1000)
    assert summary.duration_s == pytest.approx(30 * SECONDS, abs=3)
    assert summary.warnings == ()


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "aac"])
def test_a_tag_before_the_header_is_skipped(
    each_decoder: FfmpegDecoder, audio: dict[str, bytes], tmp_path: Path, suffix: str
) -> None:
    plain, path = tmp_path / f"plain.{suffix}", tmp_path / f"tagged.{suffix}"
    plain.write_bytes(audio[suffix])
    path.write_bytes(id3v2() + audio[suffix])
    samples, summary = decode(each_decoder, path)
    np.testing.assert_array_equal(samples, decode(each_decoder, plain)[0])
    assert summary.warnings == ()


def test_damage_in_a_tagged_file_is_still_reported(
    each_decoder: FfmpegDecoder, audio: dict[str, bytes], tmp_path: Path
) -> None:
    damaged = bytearray(audio["mp3"])
    damaged[20_000:24_000] = np.random.default_rng(5).bytes(4000)
    path = tmp_path / "damaged.mp3"
    path.write_bytes(bytes(damaged) + ape() + id3v1())
    assert [warning.code for warning in decode(each_decoder, path)[1].warnings] == ["damaged"]


def test_long_tags_neither_hide_nor_invent_a_stream(
    each_decoder: FfmpegDecoder, recorder: Recorder, audio: dict[str, bytes], tmp_path: Path
) -> None:
    wav, described, path = tmp_path / "tune.wav", tmp_path / "tags.txt", tmp_path / "tagged.mkv"
    wav.write_bytes(audio["wav"])
    verse = "and so on, a song has words, and some have many of them\\\n" * 50
    fakes = "".join(f"T{i}\\\n[info]   Stream \\#0\\:{i}\\: Audio\\: {'1' * 40}{', ' * 40}=x\n" for i in range(500))
    described.write_text(";FFMETADATA1\n" + "".join(f"LYRICS {i}={verse}\n" for i in range(100)) + fakes)
    recorder.run("-i", wav, "-i", described, "-map_metadata", "1", "-c:a", "flac", path)
    assert path.stat().st_size > 400_000
    _, summary = decode(each_decoder, path)
    assert (summary.stream.codec, summary.stream.sample_rate_hz, summary.stream.channels) == ("flac", RATE, 1)
    assert summary.duration_s == pytest.approx(SECONDS, abs=0.1)
