"""Recordings that consist of several, with other channels, sample rates or encoders, are decoded completely."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.decoding import RATE, decode
from tests.harness.recordings import Recorder, generate_tune, wav_bytes
from wholetrack.decoding.audio_parts import find_audio_parts
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.ogg import OggFile, read_ogg

SECONDS = 12
MP3 = ("-f", "mp3", "-c:a", "libmp3lame", "-write_xing", "0", "-id3v2_version", "0", "-b:a", "96k")
AAC = ("-f", "adts", "-c:a", "aac", "-b:a", "96k")
VORBIS = ("-f", "ogg", "-c:a", "libvorbis")
OPUS = ("-f", "ogg", "-c:a", "libopus")
FLAC_IN_OGG = ("-f", "ogg", "-c:a", "flac")


@pytest.fixture(scope="session")
def stereo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("joined") / "stereo.wav"
    tune = generate_tune(SECONDS)
    path.write_bytes(wav_bytes(np.stack([tune, 0.5 * np.roll(tune, 900)], axis=1), RATE))
    return path


class Pieces:
    """Encodes a recording piece by piece, each piece in the next of several ways."""

    def __init__(self, recorder: Recorder, recording: Path, folder: Path) -> None:
        self._recorder, self._recording, self._folder = recorder, recording, folder

    def encode(self, piece_s: float, *ways: Sequence[str]) -> list[bytes]:
        pieces = []
        for i in range(round(SECONDS / piece_s)):
            path = self._folder / "piece"
            cut = ("-ss", f"{i * piece_s}", "-t", f"{piece_s}", "-i", self._recording)
            self._recorder.run(*cut, *ways[i % len(ways)], "-map_metadata", "-1", path)
            pieces.append(path.read_bytes())
        return pieces


@pytest.fixture
def pieces(recorder: Recorder, stereo: Path, tmp_path: Path) -> Pieces:
    return Pieces(recorder, stereo, tmp_path)


def duration_s(decoder: FfmpegDecoder, content: bytes, folder: Path) -> float:
    path = folder / "alone"
    path.write_bytes(content)
    return decode(decoder, path)[1].duration_s


def spectrum(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return a spectrum that hardly depends on how exactly the pieces are aligned."""
    frames = samples[: len(samples) // 2048 * 2048].reshape(-1, 2048)
    mean: NDArray[np.float64] = np.abs(np.fft.rfft(frames * np.hanning(2048))).mean(axis=0)
    return mean


@pytest.mark.parametrize(
    ("piece_s", "ways"),
    [
        (1.0, ((*MP3, "-ac", "2"), (*MP3, "-ac", "1"))),
        (0.5, ((*MP3, "-ac", "1"), (*MP3, "-ac", "2"))),
        (3.0, ((*MP3, "-ar", "8000", "-ac", "1"), (*MP3, "-ar", "8000", "-ac", "2"))),
        (2.0, ((*MP3, "-ar", "44100"), (*MP3, "-ar", "32000"), (*MP3, "-ar", "16000", "-ac", "1"))),
        (1.0, ((*AAC, "-ar", "44100"), (*AAC, "-ar", "22050"))),
        (1.0, ((*AAC, "-ac", "1"), (*AAC, "-ac", "2"))),
    ],
    ids=["channels", "channels every half second", "telephone", "rates and channels", "aac rates", "aac channels"],
)
def test_a_stream_whose_format_changes_is_decoded_completely(
    each_decoder: FfmpegDecoder, pieces: Pieces, stereo: Path, tmp_path: Path, piece_s: float, ways: list[Sequence[str]]
) -> None:
    encoded = pieces.encode(piece_s, *ways)
    expected_s = sum(duration_s(each_decoder, piece, tmp_path) for piece in encoded)
    path = tmp_path / "joined"
    path.write_bytes(b"".join(encoded))
    samples, summary = decode(each_decoder, path)
    # Where the rate changes, the resampler loses a millisecond.
    assert summary.duration_s == pytest.approx(expected_s, abs=0.05 + 0.005 * len(encoded))
    assert summary.warnings == ()
    original, _ = decode(each_decoder, stereo)
    ours, theirs = spectrum(samples)[20:300], spectrum(original)[20:300]
    assert np.corrcoef(np.log(ours), np.log(theirs))[0, 1] > 0.9


@pytest.mark.parametrize("container", ["matroska", "mov"])
def test_a_format_that_changes_inside_another_container(
    each_decoder: FfmpegDecoder, recorder: Recorder, pieces: Pieces, tmp_path: Path, container: str
) -> None:
    encoded = pieces.encode(1.0, (*MP3, "-ac", "2"), (*MP3, "-ac", "1"))
    plain, path = tmp_path / "joined.mp3", tmp_path / "joined"
    plain.write_bytes(b"".join(encoded))
    recorder.run("-i", plain, "-c", "copy", "-f", container, path)
    _, summary = decode(each_decoder, path)
    assert summary.duration_s == pytest.approx(decode(each_decoder, plain)[1].duration_s, abs=0.1)
    assert summary.warnings == ()


@pytest.mark.parametrize(
    "ways",
    [
        ((*VORBIS, "-ac", "2"), (*VORBIS, "-ac", "1")),
        ((*VORBIS, "-q:a", "0"), (*VORBIS, "-q:a", "9")),
        ((*VORBIS, "-ar", "44100"), (*VORBIS, "-ar", "22050")),
        ((*OPUS, "-ac", "2"), (*OPUS, "-ac", "1")),
        ((*FLAC_IN_OGG, "-ac", "2"), (*FLAC_IN_OGG, "-ac", "1")),
        (VORBIS, OPUS),
    ],
    ids=["channels", "quality", "rate", "opus", "flac", "codecs"],
)
def test_all_links_of_a_chained_ogg_are_decoded(
    each_decoder: FfmpegDecoder, pieces: Pieces, stereo: Path, tmp_path: Path, ways: list[Sequence[str]]
) -> None:
    path = tmp_path / "chain.ogg"
    path.write_bytes(b"".join(pieces.encode(3.0, *ways)))
    samples, summary = decode(each_decoder, path)
    assert summary.duration_s == pytest.approx(SECONDS, abs=0.2)
    assert summary.warnings == ()
    original, _ = decode(each_decoder, stereo)
    ours, theirs = spectrum(samples)[20:300], spectrum(original)[20:300]
    assert np.corrcoef(np.log(ours), np.log(theirs))[0, 1] > 0.9


def test_a_broken_link_does_not_end_the_recording(each_decoder: FfmpegDecoder, pieces: Pieces, tmp_path: Path) -> None:
    links = pieces.encode(3.0, VORBIS)
    broken = bytearray(links[1])
    # The headers of the codec, but not the page structure.
    broken[60:2000] = bytes(1940)
    path = tmp_path / "chain.ogg"
    path.write_bytes(links[0] + bytes(broken) + links[2])
    _, summary = decode(each_decoder, path)
    assert summary.duration_s == pytest.approx(6, abs=0.2)
    assert [warning.code for warning in summary.warnings] == ["damaged"]


def structure(path: Path) -> OggFile:
    with path.open("rb") as file:
        return read_ogg(file, 0, path.stat().st_size)


def test_links_end_where_the_next_one_begins(pieces: Pieces, tmp_path: Path) -> None:
    links = pieces.encode(4.0, VORBIS, OPUS)
    path = tmp_path / "chain.ogg"
    path.write_bytes(b"".join(links) + bytes(1000))
    ends = np.cumsum([len(link) for link in links]).tolist()
    assert structure(path).links == tuple(zip([0, *ends[:-1]], ends, strict=True))
    assert not structure(path).is_truncated


@pytest.mark.parametrize("codec", [VORBIS, OPUS, FLAC_IN_OGG], ids=["vorbis", "opus", "flac"])
def test_links_without_audio_are_left_out(pieces: Pieces, tmp_path: Path, codec: Sequence[str]) -> None:
    first, second, _ = pieces.encode(4.0, codec)
    # The third page is the first one with audio, after those of the headers.
    headers = b"OggS".join(first.split(b"OggS")[:3])
    path = tmp_path / "chain.ogg"
    path.write_bytes(headers * 400 + first + headers + second)
    begin, end = 400 * len(headers), 401 * len(headers) + len(first)
    assert structure(path).links == ((begin, begin + len(first)), (end, end + len(second)))
    path.write_bytes(headers * 2)
    assert len(structure(path).links) == 2


def test_interleaved_streams_are_one_link(recorder: Recorder, stereo: Path, tmp_path: Path) -> None:
    path = tmp_path / "two.ogg"
    recorder.run("-i", stereo, "-i", stereo, "-map", "0", "-map", "1", "-c:a", "flac", path)
    assert find_audio_parts(path).parts[0].ranges == ()


def test_an_ogg_without_an_end_flag_is_complete_and_one_that_was_cut_is_not(pieces: Pieces, tmp_path: Path) -> None:
    (whole,) = pieces.encode(SECONDS, VORBIS)
    path = tmp_path / "cut.ogg"
    last_page = whole.rindex(b"OggS")
    for content, is_truncated in (
        (whole, False),
        (whole + bytes(100_000), False),
        (whole[: last_page + 5] + b"\0" + whole[last_page + 6 :], False),
        (whole[:last_page], False),
        (whole[:-1], True),
        (whole[: last_page + 10], True),
        (whole[: len(whole) // 2], True),
    ):
        path.write_bytes(content)
        assert structure(path).is_truncated is is_truncated
