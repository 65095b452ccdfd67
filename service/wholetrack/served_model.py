"""A model that is served: its bundle, its features, and the engine that runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wholetrack.contracts import Detail, ModelCard, Rows, TaxonomySpec
from wholetrack.errors import ErrorKind, ServiceError, StartupError
from wholetrack.features.grid import WindowGrid
from wholetrack.features.inputs import InputFeatures
from wholetrack.inference.bundle import Bundle
from wholetrack.inference.engine import Engine
from wholetrack.inference.outputs import Keep
from wholetrack.inference.queue import TrackQueue
from wholetrack.inference.unavailable import UnavailableEngine, model_unavailable


def model_key(name: str, versions: Mapping[str, str]) -> str | None:
    """Return the key of a model that is named as ``NAME`` or ``NAME@VERSION``.

    Args:
        name: How a request or a setting names it.
        versions: The version of each model by its key: its name for the newest version, and ``NAME@VERSION`` for an
            older one.

    Returns:
        The key; None if there is no such model.
    """
    if name in versions:
        return name
    base, _, version = name.partition("@")
    return base if version and versions.get(base) == version else None


_KEEP = {Detail.NONE: Keep.NOTHING, Detail.TRACK: Keep.MEAN, Detail.WINDOWS: Keep.ROWS}


class ServedModel:
    """A bundle, its features, and the engine that runs it.

    Args:
        bundle: The bundle.
        engine: Its engine, or a stand-in if no device can run it. A head has the engine of the model whose network it
            uses, so that the windows of both share batches.
        cpu_fallback: Why it runs on the CPU although there is a GPU; None otherwise.

    Raises:
        StartupError: If the features or windows of the bundle are impossible.
    """

    def __init__(self, bundle: Bundle, engine: Engine | UnavailableEngine, *, cpu_fallback: str | None = None) -> None:
        self.card: ModelCard = bundle.card
        self.document: dict[str, Any] = bundle.document
        self.engine = engine
        self.head = bundle.head
        self.cpu_fallback = cpu_fallback
        try:
            self.features = InputFeatures(bundle.card)
        except ValueError as error:
            raise StartupError(f"the bundle {self.card.name} cannot be served: {error}") from error

    def check_available(self) -> None:
        """Raise the error that a request for this model would get, if it cannot run.

        Raises:
            ServiceError: ``model_unavailable``.
        """
        if self.engine.unavailable_reason is not None:
            raise model_unavailable(self.engine.unavailable_reason)

    def open_track(self, *, weight: int, keep: Sequence[Keep]) -> TrackQueue:
        """Open a queue for the windows of a track.

        Args:
            weight: Share of every batch relative to the other open tracks, at least 1.
            keep: What to keep of each output.

        Raises:
            ServiceError: ``device_failed`` or ``model_unavailable``.
        """
        return self.engine.open_track(weight=weight, keep=keep, convert=self.outputs_of if self.head else None)

    def outputs_of(self, network: Rows) -> Rows:
        """Return the outputs of the model from those of the network; they differ in the scores of a head."""
        return self.head.apply(network, self.card.outputs.kinds) if self.head else network

    def grid(self, hop_s: float | None) -> WindowGrid:
        """Return the grid of windows for a hop in seconds; None for the model's default hop.

        Raises:
            ServiceError: ``invalid_parameter`` if the model does not support that hop.
        """
        try:
            return self.features.grid(hop_s)
        except ValueError as error:
            raise ServiceError(ErrorKind.INVALID_PARAMETER, f"{error}.") from error

    def taxonomy(self, name: str | None) -> TaxonomySpec | None:
        """Return the taxonomy called ``name``; None for the labels of the model.

        Raises:
            ServiceError: ``invalid_parameter`` if the model has no such taxonomy.
        """
        if name is None:
            return None
        found = self.card.taxonomies.get(name)
        if found is None:
            known = ", ".join(self.card.taxonomies)
            raise ServiceError(
                ErrorKind.INVALID_PARAMETER,
                f"taxonomy: {self.card.name} has {f'only {known}' if known else 'no taxonomies'}; without this "
                "parameter, the genres are the labels of the model.",
            )
        return found

    def genres(self, taxonomy: str | None) -> tuple[str, ...]:
        """Return the genres of a prediction in a taxonomy; None for the labels of the model.

        Raises:
            ServiceError: ``invalid_parameter`` if the model has no such taxonomy.
        """
        spec = self.taxonomy(taxonomy)
        return tuple(spec.genres) if spec else self.card.labels

    @property
    def domain_needs_tags(self) -> bool:
        """Whether the tags of the track decide if it is in domain, even if a request does not ask for them."""
        return self.card.domain is not None and self.card.domain.tag is not None

    def keep(self, *, tags: Detail | None, embedding: Detail) -> tuple[Keep, ...]:
        """Return what to keep of each output of the network for a request.

        Args:
            tags: Detail of the tags; None for those of the track if the model has tags.
            embedding: Detail of the embedding.

        Raises:
            ServiceError: ``invalid_parameter`` if the model does not have the output.
        """
        outputs = self.card.outputs
        if tags not in {None, Detail.NONE} and outputs.tags is None:
            raise ServiceError(
                ErrorKind.INVALID_PARAMETER, f"tags: {self.card.name} {self.card.version} yields no tags."
            )
        if embedding is not Detail.NONE and outputs.embedding is None:
            raise ServiceError(
                ErrorKind.INVALID_PARAMETER, f"embedding: {self.card.name} {self.card.version} yields no embedding."
            )
        kept = [Keep.ROWS]
        if outputs.tags:
            kept.append(_KEEP[Detail.TRACK if tags is None else tags])
        if outputs.embedding:
            kept.append(_KEEP[embedding])
        return tuple(kept)
