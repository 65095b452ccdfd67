"""Commands for data sets: ``build``, ``clips``, ``split``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wholetrack_training.cli.options import (
    DataOption,
    PartOption,
    ProtocolOption,
    SystemOption,
    load_for_recipe,
    source_of,
)
from wholetrack_training.data.splits import Protocol, split_tracks
from wholetrack_training.errors import DataError
from wholetrack_training.files import write_json
from wholetrack_training.systems.names import DEFAULT


def build(data: DataOption, system: SystemOption = DEFAULT) -> None:
    """Compute and cache the features of all recordings in a folder, so that training starts at once.

    An interrupted run can be repeated.
    """
    from wholetrack_training.systems.registry import system_named

    tracks = load_for_recipe(data, system_named(system).of(source_of(data)))
    duplicates = sum(track.duplicate_of is not None for track in tracks.tracks)
    typer.echo(f"{len(tracks)} tracks of {len(tracks.labels)} genres, {duplicates} duplicates")


def clips(
    music: Annotated[Path, typer.Argument(help="A folder of recordings per genre.")],
    to: Annotated[Path, typer.Argument(help="Folder for the clips.")],
    *,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of a clip.")] = 30.0,
    level_db: Annotated[float, typer.Option(max=0, help="Level of every clip, in dB relative to full scale.")] = -20.0,
    most: Annotated[int | None, typer.Option(min=1, help="Maximum number of clips per recording.")] = None,
) -> None:
    """Cut whole recordings into clips of equal length and level, as in GTZAN."""
    from wholetrack.decoding.ffmpeg import find_ffmpeg
    from wholetrack_training.data.clips import ClipSpec, cut_folder

    n_clips = sum(1 for _ in cut_folder(music, to, ClipSpec(seconds, level_db, most), find_ffmpeg()))
    if not n_clips:
        raise DataError(f"{music} has no recording of at least {seconds:g} s that is not silent")
    typer.echo(f"{n_clips} clips")


def split(
    data: DataOption,
    to: Annotated[Path, typer.Argument(help="The JSON file to write.")],
    protocol: ProtocolOption = Protocol.RANDOM,
    part: PartOption = 1,
) -> None:
    """Write the names of the training, validation and test tracks to a file, which can be edited and shared."""
    from wholetrack_training.systems.registry import SYSTEMS

    tracks = load_for_recipe(data, SYSTEMS[DEFAULT].of(source_of(data)))
    write_json(to, asdict(split_tracks(tracks, protocol, part)))
