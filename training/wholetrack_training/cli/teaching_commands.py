"""Commands that train wholetrack-crnn 2: ``collect``, ``teach-music``, ``teach-folds``."""

from __future__ import annotations

from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch


class Device(StrEnum):
    """Where to compute."""

    CPU = "cpu"
    CUDA = "cuda"


RunArgument = Annotated[Path, typer.Argument(help="Folder for the run; an interrupted run can be repeated.")]
PoolOption = Annotated[Path, typer.Option(help="Pool of unlabelled music, made by `collect`.")]
WeightsOption = Annotated[Path, typer.Option(help="Folder with the published weights of the taggers (.npz).")]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute. On a CPU this takes days.")]


def collect(
    music: Annotated[list[Path], typer.Argument(help="Folders of recordings; their genres do not matter.")],
    to: Annotated[Path, typer.Option(help="Where to write the pool: <TO>.npy and <TO>.npz.")],
    *,
    max_s: Annotated[float, typer.Option(min=3, help="Seconds to use of each recording, from its middle.")] = 63.0,
) -> None:
    """Decode all recordings in some folders into one file of samples at 32 kHz."""
    from wholetrack.decoding.decoder import FfmpegDecoder
    from wholetrack.decoding.ffmpeg import find_ffmpeg
    from wholetrack_training.data.audio_pool import POOL_RATE
    from wholetrack_training.data.audio_pool import collect as collect_pool
    from wholetrack_training.errors import DataError

    if missing := [folder for folder in music if not folder.is_dir()]:
        raise DataError(f"{missing[0]} is not a folder")
    files = [
        (str(path.relative_to(folder)), path)
        for folder in music
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    with closing(FfmpegDecoder(find_ffmpeg())) as decoder:
        collected = collect_pool(files, to, decoder, max_s=max_s)
    hours = len(collected.samples) / POOL_RATE / 3600
    typer.echo(f"{len(collected)} of {len(files)} recordings, {hours:.1f} hours")


def _available(device: Device) -> torch.device:
    import torch

    from wholetrack_training.errors import DataError

    if device is Device.CUDA and not torch.cuda.is_available():
        raise DataError("PyTorch found no GPU. Use --device cpu to train without one; this takes days")
    return torch.device(device)


def teach_music(
    run: RunArgument, pool: PoolOption, weights: WeightsOption, *, device: DeviceOption = Device.CUDA
) -> None:
    """Teach the music tower what the taggers say about unlabelled music; it starts from mn04.

    The result, ``music.pt`` in the folder of the run, is shared by all folds.
    """
    from wholetrack_training.data.audio_pool import read_pool
    from wholetrack_training.fitting.music_stage import MusicPlan, teach_music_tower
    from wholetrack_training.fitting.teachers import open_teachers
    from wholetrack_training.fitting.waveforms import Waveforms
    from wholetrack_training.systems.checkpoints import write_tensors

    plan, place = MusicPlan(), _available(device)
    waveforms = Waveforms(read_pool(pool), place)
    student = teach_music_tower(
        waveforms, open_teachers(weights).to(place), plan, mn04=weights / "mn04.npz", device=place, folder=run
    )
    write_tensors(run / "music.pt", {name: value.cpu() for name, value in student.state_dict().items()})
    typer.echo(f"taught: {run / 'music.pt'}")


def teach_folds(
    run: RunArgument,
    pool: PoolOption,
    weights: WeightsOption,
    gtzan: Annotated[Path, typer.Option(help="Pool of GTZAN's recordings, made by `collect`.")],
    data: Annotated[Path, typer.Option(help="Folder with gtzan-mel.npz and tracks.csv.")],
    folds: Annotated[Path, typer.Option(help="Folder with the bundles of version 1 by fold: fold-1, fold-2, ...")],
    version_1: Annotated[Path, typer.Option(help="Bundle of version 1 that learned from all tracks.")],
    *,
    fold: Annotated[list[int] | None, typer.Option(min=0, max=3, help="Only these; 0 leaves nothing out.")] = None,
    device: DeviceOption = Device.CUDA,
) -> None:
    """Teach the whole network for each fold, starting from ``music.pt`` and version 1.

    The results are ``fold-<k>.pt`` in the folder of the run; ``fold-0.pt`` learned from everything.
    """
    from wholetrack_training.data.audio_pool import read_pool
    from wholetrack_training.data.precomputed import load_precomputed
    from wholetrack_training.fitting.fold_data import ALL, fold_data, read_tags
    from wholetrack_training.fitting.fold_training import FoldTraining, starting_network
    from wholetrack_training.systems.checkpoints import save_network

    recordings, tags = read_pool(gtzan), read_tags(weights / "gtzan-taggrams.npz")
    tracks = load_precomputed(data / "gtzan-mel.npz", data / "tracks.csv")
    training = FoldTraining(pool=pool, weights=weights, run=run, device=_available(device))
    for left_out in fold or (ALL, 1, 2, 3):
        start = starting_network(
            run / "music.pt", weights, version_1 if left_out == ALL else folds / f"fold-{left_out}/1"
        )
        network = training.train(left_out, start, fold_data(left_out, tracks, recordings, tags))
        save_network(run / f"fold-{left_out}.pt", network)
        typer.echo(f"taught: {run / f'fold-{left_out}.pt'}")
