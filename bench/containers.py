"""The image for CPUs: size, start, rebuild, and what several instances behind the proxy are worth on one machine.

``python -m bench.containers --record`` also writes ``docs/CONTAINERS.md``; it needs a Docker engine and some 6 minutes.
With ``--gpu`` it builds the image for GPUs in their place, and says what is in it: 1.6 GB to download.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from bench.clients import Ask, Load, load
from bench.markdown import paragraph
from tests.harness.compose import PYTHON, Composed, composed, run
from tests.harness.report import RECORDED, SONG_SECONDS, arguments, make_song, print_report, spread
from tests.harness.server import PROJECT
from wholetrack.settings import available_cpus
from wholetrack_training.results.markdown import markdown_table

PAGE = RECORDED.parent / "CONTAINERS.md"
_FILES = ("docker-compose.yml", "docker/scale.yml")
_GPU = "wholetrack:gpu"
_CLIENTS = 4
_CODE = Path("service/wholetrack/pipeline.py")
# What decodes in other images, as Dockerfiles of a line each on top of the same base.
_OTHERS = {
    "Debian's package": "RUN apt-get update && apt-get install -y --no-install-recommends ffmpeg && apt-get clean "
    "&& rm -rf /var/lib/apt/lists/*",
    "the static one of imageio-ffmpeg": "RUN pip install --no-cache-dir --no-deps imageio-ffmpeg "
    "&& ln -s $(python -c 'import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())') /usr/local/bin/ffmpeg",
}


def _image_mb(image: str) -> float:
    return float(json.loads(run("docker", "image", "inspect", image))[0]["Size"]) / 1e6


def _decoders() -> list[dict[str, Any]]:
    """Size, start and reach of the image's ffmpeg and of the two that it could have had."""
    rows = []
    base = f"python:{PYTHON}-slim"
    with tempfile.TemporaryDirectory() as folder:
        for name, line in {"built with what the service opens": None, **_OTHERS}.items():
            image = "wholetrack:cpu"
            if line:
                image = "wholetrack-test:ffmpeg"
                (Path(folder) / "Dockerfile").write_text(f"FROM {base}\n{line}\n")
                run("docker", "build", "--quiet", "--tag", image, folder)
            rows.append({"ffmpeg": name, **_looked_at(image), "mb": _ffmpeg_mb(image, base, built=line is None)})
    return rows


def _ffmpeg_mb(image: str, base: str, *, built: bool) -> float:
    if not built:
        return round(_image_mb(image) - _image_mb(base), 1)
    program = "du --bytes --total --dereference /opt/ffmpeg $(ldconfig -p | grep -o '/.*libsoxr.so.0$') | tail -n 1"
    said = run("docker", "run", "--rm", "--user", "0", "--entrypoint", "sh", image, "-c", program)
    return round(int(said.split()[0]) / 1e6, 1)


def _looked_at(image: str) -> dict[str, Any]:
    program = """
import json, re, subprocess, time
def said(what): return subprocess.run(["ffmpeg", "-hide_banner", what], capture_output=True, text=True).stdout
seconds = []
for _ in range(21):
    began = time.perf_counter()
    said("-version")
    seconds.append(time.perf_counter() - began)
start_ms = round(1e3 * sorted(seconds[1:])[10], 1)
listed = {what: re.split("^ -+$", said("-" + what), flags=re.MULTILINE)[-1] for what in ("demuxers", "decoders")}
parts = {what: text.strip().count("\\n") + 1 for what, text in listed.items()}
print(json.dumps({"version": said("-version").split()[2], "start_ms": start_ms, **parts}))
"""
    done = run("docker", "run", "--rm", "--entrypoint", "python", image, "-c", program)
    found: dict[str, Any] = json.loads(done)
    return found


