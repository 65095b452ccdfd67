"""The command for one's own genres: ``head``."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wholetrack_training.errors import DataError
from wholetrack_training.systems.names import DEFAULT

if TYPE_CHECKING:
    from wholetrack.inference.bundle import Bundle
    from wholetrack_training.data.embeddings import EmbeddedFolder, EmbeddedTrack

_log = logging.getLogger(__name__)

_MIN_GENRES = 3
# Fewer can neither be held out nor choose a penalty.
_MIN_RECORDINGS = 3
_ENOUGH_RECORDINGS = 10


def head(
    data: Annotated[Path, typer.Option(help="A folder with a folder of recordings per genre, ten or more in each.")],
    name: Annotated[str, typer.Option(help="Name of the new model.")],
    *,
    base: Annotated[
        str, typer.Option(help="The model whose network the head uses, as NAME or NAME@VERSION.")
    ] = DEFAULT,
    models: Annotated[
        Path, typer.Option(help="Folder of your bundles: the base may be there, and the head is written there.")
    ] = Path("my-models"),
    artists: Annotated[
        Path | None,
        typer.Option(
            help="A table with the columns track (GENRE/FILE) and artist. Recordings of an artist are then held out "
            "together. Default: tracks.csv in the data, if there is one."
        ),
    ] = None,
    version: Annotated[str, typer.Option(help="Version of the bundle.")] = "1",
    licence: Annotated[
        str | None, typer.Option(help="Licence of the head, as an SPDX expression; default: that of the base.")
    ] = None,
    folds: Annotated[int, typer.Option(min=3, help="Number of folds of the cross-validation.")] = 10,
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="Hold out one recording, or one artist, at a time.")
    ] = False,
    evaluate_only: Annotated[
        bool, typer.Option("--evaluate-only", help="Print the report, and publish nothing.")
    ] = False,
    record: Annotated[
        Path | None, typer.Option(help="A JSON file for the figures; wholetrack-train report reads docs/heads.")
    ] = None,
) -> None:
    """Fit a model of your own genres to the outputs of a published one, evaluate it and publish it.

    The new bundle contains weights only. Served beside its base, it shares the network of the base.
    """
    from wholetrack.inference.head import input_lengths
    from wholetrack_training.data.embeddings import inputs_of
    from wholetrack_training.data.groups import artist_group_of
    from wholetrack_training.fitting.head import cross_validate, fit_head, head_data
    from wholetrack_training.publishing.heads import check_name, find_base, publish_head, source_of
    from wholetrack_training.results.head_figures import head_figures, report
    from wholetrack_training.results.head_records import write_head_record

    check_name(name, version, models)
    _, bundle = find_base(base, models)
    folder = _embedded(data, bundle, artists)
    tracks, labels = folder.tracks, tuple(sorted({track.genre for track in folder.tracks}))
    groups = artist_group_of(tracks)
    grouped = any(track.artist for track in tracks)
    _check_sizes(tracks, groups, data)
    warnings = list(_warnings(tracks, groups))
    for sentence in warnings:
        _log.warning("%s", sentence)
    inputs = inputs_of(bundle.card)
    lengths = dict(zip(inputs, input_lengths(inputs, bundle.card), strict=True))
    labelled = head_data(tracks, labels, [groups[track.name] for track in tracks], lengths=lengths)
    held_out = cross_validate(labelled, n_folds=len(tracks) if leave_one_out else folds)
    figures = head_figures(held_out, labelled, labels, grouped=grouped)
    source = source_of(inputs, bundle.card)
    text = report(f"{name} {version}", figures, folder.left_out, warnings, source=source)
    typer.echo(text)
    if record:
        option = "--leave-one-out" if leave_one_out else f"--folds {folds}"
        command = f"wholetrack-train head --data {data.name} --name {name} {option} --evaluate-only"
        write_head_record(record, figures, command=command, base=bundle.card, inputs=lengths)
    if evaluate_only:
        return
    trained_on = {
        "data": data.name,
        "recordings": dict(sorted(Counter(track.genre for track in tracks).items())),
        "windows": sum(len(track.windows) for track in tracks),
        "artists_known": grouped,
        "left_out": len(folder.left_out),
    }
    written = publish_head(
        fit_head(labelled, len(labels)),
        bundle,
        figures,
        name=name,
        version=version,
        licence=licence or bundle.card.licence,
        trained_on=trained_on,
        report=text,
        models=models,
    )
    typer.echo(str(written))


def _embedded(data: Path, bundle: Bundle, artists: Path | None) -> EmbeddedFolder:
    """Compute the embeddings of all recordings in a folder of genres.

    Raises:
        DataError: If the folder or the table of artists cannot be used.
    """
    from wholetrack.settings import Settings
    from wholetrack.startup import build_pipeline
    from wholetrack_training.data.embeddings import embed_recordings
    from wholetrack_training.data.folder import TABLE, find_recordings, read_table

    if not data.is_dir():
        raise DataError(f"{data} is not a folder; give one with a folder of recordings per genre")
    _check_genres(data)
    recordings = find_recordings(data)
    table = artists or data / TABLE
    if artists and not artists.is_file():
        raise DataError(f"{artists} does not exist; give a table with the columns track and artist")
    rows = read_table(table, {recording.name for recording in recordings}) if table.is_file() else {}
    key = bundle.card.name
    with closing(build_pipeline(Settings(default_model=key), {key: bundle})) as pipeline:
        return embed_recordings(
            recordings,
            pipeline,
            artists={name: artist for name, (artist, _) in rows.items()},
            cache=data.with_name(data.resolve().name + ".embeddings"),
        )


def _genres(data: Path) -> list[str]:
    return sorted(path.name for path in data.iterdir() if path.is_dir() and not path.name.startswith("."))


def _check_genres(data: Path) -> None:
    """Check that there are enough genres.

    Raises:
        DataError: If there are not.
    """
    genres = _genres(data)
    if len(genres) < _MIN_GENRES:
        found = " and ".join(genres) or "none"
        raise DataError(
            f"a head needs at least {_MIN_GENRES} genres, and {data} has {len(genres)} of their folders ({found}): a "
            "head of two genres assigns every recording to one of them, even if it is neither. Add a folder of other "
            "music"
        )


def _check_sizes(tracks: Sequence[EmbeddedTrack], groups: dict[str, str], data: Path) -> None:
    """Check that every genre has enough recordings to hold some of them out.

    Raises:
        DataError: If one does not.
    """
    for genre in _genres(data):
        own = [track for track in tracks if track.genre == genre]
        if len({groups[track.name] for track in own}) >= _MIN_RECORDINGS:
            continue
        what = "artist" if any(track.artist for track in own) else "recording"
        found = len({groups[track.name] for track in own})
        usable = "no usable recording" if not found else f"usable recordings of only {found} {what}{'s' * (found > 1)}"
        if what == "recording" and found:
            usable = f"only {found} usable recording{'s' * (found > 1)}"
        raise DataError(
            f"the genre {genre} has {usable}, and a head needs at least {_MIN_RECORDINGS} to be fitted and judged "
            f"({_ENOUGH_RECORDINGS} or more give useful figures): add some to {data / genre}, or remove that folder"
        )


def _warnings(tracks: Sequence[EmbeddedTrack], groups: dict[str, str]) -> Iterator[str]:
    """Yield sentences about data that a head can be fitted to, but should not be trusted with."""
    by_genre: dict[str, set[str]] = defaultdict(set)
    for track in tracks:
        by_genre[track.genre].add(groups[track.name])
    for genre, own in by_genre.items():
        if len(own) < _ENOUGH_RECORDINGS:
            what = "artists" if any(track.artist for track in tracks if track.genre == genre) else "recordings"
            yield f"The genre {genre} has {len(own)} {what}, so its figures are uncertain. Ten or more are better."
    genre_of = {track.name: track.genre for track in tracks}
    for track in tracks:
        if track.duplicate_of and genre_of[track.duplicate_of] != track.genre:
            yield (
                f"{track.name} has exactly the same sound as {track.duplicate_of}, which is in another genre. Remove "
                "one of them."
            )
