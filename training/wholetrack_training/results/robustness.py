"""Robustness: accuracy on clips that were re-encoded, filtered, compressed, transposed, stretched or shifted.

ffmpeg makes a perturbed copy of every clip. The service's own pipeline classifies it with the network of the
artist-filtered fold that was not trained on the clip's artist.
"""

from __future__ import annotations

import logging
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from wholetrack.decoding.ffmpeg import Ffmpeg
from wholetrack.inference.bundle import CARD_FILE
from wholetrack.pipeline import Pipeline
from wholetrack.settings import DeviceChoice, Settings
from wholetrack.startup import build_pipeline
from wholetrack_training.data.splits import Protocol
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.errors import DataError
from wholetrack_training.results.records import today

_log = logging.getLogger(__name__)

ORIGINAL = "original"
_SEMITONE = 2 ** (1 / 12)
_SAMPLE_RATE = 22050


@dataclass(frozen=True, slots=True)
class Perturbation:
    """How ffmpeg changes a clip.

    Attributes:
        filters: Audio filters in ffmpeg's syntax; empty for none.
        suffix: File name suffix, which selects the container.
        encoding: Arguments for ffmpeg that select codec and bit rate.
    """

    filters: str = ""
    suffix: str = "flac"
    encoding: tuple[str, ...] = ()


def _pitch(factor: float) -> str:
    return f"asetrate={round(_SAMPLE_RATE * factor)},aresample={_SAMPLE_RATE},atempo={1 / factor:.6f}"


def _tilt(gain_db: float) -> str:
    shelf = "frequency=800:width_type=o:width=4"
    return f"volume=-6dB,bass=gain={-gain_db}:{shelf},treble=gain={gain_db}:{shelf}"


PERTURBATIONS: Mapping[str, Perturbation] = {
    ORIGINAL: Perturbation(),
    "mp3, 64 kb/s": Perturbation(suffix="mp3", encoding=("-c:a", "libmp3lame", "-b:a", "64k")),
    "opus, 24 kb/s": Perturbation(suffix="opus", encoding=("-c:a", "libopus", "-b:a", "24k", "-ar", "48000")),
    "telephone, 8 kHz": Perturbation("highpass=300,lowpass=3400,aresample=8000", "wav", ("-c:a", "pcm_mulaw")),
    "low-pass, 6 kHz": Perturbation("lowpass=6000,lowpass=6000"),
    "high-pass, 150 Hz": Perturbation("highpass=150,highpass=150"),
    "spectrum tilted 6 dB towards the treble": Perturbation(_tilt(3)),
    "spectrum tilted 6 dB towards the bass": Perturbation(_tilt(-3)),
    "dynamic range compression": Perturbation(
        "acompressor=threshold=-30dB:ratio=6:attack=5:release=80:makeup=8,alimiter=limit=0.9"
    ),
    "12 dB louder": Perturbation("volume=12dB,alimiter=limit=0.98:level=false"),
    "12 dB quieter": Perturbation("volume=-12dB"),
    "a semitone up": Perturbation(_pitch(_SEMITONE)),
    "a semitone down": Perturbation(_pitch(1 / _SEMITONE)),
    "5 % faster": Perturbation("atempo=1.05"),
    "5 % slower": Perturbation("atempo=0.95"),
    "first half second removed": Perturbation("atrim=start=0.5,asetpts=PTS-STARTPTS"),
}


@dataclass(frozen=True, slots=True)
class Robustness:
    """Share of the clips whose genre by summed score is correct, for each perturbation.

    Attributes:
        date: Date of the measurement, ISO 8601.
        clips: Number of clips.
        accuracy: Share of the clips by name of the perturbation.
    """

    date: str
    clips: int
    accuracy: dict[str, float]

    def as_dict(self) -> dict[str, object]:
        """Return all fields, for JSON."""
        return asdict(self)


def measure(folds: FoldModels, tracks: TrackSet, music: Path, ffmpeg: Ffmpeg) -> Robustness:
    """Classify all clips under all perturbations.

    Args:
        folds: One network per fold.
        tracks: The data set that the networks were trained on.
        music: Folder that the tracks' audio paths are relative to.
        ffmpeg: Makes the perturbed files.

    Raises:
        DataError: If no track has both audio and a fold.
    """
    clips = [track for track in tracks.tracks if track.audio and track.fold in folds.names]
    if not clips:
        raise DataError("no track has both audio and a fold")
    accuracy = {}
    with tempfile.TemporaryDirectory() as folder:
        for title, perturbation in PERTURBATIONS.items():
            n_correct = 0
            for clip in clips:
                file = Path(folder) / f"clip.{perturbation.suffix}"
                perturb(ffmpeg, music / str(clip.audio), perturbation, file)
                model = folds.names[clip.fold]
                found = folds.pipeline.predict(
                    file, model=model, taxonomy=folds.taxonomy(model, tracks.labels), max_duration_s=60
                )
                n_correct += found.summed_score.genre == tracks.labels[clip.genre]
            accuracy[title] = round(n_correct / len(clips), 4)
            _log.info("%s: %d of %d correct", title, n_correct, len(clips))
    return Robustness(today(), len(clips), accuracy)


@dataclass(frozen=True, slots=True)
class FoldModels:
    """The networks of the artist-filtered folds, loaded into one pipeline.

    Attributes:
        pipeline: The pipeline.
        names: For each fold, the name of the model that was not trained on its artists.
    """

    pipeline: Pipeline
    names: Mapping[int | None, str]

    def taxonomy(self, model: str, labels: Sequence[str]) -> str | None:
        """Return the taxonomy in which a model has these labels; None for the labels of the model itself."""
        taxonomies = self.pipeline.model(model).card.taxonomies
        return next((name for name, spec in taxonomies.items() if set(spec.genres) == set(labels)), None)

    @classmethod
    @contextmanager
    def loaded_from(cls, models: Path) -> Iterator[FoldModels]:
        """Load all bundles of a folder, and close the pipeline at the end of the ``with`` block.

        Raises:
            StartupError: If a bundle cannot be loaded.
            DataError: If there is no bundle, or one was not trained on an artist-filtered fold.
        """
        names = sorted(path.parent.parent.name for path in models.glob(f"*/*/{CARD_FILE}"))
        if not names:
            raise DataError(f"{models} does not contain a bundle")
        pipeline = build_pipeline(Settings(models_dir=models, default_model=names[0], device=DeviceChoice.CPU))
        try:
            trained = {name: pipeline.model(name).card.trained_on for name in names}
            for name, facts in trained.items():
                if facts["protocol"] != Protocol.ARTIST_FILTERED:
                    raise DataError(f"{name} was not trained on an artist-filtered fold")
            yield cls(pipeline, {facts["part"]: name for name, facts in trained.items()})
        finally:
            pipeline.close()


def perturb(ffmpeg: Ffmpeg, clip: Path, perturbation: Perturbation, to: Path) -> None:
    """Write a perturbed copy of a clip."""
    filters = ("-af", perturbation.filters) if perturbation.filters else ()
    command = [str(ffmpeg.path), "-v", "error", "-nostdin", "-y", "-i", str(clip), *filters, *perturbation.encoding]
    subprocess.run([*command, str(to)], check=True)
