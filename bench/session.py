"""CPU time of the network per window in one thread, by batch size and precision."""

from __future__ import annotations

import time
from itertools import product

import numpy as np

from bench.records import benchmark_parser
from bench.spread import spread
from tests.harness.records import print_record
from wholetrack.contracts import Rows
from wholetrack.inference.bundle import BUILT_IN_MODELS, Bundle, load_bundles
from wholetrack.inference.session import open_session
from wholetrack.settings import DeviceChoice, Precision, Settings

_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
_WINDOWS = max(_BATCH_SIZES)


def cpu_ms_per_window(bundle: Bundle, repeats: int) -> dict[str, dict[str, object]]:
    """Return the CPU time per window for every precision of the bundle and every batch size, in milliseconds."""
    precisions = list(Precision) if bundle.int8 else [Precision.FLOAT32]
    sessions = {
        precision: open_session(bundle, Settings(device=DeviceChoice.CPU, cpu_batch=_WINDOWS, cpu_precision=precision))
        for precision in precisions
    }
    golden = bundle.golden.windows
    windows = Rows(tuple(np.resize(array, (_WINDOWS, *array.shape[1:])) for array in golden.arrays))
    costs: dict[tuple[Precision, int], list[float]] = {case: [] for case in product(precisions, _BATCH_SIZES)}
    for _ in range(repeats):
        for (precision, size), measured in costs.items():
            began = time.process_time()
            for first in range(0, _WINDOWS, size):
                sessions[precision].run(windows[first : first + size])
            measured.append(1e3 * (time.process_time() - began) / _WINDOWS)
    return {
        str(precision): {str(size): spread(costs[precision, size]) for size in _BATCH_SIZES} for precision in precisions
    }


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="number of measurements")
    options = parser.parse_args()
    bundles = load_bundles(BUILT_IN_MODELS)
    figures = {name: cpu_ms_per_window(bundle, options.repeats) for name, bundle in bundles.items()}
    print_record("session", {"cpu_ms_per_window": figures}, folder=options.record)


if __name__ == "__main__":
    main()
