"""How long the service takes from being started to being ready, golden included."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from tests.harness.report import arguments, print_report, spread
from tests.harness.server import running_server


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    seconds = []
    for _ in range(options.repeats + 1):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            with running_server(Path(folder)):
                seconds.append(time.perf_counter() - began)
    print_report("startup", {"seconds_to_ready": spread(seconds[1:])}, record=options.record)


if __name__ == "__main__":
    main()
