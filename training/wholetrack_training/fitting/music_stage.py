"""First stage: the music tower learns from the taggers what they say about unlabelled music.

The result is shared by all folds: no recording of GTZAN takes part.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from wholetrack_training.fitting.loop import TeachingSchedule, teach
from wholetrack_training.fitting.teachers import LONG_TAGGER, TargetScale, Teachers
from wholetrack_training.fitting.waveforms import SoundChanges, Stretches, Waveforms, windows_of
from wholetrack_training.systems.music_student import MusicStudent
from wholetrack_training.systems.spectrograms import Spectrogram
from wholetrack_training.systems.two_towers import AUDIO, MUSIC_FEATURES, MUSIC_FRAMES, WINDOW_S

_log = logging.getLogger(__name__)

STRETCH_S = 30
"""Length of the stretches, so that the tagger with the longest window, 29 s, can be asked."""

_SCALE_BATCHES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class MusicPlan:
    """How the music tower is taught.

    Attributes:
        rounds: How often the learning rate rises and falls. Each round continues with the averaged weights.
        steps: Batches of each round.
        stretches: Stretches of 30 s per batch, each of ten windows.
        learning_rate: Of the tower, after a warm-up, falling to zero as a cosine.
        head_rate: Learning rate of the heads, relative to that of the tower.
        warm_up: Batches until the learning rate is reached.
        weight_decay: Decoupled weight decay.
        averaging: Share of the averaged weights that is kept in each step; the averaged weights are the result.
        seed: Seed of all randomness.
        weights: Weight of what each tagger says.
        changes: How the audio is changed.
    """

    rounds: int = 2
    steps: int = 480
    stretches: int = 48
    learning_rate: float = 1e-3
    head_rate: float = 2.0
    warm_up: int = 100
    weight_decay: float = 0.01
    averaging: float = 0.995
    seed: int = 1
    weights: Mapping[str, float] = field(default_factory=lambda: {"mn04": 2.0, "msd_musicnn": 2.0, LONG_TAGGER: 1.0})
    changes: SoundChanges = field(default_factory=SoundChanges)


def teach_music_tower(
    waveforms: Waveforms, teachers: Teachers, plan: MusicPlan, *, mn04: Path, device: torch.device, folder: Path
) -> MusicStudent:
    """Teach the music tower, or continue.

    Args:
        waveforms: The music.
        teachers: The taggers, on the device.
        plan: How to teach.
        mn04: File of mn04's published weights, from which the tower starts.
        device: Where to compute.
        folder: Folder of the checkpoint; created if missing.

    Returns:
        The network with averaged weights, in evaluation mode.

    Raises:
        DifferentRunError: If the folder holds a run with another plan.
    """
    torch.manual_seed(plan.seed)
    scales = _scales(waveforms, teachers, plan)
    lengths = {name: len(scale.mean) for name, scale in scales.items() if name != "mn04"}
    student = MusicStudent(mn04, lengths).to(device)
    spectrogram = Spectrogram(MUSIC_FEATURES, AUDIO.sample_rate, MUSIC_FRAMES).to(device)

    def losses() -> dict[str, Tensor]:
        stretches = draw(waveforms, plan.stretches, plan.changes)
        targets = teachers.targets(stretches)
        found = student(spectrogram(window_samples(stretches)))
        found["mn04"] = scales["mn04"].standardised(found["mn04"])
        return {
            name: plan.weights[name] * scale.loss(found[name], targets[name].joined()) for name, scale in scales.items()
        }

    rates = [(student.mn04, plan.learning_rate), (student.heads, plan.learning_rate * plan.head_rate)]
    schedule = TeachingSchedule(plan.steps, plan.warm_up, plan.weight_decay, plan.averaging)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, plan.rounds + 1):
        _log.info("Round %d/%d", number, plan.rounds)
        checkpoint = folder / f"music-checkpoint-{number}.pt"
        teach(
            student,
            losses,
            rates,
            schedule,
            device=device,
            seed=plan.seed + number - 1,
            plan=repr(asdict(plan)),
            checkpoint=checkpoint,
        )
    return student.eval()


def draw(waveforms: Waveforms, n: int, changes: SoundChanges) -> Stretches:
    """Draw stretches of 30 s of random recordings."""
    return waveforms.draw(torch.randint(waveforms.n_recordings, (n,)), STRETCH_S, changes)


def window_samples(stretches: Stretches) -> Tensor:
    """Return the samples of all windows of some stretches, with those beyond the end that the last frames need."""
    return windows_of(stretches.at(AUDIO.sample_rate), WINDOW_S * AUDIO.sample_rate, beyond=MUSIC_FEATURES.n_fft)


def _scales(waveforms: Waveforms, teachers: Teachers, plan: MusicPlan) -> dict[str, TargetScale]:
    found = [teachers.targets(draw(waveforms, plan.stretches, plan.changes)) for _ in range(_SCALE_BATCHES)]
    return {name: TargetScale(torch.cat([targets[name].joined() for targets in found])) for name in found[0]}
