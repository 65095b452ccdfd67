"""The section of ``docs/PERFORMANCE.md`` on precisions and batches on a GPU."""

from __future__ import annotations

from collections.abc import Iterable

from bench.markdown import paragraph
from wholetrack_training.results.markdown import markdown_table

# Measured by hand on 2026-11-27, with version 1 of wholetrack-crnn: no command of the project repeats it.
FLOAT32 = {1: 802, 32: 21_710, 256: 70_368, 1024: 82_205}
"""Windows per second in float32, by the size of the batch."""

_REDUCED = (("TF32", 114_890, "9e-4"), ("float16", 125_183, "3e-3"))
_FLOAT32_DIFFERENCE = "1.1e-6"


def cuda_section() -> Iterable[str]:
    """Yield the lines of the section."""
    largest = max(FLOAT32)
    yield from ("", "## Network on CUDA")
    yield from paragraph(
        "Measured by hand on 2026-11-27 on an H100 with onnxruntime 1.31.1 and version 1 of wholetrack-crnn; no "
        "command of the project repeats it. All nodes run on CUDA. The difference is the largest one from the "
        "probabilities on the CPU. float32 is therefore the precision on GPUs: the network is not what limits a "
        "service there (see [scaling](#scaling)). `cudnn_conv_algo_search=EXHAUSTIVE` and NHWC were slower. The "
        "service starts on CUDA in 4.0 s."
    )
    rows = [("float32", str(batch), f"{rate:,}", _FLOAT32_DIFFERENCE) for batch, rate in FLOAT32.items()]
    rows += [(precision, str(largest), f"{rate:,}", difference) for precision, rate, difference in _REDUCED]
    yield ""
    yield from markdown_table(("precision", "batch", "windows per second", "difference"), rows)
