"""Recordings that need more than ordinary memory are recognised, and decoded again with more."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.big_index import with_big_index
from tests.harness.recordings import Recorder, wav_bytes
from wholetrack.contracts import TrackPrediction
from wholetrack.decoding.decoder import Decoding, FfmpegDecoder
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack.decoding.limits import DecoderMemory
from wholetrack.decoding.memory_shortage import may_lack_memory
from wholetrack.decoding.plan import DecodingPlan
from wholetrack.decoding.receiving import Receiver
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.pipeline import Pipeline
from wholetrack.sandbox.protocol import NOT_STARTED

pytestmark = pytest.mark.timing

_MIB = 1 << 20


@pytest.fixture
def m4a(recorder: Recorder, tmp_path: Path, tune: NDArray[np.float32]) -> Path:
    wav, path = tmp_path / "tune.wav", tmp_path / "tune.m4a"
    wav.write_bytes(wav_bytes(tune, 22050))
    recorder.run("-i", wav, "-c:a", "aac", path)
    return path


@pytest.fixture
def with_bundled_ffmpeg(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Older versions do not start threads, and so decode these files even if they have no memory for the index."""
    with closing(FfmpegDecoder(find_ffmpeg(Path(imageio_ffmpeg.get_ffmpeg_exe())))) as decoder:
        monkeypatch.setattr(pipeline, "decoder", decoder)
        yield


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[DecoderMemory]:
    """The sizes of the decoders that are opened."""
    opened, original = list[DecoderMemory](), FfmpegDecoder.open_with

    def recording_open(
        decoder: FfmpegDecoder, receiver: Receiver[Any], path: Path, *, plan: DecodingPlan, **limits: Any
    ) -> Decoding[Any]:
        opened.append(plan.memory)
        return original(decoder, receiver, path, plan=plan, **limits)

    monkeypatch.setattr(FfmpegDecoder, "open_with", recording_open)
    return opened


def result(prediction: TrackPrediction) -> tuple[object, ...]:
    """Return what is predicted. The batches in which windows are classified affect the last digits of a share."""
    ranked = [(entry.genre, round(entry.share, 5)) for entry in prediction.summed_score.ranked]
    return prediction.stream, prediction.duration_s, ranked, prediction.majority_vote


@pytest.mark.usefixtures("with_bundled_ffmpeg")
def test_a_file_that_needs_much_memory_is_predicted_like_the_same_file_without_its_index(
    pipeline: Pipeline, m4a: Path, tmp_path: Path, sizes: list[DecoderMemory]
) -> None:
    big = tmp_path / "big.m4a"
    # The small tracks fill what the limit leaves.
    big.write_bytes(with_big_index(m4a.read_bytes(), (700_000,) * 3 + (100_000,) * 5 + (30_000,) * 10))
    found = pipeline.predict(big, max_duration_s=60)
    assert sizes == [DecoderMemory.ORDINARY, DecoderMemory.LARGE]
    assert result(found) == result(pipeline.predict(m4a, max_duration_s=60))
    assert sizes[2:] == [DecoderMemory.ORDINARY]
    assert pipeline.scheduler._n_startable[DecoderMemory.LARGE] >= 1


@pytest.mark.usefixtures("with_bundled_ffmpeg")
def test_a_file_that_needs_more_than_is_allowed_is_an_error_of_the_file(
    pipeline: Pipeline, m4a: Path, tmp_path: Path, sizes: list[DecoderMemory]
) -> None:
    big = tmp_path / "big.m4a"
    big.write_bytes(with_big_index(m4a.read_bytes(), (2_000_000,) * 4 + (300_000,) * 4 + (30_000,) * 10))
    with pytest.raises(ServiceError) as caught:
        pipeline.predict(big, max_duration_s=60)
    assert caught.value.kind is ErrorKind.UNDECODABLE_AUDIO
    assert sizes == [DecoderMemory.ORDINARY, DecoderMemory.LARGE]


def test_a_file_without_audio_is_decoded_once_unless_it_may_be_one_that_needs_memory(
    pipeline: Pipeline, tmp_path: Path, sizes: list[DecoderMemory]
) -> None:
    text = tmp_path / "notes.mp3"
    text.write_text("not audio")
    with pytest.raises(ServiceError) as caught:
        pipeline.predict(text, max_duration_s=60)
    assert caught.value.kind is ErrorKind.UNSUPPORTED_MEDIA
    assert sizes == [DecoderMemory.ORDINARY]


@pytest.mark.parametrize(
    ("status", "exit_signal", "decoded_s", "is_complete", "data_mib", "expected"),
    [
        (0, None, 10.0, True, 60, False),
        # A part is missing: it depends on how much memory was in use. It is unknown if ffmpeg has ended too soon.
        (0, None, 10.0, False, 25, False),
        (0, None, 10.0, False, 60, True),
        (0, None, 10.0, False, 0, True),
        (0, None, 0.0, False, 0, True),
        (244, None, 0.0, False, 0, True),
        (244, None, 10.0, True, 25, True),
        (-signal.SIGSEGV, None, 10.0, True, 25, True),
        (-signal.SIGABRT, None, 0.0, True, 25, True),
        # Stopped from outside, or for its CPU time.
        (-signal.SIGKILL, None, 0.0, False, 60, False),
        (-signal.SIGXCPU, None, 10.0, False, 60, False),
        (255, signal.SIGXCPU, 10.0, False, 60, False),
        (NOT_STARTED, None, 0.0, False, 0, False),
    ],
)
def test_which_ends_may_be_due_to_a_lack_of_memory(
    m4a: Path,
    *,
    status: int,
    exit_signal: int | None,
    decoded_s: float,
    is_complete: bool,
    data_mib: int,
    expected: bool,
) -> None:
    assert expected == may_lack_memory(
        m4a,
        status=status,
        exit_signal=exit_signal,
        decoded_s=decoded_s,
        is_complete=is_complete,
        data_bytes=data_mib * _MIB,
    )
