"""Bundles with two inputs, tags and an embedding: the self-test, and networks that contradict ``model.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.harness.bundles import COARSE, FINE, golden_arrays, resized, run_network, two_input_network, write_two_inputs
from wholetrack.contracts import Rows
from wholetrack.errors import StartupError, UnavailableModelError
from wholetrack.inference.bundle import load_bundle
from wholetrack.inference.engine import Engine
from wholetrack.inference.outputs import Keep
from wholetrack.inference.session import open_session
from wholetrack.settings import Settings


def test_a_session_turns_all_outputs_into_probabilities_and_unit_vectors(tmp_path: Path) -> None:
    bundle = load_bundle(write_two_inputs(tmp_path))
    session = open_session(bundle, Settings())
    assert session.window_shapes == (FINE, COARSE)
    windows = resized(bundle.golden.windows, 7)
    found = session.run(windows)
    fine, coarse = windows.arrays
    for ours, expected in zip(found.arrays, run_network(bundle.onnx, {"fine": fine, "coarse": coarse}), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found.arrays[2], axis=1), 1, atol=1e-6)


def test_an_engine_keeps_the_rows_or_the_mean_of_an_output(tmp_path: Path, rng: np.random.Generator) -> None:
    session = open_session(load_bundle(write_two_inputs(tmp_path)), Settings(cpu_batch=4))
    windows = Rows.of(*(rng.random((50, *shape), dtype=np.float32) for shape in (FINE, COARSE)))
    expected = Rows.joined([session.run(windows[i : i + 4]) for i in range(0, 50, 4)])
    engine = Engine(session, session)
    with engine.open_track(keep=(Keep.ROWS, Keep.MEAN, Keep.NOTHING)) as track:
        for begin in range(0, 50, 9):
            track.put(windows[begin : begin + 9])
        found = track.finish()
    engine.close()
    assert found
    assert found.rows[1] is found.rows[2] is found.mean(2) is None
    rows, of_rows, mean = found.rows[0], found.mean(0), found.mean(1)
    assert rows is not None
    assert of_rows is not None
    assert mean is not None
    np.testing.assert_allclose(rows, expected.arrays[0], atol=1e-6)
    np.testing.assert_allclose(mean, expected.arrays[1].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(of_rows, expected.arrays[0].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [([(39, 128)], 256), ([(39, 128), (150, 128)], 86), ([(377, 128)], 43), ([(2000, 128)], 16)],
)
def test_the_number_of_waiting_windows_follows_from_their_size(shapes: list[tuple[int, int]], expected: int) -> None:
    from wholetrack.inference.engine import max_waiting_windows

    assert max_waiting_windows(shapes) == expected
    assert expected == 16 or Rows.zeros(expected, shapes).nbytes <= 8 << 20


def replace_network(folder: Path, content: bytes) -> None:
    card = json.loads((folder / "model.json").read_text())
    card["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "model.json").write_text(json.dumps(card))
    (folder / "model.onnx").write_bytes(content)


def rename(*path: str | int, to: str) -> Callable[[dict[str, Any]], None]:
    def change(card: dict[str, Any]) -> None:
        part: Any = card["outputs"]
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = to

    return change


def without_tags(card: dict[str, Any]) -> None:
    tags = {tag["name"] if isinstance(tag, dict) else tag for tag in card["outputs"]["tags"]["labels"]}
    card["parents"] = {child: parent for child, parent in card["parents"].items() if child not in tags}
    del card["outputs"]["tags"], card["unverified"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            without_tags,
            "has the output 'tag_logits' that model.json does not describe; .* describe it there",
        ),
        (rename("embedding", "name", to="v"), "has the output 'vector' that model.json does not describe"),
        (lambda card: card["outputs"]["embedding"].update(length=9), r"output 'vector' .* shape \[8\], .* says \[9\]"),
        (lambda card: card["inputs"][0].update(name="f"), "golden.npz has no windows.f"),
    ],
)
def test_a_network_that_contradicts_the_contract_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    folder = write_two_inputs(tmp_path, change=change)
    arrays = golden_arrays(two_input_network())
    if "shape" in complaint:
        arrays["embedding"] = np.zeros((3, 9), dtype=np.float32)
    rewrite_golden(folder, arrays)
    with pytest.raises(StartupError, match=complaint):
        open_session(load_bundle(folder), Settings())


def rewrite_golden(folder: Path, arrays: dict[str, Any]) -> None:
    np.savez(folder / "golden.npz", **arrays)
    card = json.loads((folder / "model.json").read_text())
    card["golden"]["sha256"] = hashlib.sha256((folder / "golden.npz").read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(card))


def test_a_missing_output_is_named(tmp_path: Path) -> None:
    folder = write_two_inputs(tmp_path)
    replace_network(folder, two_input_network(outputs=("logits", "vector")))
    with pytest.raises(StartupError, match="model.onnx has no output 'tag_logits', as model.json says; it has"):
        open_session(load_bundle(folder), Settings())


def test_an_output_that_the_service_does_not_know_is_named(tmp_path: Path) -> None:
    folder = write_two_inputs(tmp_path, change=lambda card: card["outputs"].update(tempo={"name": "bpm"}))
    with pytest.raises(StartupError, match="outputs.tempo: the service does not know this output; it knows scores"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("probabilities", "probability"), ("tags", "probability of a tag"), ("embedding", "component of an embedding")],
)
def test_the_self_test_checks_every_output(tmp_path: Path, name: str, kind: str) -> None:
    folder = write_two_inputs(tmp_path)
    arrays = golden_arrays(two_input_network())
    rewrite_golden(folder, arrays | {name: np.roll(arrays[name], 1, axis=1)})
    with pytest.raises(UnavailableModelError, match=f"a golden {kind} is off by"):
        open_session(load_bundle(folder), Settings())


def test_the_shapes_of_the_golden_arrays_are_named(tmp_path: Path) -> None:
    folder = write_two_inputs(tmp_path)
    arrays = golden_arrays(two_input_network())
    rewrite_golden(folder, arrays | {"embedding": arrays["embedding"][:, :5]})
    with pytest.raises(StartupError, match=r"not have the shapes .*windows.coarse \(3, 39, 32\), .*embedding \(3, 8\)"):
        load_bundle(folder)
