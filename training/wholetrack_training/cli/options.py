"""Options that several commands share, and loading of the data set that ``--data`` names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wholetrack.contracts import AudioSpec, FeatureSpec
from wholetrack_training.data.splits import Protocol
from wholetrack_training.errors import DataError
from wholetrack_training.systems.names import NAMES

if TYPE_CHECKING:
    from wholetrack_training.data.tracks import TrackSet
    from wholetrack_training.systems.recipe import Recipe, Source

RESULTS = Path("docs/results")
_TABLE = "tracks.csv"

DataOption = Annotated[
    Path,
    typer.Option(
        help="A folder of recordings per genre, or an .npz of precomputed spectrograms with tracks.csv next to it."
    ),
]
ProtocolOption = Annotated[Protocol, typer.Option(help="How the tracks are split.")]
PartOption = Annotated[int, typer.Option(help="Number of the random split, or the fold to evaluate on.")]
SystemOption = Annotated[str, typer.Option(help=f"One of {', '.join(NAMES)}.")]
FinishedRun = Annotated[Path, typer.Argument(help="Folder of a finished run.")]
RecordsOption = Annotated[Path, typer.Option(help="Folder of all records.")]


def source_of(data: Path) -> Source:
    """Return what ``--data`` names: recordings or precomputed spectrograms."""
    from wholetrack_training.systems.recipe import Source

    return Source.AUDIO if data.is_dir() else Source.PRECOMPUTED


def load_for_recipe(data: Path, recipe: Recipe) -> TrackSet:
    """Return the data set with the features of a recipe and the augmented copies that it trains on."""
    return load_tracks(data, recipe.audio, recipe.features, versions=recipe.audio_versions)


def load_tracks(data: Path, audio: AudioSpec, features: FeatureSpec, *, versions: Sequence[str] = ()) -> TrackSet:
    """Return the data set with the given features; those of recordings are cached in ``<data>.features``.

    Raises:
        DataError: If the data set is missing or cannot be used.
        StartupError: If there is no ffmpeg.
    """
    if data.is_dir():
        from wholetrack.decoding.decoder import FfmpegDecoder
        from wholetrack.decoding.ffmpeg import find_ffmpeg
        from wholetrack_training.data.folder import load_folder

        decoder, cache = FfmpegDecoder(find_ffmpeg()), data.with_name(data.resolve().name + ".features")
        return load_folder(data, audio=audio, features=features, decoder=decoder, cache=cache, versions=versions)
    if not data.is_file():
        raise DataError(f"{data} is neither a folder of genres nor an .npz file")
    return load_precomputed_tracks(data)


def load_precomputed_tracks(data: Path) -> TrackSet:
    """Return the tracks of an ``.npz`` file, with the table next to it."""
    from wholetrack_training.data.precomputed import load_precomputed

    return load_precomputed(data, data.with_name(_TABLE))