def _rebuild_s() -> float:
    """How long a build takes after a change of code, all layers before it being there."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        files = run("git", "ls-files").splitlines()
        for name in filter(lambda name: (PROJECT / name).is_file(), files):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, copy / name)
        changed = copy / _CODE
        changed.write_text(f"{changed.read_text()}\n# {time.time()}\n")
        began = time.perf_counter()
        arguments = ("--build-arg", f"PYTHON_VERSION={PYTHON}", "--tag", "wholetrack-test:rebuilt")
        run("docker", "build", "--quiet", *arguments, str(copy))
        return time.perf_counter() - began


def _ready_s() -> float:
    """From `docker run` to a service that says it is ready."""
    began = time.perf_counter()
    name = run("docker", "run", "--detach", "--rm", "--publish", "127.0.0.1:18332:8000", "wholetrack:cpu").strip()
    try:
        while time.perf_counter() - began < 60:
            try:
                if httpx.get("http://127.0.0.1:18332/readyz", timeout=5).status_code == 200:
                    return time.perf_counter() - began
            except httpx.TransportError:
                time.sleep(0.01)
    finally:
        subprocess.run(["docker", "kill", name], check=True, capture_output=True)
    raise TimeoutError("the container did not become ready")


def _asking(project: Composed, song: bytes) -> Ask:
    def ask() -> None:
        project.post(song, windows="none").raise_for_status()

    return ask


def _throughput(project: Composed, song: bytes, rounds: int) -> dict[str, Any]:
    """Tracks a second through the proxy by instances, in turn, each beside one instance in the same round."""
    found: dict[int, list[Load]] = {1: [], 2: []}
    for _ in range(rounds):
        for instances, loads in found.items():
            project.up("--scale", f"wholetrack={instances}", "proxy")
            ask = _asking(project, song)
            for _ in range(2 * instances):
                ask()
            loads.append(load(ask, clients=_CLIENTS, answers=6 * _CLIENTS))
    return {
        "clients": _CLIENTS,
        "by_instances": {str(n): [one.as_dict() for one in loads] for n, loads in found.items()},
        "two_over_one": spread([two.per_second / one.per_second for one, two in zip(*found.values(), strict=True)]),
    }


def measure(rounds: int) -> dict[str, Any]:
    """All figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        song = folder / "song.mp3"
        make_song(song)
        with composed("wholetrack-bench", 18331, folder, *_FILES) as project:
            project.compose("build", "wholetrack", "proxy")
            return {
                "image_mb": round(_image_mb("wholetrack:cpu"), 1),
                "base_mb": round(_image_mb(f"python:{PYTHON}-slim"), 1),
                "rebuild_s": round(_rebuild_s(), 1),
                "ready_s": spread([_ready_s() for _ in range(2 * rounds)]),
                "decoders": _decoders(),
                "song_seconds": SONG_SECONDS,
                "cpus": available_cpus(),
                "throughput": _throughput(project, song.read_bytes(), rounds),
            }


