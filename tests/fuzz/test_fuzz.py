"""A short campaign, and whether mutations and expectations are what they should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.fuzz.campaign import campaign
from tests.fuzz.corpus import SECONDS, Origin, fingerprint, made, tune
from tests.fuzz.expectations import complaints
from tests.fuzz.mutations import LARGEST, MUTATIONS, Mutation, mutant, with_right_checksums
from tests.harness.recordings import Recorder, wav_bytes
from wholetrack.api.problems import MEDIA_TYPE, Problem
from wholetrack.api.responses import SourceFile, prediction_response
from wholetrack.api.schemas import WindowDetail
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.errors import ErrorKind
from wholetrack.pipeline import Pipeline

FILES = 200
LIMIT_S = 30.0


@pytest.fixture(scope="module")
def origins(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Origin, ...]:
    return tuple(made(recorder, tmp_path_factory.mktemp("corpus")))


def test_the_service_stands_what_is_done_to_files(tmp_path: Path) -> None:
    found = campaign(files=FILES, seed=1, clients=3, keep=tmp_path / "finds")
    assert found.violations == ()
    assert sum(found.statuses.values()) == FILES
    # Files that are all refused at the door, or all heard as if nothing were wrong, would show nothing.
    assert 0.3 * FILES < found.statuses[200] < 0.9 * FILES
    assert len(found.containers) >= 8
    assert len(found.codes) >= 3
    assert found.warnings["damaged"] > 10


def test_a_campaign_tells_of_what_it_does_not_expect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never_refused(response: httpx.Response) -> list[str]:
        return [] if response.status_code == 200 else [f"refused with {response.status_code}"]

    monkeypatch.setattr("tests.fuzz.campaign.GROWTH_MIB", -1e6)
    found = campaign(files=20, seed=3, clients=2, keep=tmp_path, complain=never_refused)
    *refused, grown = found.violations
    assert "memory grew" in grown.what
    assert grown.number is None
    assert 0 < len(refused) == 20 - found.statuses[200]
    assert {violation.seed for violation in found.violations} == {3}
    assert all(violation.what.startswith("refused with 4") for violation in refused)
    assert {path.stem for path in tmp_path.iterdir()} == {*(f"3-{one.number}" for one in refused), "violations", "log"}


def test_good_files_are_good_and_the_same_every_time(
    origins: tuple[Origin, ...], decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path
) -> None:
    path = tmp_path / "origin"
    for origin in origins:
        path.write_bytes(origin.content)
        with decoder.open(path, sample_rate=22050, max_duration_s=LIMIT_S) as decoding:
            assert sum(map(len, decoding.blocks())) > 0
            heard = decoding.summary()
        assert heard.duration_s == pytest.approx(SECONDS, abs=0.2), origin.name
        assert heard.warnings == (), origin.name
    again = tmp_path / "again"
    again.mkdir()
    assert fingerprint(tuple(made(recorder, again))) == fingerprint(origins)


@pytest.mark.parametrize("mutation", dict.fromkeys(MUTATIONS), ids=lambda mutation: mutation.__name__)
@pytest.mark.parametrize("size", [1, 2, 700, 50_000])
def test_a_mutation_is_determined_changes_bytes_and_is_bounded(
    mutation: Mutation, size: int, rng: np.random.Generator
) -> None:
    content, others = rng.bytes(size), [rng.bytes(30_000), rng.bytes(3)]
    mutants = [mutation(content, np.random.default_rng(number), others) for number in range(100)]
    assert mutants == [mutation(content, np.random.default_rng(number), others) for number in range(100)]
    assert all(0 < len(one) <= 2 * max(size, 30_000) for one in mutants)
    changed = sum(one != content for one in mutants)
    # Half of a single byte is nothing, and two slices of nothing can change places.
    assert changed >= (95 if size > 2 else 0)


def test_a_mutant_is_determined_by_two_numbers_differs_and_is_bounded(origins: tuple[Origin, ...]) -> None:
    contents = {origin.name: origin.content for origin in origins}
    done: Counter[str] = Counter()
    for number in range(300):
        made_of = mutant(origins, 5, number)
        assert made_of == mutant(origins, 5, number)
        assert made_of.content != contents[made_of.origins[0]]
        assert 0 < len(made_of.content) <= LARGEST * max(len(contents[name]) for name in made_of.origins)
        done.update(set(made_of.mutations))
    assert set(done) >= {mutation.__name__ for mutation in MUTATIONS}
    assert mutant(origins, 5, 0) != mutant(origins, 6, 0)


def test_checksums_of_ogg_pages_are_made_right(origins: tuple[Origin, ...]) -> None:
    ogg = next(origin.content for origin in origins if origin.suffix == "opus")
    assert with_right_checksums(ogg) == ogg
    damaged = ogg[:22] + b"\0\0\0\0" + ogg[26:]
    assert damaged != ogg
    assert with_right_checksums(damaged) == ogg
    assert with_right_checksums(ogg[:-1]) == ogg[:-1]
    assert with_right_checksums(b"OggS") == b"OggS"


@pytest.fixture(scope="module")
def right(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A right answer about a tune with two seconds of silence, as JSON."""
    path = tmp_path_factory.mktemp("right") / "tune.wav"
    path.write_bytes(wav_bytes(np.concatenate((tune(), np.zeros(5 * 22050, dtype=np.float32))), 22050))
    found = pipeline.predict(path, max_duration_s=LIMIT_S)
    source = SourceFile("tune.wav", "0" * 64, 1, 0.0)
    full = prediction_response(found, source, top_k=len(found.card.labels), detail=WindowDetail.FULL)
    body: dict[str, Any] = full.model_dump(mode="json")
    assert body["windows"]["silent"]
    return body


