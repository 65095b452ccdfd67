"""The service with stages replaced by canned ones that cost next to nothing, for ``bench.ceiling``.

``python -m bench.canned_service SONG STAGE ARGUMENTS`` runs ``wholetrack ARGUMENTS`` with one stage, and those before
it in :class:`Stage`, replaced. The service starts with the real decoder, so that its self-test passes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest.mock import patch

import numpy as np

from bench import canned_worker
from bench.canned_worker import CannedExtractor
from wholetrack import startup
from wholetrack.cli import commands
from wholetrack.cli.app import main as run_command
from wholetrack.contracts import Rows
from wholetrack.decoding.decoder import DecodedAudio, FfmpegDecoder
from wholetrack.decoding.ffmpeg import Ffmpeg
from wholetrack.extraction import workers
from wholetrack.extraction.windows import ExtractedWindows
from wholetrack.inference.session import Session
from wholetrack.pipeline import Pipeline
from wholetrack.sandbox.client import Sandbox
from wholetrack.sandbox.limits import Limits
from wholetrack.sandbox.process import SandboxedProcess
from wholetrack.sandbox.target import Program
from wholetrack.settings import Settings

_CAT = Path("/bin/cat")
_MARKER = "0123456789abcdef:"
_MAX_DURATION_S = 3600.0


class Stage(StrEnum):
    """The last stage that is replaced.

    Attributes:
        NOTHING: All stages are real.
        NETWORK: Sessions return constant outputs.
        FEATURES: Feature workers read samples, and send windows that were computed before.
        DECODER: The sandbox runs ``cat`` in place of ffmpeg. It writes samples that ffmpeg decoded before.
        DECODING: No program runs and no worker is asked. The windows are in memory.
    """

    NOTHING = "nothing"
    NETWORK = "network"
    FEATURES = "features"
    DECODER = "decoder"
    DECODING = "decoding"


class CannedDecoder(Sandbox):
    """A sandbox that runs ``cat`` on recorded samples, and has the program's log say what ffmpeg logged.

    Args:
        samples: File with the output of ffmpeg.
        log: What ffmpeg logged with the marker of this module.
    """

    def __init__(self, samples: Path, log: bytes) -> None:
        super().__init__(Program(_CAT, [samples]))
        self._samples = samples
        self._log = log

    def spawn(
        self,
        command: Sequence[str],
        *,
        input_file: int,
        limits: Limits,
        environment: Mapping[str, str],
        cpu: int | None = None,
    ) -> SandboxedProcess:
        """Spawn ``cat``, whatever the command is."""
        marker = command[command.index("-dump_separator") + 1].removeprefix(", ")
        process = super().spawn(
            [str(_CAT), str(self._samples)], input_file=input_file, limits=limits, environment=environment, cpu=cpu
        )
        process.stderr.close()
        read_end, write_end = os.pipe()
        os.write(write_end, self._log.replace(_MARKER.encode(), marker.encode()))
        os.close(write_end)
        process.stderr = os.fdopen(read_end, "rb", buffering=0)
        return process


class CannedDecoding:
    """Windows in memory, in place of :class:`wholetrack.decoding.decoder.Decoding`."""

    stalled = False

    def __init__(self, blocks: Sequence[ExtractedWindows], n_samples: int, audio: DecodedAudio) -> None:
        self._blocks = blocks
        self._audio = audio
        self.n_samples = n_samples
        self.ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def kill(self) -> None:
        """Do nothing, because there is no process."""

    def blocks(self) -> Iterator[ExtractedWindows]:
        """Yield the windows in the blocks in which they were computed."""
        for number, block in enumerate(self._blocks, start=1):
            self.ended = number == len(self._blocks)
            yield block

    def summary(self) -> DecodedAudio:
        """Return what the decoder returned for this song."""
        return self._audio


def replace_stages(pipeline: Pipeline, song: Path, replaced: Collection[Stage], folder: Path) -> None:
    """Replace stages of a running pipeline, for the rest of the process.

    Args:
        pipeline: The pipeline, whose start-up is complete.
        song: The recording that will be posted.
        replaced: The stages to replace.
        folder: A folder for recorded samples.
    """
    if Stage.NETWORK in replaced:
        patch.object(Session, "run", _canned_outputs).start()
    served = pipeline.model(None)
    decoder, sample_rate = pipeline.decoder, served.card.audio.sample_rate
    if Stage.DECODING in replaced:
        with decoder.open(song, sample_rate=sample_rate, max_duration_s=_MAX_DURATION_S) as decoding:
            extractor = CannedExtractor(served.features, served.grid(None))
            blocks = [extractor.push(samples, is_last=decoding.ended) for samples in decoding.blocks()]
            found = (blocks, decoding.n_samples, decoding.summary())
        patch.object(FfmpegDecoder, "open_with", lambda *_, **__: CannedDecoding(*found)).start()
    elif Stage.DECODER in replaced:
        recorded = folder / "samples.f32"
        log = _record(decoder.ffmpeg, song, recorded, sample_rate)
        decoder.sandbox.close()
        decoder.sandbox = CannedDecoder(recorded, log)


def _canned_outputs(session: Session, windows: Rows) -> Rows:
    return Rows(
        tuple(np.full((len(windows), *shape), 1 / shape[-1], dtype=np.float32) for shape in session.output_shapes)
    )


def _record(ffmpeg: Ffmpeg, song: Path, samples: Path, sample_rate: int) -> bytes:
    """Write the output of ffmpeg to a file and return its log."""
    command = ffmpeg.decode_command(f"file:{song}", marker=_MARKER, sample_rate=sample_rate)
    with samples.open("wb") as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.PIPE, check=True).stderr


def main() -> None:
    """Run the command line with stages replaced."""
    _, song, last, *arguments = sys.argv
    sys.argv = ["wholetrack", *arguments]
    stages = list(Stage)
    replaced = stages[: stages.index(Stage(last)) + 1]
    build_pipeline = startup.build_pipeline
    if Stage.FEATURES in replaced:
        # The packages that the launcher of the workers can import have to include this one.
        patch.object(workers, "_MODULE", canned_worker.__name__).start()
        patch.object(workers, "_PACKAGES", (*workers._PACKAGES, "bench")).start()  # noqa: SLF001

    def build_canned_pipeline(settings: Settings) -> Pipeline:
        pipeline = build_pipeline(settings)
        replace_stages(pipeline, Path(song), replaced, Path(folder))
        return pipeline

    with tempfile.TemporaryDirectory() as folder, patch.object(commands, "build_pipeline", build_canned_pipeline):
        run_command()


if __name__ == "__main__":
    main()
