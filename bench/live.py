"""Time from the last sample of a window until its probabilities arrive, for clients that record at the same time."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from websockets.sync.client import ClientConnection, connect

from bench.records import benchmark_parser
from bench.spread import spread
from tests.harness.recordings import generate_tune
from tests.harness.records import print_record
from tests.harness.server import Server, running_server

_RATE_HZ = 48_000
# As the page sends it.
_MESSAGE_SAMPLES = 2048
_WINDOW_S = 3.0


def delays_s(server: Server, seconds: int) -> list[float]:
    """Record for some seconds, and return how long after its end each window was received."""
    samples = (generate_tune(seconds) * 0.5 * 32767).astype("<i2")
    samples = np.resize(samples, seconds * _RATE_HZ)
    found: list[float] = []
    with connect(server.url.replace("http", "ws", 1) + "/v1/live", max_size=None, proxy=None) as connection:
        began = time.perf_counter()
        sender = threading.Thread(target=_send, args=(connection, samples, began))
        sender.start()
        for text in connection:
            now = time.perf_counter() - began
            event = json.loads(text)
            if event["event"] == "windows":
                found += [now - start_s - _WINDOW_S for start_s in event["data"]["start_s"]]
            elif event["event"] == "error":
                raise SystemExit(event["data"]["detail"])
        sender.join()
    return found


def _send(connection: ClientConnection, samples: NDArray[np.int16], began: float) -> None:
    """Send samples as fast as they are recorded."""
    connection.send(json.dumps({"encoding": "int16", "sample_rate_hz": _RATE_HZ, "windows": "top"}))
    for start in range(0, len(samples), _MESSAGE_SAMPLES):
        part = samples[start : start + _MESSAGE_SAMPLES]
        time.sleep(max(0.0, began + (start + len(part)) / _RATE_HZ - time.perf_counter()))
        connection.send(part.tobytes())
    connection.send('{"end": true}')


def measure(folder: Path, clients: int, seconds: int) -> dict[str, object]:
    """Measure one client, and several at once, with the CPU time of the service for each second of audio."""
    with running_server(folder) as server, ThreadPoolExecutor(clients) as threads:
        delays_s(server, 5)
        figures: dict[str, object] = {}
        for n in (1, clients):
            cpu_s = server.cpu_s()
            results = [threads.submit(delays_s, server, seconds) for _ in range(n)]
            delays = sorted(delay for result in results for delay in result.result())
            used_s = server.cpu_s() - cpu_s
            figures[f"{n} clients" if n > 1 else "1 client"] = {
                "delay_s": spread(delays),
                "cpu_s_per_second": round(used_s / (n * seconds), 4),
            }
    return figures


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--clients", type=int, default=8, help="number of clients that record at the same time")
    parser.add_argument("--seconds", type=int, default=20, help="duration of each recording")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.clients, options.seconds)
    print_record("live", {"live": figures}, folder=options.record)


if __name__ == "__main__":
    main()
