"""Simulate a catalogue on many cores and GPUs, with the recorded unit costs, to find how many cores a GPU can serve.

Every core fetches a recording while it decodes the one before, decodes it, computes features, and sends windows to a
GPU over the GPU's link. Queues are bounded, so that cores wait if the link or the GPU is slower.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import simpy

from bench.records import Record, benchmark_parser, read_record
from bench.scale.recordings import ASSUMPTIONS, Assumptions, Costs, Recording, recordings
from bench.scale.unit_costs import MODELS
from tests.harness.records import print_record

_TRACKS = 20_000
_CORES_PER_GPU = (16, 32, 64, 128, 256, 512)
# The queues in front of the link and of the GPU hold one recording for every four cores.
_CORES_PER_QUEUED_TRACK = 4
_Process = Generator[simpy.Event, Any]


@dataclass(slots=True)
class Outcome:
    """Result of a simulation.

    Attributes:
        tracks: Recordings that were classified or refused.
        seconds: How long it took.
        core_s: Time that cores were busy.
        link_s: Time that the link was busy.
        gpu_s: Time that the GPU was busy.
    """

    tracks: int = 0
    seconds: float = 0.0
    core_s: float = 0.0
    link_s: float = 0.0
    gpu_s: float = 0.0

    def figures(self, cores: int) -> dict[str, float]:
        """Return the rate, and which share of the time each stage was busy."""
        return {
            "tracks_per_s": round(self.tracks / self.seconds, 2),
            "cores_busy": round(self.core_s / cores / self.seconds, 3),
            "link_busy": round(self.link_s / self.seconds, 3),
            "gpu_busy": round(self.gpu_s / self.seconds, 3),
        }


class Cluster:
    """Cores that share a GPU, or that classify windows themselves.

    Args:
        cores: Number of cores.
        costs: Costs of an hour of audio.
        assumed: Rate of the link.
        tracks: The recordings.
        with_gpu: Whether there is a GPU.
    """

    def __init__(
        self, cores: int, costs: Costs, assumed: Assumptions, tracks: Iterator[Recording], *, with_gpu: bool
    ) -> None:
        self._cores, self._costs, self._assumed, self._tracks = cores, costs, assumed, tracks
        self._with_gpu = with_gpu
        self._environment = simpy.Environment()
        capacity = max(1, cores // _CORES_PER_QUEUED_TRACK)
        self._to_link = simpy.Store(self._environment, capacity=capacity)
        self._to_gpu = simpy.Store(self._environment, capacity=capacity)
        self._all_fetched = self._environment.event()
        self._outcome = Outcome()

    def run(self) -> Outcome:
        """Process recordings until there are no more to fetch.

        What follows is left out: cores become idle one by one, which does not matter in a catalogue of millions.
        """
        environment = self._environment
        for _ in range(self._cores):
            environment.process(self._core())
        if self._with_gpu:
            environment.process(self._link())
            environment.process(self._gpu())
        environment.run(until=self._all_fetched)
        self._outcome.seconds = environment.now
        return self._outcome

    def _core(self) -> _Process:
        environment, fetched = self._environment, simpy.Store(self._environment, capacity=1)
        environment.process(self._fetch(fetched))
        while True:
            track = yield fetched.get()
            yield environment.timeout(track.cpu_s)
            self._outcome.core_s += track.cpu_s
            self._outcome.tracks += 1
            if self._with_gpu and track.n_windows:
                yield self._to_link.put(track.n_windows)

    def _fetch(self, fetched: simpy.Store) -> _Process:
        for track in self._tracks:
            yield self._environment.timeout(track.fetch_s)
            yield fetched.put(track)
        if not self._all_fetched.triggered:
            self._all_fetched.succeed()

    def _link(self) -> _Process:
        while True:
            n_windows = yield self._to_link.get()
            seconds = n_windows * self._costs.window_bytes / self._assumed.link_bytes_per_s
            yield self._environment.timeout(seconds)
            self._outcome.link_s += seconds
            yield self._to_gpu.put(n_windows)

    def _gpu(self) -> _Process:
        while True:
            waiting = yield self._to_gpu.get()
            # A batch takes what is waiting. It is not delayed to fill it.
            while self._to_gpu.items:
                waiting += yield self._to_gpu.get()
            seconds = self._costs.gpu_batch_s + waiting * self._costs.gpu_window_s
            yield self._environment.timeout(seconds)
            self._outcome.gpu_s += seconds


def simulate(record: Record, model: str, cores: int, *, with_gpu: bool, tracks: int = _TRACKS) -> dict[str, float]:
    """Return the rate of some cores, with or without a GPU that they share, and how busy each stage is."""
    costs = Costs.of(record, model)
    drawn = recordings(tracks, costs, record["durations_s"], ASSUMPTIONS, network_on_cpu=not with_gpu, seed=1)
    return Cluster(cores, costs, ASSUMPTIONS, drawn, with_gpu=with_gpu).run().figures(cores)


def main() -> None:
    """Run the simulation."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--tracks", type=int, default=_TRACKS)
    options = parser.parse_args()
    record = read_record("unit_costs")
    figures: dict[str, Any] = {"tracks": options.tracks}
    for model in MODELS:
        alone = simulate(record, model, 64, with_gpu=False, tracks=options.tracks)
        shared = {
            str(cores): simulate(record, model, cores, with_gpu=True, tracks=options.tracks) for cores in _CORES_PER_GPU
        }
        figures[model] = {"64_cores_alone": alone, "cores_per_gpu": shared}
    print_record("simulation", figures, folder=options.record)


if __name__ == "__main__":
    main()
