"""What the network costs per window in one thread, by the size of its batches and the precision of its numbers."""

from __future__ import annotations

import time
from itertools import product

import numpy as np

from tests.harness.report import arguments, print_report, spread
from wholetrack.inference.bundle import BUILT_IN_MODELS, Bundle, load_bundles
from wholetrack.inference.session import open_session
from wholetrack.settings import DeviceChoice, Precision, Settings

_SIZES = (1, 2, 4, 8, 16, 32, 64)
_WINDOWS = max(_SIZES)


def milliseconds(bundle: Bundle, repeats: int) -> dict[str, dict[str, object]]:
    """CPU time per window for each precision that the bundle has and each size, all by turns."""
    precisions = list(Precision) if bundle.int8 else [Precision.FLOAT32]
    sessions = {
        precision: open_session(bundle, Settings(device=DeviceChoice.CPU, cpu_batch=_WINDOWS, cpu_precision=precision))
        for precision in precisions
    }
    windows = np.resize(bundle.golden.windows, (_WINDOWS, *bundle.golden.windows.shape[1:]))
    found: dict[tuple[Precision, int], list[float]] = {way: [] for way in product(precisions, _SIZES)}
    for _ in range(repeats):
        for (precision, size), costs in found.items():
            began = time.process_time()
            for first in range(0, _WINDOWS, size):
                sessions[precision].run(windows[first : first + size])
            costs.append(1e3 * (time.process_time() - began) / _WINDOWS)
    return {str(precision): {str(size): spread(found[precision, size]) for size in _SIZES} for precision in precisions}


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    bundles = load_bundles(BUILT_IN_MODELS)
    figures = {name: milliseconds(bundle, options.repeats) for name, bundle in bundles.items()}
    print_report("session", {"cpu_ms_per_window": figures}, record=options.record)


if __name__ == "__main__":
    main()
