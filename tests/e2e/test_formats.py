"""Predictions as tables and pictures, and which format a request gets."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from tests.e2e.requests import assert_problem
from tests.harness.paths import PROJECT
from tests.harness.recordings import wav_bytes
from tests.harness.server import Server
from wholetrack.api.formats import ResponseFormat, negotiate
from wholetrack.errors import ErrorKind, ServiceError

pytestmark = pytest.mark.timing

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def recording(tune: NDArray[np.float32]) -> bytes:
    silence = np.zeros(5 * 22050, dtype=np.float32)
    return wav_bytes(np.concatenate([tune, silence, tune]), 22050)


def post(server: Server, recording: bytes, accept: str = "*/*", **query: str) -> httpx.Response:
    url = f"{server.url}/v1/predict"
    return httpx.post(url, content=recording, params=query, headers={"Accept": accept}, timeout=60)


def test_csv_has_a_line_for_each_verdict_section_and_window(server: Server, recording: bytes) -> None:
    expected = post(server, recording).json()
    response = post(server, recording, "text/csv")
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(response.text)))
    labels = expected["model"]["labels"]
    assert list(rows[0]) == ["kind", "start_s", "end_s", "genre", "share", "silent", *(f"p_{name}" for name in labels)]
    verdicts = {row["kind"]: row for row in rows[:2]}
    for kind, row in verdicts.items():
        assert row["genre"] == expected["prediction"][kind]["genre"]
        assert float(row["share"]) == expected["prediction"][kind]["share"]
        assert float(row["end_s"]) == expected["track"]["duration_s"]
    sections = [row for row in rows if row["kind"] == "section"]
    assert [float(row["end_s"]) for row in sections] == [section["end_s"] for section in expected["sections"]]
    windows = [row for row in rows if row["kind"] == "window"]
    assert [float(row["start_s"]) for row in windows] == expected["windows"]["start_s"]
    assert [row["genre"] or None for row in windows] == expected["windows"]["genre"]
    silent = [i for i, row in enumerate(windows) if row["silent"] == "true"]
    assert silent == expected["windows"]["silent"] != []
    for row, probabilities in zip(windows, expected["windows"]["probabilities"], strict=True):
        assert [float(row[f"p_{name}"]) for name in labels] == probabilities
        assert float(row["end_s"]) - float(row["start_s"]) == pytest.approx(3.0)


@pytest.mark.parametrize("accept", [*(offered.media_type for offered in ResponseFormat), "audio/wav"])
@pytest.mark.parametrize("content", [None, b"no recording"])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_caches_are_told_that_every_response_depends_on_the_header(
    server: Server, recording: bytes, accept: str, content: bytes | None, encoding: str
) -> None:
    headers = {"Accept": accept, "Accept-Encoding": encoding}
    response = httpx.post(f"{server.url}/v1/predict", content=content or recording, headers=headers, timeout=60)
    if accept == "audio/wav":
        assert response.status_code == 406
    elif content is None:
        assert response.status_code == 200
    else:
        # On a busy machine, a stream of events may have begun before the file is found to be no recording.
        assert response.status_code == 415 or b"unsupported_media" in response.content
    names = [name.strip() for name in response.headers["vary"].split(",")]
    assert names.count("Accept") == 1


def test_json_lines_have_the_same_rows(server: Server, recording: bytes) -> None:
    response = post(server, recording, "application/jsonl")
    assert response.headers["content-type"] == "application/jsonl"
    rows = [json.loads(line) for line in response.text.splitlines()]
    table = list(csv.DictReader(io.StringIO(post(server, recording, format="csv").text)))
    assert len(rows) == len(table)
    for row, line in zip(rows, table, strict=True):
        filled = {name: value for name, value in line.items() if value}
        as_text = {name: str(value).lower() if name == "silent" else str(value) for name, value in row.items()}
        assert {name: value for name, value in as_text.items() if row[name] is not None} == filled


def test_the_picture_shows_every_genre_and_section(server: Server, recording: bytes) -> None:
    response = post(server, recording, "image/svg+xml")
    assert response.headers["content-type"] == "image/svg+xml"
    expected = post(server, recording).json()
    picture = ET.fromstring(response.text)
    areas = picture.findall("{http://www.w3.org/2000/svg}path")
    assert len(areas) == len(expected["model"]["labels"])
    assert len({area.get("fill") for area in areas}) == len(areas)
    assert expected["prediction"]["summed_score"]["genre"] in "".join(picture.itertext())


def test_the_picture_can_be_a_png(server: Server, recording: bytes) -> None:
    for response in (post(server, recording, "image/png"), post(server, recording, format="png")):
        assert response.headers["content-type"] == "image/png"
        assert response.content.startswith(PNG_SIGNATURE)
    server.wait_until_clean()


def test_names_in_the_picture_are_text(server: Server, recording: bytes) -> None:
    files = {"file": ("<script>&.wav", recording)}
    picture = httpx.post(f"{server.url}/v1/predict?format=svg", files=files, timeout=60).text
    assert "&lt;script&gt;&amp;.wav" in picture
    assert "<script>" not in picture


def test_a_format_that_does_not_exist_is_refused(server: Server, recording: bytes) -> None:
    problem = assert_problem_with_types(post(server, recording, "image/webp"))
    assert "image/svg+xml" in problem
    assert_problem(post(server, recording, format="xml"), 422, "invalid_parameter")


def assert_problem_with_types(response: httpx.Response) -> str:
    """Return the detail of a 406, which names media types with a slash."""
    assert response.status_code == 406
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["code"] == "not_acceptable"
    return str(problem["detail"])


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", ResponseFormat.JSON),
        ("*/*", ResponseFormat.JSON),
        ("application/*", ResponseFormat.JSON),
        ("text/html,application/xhtml+xml,*/*;q=0.8", ResponseFormat.JSON),
        ("text/event-stream", ResponseFormat.SSE),
        ("Text/CSV ; q=1.0", ResponseFormat.CSV),
        ("text/csv;q=0.4, image/svg+xml;q=0.5", ResponseFormat.SVG),
        ("text/*;q=0.9, text/event-stream;q=0", ResponseFormat.CSV),
        ("*/*, application/json;q=0", ResponseFormat.JSONL),
        ("text/*", ResponseFormat.CSV),
        ("image/*", ResponseFormat.SVG),
        ("image/png", ResponseFormat.PNG),
        ("application/vnd.apache.parquet", ResponseFormat.PARQUET),
        ("application/jsonl, application/json;q=0.9", ResponseFormat.JSONL),
    ],
)
def test_the_header_accept_chooses_the_format(accept: str, expected: ResponseFormat) -> None:
    assert negotiate(accept) is expected


@pytest.mark.parametrize("accept", ["image/webp", "application/json;q=0", "json", "text/csv;q=nonsense", "*/*;q=0"])
def test_a_header_that_allows_nothing_is_refused(accept: str) -> None:
    with pytest.raises(ServiceError) as refused:
        negotiate(accept)
    assert refused.value.kind is ErrorKind.NOT_ACCEPTABLE


def test_a_format_that_is_not_available_is_not_chosen() -> None:
    without = {ResponseFormat.PARQUET}
    accept = "application/vnd.apache.parquet, text/csv;q=0.5"
    assert negotiate(accept, unavailable=without) is ResponseFormat.CSV
    with pytest.raises(ServiceError) as refused:
        negotiate("application/vnd.apache.parquet", unavailable=without)
    assert "parquet" not in refused.value.detail


def test_parquet_has_the_rows_of_csv_with_types_and_units(server: Server, recording: bytes) -> None:
    lines = list(csv.DictReader(io.StringIO(post(server, recording, "text/csv").text)))
    response = post(server, recording, "application/vnd.apache.parquet")
    assert response.headers["content-type"] == "application/vnd.apache.parquet"
    table = pq.read_table(io.BytesIO(response.content))
    assert table.schema.names == list(lines[0])
    assert [str(field.type) for field in table.schema][:6] == ["string", "double", "double", "string", "double", "bool"]
    assert {str(field.type) for field in list(table.schema)[6:]} == {"float"}
    assert table.schema.field("start_s").metadata == {b"unit": b"s"}
    facts = {name.decode(): value.decode() for name, value in table.schema.metadata.items()}
    assert facts | {"model": "wholetrack-crnn", "version": "2", "window_s": "3.0", "hop_s": "1.0"} == facts
    for row, line in zip(table.to_pylist(), lines, strict=True):
        assert {"kind": row["kind"], "genre": row["genre"] or ""} == {"kind": line["kind"], "genre": line["genre"]}
        assert {True: "true", False: "false", None: ""}[row["silent"]] == line["silent"]
        for name in table.schema.names:
            if name not in {"kind", "genre", "silent"}:
                assert row[name] == (pytest.approx(float(line[name]), abs=1e-6) if line[name] else None)
    assert post(server, recording, format="parquet").content == response.content


def predict(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wholetrack", "predict", *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=120)


def test_the_command_line_draws_a_timeline(recording: bytes, tmp_path: Path) -> None:
    file, picture = tmp_path / "song.wav", tmp_path / "song.svg"
    file.write_bytes(recording)
    assert predict(str(file), "--plot", str(picture)).returncode == 0
    assert ET.parse(picture).getroot().tag.endswith("svg")
    assert predict(str(file), "--plot", str(tmp_path / "song.PNG")).returncode == 0
    assert (tmp_path / "song.PNG").read_bytes().startswith(PNG_SIGNATURE)
    for arguments in (
        (str(file), "--plot", str(tmp_path / "song.pdf")),
        (str(file), str(file), "--plot", str(picture)),
    ):
        refused = predict(*arguments)
        assert refused.returncode == 1
        assert "--plot needs" in refused.stderr
