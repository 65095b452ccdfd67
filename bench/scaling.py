"""Tracks per second on all cores of a machine, by number of clients, on the CPU and with CUDA.

Clients post a four-minute mp3 as the raw body, from the same machine. The throughput is compared with decoding alone,
in as many ffmpeg processes as there are cores, which is what the CPUs still do when a GPU runs the network.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import onnxruntime

from bench.nvidia import GpuShare, gpu_name
from bench.records import benchmark_parser
from bench.song import SONG_SECONDS, make_song
from bench.steady_load import measure_load
from bench.track import decode_alone
from tests.harness.records import print_record
from tests.harness.server import running_server
from wholetrack.inference.cuda import CUDA_PROVIDER, gpu_present
from wholetrack.settings import DeviceChoice, available_cpus

_SAMPLE_RATE = 22050
_DECODE_SECONDS = 3.0
# Time for the decoding processes to start.
_START_S = 4.0


def decode_on_all_cores(song: Path, cores: int) -> dict[str, float]:
    """Decode a song again and again, first in one process and then in one for each core, and discard the samples.

    Returns:
        The CPU time of a track in each case, in seconds, and the tracks per second of all processes together.
    """
    alone_s = min(decode_alone(song, _SAMPLE_RATE).cpu_s for _ in range(3))
    cpus = sorted(os.sched_getaffinity(0))[:cores]
    with ProcessPoolExecutor(len(cpus), mp_context=multiprocessing.get_context("spawn")) as pool:
        start_at = time.monotonic() + _START_S
        measured = list(pool.map(_decode_on, cpus, [song] * len(cpus), [start_at] * len(cpus)))
    return {
        "cpu_s_alone": round(alone_s, 4),
        "cpu_s_on_all_cores": round(sum(cpu_s for cpu_s, _ in measured) / len(measured), 4),
        "tracks_per_second": round(sum(rate for _, rate in measured), 2),
    }


def _decode_on(cpu: int, song: Path, start_at: float) -> tuple[float, float]:
    """Return the CPU time of a track and the tracks per second of one process on one CPU."""
    os.sched_setaffinity(0, {cpu})
    time.sleep(max(0.0, start_at - time.monotonic()))
    costs, began = [], time.monotonic()
    while time.monotonic() < began + _DECODE_SECONDS:
        costs.append(decode_alone(song, _SAMPLE_RATE).cpu_s)
    return sum(costs) / len(costs), len(costs) / (time.monotonic() - began)


def measure_device(
    device: DeviceChoice, song: Path, folder: Path, *, clients: Sequence[int], seconds: float
) -> list[dict[str, Any]]:
    """Measure a new service with every number of clients.

    Args:
        device: Where the network runs.
        song: The recording that the clients post.
        folder: A folder for the service, which is created.
        clients: Numbers of clients.
        seconds: Length of each measurement.
    """
    folder.mkdir()
    loads = []
    with running_server(folder, device=device, max_requests=max(64, *clients), max_wait_s=1e9) as server:
        server.post(song, windows="none").raise_for_status()
        for n_clients in clients:
            if device is DeviceChoice.CUDA:
                gpu = GpuShare()
                load = measure_load(server, song, clients=n_clients, seconds=seconds, during=gpu.sampling())
                loads.append(load.as_dict() | {"gpu_share": round(gpu.mean, 3)})
            else:
                loads.append(measure_load(server, song, clients=n_clients, seconds=seconds).as_dict())
            # The benchmark may run on a machine that is lent for minutes. What it measured so far should not be lost.
            print(device, loads[-1], file=sys.stderr, flush=True)
    return loads


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each measurement")
    parser.add_argument("--cores", type=int, help="number of cores to use; the results are recorded separately")
    options = parser.parse_args()
    if options.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    cores = available_cpus()
    clients = sorted({1, 4, cores, 2 * cores})
    devices = [DeviceChoice.CPU]
    if gpu_present() and CUDA_PROVIDER in onnxruntime.get_available_providers():
        devices.append(DeviceChoice.CUDA)
    with tempfile.TemporaryDirectory() as folder:
        song = Path(folder, "song.mp3")
        make_song(song)
        figures = {
            "song_seconds": SONG_SECONDS,
            "cores": cores,
            "gpu": gpu_name() if DeviceChoice.CUDA in devices else None,
            "decoding": decode_on_all_cores(song, cores),
            "devices": {
                device: measure_device(device, song, Path(folder, device), clients=clients, seconds=options.seconds)
                for device in devices
            },
        }
        name = f"scaling_on_{options.cores}" if options.cores else "scaling"
        print_record(name, figures, folder=options.record)


if __name__ == "__main__":
    main()
