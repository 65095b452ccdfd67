"""Properties that hold for arbitrary input: grids, scores, uploads, ffmpeg logs, and files."""

from __future__ import annotations

import asyncio
import tempfile
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.types import Message

from wholetrack.aggregation.confidence import confidence
from wholetrack.aggregation.ranking import majority_vote, summed_score
from wholetrack.aggregation.sections import sections
from wholetrack.api.upload import UploadLimits, receive_upload
from wholetrack.contracts import CalibrationSpec, Strip, WindowScores, WindowSpec
from wholetrack.decoding.audio_parts import find_audio_parts
from wholetrack.decoding.container import has_accepted_signature, is_archive
from wholetrack.decoding.ffmpeg_log import FfmpegLog
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.features.grid import FrameGrid, InputGrid, WindowGrid
from wholetrack.features.windows import FrameBuffer, WindowCutter

LABELS = ("blues", "jazz", "rock")
ENOUGH = settings(max_examples=60, deadline=None)


@st.composite
def grids(draw: st.DrawFn) -> WindowGrid:
    """Generate windows of any length on any grid of frames that a bundle may have."""
    rate = draw(st.sampled_from([8000, 12000, 16000, 22050, 44100]))
    frame_rate = Fraction(draw(st.integers(2, 100)), draw(st.integers(1, 4)))
    window_s = draw(st.integers(5, 100)) / 10
    frames = FrameGrid(rate, draw(st.sampled_from([512, 1024, 2048])), frame_rate)
    shortest_s = 1.001 * float(1 / frame_rate)
    hop_s = draw(st.floats(shortest_s, max(window_s, shortest_s)))
    spec = WindowSpec(
        window_s=max(window_s, hop_s),
        hop_s=max(window_s, hop_s),
        frames=max(1, int(max(window_s, hop_s) * frame_rate)),
        last_window=draw(st.sampled_from(["align_to_end", "drop"])),
    )
    return WindowGrid.of(spec, frames, hop_s)


@given(grid=grids(), n_samples=st.integers(1, 3_000_000))
@ENOUGH
def test_windows_are_ordered_and_cover_the_track_up_to_less_than_a_hop(grid: WindowGrid, n_samples: int) -> None:
    starts = list(grid.starts(n_samples))
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    if n_samples >= grid.window_samples:
        assert all(grid.fits(start, n_samples) for start in starts)
        behind = n_samples - grid.frames.start(starts[-1]) - grid.window_samples
        frame = Fraction(grid.frames.sample_rate) / grid.frames.rate
        step = frame if grid.spec.last_window == "align_to_end" else grid.hop * grid.frames.sample_rate + frame
        assert 0 <= behind <= step + 1
    else:
        assert len(starts) == 1


