"""The bundles that are judged: networks of all folds, and the one that is published."""

from __future__ import annotations

import logging
from pathlib import Path

from wholetrack.inference.bundle import CARD_FILE, Bundle, load_bundle
from wholetrack_training.errors import DataError
from wholetrack_training.publishing.two_tower_facts import trained_on
from wholetrack_training.publishing.two_towers import TwoTowerFacts, is_published_from, publish_two_towers

_log = logging.getLogger(__name__)

FOLDS = (1, 2, 3)
_EXPORTED = "bundles"


def judged_bundles(networks: Path, published: Path | None) -> dict[int, Bundle]:
    """Return the network of each fold, and under 0 the one that was trained on all data.

    Args:
        networks: Folder with the bundles ``fold-1/1`` to ``fold-3/1``, or with the checkpoints ``fold-0.pt`` to
            ``fold-3.pt``, which are exported to its folder ``bundles``.
        published: Folder of the bundle that was trained on all data; None for ``fold-0``.

    Raises:
        DataError: If a network is missing, or they have different genres or tags.
        ExportError: If a network cannot be exported.
        StartupError: If a bundle cannot be loaded.
    """
    wanted = [*FOLDS, *([] if published else [0])]
    if (networks / f"fold-{FOLDS[0]}.pt").is_file():
        folder = networks / _EXPORTED
        for fold in wanted:
            _export(networks / f"fold-{fold}.pt", folder, fold)
    else:
        folder = networks
    if missing := [fold for fold in wanted if not (_bundle(folder, fold) / CARD_FILE).is_file()]:
        raise DataError(f"{networks} has neither checkpoints nor bundles of the folds {missing}")
    bundles = {fold: load_bundle(_bundle(folder, fold)) for fold in wanted}
    bundles |= {0: load_bundle(published)} if published else {}
    tags = (bundle.card.outputs.tags for bundle in bundles.values())
    names = [(bundle.card.labels, tag and tag.names) for bundle, tag in zip(bundles.values(), tags, strict=True)]
    if any(each != names[0] for each in names):
        raise DataError("the networks to judge have different genres or tags")
    return bundles


def _export(checkpoint: Path, folder: Path, fold: int) -> None:
    if is_published_from(_bundle(folder, fold), checkpoint):
        return
    _log.info("exporting %s", checkpoint)
    publish_two_towers(
        checkpoint, TwoTowerFacts(name=f"fold-{fold}", version="1", trained_on=trained_on(part=fold)), folder
    )


def _bundle(folder: Path, fold: int) -> Path:
    return folder / f"fold-{fold}" / "1"
