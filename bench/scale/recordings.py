"""The recordings of a simulated catalogue: what each of them costs, from the recorded unit costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from bench.performance.cuda import FLOAT32
from bench.records import Record
from bench.scale.unit_costs import MODELS

_HOUR_S = 3600.0
_REFUSED_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What is not measured.

    Attributes:
        codecs: Share of each codec.
        mixes: Share of recordings that last one to three hours.
        bad: Share of files that are refused at once.
        poison: Share of files that keep a decoder busy until its time limit.
        poison_s: The time limit.
        fetch_latency_s: Median time until the store sends the first byte.
        fetch_bytes_per_s: Rate at which the store sends a file.
        throttled: Share of requests that the store refuses at first.
        backoff_s: Time until such a request is repeated.
        noise: Standard deviation of the logarithm of the CPU time of a recording.
        link_bytes_per_s: What a machine with a GPU can receive: 25 Gbit/s.
    """

    codecs: Mapping[str, float]
    mixes: float = 1e-3
    bad: float = 0.02
    poison: float = 1e-4
    poison_s: float = 60.0
    fetch_latency_s: float = 0.05
    fetch_bytes_per_s: float = 50e6
    throttled: float = 1e-3
    backoff_s: float = 1.0
    noise: float = 0.2
    link_bytes_per_s: float = 25e9 / 8


ASSUMPTIONS = Assumptions(codecs={"mp3": 0.6, "aac": 0.15, "flac": 0.15, "vorbis": 0.05, "opus": 0.05})
"""The assumptions of the recorded simulation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Costs of an hour of audio.

    Attributes:
        decode_s: CPU time of decoding, by codec.
        features_s: CPU time of the features.
        network_s: CPU time of the network on a CPU.
        overhead_s: CPU time of everything else.
        file_bytes: Size of a file, by codec.
        windows: Number of windows.
        window_bytes: Size of the inputs of a window.
        gpu_batch_s: Time of a batch on a GPU, however small it is.
        gpu_window_s: Time that each of its windows adds.
    """

    decode_s: Mapping[str, float]
    features_s: float
    network_s: float
    overhead_s: float
    file_bytes: Mapping[str, float]
    windows: float
    window_bytes: float
    gpu_batch_s: float
    gpu_window_s: float

    @classmethod
    def of(cls, record: Record, model: str) -> Costs:
        """Return the costs from the record of the benchmark `unit_costs`.

        The GPU was measured with one of the models. For the other one, its time is multiplied by the ratio of the CPU
        times of the networks.
        """
        cpu_s = {stage: spread["median"] for stage, spread in record["cpu_s_per_hour"].items()}
        default, measured = MODELS
        stages = cpu_s["decode mp3"] + cpu_s[f"features {default}"] + cpu_s[f"network {default}"]
        codecs = record["file_mb_per_hour"]
        sizes = np.array(list(FLOAT32))
        window_s, batch_s = np.polyfit(sizes, sizes / np.array(list(FLOAT32.values())), 1)
        slower = cpu_s[f"network {model}"] / cpu_s[f"network {measured}"]
        return cls(
            decode_s={codec: cpu_s[f"decode {codec}"] for codec in codecs},
            features_s=cpu_s[f"features {model}"],
            network_s=cpu_s[f"network {model}"],
            overhead_s=max(0.0, cpu_s["service"] - stages),
            file_bytes={codec: 1e6 * size for codec, size in codecs.items()},
            windows=record["windows_per_hour"],
            window_bytes=record["bytes_per_window"][model]["inputs"],
            gpu_batch_s=float(batch_s) * slower,
            gpu_window_s=float(window_s) * slower,
        )


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording as the stages see it.

    Attributes:
        fetch_s: Time until it has been fetched.
        cpu_s: CPU time on a core.
        n_windows: Number of windows that go to the GPU.
    """

    fetch_s: float
    cpu_s: float
    n_windows: float


def recordings(
    n: int, costs: Costs, durations_s: list[float], assumed: Assumptions, *, network_on_cpu: bool, seed: int
) -> Iterator[Recording]:
    """Draw recordings.

    Args:
        n: How many.
        costs: Costs of an hour of audio.
        durations_s: Quantiles of the durations.
        assumed: Everything else.
        network_on_cpu: Whether the cores run the network as well.
        seed: Seed of the random numbers.
    """
    rng = np.random.default_rng(seed)
    levels = np.linspace(0, 1, len(durations_s))
    codecs, shares = list(assumed.codecs), list(assumed.codecs.values())
    for _ in range(n):
        kind = rng.random()
        is_mix = kind < assumed.mixes
        duration_s = (
            rng.uniform(_HOUR_S, 3 * _HOUR_S) if is_mix else float(np.interp(rng.random(), levels, durations_s))
        )
        hours, codec = duration_s / _HOUR_S, codecs[rng.choice(len(codecs), p=shares)]
        fetch_s = assumed.fetch_latency_s * float(rng.lognormal(0, 1))
        fetch_s += costs.file_bytes[codec] * hours / assumed.fetch_bytes_per_s
        if rng.random() < assumed.throttled:
            fetch_s += assumed.backoff_s
        fault = rng.random()
        if fault < assumed.poison:
            yield Recording(fetch_s, assumed.poison_s, 0.0)
        elif fault < assumed.poison + assumed.bad:
            yield Recording(fetch_s, _REFUSED_S, 0.0)
        else:
            cpu_s = costs.decode_s[codec] + costs.features_s + costs.overhead_s
            cpu_s += costs.network_s if network_on_cpu else 0.0
            seconds = float(cpu_s * hours * rng.lognormal(0, assumed.noise))
            yield Recording(fetch_s, seconds, float(costs.windows * hours))
