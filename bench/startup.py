"""Time from the start of the service until it is ready, which includes the self-test of every model."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.records import benchmark_parser
from bench.spread import spread
from tests.harness.records import print_record
from tests.harness.server import running_server


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="number of measurements")
    options = parser.parse_args()
    seconds = []
    for _ in range(options.repeats + 1):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            with running_server(Path(folder)):
                seconds.append(time.perf_counter() - began)
    # The first start reads everything from the disk.
    print_record("startup", {"seconds_to_ready": spread(seconds[1:])}, folder=options.record)


if __name__ == "__main__":
    main()
