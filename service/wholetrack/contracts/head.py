"""The contents of ``model.json`` of a head, whose genres are computed from the outputs of another model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import from_json

from wholetrack.contracts.features import Spec
from wholetrack.contracts.model_card import ModelCard, PublishedSpec
from wholetrack.contracts.outputs import ScoresSpec
from wholetrack.contracts.taxonomy import TaxonomySpec, check_domain_tag, check_parents, check_taxonomies

HeadInput = Literal["embedding", "tags"]
"""An output of a network that a head can use."""


class BaseModelSpec(Spec):
    """The model whose network a head uses."""

    name: str = Field(description="Name of the model.")
    version: str = Field(description="Version of the model.")
    sha256: str = Field(description="SHA-256 of its model.onnx, in hexadecimal.")


class HeadSpec(Spec):
    """The weights of a head."""

    file: str = Field(default="head.npz", description="File name within the bundle.")
    sha256: str = Field(description="SHA-256 of the file, in hexadecimal.")
    inputs: tuple[HeadInput, ...] = Field(
        default=("embedding",),
        min_length=1,
        description="Outputs of the network that the head uses, in the order of the columns of the weights: the "
        "embedding of unit length, and the logits of the tags before their calibration.",
    )

    @model_validator(mode="after")
    def _inputs_are_distinct(self) -> HeadSpec:
        if len(set(self.inputs)) < len(self.inputs):
            raise ValueError("inputs must be distinct")
        return self


class HeadCard(PublishedSpec):
    """Contents of ``model.json`` of a head.

    A head has no network: its scores are a linear function of other outputs of another model, whose bundle must be
    served as well. Windows, inputs, tags and embedding are those of that model.
    """

    schema_version: Literal[2] = Field(description="Version of this contract.")
    parents: dict[str, str] = Field(default={}, description="Parent genre of some labels, as for other models.")
    taxonomies: dict[str, TaxonomySpec] = Field(
        default={}, description="Other sets of genres in which a prediction can be read, by name."
    )
    head_of: BaseModelSpec = Field(description="The model whose network the head uses.")
    head: HeadSpec = Field(description="Weights.")

    @model_validator(mode="after")
    def _parts_agree(self) -> HeadCard:
        check_parents(self.parents, self.labels, tags=())
        check_taxonomies(self.taxonomies, self.labels)
        return self

    def joined_with(self, base: ModelCard) -> ModelCard:
        """Return the contract of the model that consists of the network of ``base`` and this head.

        Raises:
            ValueError: If the domain names a tag that the base does not have.
        """
        if self.domain:
            check_domain_tag(self.domain.tag, base.outputs.tags.names if base.outputs.tags else ())
        own = {name: getattr(self, name) for name in PublishedSpec.model_fields}
        scores = ScoresSpec(name=base.outputs.scores.name, yields="probabilities")
        return base.model_copy(
            update={
                **own,
                "parents": self.parents,
                "taxonomies": self.taxonomies,
                "outputs": base.outputs.model_copy(update={"scores": scores}),
            }
        )


def is_head(content: bytes) -> bool:
    """Return whether a ``model.json`` is that of a head.

    Raises:
        ValueError: If it is not JSON.
    """
    document = from_json(content)
    return isinstance(document, dict) and "head_of" in document


def read_head_card(content: bytes) -> tuple[HeadCard, dict[str, Any]]:
    """Read the ``model.json`` of a head.

    Returns:
        The contract, and the contents of the file with all default values.

    Raises:
        ValidationError: If a field is invalid.
    """
    card = HeadCard.model_validate_json(content)
    return card, card.model_dump(mode="json")