def measure_gpu() -> dict[str, Any]:
    """What the image for GPUs is made of, and what it says where there is none."""
    began = time.perf_counter()
    run("docker", "build", "--quiet", "--target", "gpu", "--build-arg", f"PYTHON_VERSION={PYTHON}", "--tag", _GPU, ".")
    build_s = time.perf_counter() - began
    program = """
import importlib.metadata, json, pathlib
packages = {}
for package in importlib.metadata.distributions(path=["/opt/wholetrack/lib/python%s/site-packages"]):
    files = [path for path in map(package.locate_file, package.files) if path.is_file()]
    packages[f"{package.name} {package.version}"] = round(sum(path.stat().st_size for path in files) / 1e6, 1)
print(json.dumps(dict(sorted(packages.items(), key=lambda each: -each[1])[:8])))
"""
    inside = ("docker", "run", "--rm", "--entrypoint", "python", _GPU, "-c", program.replace("%s", PYTHON))
    command = ["docker", "run", "--rm", "--env", "WHOLETRACK_DEVICE=cuda", _GPU, "serve"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    return {
        "image_mb": round(_image_mb(_GPU), 1),
        "build_s": round(build_s, 1),
        "packages_mb": json.loads(run(*inside)),
        "without_a_gpu": {"status": refused.returncode, "words": refused.stderr.splitlines()[-1]},
    }


def records() -> tuple[dict[str, Any], dict[str, Any]]:
    """What was measured last, of the image for CPUs and of that for GPUs."""
    cpu, gpu = (json.loads((RECORDED / f"{name}.json").read_text()) for name in ("containers", "containers-gpu"))
    return cpu, gpu


def page(record: Mapping[str, Any], gpu: Mapping[str, Any]) -> str:
    """``CONTAINERS.md``."""
    throughput, ready = record["throughput"], record["ready_s"]
    two = throughput["two_over_one"]
    refused, packages = gpu["without_a_gpu"], gpu["packages_mb"]
    lines = [
        "# Containers",
        *paragraph(
            "Written by `python -m bench.containers --record` from what it measured on "
            f"{record['date']}, {record['machine']['cpus']} cores ({record['machine']['processor']}), on stand-ins for "
            "the base images: minimal Debian with a CPython of its own, close to the official ones and not the same."
        ),
        "",
        *markdown_table(
            ("the image for CPUs", "measured", "bar"),
            [
                ["unpacked", f"{record['image_mb']:.0f} MB, {record['base_mb']:.0f} of them the base", "500 MB"],
                [
                    "from `docker run` to ready",
                    f"{ready['median']:.2f} s ({ready['min']:.2f} to {ready['max']:.2f}, {ready['repeats']} times)",
                    "3 s",
                ],
                ["a build after a change of code", f"{record['rebuild_s']:.1f} s", "15 s"],
            ],
        ),
        "",
        "## Which ffmpeg",
        *paragraph(
            "The image builds ffmpeg from Debian's source, with Debian's security patches, and with nothing but the "
            "containers and codecs that the service accepts (`docker/ffmpeg_options.py` reads them from the service). "
            "What is not in it cannot be attacked, and a scanner has no libraries of film and pictures to report."
        ),
        "",
        *markdown_table(
            ("ffmpeg", "version", "MB", "start", "demuxers", "decoders"),
            [
                [
                    row["ffmpeg"],
                    row["version"],
                    f"{row['mb']:.0f}",
                    f"{row['start_ms']:.0f} ms",
                    str(row["demuxers"]),
                    str(row["decoders"]),
                ]
                for row in record["decoders"]
            ],
        ),
        "",
        "## Several instances on one machine",
        *paragraph(
            "One instance runs a thread of the network and a decoder on every processor; two behind the proxy share "
            f"the same. {throughput['clients']} clients, {record['song_seconds']} s of mp3, {record['cpus']} "
            f"processors: two instances answer {two['median']:.2f} times as many tracks a second as one "
            f"({two['min']:.2f} to {two['max']:.2f}, {two['repeats']} times by turns). They are for staying up "
            "while one is replaced."
        ),
        "",
        "## The image for GPUs",
        *paragraph(
            f"Built by `python -m bench.containers --gpu --record` on {gpu['date']}: {gpu['image_mb']:,.0f} MB "
            f"unpacked, built in {gpu['build_s']:.0f} s with its packages at hand. onnxruntime-gpu, CUDA 13 and cuDNN "
            "9 come from their Python packages, so it needs a driver of the 580 series or newer and nothing else of "
            "NVIDIA's. No GPU was there to run it on: what is known of it is that its models answer rightly on the "
            f"processor, and that with `WHOLETRACK_DEVICE=cuda` it ends with status {refused['status']} and says: "
            f"`{refused['words']}`"
        ),
        "",
        *markdown_table(("its largest packages", "MB"), [[name, f"{mb:,.0f}"] for name, mb in packages.items()]),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gpu", action="store_true", help="build the image for GPUs in place of all that")
    options = parser.parse_args()
    if options.gpu:
        print_report("containers-gpu", measure_gpu(), record=options.record)
    else:
        print_report("containers", measure(options.rounds), record=options.record)
    if options.record:
        PAGE.write_text(page(*records()))


if __name__ == "__main__":
    main()
