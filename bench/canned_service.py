"""The service with stages replaced by canned ones that cost next to nothing, for ``bench.ceiling``.

``python -m bench.canned_service SONG STAGE ARGUMENTS`` runs ``wholetrack ARGUMENTS`` with one stage, and those before
it in :class:`Stage`, replaced. The service starts with the real stages, so that its self-tests pass.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from wholetrack import startup
from wholetrack.cli import commands
from wholetrack.cli.app import main as run_command
from wholetrack.contracts import Rows
from wholetrack.decoding.decoder import DecodedAudio, FfmpegDecoder
from wholetrack.decoding.ffmpeg import Ffmpeg
from wholetrack.features.grid import FrameGrid
from wholetrack.features.logmel import LogMel
from wholetrack.inference.session import Session
from wholetrack.pipeline import Pipeline
from wholetrack.sandbox.client import Sandbox
from wholetrack.sandbox.limits import Limits
from wholetrack.sandbox.process import SandboxedProcess
from wholetrack.sandbox.target import Program
from wholetrack.settings import Settings

_CAT = Path("/bin/cat")
_MARKER = "0123456789abcdef:"
_BLOCK_SAMPLES = 1 << 18
_MAX_DURATION_S = 3600.0
# Frames that one block of samples yields at most.
_MAX_FRAMES = 1 << 16


class Stage(StrEnum):
    """The last stage that is replaced.

    Attributes:
        NOTHING: All stages are real.
        NETWORK: Sessions return constant outputs.
        FEATURES: Streams of frames count the samples and return constant frames.
        DECODER: The sandbox runs ``cat`` in place of ffmpeg. It writes samples that ffmpeg decoded before.
        DECODING: No program runs. The samples are in memory.
    """

    NOTHING = "nothing"
    NETWORK = "network"
    FEATURES = "features"
    DECODER = "decoder"
    DECODING = "decoding"


class CannedFrames:
    """A stream of constant frames with sound, in place of :class:`wholetrack.features.logmel.LogMelStream`."""

    def __init__(self, grid: FrameGrid, frames: NDArray[np.float32]) -> None:
        self._grid = grid
        self._frames = frames
        self._n_frames = 0
        self.n_samples = 0

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Count samples and return the frames that are complete."""
        self.n_samples += len(samples)
        return self._until(self._grid.frames_complete_by(self.n_samples))

    def finish(self) -> NDArray[np.float32]:
        """Return the remaining frames."""
        return self._until(self._grid.frames_started_by(self.n_samples))

    def _until(self, n_frames: int) -> NDArray[np.float32]:
        new, self._n_frames = n_frames - self._n_frames, n_frames
        return self._frames[:new]


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
    """Samples in memory, in place of :class:`wholetrack.decoding.decoder.Decoding`."""

    stalled = False

    def __init__(self, samples: NDArray[np.float32], audio: DecodedAudio) -> None:
        self._samples = samples
        self._audio = audio
        self.ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def kill(self) -> None:
        """Do nothing, because there is no process."""

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield blocks of the size that the decoder yields."""
        for begin in range(0, len(self._samples), _BLOCK_SAMPLES):
            self.ended = begin + _BLOCK_SAMPLES >= len(self._samples)
            yield self._samples[begin : begin + _BLOCK_SAMPLES]

    def summary(self) -> DecodedAudio:
        """Return what the decoder returned for this song."""
        return self._audio


def replace_stages(pipeline: Pipeline, song: Path, last: Stage, folder: Path) -> None:
    """Replace stages of a running pipeline, for the rest of the process.

    Args:
        pipeline: The pipeline, whose start-up is complete.
        song: The recording that will be posted.
        last: The last stage to replace.
        folder: A folder for recorded samples.
    """
    stages = list(Stage)
    replaced = stages[: stages.index(last) + 1]
    if Stage.NETWORK in replaced:
        patch.object(Session, "run", _canned_outputs).start()
    if Stage.FEATURES in replaced:
        patch.object(LogMel, "stream", _canned_stream).start()
    if Stage.DECODER in replaced:
        sample_rate = pipeline.model(None).card.audio.sample_rate
        decoder = pipeline.decoder
        with decoder.open(song, sample_rate=sample_rate, max_duration_s=_MAX_DURATION_S) as decoding:
            samples = np.concatenate(list(decoding.blocks()))
            audio = decoding.summary()
        if Stage.DECODING in replaced:
            patch.object(FfmpegDecoder, "open", lambda *_, **__: CannedDecoding(samples, audio)).start()
        else:
            recorded = folder / "samples.f32"
            log = _record(decoder.ffmpeg, song, recorded, sample_rate)
            decoder.sandbox.close()
            decoder.sandbox = CannedDecoder(recorded, log)


def _canned_outputs(session: Session, windows: Rows) -> Rows:
    return Rows(
        tuple(np.full((len(windows), *shape), 1 / shape[-1], dtype=np.float32) for shape in session.output_shapes)
    )


def _canned_stream(log_mel: LogMel) -> CannedFrames:
    frames = np.full((1, log_mel.spec.n_mels), log_mel.silence + 1, dtype=np.float32)
    return CannedFrames(log_mel.grid, np.broadcast_to(frames, (_MAX_FRAMES, log_mel.spec.n_mels)))


def _record(ffmpeg: Ffmpeg, song: Path, samples: Path, sample_rate: int) -> bytes:
    """Write the output of ffmpeg to a file and return its log."""
    command = ffmpeg.decode_command(f"file:{song}", marker=_MARKER, sample_rate=sample_rate)
    with samples.open("wb") as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.PIPE, check=True).stderr


def main() -> None:
    """Run the command line with stages replaced."""
    _, song, last, *arguments = sys.argv
    sys.argv = ["wholetrack", *arguments]
    build_pipeline = startup.build_pipeline

    def build_canned_pipeline(settings: Settings) -> Pipeline:
        pipeline = build_pipeline(settings)
        replace_stages(pipeline, Path(song), Stage(last), Path(folder))
        return pipeline

    with tempfile.TemporaryDirectory() as folder, patch.object(commands, "build_pipeline", build_canned_pipeline):
        run_command()


if __name__ == "__main__":
    main()
