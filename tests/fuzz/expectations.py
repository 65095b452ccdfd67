"""What must be true of every response, whatever file was sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import numpy as np
from pydantic import ValidationError

from wholetrack.api.problems import MEDIA_TYPE, Problem
from wholetrack.api.schemas import MajorityVote, Prediction, PredictionResponse, SummedScore, Track, Windows
from wholetrack.decoding.ffmpeg import CODECS, FORMATS
from wholetrack.errors import ErrorKind

CAUSED_BY_FILES = frozenset(
    {
        ErrorKind.UPLOAD_TOO_LARGE,
        ErrorKind.AUDIO_TOO_LONG,
        ErrorKind.UNSUPPORTED_MEDIA,
        ErrorKind.UNDECODABLE_AUDIO,
        ErrorKind.NO_AUDIO_STREAM,
        ErrorKind.EMPTY_AUDIO,
    }
)
"""The errors that a file alone can cause."""

# Probabilities have four decimals in a response: a row of ten may be off by ten half units of the last decimal, plus
# the rounding of float32.
_ROW_TOLERANCE = 1e-3
_TOLERANCE = 6e-5
# Sections have three decimals.
_SECTION_TOLERANCE_S = 1e-3
# ffmpeg's own limits: signed 32-bit sample rates, and 512 channels in any container.
_MAX_RATE_HZ, _MAX_CHANNELS = (1 << 31) - 1, 512
# Text of ffmpeg, Python or the file system, which sentences of the service never contain.
_FOREIGN_TEXT = re.compile(
    r"/|\\|0x[0-9a-f]|@|ffmpeg|libav|demux|muxer|moov|atom|invalid data|header missing|whitelist|conversion failed"
    r"|could not find codec|end of file|errno|traceback|exception|nonetype|descriptor",
    re.IGNORECASE,
)


def problems_of(response: httpx.Response, *, max_duration_s: float) -> Iterator[str]:
    """Yield what is wrong with the response to a request for all genres and all windows.

    Args:
        response: The response to a file of at least one byte.
        max_duration_s: The service's limit.
    """
    try:
        body = json.loads(response.content)
    except ValueError:
        yield f"{response.status_code} is not JSON"
        return
    if response.status_code == 200:
        yield from _of_prediction(body, max_duration_s)
    else:
        yield from _of_error(response, body)


def _of_error(response: httpx.Response, body: Any) -> Iterator[str]:
    if response.headers.get("content-type") != MEDIA_TYPE:
        yield f"{response.status_code} is not a problem document but {response.headers.get('content-type')}"
    try:
        problem = Problem.model_validate(body, strict=True)
    except ValidationError as error:
        yield f"{response.status_code} is not a problem document: {error}"
        return
    if (response.status_code, problem.code) not in {(kind.status, kind.code) for kind in CAUSED_BY_FILES}:
        yield f"{response.status_code} {problem.code} is not an error that a file can cause: {problem.detail}"
    if problem.status != response.status_code:
        yield f"the problem states {problem.status}, its response {response.status_code}"
    if found := _FOREIGN_TEXT.search(problem.detail):
        yield f"the detail contains {found[0]!r}: {problem.detail}"
    if not problem.detail.endswith("."):
        yield f"the detail is not a sentence: {problem.detail}"


def _of_prediction(body: Any, max_duration_s: float) -> Iterator[str]:
    try:
        # NaN and infinity become null in JSON, which the schema does not allow.
        answer = PredictionResponse.model_validate_json(json.dumps(body), strict=True)
    except ValidationError as error:
        yield f"the prediction does not match its schema: {error}"
        return
    labels = answer.model.labels
    yield from _of_track(answer.track, max_duration_s)
    of_windows = list(_of_windows(answer.windows, labels, answer.track.duration_s))
    yield from of_windows
    if not of_windows:
        yield from _of_rankings(answer.prediction, answer.windows, labels)
    yield from _of_sections(answer)
    for warning in answer.warnings:
        if found := _FOREIGN_TEXT.search(warning.detail):
            yield f"a warning contains {found[0]!r}: {warning.detail}"


def _of_track(track: Track, max_duration_s: float) -> Iterator[str]:
    if not 0 < track.duration_s <= max_duration_s:
        yield f"the track lasts {track.duration_s} s"
    if not 1 <= track.sample_rate_hz <= _MAX_RATE_HZ or not 1 <= track.channels <= _MAX_CHANNELS:
        yield f"the track has {track.sample_rate_hz} Hz and {track.channels} channels"
    if track.codec not in CODECS or not set(FORMATS) & set(track.container.split(",")):
        yield f"the track is {track.codec} in {track.container}, which is not accepted"


def _of_windows(windows: Windows, labels: Sequence[str], duration_s: float) -> Iterator[str]:
    lengths = {len(windows.start_s), len(windows.genre), len(windows.probabilities)}
    if lengths != {windows.count} or windows.count < 1:
        yield f"{windows.count} windows, but lists of {sorted(lengths)}"
        return
    starts = np.array(windows.start_s)
    if starts[0] != 0 or (np.diff(starts) <= 0).any() or starts[-1] >= duration_s:
        yield f"windows start at {windows.start_s} in a track of {duration_s} s"
    if {len(row) for row in windows.probabilities} != {len(labels)}:
        yield f"not every row has {len(labels)} probabilities"
        return
    rows = np.array(windows.probabilities)
    if not np.isfinite(rows).all() or rows.min() < 0 or rows.max() > 1:
        yield f"probabilities between {rows.min()} and {rows.max()}"
    sums = rows.sum(axis=1)
    if np.abs(sums - 1).max() > _ROW_TOLERANCE:
        yield f"the probabilities of a window add up to {sums[np.abs(sums - 1).argmax()]}"
    silent = {index for index, genre in enumerate(windows.genre) if genre is None}
    if silent != set(windows.silent) or sorted(windows.silent) != windows.silent:
        yield f"silent windows are {windows.silent}, windows without a genre {sorted(silent)}"
    for row, genre in zip(rows, windows.genre, strict=True):
        if genre is None and np.ptp(row) > _TOLERANCE:
            yield f"a silent window prefers a genre: {row}"
        if genre is not None and (genre not in labels or row[labels.index(genre)] < row.max() - _TOLERANCE):
            yield f"a window's genre is {genre}, but its probabilities are {row}"


def _of_rankings(prediction: Prediction, windows: Windows, labels: Sequence[str]) -> Iterator[str]:
    summed, voted = prediction.summed_score, prediction.majority_vote
    if not 0 <= prediction.confidence <= 1:
        yield f"the confidence is {prediction.confidence}"
    if prediction.agreement is not (summed.genre == voted.genre):
        yield f"agreement is {prediction.agreement} between {summed.genre} and {voted.genre}"
    votes = [genre for genre in windows.genre if genre is not None]
    if not votes:
        if (summed.genre, summed.share, summed.top_k) != (None, 0.0, []) or (voted.genre, voted.top_k) != (None, []):
            yield "a silent track has a genre"
        return
    yield from _of_ranking("summed_score", summed, labels)
    yield from _of_ranking("majority_vote", voted, labels)
    for entry in voted.top_k:
        if entry.windows != votes.count(entry.genre) or abs(entry.share - entry.windows / len(votes)) > _TOLERANCE:
            yield f"{entry.genre} has {entry.windows} votes and {entry.share}, of {votes.count(entry.genre)} windows"
    not_silent = [index for index, genre in enumerate(windows.genre) if genre is not None]
    means = dict(zip(labels, np.array(windows.probabilities)[not_silent].mean(axis=0), strict=True))
    for ranked in summed.top_k:
        if abs(ranked.share - means[ranked.genre]) > _TOLERANCE:
            yield f"{ranked.genre} has the share {ranked.share}, but its mean probability is {means[ranked.genre]}"


def _of_ranking(name: str, ranking: SummedScore | MajorityVote, labels: Sequence[str]) -> Iterator[str]:
    shares = [entry.share for entry in ranking.top_k]
    if sorted(entry.genre for entry in ranking.top_k) != sorted(labels):
        yield f"{name} does not rank all genres: {ranking.top_k}"
    elif (ranking.genre, ranking.share) != (ranking.top_k[0].genre, shares[0]):
        yield f"{name} names {ranking.genre} with {ranking.share}, but ranks {ranking.top_k[0]} first"
    elif shares != sorted(shares, reverse=True) or min(shares) < 0 or abs(sum(shares) - 1) > _TOLERANCE:
        yield f"{name} has the shares {shares}"


def _of_sections(answer: PredictionResponse) -> Iterator[str]:
    last_s, end_s = 0.0, answer.track.duration_s + _SECTION_TOLERANCE_S
    for section in answer.sections:
        if not last_s <= section.start_s <= section.end_s <= end_s:
            yield f"a section from {section.start_s} s to {section.end_s} s follows one that ends at {last_s} s"
        if section.genre not in answer.model.labels or not 0 <= section.share <= 1:
            yield f"a section of {section.genre} has the share {section.share}"
        last_s = section.end_s