def complaints_about(body: dict[str, Any], status: int = 200, kind: str = "application/json") -> list[str]:
    response = httpx.Response(status, json=body, headers={"content-type": kind})
    return list(complaints(response, max_duration_s=LIMIT_S))


def test_a_right_answer_is_not_complained_about(right: dict[str, Any]) -> None:
    assert complaints_about(right) == []


def _set(body: Any, *path: str | int, to: Any) -> None:
    for step in path[:-1]:
        body = body[step]
    body[path[-1]] = to(body[path[-1]]) if callable(to) else to


@pytest.mark.parametrize(
    ("path", "to", "complaint"),
    [
        (("windows", "probabilities", 0, 0), 1.5, "probabilities between"),
        (("windows", "probabilities", 0, 0), None, "format"),
        (("windows", "probabilities", 0, 0), lambda p: p + 0.002, "add up to"),
        (("windows", "probabilities", 0), lambda row: row[:-1], "not as long"),
        (("windows", "probabilities"), lambda rows: rows[:-1], "lists of"),
        (("windows", "probabilities", 0), lambda row: [*row[1:], row[0]], "a window's genre"),
        (("windows", "count"), 99, "lists of"),
        (("windows", "silent"), [], "silent are"),
        (("windows", "start_s", 1), 0.0, "windows start at"),
        (("windows", "genre", 0), "polka", "a window's genre"),
        (("track", "duration_s"), 0.0, "the track lasts"),
        (("track", "duration_s"), 31.0, "the track lasts"),
        (("track", "duration_s"), None, "format"),
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
        (("warnings", 0, "code"), "odd", "format"),
    ],
)
def test_a_wrong_answer_is_complained_about(
    right: dict[str, Any], path: tuple[str | int, ...], to: Callable[[Any], Any] | Any, complaint: str
) -> None:
    body = httpx.Response(200, json=right).json()
    _set(body, *path, to=to)
    assert any(complaint in one for one in complaints_about(body)), complaints_about(body)


def test_a_right_problem_is_not_complained_about() -> None:
    assert _complaints_about_a_problem(ErrorKind.EMPTY_AUDIO, "The recording is empty.") == []


@pytest.mark.parametrize("kind", [kind for kind in ErrorKind if kind.status >= 500 or kind is ErrorKind.OVERLOADED])
def test_an_error_that_no_file_earns_is_complained_about(kind: ErrorKind) -> None:
    (complaint,) = _complaints_about_a_problem(kind, "Something happened.")
    assert "no error that a file can earn" in complaint


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
def test_words_of_others_are_complained_about(detail: str) -> None:
    assert len(_complaints_about_a_problem(ErrorKind.UNDECODABLE_AUDIO, detail)) == 1


def test_what_is_no_problem_document_is_complained_about() -> None:
    assert complaints_about({}, 422, MEDIA_TYPE)
    assert complaints_about({"detail": "no"}, 500)
    assert list(complaints(httpx.Response(500, text="Internal Server Error"), max_duration_s=LIMIT_S))
    problem = Problem.of(ErrorKind.EMPTY_AUDIO, "The recording is empty.", request_id=None).model_dump()
    assert complaints_about(problem, 422, "application/json")
    assert complaints_about(problem, 415, MEDIA_TYPE)
    assert complaints_about({**problem, "code": "odd"}, 422, MEDIA_TYPE)


def _complaints_about_a_problem(kind: ErrorKind, detail: str) -> list[str]:
    problem = Problem.of(kind, detail, request_id="1" * 32)
    return complaints_about(problem.model_dump(), kind.status, MEDIA_TYPE)
