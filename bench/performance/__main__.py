"""Write ``docs/PERFORMANCE.md``, its pictures and ``docs/performance.json`` from the records in ``docs/bench``."""

from __future__ import annotations

import json

from bench.generated import check_files, generator_parser, write_files
from bench.performance.page import CPU_PICTURE, PEERS_PICTURE, page
from bench.performance.pictures import draw_cpu, draw_peers
from bench.performance.summary import read_records, summarise
from bench.records import DOCS


def main() -> None:
    """Write or check the files."""
    options = generator_parser(__doc__).parse_args()
    records = read_records()
    summary = summarise(records)
    files = {
        DOCS / "performance.json": json.dumps(summary, indent=2) + "\n",
        DOCS / "PERFORMANCE.md": page(records, summary),
    }
    if options.check:
        check_files(files, command="python -m bench.performance")
        return
    write_files(files)
    draw_cpu(records["track"], DOCS / CPU_PICTURE)
    draw_peers(summary["throughput_ratio_to_peers"], DOCS / PEERS_PICTURE)


if __name__ == "__main__":
    main()
