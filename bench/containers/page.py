"""Write ``docs/CONTAINERS.md`` from the records of ``bench.containers``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from bench.generated import check_files, generator_parser, write_files
from bench.markdown import median_and_range, paragraph
from bench.records import DOCS, Record, read_record
from wholetrack_training.results.markdown import markdown_table


def generate() -> dict[Path, str]:
    """Return the page by its path."""
    return {DOCS / "CONTAINERS.md": page(read_record("containers"), read_record("containers-gpu"))}


def page(cpu: Record, gpu: Record) -> str:
    """Return the page.

    Args:
        cpu: Record of the CPU image.
        gpu: Record of the GPU image.
    """
    lines = ["# Containers", *_cpu_image(cpu), *_decoders(cpu), *_instances(cpu), *_gpu_image(gpu)]
    return "\n".join(lines) + "\n"


def _cpu_image(cpu: Record) -> Iterable[str]:
    machine = cpu["machine"]
    yield from paragraph(
        "`python -m bench.containers --record` measures the images and generates this page. Measured on "
        f"{cpu['date']} on {machine['cpus']} cores ({machine['processor']}), with substitutes for the official base "
        "images: a minimal Debian with its own build of CPython, which is close to the official images but not "
        "identical."
    )
    yield ""
    yield from markdown_table(
        ("CPU image", "measured", "limit"),
        [
            [
                "unpacked size",
                f"{cpu['image_mb']:.0f} MB, including {cpu['base_mb']:.0f} MB of base image",
                "500 MB",
            ],
            ["from `docker run` to ready", median_and_range(cpu["ready_s"], " s"), "3 s"],
            ["rebuild after a code change", f"{cpu['rebuild_s']:.1f} s", "15 s"],
        ],
    )


def _decoders(cpu: Record) -> Iterable[str]:
    yield from ("", "## Which ffmpeg")
    yield from paragraph(
        "The image builds ffmpeg from Debian's source package, which includes Debian's security patches, with only the "
        "containers and codecs that the service accepts; `docker/ffmpeg_options.py` takes them from the service's "
        "code. Code that is not in the image cannot be attacked, and scanners do not report libraries for video and "
        "images."
    )
    yield ""
    yield from markdown_table(
        ("ffmpeg", "version", "MB", "start-up", "demuxers", "decoders"),
        [
            [
                row["ffmpeg"],
                row["version"],
                f"{row['mb']:.0f}",
                f"{row['start_ms']:.0f} ms",
                str(row["demuxers"]),
                str(row["decoders"]),
            ]
            for row in cpu["decoders"]
        ],
    )


def _instances(cpu: Record) -> Iterable[str]:
    throughput = cpu["throughput"]
    yield from ("", "## Several instances on one machine")
    yield from paragraph(
        "One instance runs a thread of the network and a decoder on every core, and two instances behind the proxy "
        f"share the same cores. With {throughput['clients']} clients, {cpu['song_seconds']} s of mp3 and "
        f"{cpu['cpus']} cores, two instances process {median_and_range(throughput['two_over_one'])} times as many "
        "tracks per second as one, measured alternately. Several instances on one machine provide availability while "
        "one of them is replaced, not throughput."
    )


def _gpu_image(gpu: Record) -> Iterable[str]:
    refused = gpu["without_a_gpu"]
    library = re.search(r"lib\w+\.so[.\d]*", refused["message"])
    assert library, refused
    yield from ("", "## The GPU image")
    yield from paragraph(
        f"Built by `python -m bench.containers --gpu --record` on {gpu['date']}: {gpu['image_mb']:,.0f} MB unpacked, "
        f"built in {gpu['build_s']:.0f} s with its packages cached. onnxruntime-gpu, CUDA 13 and cuDNN 9 are installed "
        "from their Python packages, so the host needs a driver of the 580 series or newer and no other NVIDIA "
        "software. There was no GPU to run the image on. It was verified that its models reproduce their golden "
        "outputs on the CPU, and that with `WHOLETRACK_DEVICE=cuda` and without a GPU it exits with status "
        f"{refused['exit_status']} and names the missing driver library, `{library[0]}`."
    )
    yield ""
    yield from markdown_table(
        ("largest packages", "MB"), [[name, f"{mb:,.0f}"] for name, mb in gpu["packages_mb"].items()]
    )


def main() -> None:
    """Write or check the page."""
    options = generator_parser(__doc__).parse_args()
    if options.check:
        check_files(generate(), command="python -m bench.containers.page")
    else:
        write_files(generate())


if __name__ == "__main__":
    main()