@given(grid=grids(), seconds=st.floats(0.01, 40.0), seed=st.integers(0, 1000))
@ENOUGH
def test_windows_do_not_depend_on_the_chunks_of_frames(grid: WindowGrid, seconds: float, seed: int) -> None:
    n_samples = max(1, int(seconds * grid.frames.sample_rate))
    n_frames = grid.frames.frames_started_by(n_samples)
    frames = np.arange(n_frames, dtype=np.float32)[:, None]
    rng = np.random.default_rng(seed)
    cuts = [0, *sorted(rng.integers(0, n_frames + 1, 5).tolist()), n_frames]

    def windows(chunks: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        inputs = InputGrid.of(grid.frames, grid, n_frames=grid.spec.frames)
        cutter = WindowCutter(grid, [FrameBuffer(inputs, n_mels=1, silence=-1.0)])
        # The known length of the track is the end of its last complete frame.
        blocks, known = [], 0
        for chunk in chunks[:-1]:
            known += len(chunk)
            end = grid.frames.start(known - 1) + grid.frames.n_fft if known else 0
            blocks.append(cutter.push([chunk], n_samples=min(end, n_samples)).inputs[0])
        blocks.append(cutter.finish([chunks[-1]], n_samples=n_samples).inputs[0])
        return Strip.joined(blocks).windows().arrays[0]

    cut = windows([frames[begin:end] for begin, end in pairwise(cuts)])
    whole = windows([frames])
    np.testing.assert_array_equal(cut, whole)
    assert len(whole) == len(list(grid.starts(n_samples)))


@st.composite
def scores(draw: st.DrawFn) -> WindowScores:
    """Generate scores of any number of windows, some of them silent."""
    n_windows = draw(st.integers(1, 40))
    raw = draw(arrays.arrays(np.float32, (n_windows, len(LABELS)), elements=st.floats(0, 1, width=32)))
    raw = raw + np.float32(1e-6)
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    silent = draw(arrays.arrays(np.bool_, n_windows))
    probabilities[silent] = 1 / len(LABELS)
    return WindowScores(np.arange(n_windows, dtype=np.float64), probabilities, silent)


@given(windows=scores(), temperature=st.floats(0.1, 10))
@ENOUGH
def test_shares_and_confidence_are_distributions(windows: WindowScores, temperature: float) -> None:
    for ranking in (summed_score(windows, LABELS), majority_vote(windows, LABELS)):
        if windows.silent.all():
            assert ranking.genre is None
            continue
        shares = [entry.share for entry in ranking.ranked]
        assert sum(shares) == pytest.approx(1.0)
        assert all(0 <= share <= 1 for share in shares)
        assert shares == sorted(shares, reverse=True)
        assert {entry.genre for entry in ranking.ranked} == set(LABELS)
        sure = confidence(ranking, CalibrationSpec(temperature=temperature))
        assert 1 / len(LABELS) - 1e-9 <= sure <= 1 + 1e-9


@given(windows=scores(), window_s=st.floats(1, 10))
@ENOUGH
def test_sections_are_consecutive_and_cover_the_sound(windows: WindowScores, window_s: float) -> None:
    duration_s = float(windows.start_s[-1]) + window_s
    found = sections(windows, LABELS, window_s=window_s, duration_s=duration_s)
    assert bool(found) == (not windows.silent.all())
    edges = [edge for section in found for edge in (section.start_s, section.end_s)]
    assert edges == sorted(edges)
    assert all(0 <= edge <= duration_s for edge in edges)
    assert all(section.start_s < section.end_s for section in found)
    if not windows.silent.any():
        assert (edges[0], edges[-1]) == (0.0, duration_s)


@given(content=st.binary(min_size=1, max_size=3000), name=st.text(max_size=40), cut=st.integers(1, 200))
@ENOUGH
def test_a_form_returns_the_file_that_was_encoded(content: bytes, name: str, cut: int) -> None:
    boundary = "boundary-that-is-not-in-there"
    quoted = "".join(letter for letter in name if letter.isprintable() and letter not in '"\\')
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{quoted}"\r\n\r\n'
    body = head.encode("utf-8", errors="ignore") + content + f"\r\n--{boundary}--\r\n".encode()
    upload, found = receive(body, f"multipart/form-data; boundary={boundary}", cut)
    assert found == content
    assert upload == len(content)


@given(body=st.binary(max_size=2000), kind=st.sampled_from([None, "multipart/form-data; boundary=XX", "audio/mpeg"]))
@ENOUGH
def test_any_body_is_received_or_refused(body: bytes, kind: str | None) -> None:
    try:
        _, found = receive(body, kind, 100)
    except ServiceError as error:
        assert error.kind is ErrorKind.MALFORMED_REQUEST  # noqa: PT017 - both outcomes are valid
    else:
        assert found in body


def receive(body: bytes, kind: str | None, cut: int) -> tuple[int, bytes]:
    """Send a body in chunks, and return its size and the bytes on disk."""
    chunks = [body[i : i + cut] for i in range(0, len(body), cut)]
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    waiting = iter([*messages, {"type": "http.request", "body": b""}])
    headers = [(b"content-type", kind.encode())] if kind else []

    async def next_message() -> Message:
        return next(waiting)

    async def go() -> tuple[int, bytes]:
        request = Request({"type": "http", "method": "POST", "headers": headers}, next_message)
        with tempfile.TemporaryDirectory() as folder:
            async with receive_upload(request, Path(folder), UploadLimits(10**6, 1, 60.0)) as upload:
                return upload.n_bytes, upload.path.read_bytes()

    return asyncio.run(go())


LOG_FRAGMENTS = st.sampled_from(
    [
        *("[info] Input #0, mp3, from ", "[info]   Duration: ", "[info]   Stream #0:0", ": Audio: ", "44100 Hz, "),
        *("[error] ", "[mp3 @ 0x1] ", "Codec (mp3) not on whitelist", "\n", ", ", "9" * 50, "ambisonic 999+", "stereo"),
    ]
)


@given(text=st.lists(LOG_FRAGMENTS | st.text(max_size=20), max_size=60).map("".join))
@ENOUGH
def test_any_log_of_ffmpeg_can_be_parsed(text: str) -> None:
    log = FfmpegLog("")
    log.feed(f"[info] Input #0, mp3, from 'x':\n{text}\n".encode())
    assert log.opened
    if log.stream:
        assert 0 <= log.stream.sample_rate_hz < 10**10
        assert log.stream.channels >= 0
    # Without the marker, nothing in the text describes a stream.
    marked = FfmpegLog("0123456789abcdef:")
    marked.feed(f"{text}\n".encode())
    assert marked.stream is None


STARTS = (
    *(b"", b"RIFF\0\0\0\0WAVE", b"RF64\0\0\0\0WAVEds64", b"riff\x2e\x91\xcf\x11", b"OggS", b"fLaC", b"PK\3\4"),
    *(b"ID3\3\0\0\0\0\0\0", b"TAG", b"\xff\xfbAPETAGEX", b"LYRICSBEGIN"),
)


@given(content=st.binary(max_size=300), start=st.sampled_from(STARTS))
@ENOUGH
def test_any_file_can_be_inspected(content: bytes, start: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(start + content)
        file.flush()
        path = Path(file.name)
        found = find_audio_parts(path)
        ranges = [span for part in found.parts for span in part.ranges]
        assert all(0 <= begin < end <= len(start + content) for begin, end in ranges)
        assert ranges == sorted(ranges)
        assert has_accepted_signature(path) in (False, True)
        assert is_archive(path) or start != b"PK\3\4"
