"""Channels that cancel each other are replaced by one of them, wherever they cancel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.decoding import RATE, decode
from tests.harness.recordings import Kind, Recorder, generate_tune, wav_bytes
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.mixing import MonoMixer

SECONDS = 8
TUNE = generate_tune(SECONDS)


def inverted(begin_s: float, end_s: float) -> NDArray[np.float32]:
    """Return a stereo tune whose right channel is the inverse of the left one during an interval."""
    right = TUNE.copy()
    right[round(begin_s * RATE) : round(end_s * RATE)] *= -1
    return np.stack([TUNE, right], axis=1)


def decode_wav(
    decoder: FfmpegDecoder, folder: Path, stereo: NDArray[np.float32]
) -> tuple[NDArray[np.float32], list[str]]:
    path = folder / "stereo.wav"
    path.write_bytes(wav_bytes(stereo, RATE))
    samples, summary = decode(decoder, path)
    return samples, [warning.code for warning in summary.warnings]


def test_an_inverted_channel_does_not_silence_the_recording(each_decoder: FfmpegDecoder, tmp_path: Path) -> None:
    samples, warnings = decode_wav(each_decoder, tmp_path, inverted(0, SECONDS))
    np.testing.assert_array_equal(samples, TUNE)
    assert warnings == ["cancelled_channels"]


def test_seconds_that_do_not_cancel_keep_their_mean(each_decoder: FfmpegDecoder, tmp_path: Path) -> None:
    stereo = inverted(3, 5)
    samples, warnings = decode_wav(each_decoder, tmp_path, stereo)
    assert warnings == ["cancelled_channels"]
    crossfade = slice(3 * RATE, round(3.05 * RATE))
    np.testing.assert_allclose(np.delete(samples, crossfade), np.delete(TUNE, crossfade), atol=1e-6)
    assert 0 < np.abs(samples[crossfade]).max() < np.abs(TUNE[crossfade]).max()
    stereo[5 * RATE :, 1] *= 0.5
    samples, _ = decode_wav(each_decoder, tmp_path, stereo)
    np.testing.assert_allclose(samples[round(5.05 * RATE) :], 0.75 * TUNE[round(5.05 * RATE) :], atol=1e-6)
    assert np.abs(np.diff(samples)).max() < 2 * np.abs(np.diff(TUNE)).max()


def test_ordinary_stereo_is_averaged_without_a_warning(each_decoder: FfmpegDecoder, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for stereo in (
        np.stack([TUNE, np.roll(TUNE, 5000)], axis=1),
        np.stack([TUNE, 0 * TUNE], axis=1),
        np.stack([0 * TUNE, TUNE], axis=1),
        np.stack([TUNE, np.float32(-0.7) * TUNE], axis=1),
        rng.standard_normal((len(TUNE), 2), dtype=np.float32) / np.float32(10),
    ):
        samples, warnings = decode_wav(each_decoder, tmp_path, stereo)
        np.testing.assert_allclose(samples, stereo.mean(axis=1), atol=1e-6)
        assert warnings == []


def test_an_inverted_channel_of_a_lossy_file(each_decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path) -> None:
    wav, mp3 = tmp_path / "stereo.wav", tmp_path / "stereo.mp3"
    wav.write_bytes(wav_bytes(inverted(0, SECONDS), RATE))
    recorder.run("-i", wav, "-b:a", "128k", mp3)
    samples, summary = decode(each_decoder, mp3)
    assert [warning.code for warning in summary.warnings] == ["cancelled_channels"]
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(np.sqrt(np.mean(TUNE**2)), rel=0.1)


@pytest.mark.parametrize("factors", [(1, -1, 1, -1), (2, -1, -1), (2, -1, 2, -1, -1, -1), (15, *[-1] * 15)], ids=len)
def test_channels_of_surround_sound_that_cancel(
    each_decoder: FfmpegDecoder, tmp_path: Path, factors: tuple[int, ...]
) -> None:
    channels = np.stack([TUNE * (factor / max(factors)) for factor in factors], axis=1)
    samples, warnings = decode_wav(each_decoder, tmp_path, channels)
    assert np.sqrt(np.mean(samples**2)) > 0.4 * np.sqrt(np.mean(TUNE**2))
    assert warnings == ["cancelled_channels"]


def test_seconds_that_cancel_now_and_then_are_noticed(each_decoder: FfmpegDecoder, tmp_path: Path) -> None:
    stereo = np.stack([TUNE, TUNE], axis=1)
    for second in (1, 3, 6):
        stereo[second * RATE : (second + 1) * RATE, 1] *= -1
    samples, warnings = decode_wav(each_decoder, tmp_path, stereo)
    assert warnings == ["cancelled_channels"]
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(np.sqrt(np.mean(TUNE**2)), rel=0.05)


def test_short_sounds_between_digital_silence_that_cancel(each_decoder: FfmpegDecoder, tmp_path: Path) -> None:
    stereo = inverted(0, SECONDS) * (np.arange(len(TUNE)) % RATE < RATE / 20)[:, None]
    samples, warnings = decode_wav(each_decoder, tmp_path, stereo.astype(np.float32))
    assert warnings == ["cancelled_channels"]
    np.testing.assert_array_equal(samples, stereo[:, 0].astype(np.float32))


def test_silence_is_not_cancelled(each_decoder: FfmpegDecoder, tmp_path: Path) -> None:
    assert decode_wav(each_decoder, tmp_path, 0 * inverted(0, 1))[1] == []


@pytest.mark.parametrize("n_cells", [1, 2, 5])
def test_the_mix_does_not_depend_on_the_blocks(n_cells: int) -> None:
    stereo = inverted(2, 4.5)
    frames = np.stack([stereo.mean(axis=1), stereo[:, 0]], axis=1)[: round(7.3 * RATE)]
    whole = MonoMixer(RATE).mix(frames)
    mixer = MonoMixer(RATE)
    step = n_cells * mixer.cell
    parts = [mixer.mix(frames[begin : begin + step]) for begin in range(0, len(frames), step)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert mixer.cancelled_s == pytest.approx(2)


def test_the_decoded_samples_do_not_depend_on_the_blocks(
    decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wav = tmp_path / "stereo.wav"
    wav.write_bytes(wav_bytes(inverted(2, 4.5), RATE))
    # To a sample rate that has to be resampled.
    kind = Kind("flac", "flac", "flac", ("-ar", "44100"))
    path = recorder.convert(recorder.load(wav, "pcm_f32le"), kind, tmp_path / "resampled.flac")
    whole, _ = decode(decoder, path)
    for n_bytes in (10_000, 400_000):
        monkeypatch.setattr("wholetrack.decoding.samples._BUFFER_BYTES", n_bytes)
        np.testing.assert_array_equal(decode(decoder, path)[0], whole)
