"""The command ``wholetrack tag``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wholetrack.cli.files import FileResult, find_recordings, predict_files, text_of
from wholetrack.cli.opening import fail, load_command_settings, open_pipeline
from wholetrack.cli.options import ModelOption, TaxonomyOption
from wholetrack.cli.packages import missing_packages
from wholetrack.cli.render import deliver
from wholetrack.cli.standard_streams import write_output
from wholetrack.contracts import TrackPrediction
from wholetrack.logs import printable
from wholetrack.tagging.choice import Mode, Rules
from wholetrack.tagging.genre_map import PRESETS, GenreMap, GenreMapError

if TYPE_CHECKING:
    from wholetrack.tagging.writer import FileState, GenreWriter

_JOURNAL = Path("wholetrack-tag.jsonl")


def tag(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Recordings, or folders that are searched for recordings.", show_default=False),
    ] = None,
    *,
    write: Annotated[
        bool, typer.Option("--write", help="Change the files. Otherwise, only print the changes.")
    ] = False,
    only_missing: Annotated[
        bool, typer.Option("--only-missing", help="Write genres into files without any (the default).")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the genres that files have.")] = False,
    append: Annotated[bool, typer.Option("--append", help="Add to the genres that files have.")] = False,
    min_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Skip recordings whose genre has a lower confidence.")
    ] = 0.5,
    max_genres: Annotated[int, typer.Option(min=1, help="Largest number of predicted genres per file.")] = 1,
    min_share: Annotated[
        float, typer.Option(min=0, max=1, help="Smallest share of a genre after the first one.")
    ] = 0.2,
    genres: Annotated[
        str | None,
        typer.Option(
            help=f"Names of genres: {', '.join(PRESETS)}, or a TOML file. By default, those of the model.",
            show_default=False,
        ),
    ] = None,
    separator: Annotated[
        str | None,
        typer.Option(
            help="Write several genres as one value with this text between them, for players that show only one.",
            show_default=False,
        ),
    ] = None,
    keep_mtime: Annotated[bool, typer.Option("--keep-mtime", help="Keep the modification times of files.")] = False,
    journal: Annotated[Path, typer.Option(help="File to which changes are appended, to undo them.")] = _JOURNAL,
    undo: Annotated[
        Path | None, typer.Option(help="Undo the changes in a journal, and do nothing else.", show_default=False)
    ] = None,
    model: ModelOption = None,
    taxonomy: TaxonomyOption = None,
) -> None:
    """Write predicted genres into the tags of files, which needs the extra tag.

    Without --write, nothing is changed, and each line shows the genres that a file has and would have. Recordings
    that are unlike the music that the model knows are skipped. Files are replaced by changed copies, so that none is
    ever half written.

    Exits with status 1 if a file failed, or if a path cannot be read or has no recordings; the others are still
    processed.
    """
    if missing_packages("mutagen"):
        fail("mutagen is not installed; tag needs the extra 'tag': pip install 'wholetrack[tag]'")
    if undo is not None:
        _undo(undo, keep_mtime=keep_mtime)
        return
    modes = {Mode.ONLY_MISSING: only_missing, Mode.REPLACE: replace, Mode.APPEND: append}
    chosen = [mode for mode, given in modes.items() if given]
    if len(chosen) > 1:
        fail(f"--{chosen[0]} and --{chosen[1]} exclude each other")
    rules = Rules(
        mode=chosen[0] if chosen else Mode.ONLY_MISSING,
        min_confidence=min_confidence,
        max_genres=max_genres,
        min_share=min_share,
        genre_map=_genre_map(genres),
    )
    settings = load_command_settings()
    recordings, problems = find_recordings(files or [])
    for problem in problems:
        typer.echo(f"wholetrack: {problem}", err=True)
    if not recordings:
        if not problems:
            fail("name recordings or folders")
        raise typer.Exit(1)
    with (
        open_pipeline(settings) as pipeline,
        _writer(journal if write else None, separator, keep_mtime=keep_mtime) as writer,
    ):
        served = pipeline.model(model)
        served.check_available()
        served.genres(taxonomy)
        tagging = _Tagging(rules, writer)
        # Recordings that will not be changed need no prediction.
        wanted = [path for path in recordings if tagging.examine(path)]
        predictions = predict_files(pipeline, wanted, model=model, hop_s=None, taxonomy=taxonomy, settings=settings)
        with closing(predictions) as predicted:
            all_predicted = deliver(predicted, tagging.deliver, n_files=len(wanted))
    write_output(tagging.summary())
    if problems or tagging.failed or not all_predicted:
        raise typer.Exit(1)


def _genre_map(origin: str | None) -> GenreMap:
    if origin is None:
        return GenreMap()
    try:
        return GenreMap.preset(origin) if origin in PRESETS else GenreMap.read(Path(origin))
    except GenreMapError as error:
        fail(printable(str(error)))


@contextmanager
def _writer(journal: Path | None, separator: str | None, *, keep_mtime: bool) -> Iterator[GenreWriter | None]:
    """Return what writes genres, with a journal that is open during the block; None without a journal."""
    from wholetrack.tagging.writer import GenreWriter, Journal

    if journal is None:
        yield None
        return
    try:
        file = journal.open("ab")
    except OSError as error:
        fail(f"cannot write the journal {printable(text_of(journal))}: {error.strerror}")
    with file:
        yield GenreWriter(Journal(file), separator=separator, keep_mtime=keep_mtime)


def _undo(journal: Path, *, keep_mtime: bool) -> None:
    """Undo the changes in a journal, the last one first."""
    from wholetrack.tagging.audio_tags import TagError
    from wholetrack.tagging.writer import GenreWriter, Journal, undo

    writer, n_undone, n_failed = GenreWriter(None, separator=None, keep_mtime=keep_mtime), 0, 0
    try:
        for entry in Journal.read(journal):
            try:
                undo(entry, writer)
                n_undone += 1
            except (TagError, OSError) as error:
                n_failed += 1
                _print_failure(Path(entry.path), error)
    except OSError as error:
        fail(f"cannot read {printable(text_of(journal))}: {error.strerror}")
    except (KeyError, TypeError, ValueError):
        fail(f"{printable(text_of(journal))} is not a journal of wholetrack tag")
    write_output(f"{n_undone} undone\n" + (f"{n_failed} failed\n" if n_failed else ""))
    if n_failed:
        raise typer.Exit(1)


def _difference(path: Path, before: Sequence[str], after: Sequence[str], confidence: float) -> str:
    """Return a line with the genres that a file had and has."""
    old, new = (", ".join(genres) or "none" for genres in (before, after))
    return printable(f"{text_of(path)}: {old} -> {new} (confidence {confidence:.2f})") + "\n"


def _print_failure(path: Path, error: Exception) -> None:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    typer.echo(printable(f"{text_of(path)}: not_tagged: {reason}"), err=True)


@dataclass
class _Tagging:
    """Handles one file after the other.

    Attributes:
        rules: Which genres are written.
        writer: Writes them; None to only print what would be written.
        failed: Number of files that could not be read or written.
    """

    rules: Rules
    writer: GenreWriter | None
    failed: int = 0
    _changed: int = 0
    _skipped: Counter[str] = field(default_factory=Counter)
    _states: dict[Path, FileState] = field(default_factory=dict)

    def examine(self, path: Path) -> bool:
        """Return whether a file has to be predicted, and count it otherwise."""
        from wholetrack.tagging.audio_tags import AudioTags, TagError
        from wholetrack.tagging.writer import FileState

        try:
            # The state comes first: a change while the tags are read must be noticed.
            self._states[path] = FileState.of(path)
            present = AudioTags(path).genres()
        except (TagError, OSError) as error:
            self._fail(path, error)
            return False
        if present and self.rules.mode is Mode.ONLY_MISSING:
            self._skipped["has a genre"] += 1
            return False
        return True

    def deliver(self, result: FileResult, prediction: TrackPrediction) -> None:
        """Write or print the genres of a file."""
        from wholetrack.tagging.audio_tags import AudioTags, TagError

        path = result.path
        try:
            present = AudioTags(path).genres()
            choice = self.rules.choose(prediction, present)
            if choice.reason is not None:
                self._skipped[choice.reason] += 1
                return
            if self.writer:
                self.writer.write(path, choice.genres, expected=self._states[path])
        except (TagError, OSError) as error:
            self._fail(path, error)
            return
        self._changed += 1
        write_output(_difference(path, present, choice.genres, prediction.confidence))

    def summary(self) -> str:
        """Return a line for each kind of outcome."""
        verb = "changed" if self.writer else "would be changed (nothing is written without --write)"
        lines = [f"{self._changed} {verb}", *(f"{n} skipped: {reason}" for reason, n in self._skipped.most_common())]
        return "".join(f"{line}\n" for line in [*lines, *([f"{self.failed} failed"] if self.failed else [])])

    def _fail(self, path: Path, error: Exception) -> None:
        self.failed += 1
        _print_failure(path, error)
