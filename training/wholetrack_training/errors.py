"""Errors that the command line reports as one sentence."""

from __future__ import annotations


class TrainingError(Exception):
    """A command cannot do what was requested; the message is a sentence for the person who ran it."""


class DataError(TrainingError):
    """A data set, a split, a run or a record is missing or cannot be used."""


class RecipeError(TrainingError):
    """A recipe has no such field, or one of its values is impossible."""


class DifferentRunError(TrainingError):
    """A checkpoint belongs to a run with another recipe, another seed or other tracks."""


class ExportError(TrainingError):
    """A network cannot be exported in a form that the service can run."""


class PublishingError(TrainingError):
    """A bundle cannot be published or changed as requested."""


class NetworkImportError(TrainingError):
    """A network that others trained cannot be made into a bundle."""
