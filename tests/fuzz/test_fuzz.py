"""A short campaign, and tests of the mutations and the expectations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.fuzz.campaign import run_campaign
from tests.fuzz.corpus import SECONDS, Origin, fingerprint, generated, real
from tests.fuzz.expectations import problems_of
from tests.fuzz.mutations import MAX_GROWTH, MUTATIONS, Mutation, fix_checksums, make_mutant
from tests.harness.recordings import Recorder, generate_tune, wav_bytes
from wholetrack.api.problems import MEDIA_TYPE, Problem
from wholetrack.api.responses import SourceFile, prediction_response
from wholetrack.api.schemas import WindowDetail
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.pipeline import Pipeline

FILES = 120
MAX_DURATION_S = 30.0


@pytest.fixture(scope="module")
def origins(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Origin, ...]:
    return tuple(generated(recorder, tmp_path_factory.mktemp("corpus")))


def test_damaged_files_get_predictions_or_documented_errors(origins: tuple[Origin, ...], tmp_path: Path) -> None:
    result = run_campaign((*origins, *real()), files=FILES, seed=1, clients=3, keep=tmp_path / "findings")
    assert result.violations == ()
    assert sum(result.statuses.values()) == FILES
    # Mutants that are all refused without decoding, or all decoded without an error, would show nothing.
    assert 0.3 * FILES < result.statuses[200] < 0.9 * FILES
    assert len(result.containers) >= 8
    assert len(result.codes) >= 3
    assert result.warnings["damaged"] > 10


def test_a_campaign_reports_violations(
    origins: tuple[Origin, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never_refused(response: httpx.Response) -> list[str]:
        return [] if response.status_code == 200 else [f"refused with {response.status_code}"]

    monkeypatch.setattr("tests.fuzz.campaign.MAX_GROWTH_MIB", -1e6)
    result = run_campaign(origins, files=20, seed=3, clients=2, keep=tmp_path, check=never_refused)
    *refused, grown = result.violations
    assert grown.problem.startswith("the memory of the service grew")
    assert grown.number is None
    assert 0 < len(refused) == 20 - result.statuses[200]
    assert {violation.seed for violation in result.violations} == {3}
    assert all(violation.problem.startswith("refused with 4") for violation in refused)
    assert {path.stem for path in tmp_path.iterdir()} == {*(f"3-{one.number}" for one in refused), "violations", "log"}


@pytest.mark.long
def test_generated_files_are_valid_and_reproducible(
    origins: tuple[Origin, ...], decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path
) -> None:
    path = tmp_path / "origin"
    for origin in origins:
        path.write_bytes(origin.content)
        with decoder.open(path, sample_rate=22050, max_duration_s=MAX_DURATION_S) as decoding:
            assert sum(map(len, decoding.blocks())) > 0
            decoded = decoding.summary()
        assert decoded.duration_s == pytest.approx(SECONDS, abs=0.2), origin.name
        assert decoded.warnings == (), origin.name
    again = tmp_path / "again"
    again.mkdir()
    assert fingerprint(tuple(generated(recorder, again))) == fingerprint(origins)


@pytest.mark.parametrize("mutation", dict.fromkeys(MUTATIONS), ids=lambda mutation: mutation.__name__)
@pytest.mark.parametrize("size", [1, 2, 700, 50_000])
def test_a_mutation_is_reproducible_changes_bytes_and_limits_the_size(
    mutation: Mutation, size: int, rng: np.random.Generator
) -> None:
    content, others = rng.bytes(size), [rng.bytes(30_000), rng.bytes(3)]
    mutants = [mutation(content, np.random.default_rng(number), others) for number in range(100)]
    assert mutants == [mutation(content, np.random.default_rng(number), others) for number in range(100)]
    assert all(0 < len(one) <= 2 * max(size, 30_000) for one in mutants)
    changed = sum(one != content for one in mutants)
    # With one or two bytes, a block may be empty or the same as the one it replaces.
    assert changed >= (95 if size > 2 else 0)


def test_a_mutant_is_reproducible_differs_from_its_origin_and_has_a_limited_size(origins: tuple[Origin, ...]) -> None:
    contents = {origin.name: origin.content for origin in origins}
    used: Counter[str] = Counter()
    for number in range(300):
        mutant = make_mutant(origins, 5, number)
        assert mutant == make_mutant(origins, 5, number)
        assert mutant.content != contents[mutant.origins[0]]
        assert 0 < len(mutant.content) <= MAX_GROWTH * max(len(contents[name]) for name in mutant.origins)
        used.update(set(mutant.mutations))
    assert set(used) >= {mutation.__name__ for mutation in MUTATIONS}
    assert make_mutant(origins, 5, 0) != make_mutant(origins, 6, 0)


def test_checksums_of_ogg_pages_are_fixed(origins: tuple[Origin, ...]) -> None:
    ogg = next(origin.content for origin in origins if origin.suffix == "opus")
    assert fix_checksums(ogg) == ogg
    damaged = ogg[:22] + b"\0\0\0\0" + ogg[26:]
    assert damaged != ogg
    assert fix_checksums(damaged) == ogg
    assert fix_checksums(ogg[:-1]) == ogg[:-1]
    assert fix_checksums(b"OggS") == b"OggS"


@pytest.fixture(scope="module")
def valid(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of a correct prediction for a tune that ends with five seconds of silence."""
    path = tmp_path_factory.mktemp("valid") / "tune.wav"
    path.write_bytes(wav_bytes(np.concatenate((generate_tune(SECONDS), np.zeros(5 * 22050, dtype=np.float32))), 22050))
    found = pipeline.predict(path, max_duration_s=MAX_DURATION_S)
    source = SourceFile("tune.wav", "0" * 64, 1, 0.0)
    full = prediction_response(found, source, top_k=len(found.card.labels), detail=WindowDetail.FULL)
    body: dict[str, Any] = full.model_dump(mode="json")
    assert body["windows"]["silent"]
    return body


