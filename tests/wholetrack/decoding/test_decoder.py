"""Samples are decoded, mixed and resampled correctly, whatever else the file contains."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import librosa
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.decoding import RATE, decode, error_kind
from tests.harness.recordings import LOSSLESS, LOSSY, Kind, Recorder, wav_bytes
from wholetrack.contracts import WarningCode
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.plan import QUICK, THOROUGH
from wholetrack.errors import ErrorKind, ServiceError


@pytest.fixture
def wav(tmp_path: Path, tune: NDArray[np.float32]) -> Path:
    path = tmp_path / "tune.wav"
    path.write_bytes(wav_bytes(tune, RATE))
    return path


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_channels_are_averaged_and_resampled_as_librosa_does(
    each_decoder: FfmpegDecoder, tmp_path: Path, rng: np.random.Generator, channels: int, rate: int
) -> None:
    time = np.arange(2 * rate) / rate
    pitches = rng.uniform(100, 3000, channels)
    samples = (0.5 * np.sin(2 * np.pi * time[:, None] * pitches)).astype(np.float32)
    path = tmp_path / "channels.wav"
    path.write_bytes(wav_bytes(samples, rate))
    found, summary = decode(each_decoder, path)
    expected = librosa.resample(librosa.to_mono(samples.T), orig_sr=rate, target_sr=RATE, res_type="soxr_hq")
    assert summary.stream.channels == channels
    assert summary.stream.sample_rate_hz == rate
    assert len(found) == len(expected)
    # Resamplers differ in what they assume beyond the ends.
    np.testing.assert_allclose(found[200:-200], expected[200:-200], atol=1e-4)


@pytest.mark.parametrize("channels", [16, 64])
def test_many_channels_without_names_are_decoded(
    each_decoder: FfmpegDecoder, tmp_path: Path, tune: NDArray[np.float32], channels: int
) -> None:
    path = tmp_path / "channels.wav"
    path.write_bytes(wav_bytes(np.repeat(tune[:, None], channels, axis=1), RATE))
    found, _ = decode(each_decoder, path)
    np.testing.assert_allclose(found, tune, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 192_000])
def test_quick_and_exact_decoding_give_the_same_samples(
    each_decoder: FfmpegDecoder, tmp_path: Path, tune: NDArray[np.float32], rate: int
) -> None:
    stereo = np.stack([tune, tune / 2 + np.roll(tune, 777) / 8], axis=1)
    path = tmp_path / "stereo.wav"
    path.write_bytes(wav_bytes(stereo, rate))
    with each_decoder.open(path, sample_rate=RATE, max_duration_s=60, plan=QUICK) as decoding:
        quick = np.concatenate(list(decoding.blocks()))
    exact, _ = decode(each_decoder, path, plan=THOROUGH)
    np.testing.assert_allclose(quick, exact, atol=1e-6)


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
    video = tmp_path / "video.mkv"
    recorder.run(
        *("-f", "lavfi", "-i", "testsrc=d=10:s=64x64", "-i", wav, "-f", "lavfi", "-i", "sine=d=10"),
        *("-map", "0", "-map", "1", "-map", "2", "-c:a", "flac", video),
    )
    np.testing.assert_allclose(decode(decoder, video)[0], tune, atol=2 / 32768)


def test_pictures_are_never_decoded(decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path) -> None:
    """Not even to describe them, so a picture cannot exploit its decoder."""
    song, picture = tmp_path / "song.mp3", tmp_path / "cover.png"
    recorder.picture(picture)
    recorder.run("-i", wav, "-i", picture, "-map", "0", "-map", "1", "-disposition:v", "attached_pic", song)
    command = decoder.ffmpeg.decode_command("file:/dev/fd/0", marker=16 * "0" + ":", sample_rate=RATE)
    with song.open("rb") as file:
        stderr = subprocess.run(command, stdin=file, capture_output=True, check=True).stderr.decode()
    # ffmpeg would know the size of a picture that it had decoded.
    assert re.search(r"Could not find codec parameters for stream 1 \(Video: png, .*none\): unspecified size", stderr)
    assert decode(decoder, song)[1].warnings == ()


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


@pytest.mark.filterwarnings("error")
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


def test_a_recording_that_is_too_long_is_rejected_while_it_is_decoded(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    path = tmp_path / "long.flac"
    recorder.run("-f", "lavfi", "-i", "sine=r=8000", "-t", "7200", path)
    with decoder.open(path, sample_rate=RATE, max_duration_s=60) as decoding, pytest.raises(ServiceError) as caught:
        list(decoding.blocks())
    assert caught.value.kind is ErrorKind.AUDIO_TOO_LONG
    assert decoding.n_samples <= 60 * RATE + 262_144
    assert error_kind(decoder, wav, limit_s=9.9) is ErrorKind.AUDIO_TOO_LONG
    assert len(decode(decoder, wav, limit_s=10.0)[0]) == 10 * RATE


def test_a_low_sample_rate_is_rejected_while_it_is_decoded(decoder: FfmpegDecoder, tmp_path: Path) -> None:
    path = tmp_path / "slow.wav"
    path.write_bytes(wav_bytes(np.zeros(20_000, dtype=np.float32), 100))
    with (
        decoder.open(path, sample_rate=RATE, max_duration_s=10_000) as decoding,
        pytest.raises(ServiceError) as caught,
    ):
        list(decoding.blocks())
    assert decoding.n_samples == 0
    assert caught.value.kind is ErrorKind.UNSUPPORTED_MEDIA
