"""``CARD.md`` of wholetrack-crnn 2."""

from __future__ import annotations

from wholetrack.contracts import ModelCard


def two_tower_card_text(card: ModelCard) -> str:
    """Return the card of a bundle as Markdown; all figures come from the contract."""
    return f"# {card.name} {card.version}\n\n{card.summary}: {', '.join(card.labels)}.\n"
