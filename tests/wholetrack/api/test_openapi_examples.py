"""The examples of the OpenAPI document are of the default model."""

from __future__ import annotations

from wholetrack.api.examples import MODEL, PREDICTION
from wholetrack.inference.bundle import BUILT_IN_MODELS, load_bundles
from wholetrack.settings import Settings


def test_the_examples_are_of_the_default_model() -> None:
    card = load_bundles(BUILT_IN_MODELS)[Settings().default_model].card
    for shown in (PREDICTION["model"], MODEL, MODEL["card"]):
        assert (shown["name"], shown["version"]) == (card.name, card.version)
        assert tuple(shown["labels"]) == card.labels
    assert card.outputs.tags
    for tag in PREDICTION["tags"]["track"]:
        published = {spec.name: spec for spec in card.outputs.tags.labels}[tag["tag"]]
        assert published.kind == tag["kind"]
        assert (tag["tag"] in card.unverified) == tag.get("unverified", False)
    assert len(PREDICTION["windows"]["probabilities"][0]) == len(card.labels)
    assert MODEL["card"]["windows"].items() <= card.windows.model_dump().items()
    assert MODEL["summary"] == card.summary
