"""``CARD.md`` of an imported bundle: where the network came from, and what is not known about it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from wholetrack.contracts import ModelCard


def card_text(card: ModelCard) -> str:
    """Return the card of an imported bundle as Markdown; its author is expected to complete it."""
    return "\n".join(_lines(card)) + "\n"


def _lines(card: ModelCard) -> Iterator[str]:
    imported = card.trained_on["imported"]
    yield from (f"# {card.name} {card.version}", "", f"{card.summary}: {', '.join(card.labels)}.", "")
    yield f"- Source: {imported['source']}."
    yield f"- Licence of the network: {card.licence}. Check whether it covers your use, and that of the training data."
    yield f"- Imported by `wholetrack-train import` from {imported['format']}: {imported['file']}, SHA-256"
    yield f"  {imported['file_sha256']}."
    if "max_difference" in imported:
        yield f"- Conversion: ONNX and the original network differ by at most {imported['max_difference']:.1e}."
    if imported.get("scores"):
        yield f"- Scores: {imported['scores']}."
    yield f"- Windows: {card.windows.window_s:g} s every {card.windows.hop_s:g} s, at {card.audio.sample_rate} Hz."
    yield from ("", "## Accuracy", "")
    yield "Not measured. The import only checks that the service runs the network and computes its features."
    yield from ("", "## Limitations", "")
    yield f"- The model assigns one of {len(card.labels)} genres to any recording, even if it is not music."
    if card.calibration is None:
        yield "- `confidence` is the leading share of the summed score and is not calibrated."
    if card.domain is None:
        yield "- `in_domain` is always null."
    for entry in card.inputs:
        yield from ("", f"## Features of the input `{entry.name}`", "", "```json")
        yield from (json.dumps(entry.features.document(), indent=2), "```")
