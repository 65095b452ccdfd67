"""The simulation of a catalogue gives the rates that follow from its costs wherever a formula exists."""

from __future__ import annotations

from dataclasses import replace
from itertools import repeat
from typing import Any

import numpy as np
import pytest

from bench.performance.cuda import FLOAT32
from bench.scale.page import page
from bench.scale.recordings import ASSUMPTIONS, Costs, Recording, recordings
from bench.scale.simulation import Cluster, simulate
from bench.scale.unit_costs import CODECS, MODELS

_DEFAULT, _MEASURED_ON_GPU = MODELS
COSTS = Costs(
    decode_s=dict.fromkeys(CODECS, 10.0),
    features_s=4.0,
    network_s=20.0,
    overhead_s=2.0,
    file_bytes=dict.fromkeys(CODECS, 80e6),
    windows=3600.0,
    window_bytes=20_000.0,
    gpu_batch_s=1e-3,
    gpu_window_s=1e-5,
)
TRACK = Recording(fetch_s=0.1, cpu_s=1.0, n_windows=200.0)


def rate(cores: int, costs: Costs = COSTS, track: Recording = TRACK, *, with_gpu: bool) -> float:
    tracks = iter(list(repeat(track, 50 * cores)))
    return Cluster(cores, costs, ASSUMPTIONS, tracks, with_gpu=with_gpu).run().figures(cores)["tracks_per_s"]


@pytest.mark.parametrize("with_gpu", [True, False])
def test_cores_limit_the_rate(*, with_gpu: bool) -> None:
    assert rate(8, with_gpu=with_gpu) == pytest.approx(8, rel=0.05)


def test_a_slow_store_limits_the_rate() -> None:
    assert rate(8, track=replace(TRACK, fetch_s=4.0), with_gpu=False) == pytest.approx(2, rel=0.05)


def test_the_gpu_limits_the_rate() -> None:
    costs = replace(COSTS, gpu_batch_s=0.0, gpu_window_s=1 / 1000)
    assert rate(64, costs, with_gpu=True) == pytest.approx(5, rel=0.2)
    # The first recordings fill the queues. In a longer run, they do not matter.
    assert rate(16, costs, with_gpu=True) == pytest.approx(5, rel=0.1)


def test_the_link_limits_the_rate() -> None:
    costs = replace(COSTS, window_bytes=ASSUMPTIONS.link_bytes_per_s / 1000)
    assert rate(16, costs, with_gpu=True) == pytest.approx(5, rel=0.1)


def test_recordings_cost_what_their_stages_cost() -> None:
    assumed = replace(ASSUMPTIONS, bad=0.0, poison=0.0, mixes=0.0, throttled=0.0)
    drawn = list(recordings(4000, COSTS, [100.0, 300.0], assumed, network_on_cpu=True, seed=3))
    hours = np.array([one.n_windows for one in drawn]) / COSTS.windows
    assert hours.min() >= 100 / 3600
    assert hours.max() <= 300 / 3600
    assert np.mean(hours) == pytest.approx(200 / 3600, rel=0.03)
    noise = np.array([one.cpu_s for one in drawn]) / hours / 36.0
    assert np.log(noise).mean() == pytest.approx(0, abs=0.02)
    assert np.log(noise).std() == pytest.approx(assumed.noise, rel=0.05)
    without = next(recordings(1, COSTS, [100.0, 300.0], assumed, network_on_cpu=False, seed=3))
    assert without.cpu_s == pytest.approx(drawn[0].cpu_s * 16 / 36)


def test_faults_are_as_frequent_as_assumed() -> None:
    assumed = replace(ASSUMPTIONS, bad=0.2, poison=0.1)
    drawn = list(recordings(4000, COSTS, [100.0, 300.0], assumed, network_on_cpu=True, seed=4))
    refused = [one for one in drawn if not one.n_windows]
    assert len(refused) == pytest.approx(0.3 * 4000, rel=0.1)
    assert sum(one.cpu_s == assumed.poison_s for one in refused) == pytest.approx(0.1 * 4000, rel=0.15)


def record() -> dict[str, Any]:
    """Return a record of unit costs."""
    cpu_s = {f"decode {codec}": 6.0 for codec in CODECS} | {"service": 30.0}
    cpu_s |= {f"features {_DEFAULT}": 4.0, f"features {_MEASURED_ON_GPU}": 2.0}
    cpu_s |= {f"network {_DEFAULT}": 12.0, f"network {_MEASURED_ON_GPU}": 4.0}
    spreads = {stage: {"median": value, "min": value, "max": value, "repeats": 3} for stage, value in cpu_s.items()}
    return {
        "date": "2026-11-28",
        "machine": {"processor": "a processor", "ffmpeg": "9"},
        "cpu_s_per_hour": spreads,
        "windows_per_hour": 3600,
        "file_mb_per_hour": dict.fromkeys(CODECS, 80.0),
        "bytes_per_window": {model: {"inputs": 20_000, "outputs": 40} for model in MODELS},
        "durations_s": [60.0, 180.0, 600.0],
    }


def test_the_time_of_the_gpu_follows_from_its_measurements() -> None:
    measured, default = Costs.of(record(), _MEASURED_ON_GPU), Costs.of(record(), _DEFAULT)
    for size, windows_per_s in FLOAT32.items():
        assert measured.gpu_batch_s + size * measured.gpu_window_s == pytest.approx(size / windows_per_s, rel=0.2)
    assert default.gpu_window_s == pytest.approx(3 * measured.gpu_window_s)
    assert default.overhead_s == pytest.approx(30 - 6 - 4 - 12)


def test_the_page_names_what_limits_each_plan() -> None:
    figures = {"tracks_per_s": 10.0, "cores_busy": 0.9, "link_busy": 0.2, "gpu_busy": 0.3}
    costly = figures | {"tracks_per_s": 9.0, "cores_busy": 0.5, "gpu_busy": 0.99}
    simulation = {"tracks": 100} | {
        model: {"64_cores_alone": figures, "cores_per_gpu": {"16": figures, "32": costly}} for model in MODELS
    }
    written = page(record(), simulation)
    # 100 million tracks at ten per second are 2,778 hours.
    assert f"| {_DEFAULT} | 16 cores per GPU | 44,444 | 2,778 | cores | 10,111 |" in written
    assert f"| {_DEFAULT} | cores only | 177,778 |  | cores | 7,111 |" in written


def test_a_simulation_can_be_repeated() -> None:
    first, second = (simulate(record(), _DEFAULT, 16, with_gpu=True, tracks=500) for _ in range(2))
    assert first == second
    assert 0 < first["gpu_busy"] < 1
