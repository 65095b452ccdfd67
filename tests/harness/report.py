"""What every benchmark prints beside its figures: where and with what they were measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnxruntime

from tests.harness.server import PROJECT
from wholetrack.decoding.ffmpeg import find_ffmpeg

SHARED = Path(os.environ.get("WHOLETRACK_SHARED", PROJECT.parent / "shared"))
RECORDED = PROJECT / "docs" / "bench"
SONG_SECONDS = 240


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The command line of a benchmark; every one can record what it prints."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--record", action="store_true", help="keep the figures in docs/bench, for the README's table")
    return parser


def print_report(name: str, figures: dict[str, Any], *, record: bool, folder: Path = RECORDED) -> None:
    """Print one JSON object: the figures, the machine, the versions, the date; keep it in ``folder`` if asked to."""
    machine = {
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "ffmpeg": find_ffmpeg().version,
    }
    now = datetime.now(UTC).strftime("%Y-%m-%d")
    report = json.dumps({"benchmark": name, "date": now, "machine": machine, **figures}, indent=2)
    print(report)
    if record:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(report + "\n")


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, smallest, largest and number of repeated measurements."""
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
        "repeats": len(values),
    }


def make_song(target: Path) -> None:
    """Four minutes of stereo mp3 at 192 kb/s: real music where there is some, else tones and noise.

    Args:
        target: the file to write.
    """
    music = SHARED / "data" / "audio" / "full" / "on-the-run.ogg"
    source = (
        ["-i", str(music)]
        if music.exists()
        else ["-f", "lavfi", "-i", "anoisesrc=c=pink:a=0.3:r=44100", "-f", "lavfi", "-i", "sine=f=330:r=44100"]
    )
    mix = [] if music.exists() else ["-filter_complex", "amix,tremolo=f=2,aformat=channel_layouts=stereo"]
    command = [str(find_ffmpeg().path), "-v", "error", "-nostdin", "-y", *source, *mix]
    subprocess.run([*command, "-t", str(SONG_SECONDS), "-b:a", "192k", str(target)], check=True)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
