"""What must be true of every answer, whatever file was sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import numpy as np
from pydantic import ValidationError

from wholetrack.api.problems import MEDIA_TYPE, Problem
from wholetrack.api.schemas import MajorityVote, Prediction, PredictionResponse, SummedScore, Windows
from wholetrack.decoding.ffmpeg import CODECS, FORMATS
from wholetrack.errors import ErrorKind

EARNED_BY_A_FILE = frozenset(
    {
        ErrorKind.UPLOAD_TOO_LARGE,
        ErrorKind.AUDIO_TOO_LONG,
        ErrorKind.UNSUPPORTED_MEDIA,
        ErrorKind.UNDECODABLE_AUDIO,
        ErrorKind.NO_AUDIO_STREAM,
        ErrorKind.EMPTY_AUDIO,
    }
)
"""The errors of the table that a file by itself may bring upon its sender."""

# A probability has six decimals in an answer; a row of ten may be off by ten halves of the last one, and float32 adds.
_ROW_TOLERANCE = 1e-3
_TOLERANCE = 1e-5
# What ffmpeg, Python or the file system would say; a sentence of the service has none of it.
_FOREIGN_WORDS = re.compile(
    r"/|\\|0x[0-9a-f]|@|ffmpeg|libav|demux|muxer|moov|atom|invalid data|header missing|whitelist|conversion failed"
    r"|could not find codec|end of file|errno|traceback|exception|nonetype|descriptor",
    re.IGNORECASE,
)


def complaints(response: httpx.Response, *, max_duration_s: float) -> Iterator[str]:
    """What is wrong with an answer to a prediction that asked for all genres and all windows; nothing if it is right.

    Args:
        response: to a file of at least one byte.
        max_duration_s: the service's limit.
    """
    try:
        body = json.loads(response.content)
    except ValueError:
        yield f"{response.status_code} is no JSON"
        return
    if response.status_code == 200:
        yield from _of_an_answer(body, max_duration_s)
    else:
        yield from _of_a_problem(response, body)


def _of_a_problem(response: httpx.Response, body: Any) -> Iterator[str]:
    if response.headers.get("content-type") != MEDIA_TYPE:
        yield f"{response.status_code} is no problem document but {response.headers.get('content-type')}"
    try:
        problem = Problem.model_validate(body, strict=True)
    except ValidationError as error:
        yield f"{response.status_code} is no problem document: {error}"
        return
    if (response.status_code, problem.code) not in {(kind.status, kind.code) for kind in EARNED_BY_A_FILE}:
        yield f"{response.status_code} {problem.code} is no error that a file can earn: {problem.detail}"
    if problem.status != response.status_code:
        yield f"the problem says {problem.status}, its response {response.status_code}"
    if found := _FOREIGN_WORDS.search(problem.detail):
        yield f"the detail says {found[0]!r}: {problem.detail}"
    if not problem.detail.endswith("."):
        yield f"the detail is no sentence: {problem.detail}"


def _of_an_answer(body: Any, max_duration_s: float) -> Iterator[str]:
    try:
        # A number that is none becomes null in JSON, which the wire format does not allow.
        answer = PredictionResponse.model_validate_json(json.dumps(body), strict=True)
    except ValidationError as error:
        yield f"the answer does not keep its format: {error}"
        return
    track = answer.track
    if not 0 < track.duration_s <= max_duration_s:
        yield f"the track lasts {track.duration_s} s"
    # ffmpeg's own limits: 32 bits with a sign, and 512 channels in any of its containers.
    if not 1 <= track.sample_rate_hz < 1 << 31 or not 1 <= track.channels <= 512:
        yield f"the track has {track.sample_rate_hz} Hz and {track.channels} channels"
    if track.codec not in CODECS or not set(FORMATS) & set(track.container.split(",")):
        yield f"the track is {track.codec} in {track.container}, which is not accepted"
    of_windows = list(_of_windows(answer.windows, answer.model.labels, track.duration_s))
    yield from of_windows
    if not of_windows:
        yield from _of_the_prediction(answer.prediction, answer.windows, answer.model.labels)
    yield from _of_sections(answer)
    for remark in answer.warnings:
        if found := _FOREIGN_WORDS.search(remark.detail):
            yield f"a warning says {found[0]!r}: {remark.detail}"


def _of_windows(windows: Windows, labels: Sequence[str], duration_s: float) -> Iterator[str]:
    lengths = {len(windows.start_s), len(windows.genre), len(windows.probabilities)}
    if lengths != {windows.count} or windows.count < 1:
        yield f"{windows.count} windows, but lists of {sorted(lengths)}"
        return
    starts = np.array(windows.start_s)
    if starts[0] != 0 or (np.diff(starts) <= 0).any() or starts[-1] >= duration_s:
        yield f"windows start at {windows.start_s} in a track of {duration_s} s"
    if {len(row) for row in windows.probabilities} != {len(labels)}:
        yield f"rows are not as long as the {len(labels)} labels"
        return
    rows = np.array(windows.probabilities)
    if not np.isfinite(rows).all() or rows.min() < 0 or rows.max() > 1:
        yield f"probabilities between {rows.min()} and {rows.max()}"
    if np.abs(rows.sum(axis=1) - 1).max() > _ROW_TOLERANCE:
        yield f"a row's probabilities add up to {rows.sum(axis=1)[np.abs(rows.sum(axis=1) - 1).argmax()]}"
    silent = {index for index, genre in enumerate(windows.genre) if genre is None}
    if silent != set(windows.silent) or sorted(windows.silent) != windows.silent:
        yield f"silent are {windows.silent}, without a genre {sorted(silent)}"
    for row, genre in zip(rows, windows.genre, strict=True):
        if genre is None and np.ptp(row) > _TOLERANCE:
            yield f"a silent window has an opinion: {row}"
        if genre is not None and (genre not in labels or row[labels.index(genre)] < row.max() - _TOLERANCE):
            yield f"a window's genre is {genre}, but its probabilities are {row}"


def _of_the_prediction(prediction: Prediction, windows: Windows, labels: Sequence[str]) -> Iterator[str]:
    summed, voted = prediction.summed_score, prediction.majority_vote
    heard = [index for index, genre in enumerate(windows.genre) if genre is not None]
    if not 0 <= prediction.confidence <= 1:
        yield f"the confidence is {prediction.confidence}"
    if prediction.agreement is not (summed.genre == voted.genre):
        yield f"agreement is {prediction.agreement} between {summed.genre} and {voted.genre}"
    if not heard:
        if (summed.genre, summed.share, summed.top_k) != (None, 0.0, []) or (voted.genre, voted.top_k) != (None, []):
            yield "a silent track has a genre"
        return
    yield from _of_the_order("summed_score", summed, labels)
    yield from _of_the_order("majority_vote", voted, labels)
    votes = [genre for genre in windows.genre if genre is not None]
    for entry in voted.top_k:
        if entry.windows != votes.count(entry.genre) or abs(entry.share - entry.windows / len(votes)) > _TOLERANCE:
            yield f"{entry.genre} has {entry.windows} votes and {entry.share}, of {votes.count(entry.genre)} windows"
    means = dict(zip(labels, np.array(windows.probabilities)[heard].mean(axis=0), strict=True))
    for ranked in summed.top_k:
        if abs(ranked.share - means[ranked.genre]) > _TOLERANCE:
            yield f"{ranked.genre} has the share {ranked.share}, but {means[ranked.genre]} on average"


def _of_the_order(name: str, ranking: SummedScore | MajorityVote, labels: Sequence[str]) -> Iterator[str]:
    shares = [entry.share for entry in ranking.top_k]
    if sorted(entry.genre for entry in ranking.top_k) != sorted(labels):
        yield f"{name} does not rank all genres: {ranking.top_k}"
    elif (ranking.genre, ranking.share) != (ranking.top_k[0].genre, shares[0]):
        yield f"{name} names {ranking.genre} with {ranking.share}, but ranks {ranking.top_k[0]} first"
    elif shares != sorted(shares, reverse=True) or min(shares) < 0 or abs(sum(shares) - 1) > _TOLERANCE:
        yield f"{name} has the shares {shares}"


def _of_sections(answer: PredictionResponse) -> Iterator[str]:
    last_s = 0.0
    for section in answer.sections:
        # Borders have three decimals.
        if not last_s <= section.start_s <= section.end_s <= answer.track.duration_s + 1e-3:
            yield f"a section from {section.start_s} s to {section.end_s} s follows one to {last_s} s"
        if section.genre not in answer.model.labels or not 0 <= section.share <= 1:
            yield f"a section of {section.genre} has the share {section.share}"
        last_s = section.end_s
