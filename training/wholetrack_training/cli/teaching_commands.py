"""Commands that teach the music tower: ``teach``, ``distil``."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

StoreOption = Annotated[Path, typer.Option(help="Folder of recordings with what the taggers say of them.")]
WeightsOption = Annotated[Path, typer.Option(help="Folder with the published weights of the taggers (.npz).")]


def teach(
    music: Annotated[Path, typer.Argument(help="A folder of recordings; their genres do not matter.")],
    store: StoreOption,
    weights: WeightsOption,
    *,
    musicnn_every: Annotated[
        int, typer.Option(min=1, help="Ask musicnn, which is slow, about every n-th window only.")
    ] = 4,
    max_s: Annotated[float, typer.Option(min=3, help="Seconds to use of each recording, from its middle.")] = 150.0,
) -> None:
    """Ask the taggers about all recordings in a folder, and store what they say.

    An interrupted run can be repeated.
    """
    from wholetrack.decoding.decoder import FfmpegDecoder
    from wholetrack.decoding.ffmpeg import find_ffmpeg
    from wholetrack_training.data.teaching_store import TeachingStore
    from wholetrack_training.errors import DataError
    from wholetrack_training.fitting.teaching import TeachingPlan, teach_recordings
    from wholetrack_training.systems.taggers.tagger import TAGGERS, open_tagger
    from wholetrack_training.systems.two_towers import AUDIO

    if not music.is_dir():
        raise DataError(f"{music} is not a folder")
    files = [(str(path.relative_to(music)), path) for path in sorted(music.rglob("*")) if path.is_file()]
    plan = TeachingPlan(sample_rate=AUDIO.sample_rate, max_s=max_s, every={"msd_musicnn": musicnn_every})
    taggers = [open_tagger(name, weights) for name in TAGGERS]
    filled = TeachingStore(store)
    with closing(FfmpegDecoder(find_ffmpeg())) as decoder:
        teach_recordings(files, taggers, filled, plan, decoder)
    recordings = filled.recordings()
    windows = sum(len(recording.start_s) for recording in recordings)
    typer.echo(f"{len(recordings)} recordings, {windows} windows")


def distil(
    run: Annotated[Path, typer.Argument(help="Folder for the run.")],
    store: StoreOption,
    weights: WeightsOption,
    *,
    steps: Annotated[int, typer.Option(min=1, help="Number of batches.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 1,
) -> None:
    """Teach the music tower what the taggers said; it starts from mn04.

    An interrupted run can be repeated. The result is ``music.pt`` in the folder of the run.
    """
    import torch

    from wholetrack_training.data.teaching_store import TeachingStore
    from wholetrack_training.fitting.distillation import DistillationPlan, distil

    plan = DistillationPlan(steps=steps, seed=seed)
    student = distil(TeachingStore(store).recordings(), plan, mn04=weights / "mn04.npz", folder=run)
    torch.save(student.state_dict(), run / "music.pt")
    typer.echo(f"taught for {steps} steps: {run / 'music.pt'}")
