"""PyAV: decodes files with ffmpeg's libraries in one process and one thread, and prints the CPU times as JSON.

Its libraries are built without soxr, so it resamples with ffmpeg's own resampler, which is cheaper and less accurate.
"""

import json
import sys
import time
from itertools import chain
from pathlib import Path

import av
from av.filter import Graph

_BLOCK = 262_144


def decode(path: Path, sample_rate: int) -> int:
    """Decode a file to mono float32 blocks, discard them, and return the number of samples."""
    n_samples = 0
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        stream.thread_count = 1
        graph = Graph()
        last = graph.add_abuffer(template=stream)
        for name, arguments in (
            ("aformat", "sample_fmts=fltp"),
            ("aformat", "channel_layouts=mono"),
            ("aresample", str(sample_rate)),
            ("aformat", "sample_fmts=flt"),
            ("asetnsamples", f"n={_BLOCK}:p=0"),
            ("abuffersink", None),
        ):
            added = graph.add(name, arguments)
            last.link_to(added)
            last = added
        graph.configure()
        for frame in chain(container.decode(stream), [None]):
            graph.push(frame)
            while True:
                try:
                    block = graph.pull()
                except (BlockingIOError, EOFError):
                    break
                n_samples += block.samples
                bytes(block.planes[0])
    return n_samples


def main() -> None:
    """Print the CPU time of every repeat by file, in seconds. Arguments: sample rate in Hz, repeats, files."""
    sample_rate, repeats, *files = sys.argv[1:]
    cpu_s = {}
    for name in files:
        costs = []
        for _ in range(int(repeats)):
            began = time.process_time()
            assert decode(Path(name), int(sample_rate))
            costs.append(time.process_time() - began)
        cpu_s[name] = costs
    print(json.dumps(cpu_s))


if __name__ == "__main__":
    main()
