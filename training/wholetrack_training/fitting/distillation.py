"""Teaches the music tower what the taggers say about unlabelled music, with a checkpoint from which a run continues.

The result is shared by all folds: no recording of GTZAN takes part.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wholetrack.features.logmel import LogMel
from wholetrack.features.normalise import normalise
from wholetrack_training.data.teaching_store import TaughtRecording
from wholetrack_training.errors import DataError, DifferentRunError
from wholetrack_training.systems.music_student import MusicStudent
from wholetrack_training.systems.two_towers import AUDIO, MUSIC_BANDS, MUSIC_FEATURES, MUSIC_FRAMES

_log = logging.getLogger(__name__)

_CHECKPOINT_STEPS = 100
# Windows that every tagger was asked about are drawn this much more often than the others.
_MORE_OFTEN = 2.0
_OUTLIER = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillationPlan:
    """How the music tower is taught.

    Attributes:
        steps: Number of batches.
        batch: Windows per batch.
        learning_rate: Of the tower, after a warm-up, falling to zero as a cosine. That of the new heads is four times
            as high.
        warm_up: Batches until the learning rate is reached.
        weight_decay: Decoupled weight decay.
        seed: Seed of all randomness.
        gain: Windows are changed by up to this many units of the normalised spectrogram.
        tilt: The lowest and highest band are changed by up to this much in opposite directions.
        mask_bands: Largest number of adjacent bands that are set to the mean of the window.
    """

    steps: int = 2000
    batch: int = 24
    learning_rate: float = 5e-4
    warm_up: int = 60
    weight_decay: float = 0.01
    seed: int = 1
    gain: float = 0.2
    tilt: float = 0.15
    mask_bands: int = 8


class TargetScale:
    """Mean and deviation of everything a tagger says, by which the differences are measured."""

    def __init__(self, values: NDArray[np.float32]) -> None:
        self.mean = torch.from_numpy(values.mean(axis=0))
        self.deviation = torch.from_numpy(values.std(axis=0) + np.float32(1e-3))

    def loss(self, found: Tensor, values: Tensor) -> Tensor:
        """Return the mean squared difference in deviations; a single difference counts at most as eight of them."""
        return ((found - values) / self.deviation).clamp(-_OUTLIER, _OUTLIER).square().mean()


class TaughtWindows:
    """All windows of the store, and batches of them.

    Attributes:
        scales: By name of the tagger.
    """

    def __init__(self, recordings: Sequence[TaughtRecording]) -> None:
        """Index the windows.

        Raises:
            DataError: If mn04 was not asked about every window.
        """
        self._recordings = recordings
        self._windows = np.array(
            [(i, j) for i, recording in enumerate(recordings) for j in range(len(recording.start_s))], dtype=np.intp
        )
        self._rows: list[dict[str, dict[int, NDArray[np.float32]]]] = []
        taggers = sorted({name for recording in recordings for name in recording.targets})
        for recording in recordings:
            of_recording = {}
            for name, targets in recording.targets.items():
                values = np.concatenate((targets.logits, targets.embedding), axis=1)
                of_recording[name] = dict(zip(targets.windows.tolist(), values, strict=True))
            self._rows.append(of_recording)
        asked = {
            name: np.array([j in self._rows[i].get(name, {}) for i, j in self._windows], dtype=bool) for name in taggers
        }
        if "mn04" not in asked or not asked["mn04"].all():
            raise DataError("mn04 was not asked about every window: run `wholetrack-train teach` again")
        self.scales = {
            name: TargetScale(np.stack([self._rows[i][name][j] for i, j in self._windows[asked[name]]]))
            for name in taggers
        }
        weight = np.where(np.all([asked[name] for name in taggers], axis=0), _MORE_OFTEN, 1.0)
        self._probability = weight / weight.sum()
        self._log_mel = LogMel(MUSIC_FEATURES, AUDIO.sample_rate)

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self._windows)

    def lengths(self) -> dict[str, int]:
        """Return the number of values of each tagger except mn04."""
        return {name: len(scale.mean) for name, scale in self.scales.items() if name != "mn04"}

    def batch(
        self, plan: DistillationPlan, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """Draw windows.

        Returns:
            Augmented windows ``[N, 288, 112]``; and for each tagger the rows that it was asked about and its values.
        """
        drawn = self._windows[rng.choice(len(self._windows), plan.batch, p=self._probability)]
        windows = np.stack([self._frames(i, j) for i, j in drawn])
        values: dict[str, tuple[Tensor, Tensor]] = {}
        for name in self.scales:
            rows = [row for row, (i, j) in enumerate(drawn) if j in self._rows[i].get(name, {})]
            if rows:
                taught = np.stack([self._rows[i][name][j] for i, j in drawn[rows]])
                values[name] = torch.tensor(rows), torch.from_numpy(taught)
        return torch.from_numpy(_augmented(windows, plan, rng)), values

    def _frames(self, recording: int, window: int) -> NDArray[np.float32]:
        grid, spec = self._log_mel.grid, self._log_mel.spec
        begin = round(float(self._recordings[recording].start_s[window]) * AUDIO.sample_rate)
        starts = np.array([grid.start(frame) for frame in range(MUSIC_FRAMES)], dtype=np.intp)
        samples = self._recordings[recording].samples(begin, int(starts[-1]) + spec.n_fft)
        samples[1:] -= np.float32(spec.pre_emphasis or 0.0) * samples[:-1].copy()
        frames: NDArray[np.float32] = normalise(self._log_mel.frames(samples, starts)[None], spec.normalisation)[0]
        return frames


def distil(recordings: Sequence[TaughtRecording], plan: DistillationPlan, *, mn04: Path, folder: Path) -> MusicStudent:
    """Teach the music tower, or continue.

    Args:
        recordings: Recordings and what the taggers say about them.
        plan: How to teach.
        mn04: File of mn04's published weights.
        folder: Folder of the checkpoint; created if missing.

    Returns:
        The taught network in evaluation mode.

    Raises:
        DifferentRunError: If the folder holds a run with another plan.
    """
    taught = TaughtWindows(recordings)
    torch.manual_seed(plan.seed)
    student = MusicStudent(mn04, taught.lengths())
    rates = [plan.learning_rate, 4 * plan.learning_rate]
    optimiser = torch.optim.AdamW(
        [{"params": student.mn04.parameters()}, {"params": student.heads.parameters()}], weight_decay=plan.weight_decay
    )
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, step = folder / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["plan"] != asdict(plan):
            raise DifferentRunError(f"{checkpoint} belongs to a run with another plan; choose another folder")
        student.load_state_dict(state["student"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    _set_training(student)
    began, losses = time.monotonic(), []
    while step < plan.steps:
        factor = min(1.0, (step + 1) / plan.warm_up) * (0.5 + 0.5 * math.cos(math.pi * step / plan.steps))
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        losses.append(_step(student, taught, optimiser, plan, np.random.default_rng([plan.seed, step])))
        step += 1
        if step % _CHECKPOINT_STEPS == 0 or step == plan.steps:
            _save(checkpoint, plan, student, optimiser, step)
            _log.info("Step %d/%d: loss %.3f, %.0f s", step, plan.steps, np.mean(losses), time.monotonic() - began)
            losses = []
    return student.eval()


def _set_training(student: MusicStudent) -> None:
    """Switch to training, but keep mn04's batch statistics: those of a small batch undo what the tower knows."""
    student.train()
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def _step(
    student: MusicStudent,
    taught: TaughtWindows,
    optimiser: torch.optim.Optimizer,
    plan: DistillationPlan,
    rng: np.random.Generator,
) -> float:
    windows, values = taught.batch(plan, rng)
    found = student(windows)
    loss = torch.stack([taught.scales[name].loss(found[name][rows], said) for name, (rows, said) in values.items()])
    total = loss.sum()
    optimiser.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(student.parameters(), 5.0)
    optimiser.step()
    return float(total.detach())


def _save(
    path: Path, plan: DistillationPlan, student: MusicStudent, optimiser: torch.optim.Optimizer, step: int
) -> None:
    state = {
        "plan": asdict(plan),
        "student": student.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
    }
    unfinished = path.with_suffix(".unfinished")
    torch.save(state, unfinished)
    unfinished.replace(path)


def _augmented(windows: NDArray[np.float32], plan: DistillationPlan, rng: np.random.Generator) -> NDArray[np.float32]:
    n = len(windows)
    slope = np.linspace(-1.0, 1.0, MUSIC_BANDS)
    change = rng.uniform(-plan.gain, plan.gain, (n, 1)) + rng.uniform(-plan.tilt, plan.tilt, (n, 1)) * slope
    changed = (windows + change[:, None, :]).astype(np.float32)
    for window in changed:
        first, width = rng.integers(0, MUSIC_BANDS - plan.mask_bands), rng.integers(0, plan.mask_bands + 1)
        window[:, first : first + width] = window.mean()
    return changed
