"""Measure the CPU image (about 6 minutes), or with --gpu build the GPU image and measure its size (1.6 GB to download).

Needs a Docker engine. With --record, ``docs/CONTAINERS.md`` is written as well.
"""

from __future__ import annotations

from bench.containers import cpu, gpu
from bench.containers.page import generate
from bench.generated import write_files
from bench.records import benchmark_parser
from tests.harness.records import print_record


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="number of measurements of the CPU image")
    parser.add_argument("--gpu", action="store_true", help="measure the GPU image instead of the CPU image")
    options = parser.parse_args()
    if options.gpu:
        print_record("containers-gpu", gpu.measure(), folder=options.record)
    else:
        print_record("containers", cpu.measure(options.rounds), folder=options.record)
    if options.record:
        write_files(generate())


if __name__ == "__main__":
    main()
