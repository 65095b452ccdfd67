"""What an answer survives: real clips re-encoded, filtered, compressed, transposed, stretched and moved.

Every clip is judged by the network of the artist-filtered fold that never heard its artist, through the service's own
pipeline, from a file that ffmpeg made of the clip.
"""

from __future__ import annotations

import datetime as dt
import logging
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from wholetrack.decoding.ffmpeg import Ffmpeg
from wholetrack.inference.bundle import CARD_FILE
from wholetrack.pipeline import Pipeline
from wholetrack.settings import DeviceChoice, Settings
from wholetrack.startup import build_pipeline
from wholetrack_training.data.splits import Protocol
from wholetrack_training.data.tracks import DataError, TrackSet

_log = logging.getLogger(__name__)

CLEAN = "as it is"
TELEPHONE = "telephone, 8 kHz"
_SEMITONE = 2 ** (1 / 12)
_RATE = 22050


@dataclass(frozen=True, slots=True)
class Perturbation:
    """What ffmpeg does to a clip.

    Attributes:
        filters: of the audio, in ffmpeg's notation; none if empty.
        suffix: of the file that is made.
        encoding: arguments that choose codec and rate.
    """

    filters: str = ""
    suffix: str = "flac"
    encoding: tuple[str, ...] = ()


def _pitch(factor: float) -> str:
    return f"asetrate={round(_RATE * factor)},aresample={_RATE},atempo={1 / factor:.6f}"


def _tilt(gain_db: float) -> str:
    shelf = "frequency=800:width_type=o:width=4"
    return f"volume=-6dB,bass=gain={-gain_db}:{shelf},treble=gain={gain_db}:{shelf}"


PERTURBATIONS: Mapping[str, Perturbation] = {
    CLEAN: Perturbation(),
    "mp3, 64 kb/s": Perturbation(suffix="mp3", encoding=("-c:a", "libmp3lame", "-b:a", "64k")),
    "opus, 24 kb/s": Perturbation(suffix="opus", encoding=("-c:a", "libopus", "-b:a", "24k", "-ar", "48000")),
    TELEPHONE: Perturbation("highpass=300,lowpass=3400,aresample=8000", "wav", ("-c:a", "pcm_mulaw")),
    "low-pass, 6 kHz": Perturbation("lowpass=6000,lowpass=6000"),
    "high-pass, 150 Hz": Perturbation("highpass=150,highpass=150"),
    "tilted by 6 dB to the treble": Perturbation(_tilt(3)),
    "tilted by 6 dB to the bass": Perturbation(_tilt(-3)),
    "compressed": Perturbation("acompressor=threshold=-30dB:ratio=6:attack=5:release=80:makeup=8,alimiter=limit=0.9"),
    "12 dB louder": Perturbation("volume=12dB,alimiter=limit=0.98:level=false"),
    "12 dB softer": Perturbation("volume=-12dB"),
    "a semitone up": Perturbation(_pitch(_SEMITONE)),
    "a semitone down": Perturbation(_pitch(1 / _SEMITONE)),
    "5 % faster": Perturbation("atempo=1.05"),
    "5 % slower": Perturbation("atempo=0.95"),
    "half a second later": Perturbation("atrim=start=0.5,asetpts=PTS-STARTPTS"),
}


@dataclass(frozen=True, slots=True)
class Robustness:
    """Share of the clips whose summed score names the right genre, under each perturbation.

    Attributes:
        date: of the measurement.
        clips: how many were judged.
        accuracy: by name of the perturbation.
    """

    date: str
    clips: int
    accuracy: dict[str, float]

    def as_dict(self) -> dict[str, object]:
        """All of it, for JSON."""
        return asdict(self)


def measure(folds: FoldModels, tracks: TrackSet, music: Path, ffmpeg: Ffmpeg) -> Robustness:
    """Judge all clips under all perturbations.

    Args:
        folds: one network for each fold.
        tracks: the data set that they learned from.
        music: folder below which the tracks' audio lies.
        ffmpeg: makes the files.

    Raises:
        DataError: if no clip belongs to a fold.
    """
    clips = [track for track in tracks.tracks if track.audio and track.fold in folds.names]
    if not clips:
        raise DataError("no track has both audio and a fold")
    accuracy = {}
    with tempfile.TemporaryDirectory() as folder:
        for title, perturbation in PERTURBATIONS.items():
            right = 0
            for clip in clips:
                file = Path(folder) / f"clip.{perturbation.suffix}"
                make(ffmpeg, music / str(clip.audio), perturbation, file)
                found = folds.pipeline.predict(file, model=folds.names[clip.fold], max_duration_s=60)
                right += found.summed_score.genre == tracks.labels[clip.genre]
            accuracy[title] = round(right / len(clips), 4)
            _log.info("%s: %d of %d right", title, right, len(clips))
    return Robustness(dt.datetime.now(tz=dt.UTC).date().isoformat(), len(clips), accuracy)


@dataclass(frozen=True, slots=True)
class FoldModels:
    """The networks of the artist-filtered folds, served side by side.

    Attributes:
        pipeline: that serves them.
        names: of the model that never heard the artists of a fold, by its number.
    """

    pipeline: Pipeline
    names: Mapping[int | None, str]

    @classmethod
    @contextmanager
    def serving(cls, models: Path) -> Iterator[FoldModels]:
        """Serve all bundles of a folder.

        Raises:
            StartupError: if there is none, or one cannot be served.
            DataError: if one was not trained on a fold.
        """
        names = sorted(path.parent.parent.name for path in models.glob(f"*/*/{CARD_FILE}"))
        if not names:
            raise DataError(f"{models} holds no bundle")
        pipeline = build_pipeline(Settings(models_dir=models, default_model=names[0], device=DeviceChoice.CPU))
        try:
            trained = {name: pipeline.model(name).card.trained_on for name in names}
            for name, facts in trained.items():
                if facts["protocol"] != Protocol.ARTIST_FILTERED:
                    raise DataError(f"{name} was not trained on an artist-filtered fold")
            yield cls(pipeline, {facts["part"]: name for name, facts in trained.items()})
        finally:
            pipeline.close()


def make(ffmpeg: Ffmpeg, clip: Path, perturbation: Perturbation, to: Path) -> None:
    """Write a perturbed copy of a clip."""
    filters = ("-af", perturbation.filters) if perturbation.filters else ()
    command = [str(ffmpeg.path), "-v", "error", "-nostdin", "-y", "-i", str(clip), *filters, *perturbation.encoding]
    subprocess.run([*command, str(to)], check=True)
