"""The part of ``model.json`` that relates the genres of a model to coarser ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from pydantic import Field, model_validator

from wholetrack.contracts.features import Spec


class TaxonomySpec(Spec):
    """Fewer genres to read a prediction in: the probability of each is the sum of the probabilities of its labels."""

    summary: str = Field(description="One sentence about the taxonomy.")
    genres: dict[str, tuple[str, ...]] = Field(
        min_length=2,
        description="The genres, each with the labels that it consists of. Labels that belong to no genre "
        "are left out, and the probabilities of each window are scaled so that they sum to 1.",
    )

    @model_validator(mode="after")
    def _labels_are_in_one_genre(self) -> TaxonomySpec:
        if empty := [genre for genre, labels in self.genres.items() if not labels]:
            raise ValueError(f"the genres {empty} have no labels: name those that they consist of, or remove them")
        members = [label for labels in self.genres.values() for label in labels]
        if repeated := sorted({label for label in members if members.count(label) > 1}):
            raise ValueError(f"the labels {repeated} occur more than once: a label belongs to one genre")
        return self


def check_parents(parents: Mapping[str, str], labels: Sequence[str], tags: Sequence[str]) -> None:
    """Check that every parent is a label without a parent, and that every child is a label or a tag.

    Raises:
        ValueError: If that is not the case.
    """
    for label, parent in parents.items():
        if label not in labels and label not in tags:
            kinds = "labels or tags" if tags else "labels"
            raise ValueError(f"parents: {label!r} is not one of the {kinds}{_hint(label, (*labels, *tags))}")
        if parent not in labels:
            raise ValueError(
                f"parents: {parent!r}, the parent of {label!r}, is not one of the labels{_hint(parent, labels)}"
            )
        if parent in parents:
            raise ValueError(
                f"parents: {parent!r}, the parent of {label!r}, has a parent itself; give {label!r} the parent "
                f"{parents[parent]!r}, or remove that of {parent!r}"
            )


def check_taxonomies(taxonomies: Mapping[str, TaxonomySpec], labels: Sequence[str]) -> None:
    """Check that taxonomies consist of labels.

    Raises:
        ValueError: If that is not the case.
    """
    for name, taxonomy in taxonomies.items():
        for genre, members in taxonomy.genres.items():
            for label in members:
                if label not in labels:
                    raise ValueError(
                        f"taxonomies: {genre!r} of {name!r} consists of {label!r}, which is not one of the labels"
                        f"{_hint(label, labels)}"
                    )


def check_unverified(unverified: Sequence[str], labels: Sequence[str], tags: Sequence[str]) -> None:
    """Check that what is unverified is a tag.

    Raises:
        ValueError: If that is not the case.
    """
    for name in unverified:
        if name in labels:
            raise ValueError(
                f"unverified: {name!r} is one of the labels; a genre that could not be judged may only be a tag"
            )
        if name not in tags:
            raise ValueError(f"unverified: {name!r} is not one of the tags{_hint(name, tags)}")


def check_domain_tag(tag: str | None, tags: Sequence[str]) -> None:
    """Check that the tag that decides whether a recording is in domain, if there is one, is among the tags.

    Raises:
        ValueError: If it is not.
    """
    if tag is not None and tag not in tags:
        raise ValueError(f"domain: {tag!r} is not one of the tags{_hint(tag, tags)}")


def _hint(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f" (is it {close[0]!r}?)" if close else f": {', '.join(known)}" if known else ""
