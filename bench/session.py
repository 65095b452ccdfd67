"""What the network costs per window, by the size of its batches, in one thread: whether larger ones pay."""

from __future__ import annotations

import time

import numpy as np

from bench.report import arguments, print_report, spread
from service.inference.bundle import Bundle, load_bundles
from service.inference.device import open_session
from service.settings import DeviceChoice, Settings

_SIZES = (1, 2, 4, 8, 16, 32, 64)
_WINDOWS = max(_SIZES)


def milliseconds(bundle: Bundle, repeats: int) -> dict[str, object]:
    """CPU time per window for each size, all sizes by turns."""
    session = open_session(bundle, Settings(device=DeviceChoice.CPU, cpu_batch=_WINDOWS))
    windows = np.resize(bundle.golden.windows, (_WINDOWS, *bundle.golden.windows.shape[1:]))
    found: dict[int, list[float]] = {size: [] for size in _SIZES}
    for _ in range(repeats):
        for size in _SIZES:
            began = time.process_time()
            for first in range(0, _WINDOWS, size):
                session.run(windows[first : first + size])
            found[size].append(1e3 * (time.process_time() - began) / _WINDOWS)
    return {str(size): spread(costs) for size, costs in found.items()}


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    bundles = load_bundles(Settings().models_dir)
    figures = {name: milliseconds(bundle, options.repeats) for name, bundle in bundles.items()}
    print_report("session", {"cpu_ms_per_window": figures}, record=options.record)


if __name__ == "__main__":
    main()
