"""``model.json``: version 1 is converted, and what contradicts itself is refused with a sentence that says why."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.harness.bundles import CARD
from wholetrack.contracts import Rows, read_model_card, unit_length
from wholetrack.inference.bundle import BUILT_IN_MODELS

Change = Callable[[dict[str, Any]], object]


def card(change: Change = lambda _: None) -> dict[str, Any]:
    document = copy.deepcopy(CARD) | {"sha256": "0" * 64}
    document["golden"]["sha256"] = "0" * 64
    change(document)
    return document


def read(document: dict[str, Any]) -> Any:
    return read_model_card(json.dumps(document).encode())[0]


def test_version_1_is_converted_and_shown_as_written() -> None:
    content = (BUILT_IN_MODELS / "deepsound-crnn" / "1" / "model.json").read_bytes()
    written = json.loads(content)
    found, document = read_model_card(content)
    (entry,) = found.inputs
    assert (found.schema_version, entry.name, entry.shape, entry.frames) == (2, "windows", ("N", 377, 128), 377)
    assert written["features"].items() <= entry.features.document().items()
    assert found.windows.document() == {name: value for name, value in written["windows"].items() if name != "frames"}
    assert found.outputs.document() == {"scores": {"name": "logits", "yields": "logits", "steps": 47}}
    assert (found.output_shapes, found.opset) == (((47, 10),), 18)
    assert (document["schema_version"], document["onnx"]["input"], document["windows"]["frames"]) == (1, "windows", 377)
    # The converted contract can be written and read.
    assert read_model_card(json.dumps(found.document()).encode())[0] == found


def test_version_2_can_be_written_and_read() -> None:
    found = read(card())
    assert read(found.document()) == found
    assert found.output_shapes == ((4,), (3,), (8,))
    assert found.outputs.names == ("logits", "tag_logits", "vector")
    with pytest.raises(ValueError, match="twin has several inputs: fine, coarse"):
        _ = found.single_input


def set_in(*path: str | int, to: object) -> Change:
    def change(document: dict[str, Any]) -> None:
        part: Any = document
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (set_in("schema_version", to=3), "schema_version is 3, and this service reads 1 and 2: update the service"),
        (set_in("inputs", to=[]), "at least 1 item"),
        (set_in("inputs", 1, "shape", to=["N", 40, 32]), r"shape \(40, 32\) of 'coarse' is not .* \(39, 32\)"),
        (set_in("inputs", 0, "features", "n_mels", to=25), r"shape \(150, 24\) of 'fine' is not .* \(150, 25\)"),
        (
            set_in("inputs", 0, "features", "fmax", to=15000.0),
            "the input 'fine' exceeds half the sample rate: lower",
        ),
        (set_in("inputs", 0, "name", to="coarse"), r"inputs and outputs \['coarse'\] have the same name"),
        (set_in("outputs", "embedding", "name", to="logits"), r"inputs and outputs \['logits'\] have the same name"),
        (set_in("outputs", "embedding", "length", to=0), "greater than 0"),
        (set_in("outputs", "tags", "labels", 1, "name", to="voice"), r"the tags \['voice'\] occur more than once"),
        (set_in("outputs", "tags", "labels", 1, "kind", to="colour"), "Input should be 'genre', 'mood'"),
        (set_in("parents", to={"hose": "electronic"}), "'hose' is not one of the labels or tags .is it 'house'"),
        (set_in("parents", to={"house": "electro"}), "'electro', the parent of 'house', is not one of the labels"),
        (set_in("parents", to={"house": "electronic", "electronic": "rock"}), "has a parent itself; give 'house' the"),
        (set_in("parents", to={"house": "house"}), "the parent of 'house', has a parent itself"),
        (
            set_in("unverified", to=["jazz"]),
            "'jazz' is one of the labels; a genre that could not be judged may only",
        ),
        (set_in("domain", to={}), "state either least_peak, or both tag and least_probability"),
        (set_in("domain", to={"tag": "calm"}), "state either least_peak, or both tag and least_probability"),
        (set_in("domain", to={"least_peak": 0.5, "tag": "calm", "least_probability": 0.5}), "state either least_peak"),
        (set_in("domain", to={"tag": "quiet", "least_probability": 0.5}), "'quiet' is not one of the tags"),
        (set_in("unverified", to=["Latin"]), "'Latin' is not one of the tags .is it 'latin'"),
        (set_in("taxonomies", "coarse", "genres", "dance", to=["techno"]), "consists of 'techno', which is not one of"),
        (set_in("taxonomies", "coarse", "genres", "dance", to=["rock"]), r"\['rock'\] occur more than once: a label"),
        (set_in("taxonomies", "coarse", "genres", "dance", to=[]), r"the genres \['dance'\] have no labels"),
        (set_in("taxonomies", "coarse", "genres", to={"all": list("abc")}), "at least 2 items"),
    ],
)
def test_the_message_says_what_is_wrong(change: Change, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read(card(change))


def test_rows_are_cut_and_joined_together() -> None:
    rows = Rows.zeros(5, [(2, 3), (4,)])
    assert (len(rows), rows.shapes, rows.nbytes) == (5, ((2, 3), (4,)), 4 * 5 * (6 + 4))
    joined = Rows.joined([rows[:2], rows[2:3], rows[3:]])
    assert (len(joined), joined.shapes) == (5, rows.shapes)


def test_vectors_of_zeros_stay_zero() -> None:
    assert unit_length(Rows.zeros(1, [(3,)]).arrays[0]).tolist() == [[0, 0, 0]]


def test_a_tag_may_have_a_parent() -> None:
    found = read(card(set_in("parents", to={"house": "electronic", "latin": "jazz"})))
    assert found.parents["latin"] == "jazz"