def problems(body: dict[str, Any], status: int = 200, kind: str = "application/json") -> list[str]:
    response = httpx.Response(status, json=body, headers={"content-type": kind})
    return list(problems_of(response, max_duration_s=MAX_DURATION_S))


def test_a_correct_prediction_has_no_problems(valid: dict[str, Any]) -> None:
    assert problems(valid) == []


def _set(body: Any, *path: str | int, to: Any) -> None:
    for step in path[:-1]:
        body = body[step]
    body[path[-1]] = to(body[path[-1]]) if callable(to) else to


@pytest.mark.parametrize(
    ("path", "to", "problem"),
    [
        (("windows", "probabilities", 0, 0), 1.5, "probabilities between"),
        (("windows", "probabilities", 0, 0), None, "schema"),
        (("windows", "probabilities", 0, 0), lambda p: p + 0.002, "add up to"),
        (("windows", "probabilities", 0), lambda row: row[:-1], "not every row"),
        (("windows", "probabilities"), lambda rows: rows[:-1], "lists of"),
        (("windows", "probabilities", 0), lambda row: [*row[1:], row[0]], "a window's genre"),
        (("windows", "count"), 99, "lists of"),
        (("windows", "silent"), [], "silent windows are"),
        (("windows", "start_s", 1), 0.0, "windows start at"),
        (("windows", "genre", 0), "polka", "a window's genre"),
        (("track", "duration_s"), 0.0, "the track lasts"),
        (("track", "duration_s"), 31.0, "the track lasts"),
        (("track", "duration_s"), None, "schema"),
        (("track", "channels"), 0, "0 channels"),
        (("track", "sample_rate_hz"), 10**400, "channels"),
        (("track", "codec"), "mine", "not accepted"),
        (("track", "container"), "hls", "not accepted"),
        (("prediction", "confidence"), 1.01, "confidence"),
        (("prediction", "agreement"), lambda agreed: not agreed, "agreement"),
        (("prediction", "summed_score", "share"), 0.001, "ranks"),
        (("prediction", "summed_score", "top_k", 0, "share"), 1.2, "summed_score"),
        (("prediction", "summed_score", "top_k"), lambda ranked: ranked[:-1], "does not rank all"),
        (("prediction", "summed_score", "top_k"), lambda ranked: ranked[::-1], "ranks"),
        (("prediction", "majority_vote", "genre"), "polka", "ranks"),
        (("prediction", "majority_vote", "top_k", 0, "windows"), 1000, "votes"),
        (("sections", 0, "end_s"), 99.0, "a section"),
        (("sections", 0, "genre"), "polka", "a section"),
        (("warnings", 0, "detail"), "moov atom not found.", "moov"),
        (("warnings", 0, "code"), "odd", "schema"),
    ],
)
def test_an_incorrect_prediction_is_reported(
    valid: dict[str, Any], path: tuple[str | int, ...], to: Callable[[Any], Any] | Any, problem: str
) -> None:
    body = httpx.Response(200, json=valid).json()
    _set(body, *path, to=to)
    assert any(problem in one for one in problems(body)), problems(body)


def test_a_documented_error_has_no_problems() -> None:
    assert _problems_of_error(ErrorKind.EMPTY_AUDIO, "The recording is empty.") == []


@pytest.mark.parametrize("kind", [kind for kind in ErrorKind if kind.status >= 500 or kind is ErrorKind.OVERLOADED])
def test_an_error_that_no_file_can_cause_is_reported(kind: ErrorKind) -> None:
    (problem,) = _problems_of_error(kind, "Something happened.")
    assert "not an error that a file can cause" in problem


@pytest.mark.parametrize(
    "detail",
    [
        "moov atom not found.",
        "Invalid data found when processing input.",
        "file:/dev/fd/17 cannot be opened.",
        "[mov @ 0x55d0] broken.",
        "No full stop",
    ],
)
def test_text_of_ffmpeg_or_the_system_in_an_error_is_reported(detail: str) -> None:
    assert len(_problems_of_error(ErrorKind.UNDECODABLE_AUDIO, detail)) == 1


def test_a_body_that_is_not_a_problem_document_is_reported() -> None:
    assert problems({}, 422, MEDIA_TYPE)
    assert problems({"detail": "no"}, 500)
    assert list(problems_of(httpx.Response(500, text="Internal Server Error"), max_duration_s=MAX_DURATION_S))
    problem = Problem.of(ServiceError(ErrorKind.EMPTY_AUDIO, "It is empty."), request_id=None).model_dump()
    assert problems(problem, 422, "application/json")
    assert problems(problem, 415, MEDIA_TYPE)
    assert problems({**problem, "code": "odd"}, 422, MEDIA_TYPE)


def _problems_of_error(kind: ErrorKind, detail: str) -> list[str]:
    document = Problem.of(ServiceError(kind, detail), request_id="1" * 32)
    return problems(document.model_dump(), kind.status, MEDIA_TYPE)
