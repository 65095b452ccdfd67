"""Stretches of audio on a device: positions, rates, and changes of the sound."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch

from wholetrack_training.data.audio_pool import POOL_RATE, AudioPool
from wholetrack_training.fitting.waveforms import UNCHANGED, SoundChanges, Waveforms, windows_of

pytestmark = pytest.mark.torch


def tones(*hz: float, seconds: float = 3.0) -> AudioPool:
    at = np.arange(round(seconds * POOL_RATE)) / POOL_RATE
    parts = [np.rint(16383 * np.sin(2 * np.pi * f * at)).astype(np.int16) for f in hz]
    offsets = np.arange(len(hz) + 1, dtype=np.int64) * len(at)
    return AudioPool(tuple(str(f) for f in hz), offsets, np.concatenate(parts))


def waveforms(pool: AudioPool) -> Waveforms:
    torch.manual_seed(1)
    return Waveforms(pool, torch.device("cpu"))


def loudest_hz(samples: torch.Tensor, rate: int) -> list[float]:
    spectrum = torch.fft.rfft(samples * torch.hann_window(samples.shape[1])).abs()
    return [float(i) * rate / samples.shape[1] for i in spectrum.argmax(1)]


@pytest.mark.parametrize("rate", [16000, 22050, 32000])
def test_unchanged_stretches_are_the_recordings_at_any_rate(rate: int) -> None:
    drawn = waveforms(tones(440.0, 2000.0)).draw(torch.tensor([1, 0]), 3, UNCHANGED).at(rate)
    assert drawn.shape == (2, 3 * rate)
    at = torch.arange(3 * rate, dtype=torch.float64) / rate
    for own, hz in zip(drawn, (2000.0, 440.0), strict=True):
        expected = (0.5 * torch.sin(2 * torch.pi * hz * at)).float()
        torch.testing.assert_close(own, expected, atol=2e-4, rtol=0)


def test_short_recordings_are_repeated() -> None:
    drawn = waveforms(tones(100.0, seconds=1.0)).draw(torch.tensor([0]), 3, UNCHANGED).at(POOL_RATE)
    torch.testing.assert_close(drawn[0, :POOL_RATE], drawn[0, POOL_RATE : 2 * POOL_RATE], atol=1e-4, rtol=0)


def test_a_change_of_speed_moves_the_pitch() -> None:
    changes = SoundChanges(speed=0.08, mixed=0.0, equaliser_db=0.0, low_passed=0.0, gain_db=(0.0, 0.0))
    source = waveforms(tones(1000.0, seconds=6.0))
    found = {
        round(loudest_hz(source.draw(torch.tensor([0]), 3, changes).at(POOL_RATE), POOL_RATE)[0]) for _ in range(9)
    }
    assert len(found) > 3
    assert all(915 <= hz <= 1085 for hz in found)


def test_a_low_pass_and_a_gain_change_the_level() -> None:
    quiet = SoundChanges(speed=0.0, mixed=0.0, equaliser_db=0.0, low_passed=1.0, low_pass_hz=(3000.0, 3000.0),
                         gain_db=(-6.0206, -6.0206))  # fmt: skip
    drawn = waveforms(tones(440.0, 5000.0)).draw(torch.tensor([0, 1]), 3, quiet).at(POOL_RATE)
    assert drawn[0].abs().max() == pytest.approx(0.25, abs=0.005)
    assert drawn[1].abs().max() < 0.005


def test_mixing_adds_another_stretch() -> None:
    mixing = SoundChanges(speed=0.0, mixed=1.0, mix_db=(0.0, 0.0), equaliser_db=0.0, low_passed=0.0, gain_db=(0.0, 0.0))
    source = waveforms(tones(440.0, 2000.0))
    for _ in range(20):
        drawn = source.draw(torch.tensor([0, 1]), 3, mixing).at(POOL_RATE)
        spectrum = torch.fft.rfft(drawn[0]).abs()
        if spectrum[2000 * 3] > 0.5 * spectrum[440 * 3]:
            return
    pytest.fail("no stretch was mixed with another one")


def test_windows_follow_one_another_and_reach_beyond_their_end() -> None:
    audio = torch.arange(14.0).reshape(2, 7)
    assert windows_of(audio, 3, beyond=1).tolist() == [
        [0.0, 1.0, 2.0, 3.0],
        [3.0, 4.0, 5.0, 0.0],
        [7.0, 8.0, 9.0, 10.0],
        [10.0, 11.0, 12.0, 0.0],
    ]
