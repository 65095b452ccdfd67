"""Second stage, for each fold: both towers and what joins them learn from the taggers and from GTZAN.

The labels of GTZAN teach the spectrum tower's own prediction only. Everything else learns what the taggers say, so that
it does not learn to rely on a tower that knows the labels by heart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from wholetrack_training.fitting.fold_data import FoldData
from wholetrack_training.fitting.frame_changes import FrameChanges, changed_levels, masked, mixed
from wholetrack_training.fitting.loop import TeachingSchedule, teach
from wholetrack_training.fitting.music_stage import draw, window_samples
from wholetrack_training.fitting.teachers import LONG_TAGGER, TaggerTargets, TargetScale, Teachers
from wholetrack_training.fitting.waveforms import UNCHANGED, SoundChanges, Stretches, Waveforms
from wholetrack_training.systems.network_inputs import RANGE_DB, NetworkInputs
from wholetrack_training.systems.taxonomy import GTZAN, MSD, MSD_GENRES, strongest
from wholetrack_training.systems.two_towers import (
    SPECTRUM_FRAMES,
    WINDOW_S,
    Predictions,
    TowerOutputs,
    TwoTowerCrnn,
)

MSD_TAGGERS = ("msd_musicnn", LONG_TAGGER)
"""The taggers that were trained on the Million Song Dataset."""

# Frames per second of gtzan-mel.npz: 387 frames sampled from 30 s.
_FRAME_RATE = 387 / 30
_JITTER = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class JointPlan:
    """How a fold is taught.

    Attributes:
        steps: Number of batches.
        stretches: Stretches of 30 s of unlabelled music per batch, each of ten windows.
        recordings: Windows of GTZAN's recordings per batch.
        spectrograms: Windows of GTZAN's spectrograms per batch.
        learning_rate: Of the towers, after a warm-up, falling to zero as a cosine.
        head_rate: Learning rate of everything else, relative to that of the towers.
        warm_up: Batches until the learning rate is reached.
        weight_decay: Decoupled weight decay.
        averaging: Share of the averaged weights that is kept in each step; the averaged weights are the result.
        label_smoothing: Share of the target that is spread over all genres.
        seed: Seed of all randomness.
        changes: How audio is changed.
        frame_changes: How spectrograms are changed.
    """

    steps: int = 180
    stretches: int = 8
    recordings: int = 112
    spectrograms: int = 192
    learning_rate: float = 4e-4
    head_rate: float = 4.0
    warm_up: int = 20
    weight_decay: float = 0.02
    averaging: float = 0.99
    label_smoothing: float = 0.1
    seed: int = 1
    changes: SoundChanges = field(default_factory=SoundChanges)
    frame_changes: FrameChanges = field(default_factory=FrameChanges)


class JointStudent(nn.Module):
    """The network with linear layers that predict everything the taggers say; only the network is kept."""

    def __init__(self, network: TwoTowerCrnn, lengths: dict[str, int], n_msd_tags: int) -> None:
        super().__init__()
        self.network = network
        joined = network.head.msd.in_features
        self.heads = nn.ModuleDict({name: nn.Linear(joined, length) for name, length in lengths.items()})
        self.spectrum_tags = nn.Linear(network.spectrum_msd.in_features, n_msd_tags)


class JointTraining:
    """One fold."""

    def __init__(
        self,
        network: TwoTowerCrnn,
        teachers: Teachers,
        music: Waveforms,
        data: FoldData,
        plan: JointPlan,
        *,
        device: torch.device,
    ) -> None:
        """Prepare the training of a fold.

        Args:
            network: The network, with the towers that it starts from.
            teachers: The taggers, on the device.
            music: Unlabelled music.
            data: What the fold may learn from.
            plan: How to teach.
            device: Where to compute.
        """
        torch.manual_seed(plan.seed)
        self.plan, self.device, self.teachers, self.music = plan, device, teachers, music
        self._recordings = Waveforms(data.audio, device)
        self._genres = data.audio_genres.to(device)
        self._frames, self._frame_genres = data.frames.to(device), data.genres.to(device)
        self._tags = data.tags.to(device)
        self._inputs = NetworkInputs().to(device)
        labels = teachers.taggers["mn04"].labels
        self._tag_rows = torch.tensor([labels.index(tag) for tag in network.head.tag_map.labels], device=device)
        self._reference = self._of_every_recording()
        targets = teachers.targets(self._reference)
        self.references = {name: TargetScale(targets[name].logits).to(device) for name in MSD_TAGGERS}
        drawn = [targets, teachers.targets(draw(music, plan.stretches, plan.changes))]
        self.scales = {
            name: TargetScale(torch.cat([found[name].joined() for found in drawn])).to(device) for name in targets
        }
        lengths = {name: len(self.scales[name].mean) for name in MSD_TAGGERS}
        self.student = JointStudent(network, lengths, data.tags.shape[2]).to(device)

    def run(self, checkpoint: Path) -> TwoTowerCrnn:
        """Teach the network, or continue.

        Args:
            checkpoint: File from which an interrupted run continues; its folder must exist.

        Returns:
            The network with averaged weights, in evaluation mode on the CPU.

        Raises:
            DifferentRunError: If the checkpoint belongs to a run with another plan.
        """
        plan, student = self.plan, self.student
        network, rate = student.network, plan.learning_rate
        towers = [(network.spectrum, rate), (network.music, rate)]
        others = [(part, rate * plan.head_rate) for part in (network.spectrum_msd, network.head)]
        added = [(part, rate * plan.head_rate) for part in (student.heads, student.spectrum_tags)]
        teach(
            student,
            lambda: self._losses_of_audio() | self._losses_of_spectrograms(),
            [*towers, *others, *added],
            TeachingSchedule(plan.steps, plan.warm_up, plan.weight_decay, plan.averaging),
            device=self.device,
            seed=plan.seed,
            plan=repr(asdict(plan)),
            checkpoint=checkpoint,
        )
        student.eval()
        self._set_scale_of_tags()
        return network.cpu()

    def msd_evidence(self, logits: dict[str, Tensor]) -> Tensor:
        """Return how strongly the tags of the Million Song Dataset for each genre apply, in deviations.

        Args:
            logits: Logits of one or both taggers of that data set, ``[N, n_labels]`` by name.

        Returns:
            The mean over the taggers, ``[N, len(MSD_GENRES)]``.
        """
        parts = []
        for name, values in logits.items():
            labels = self.teachers.taggers[name].labels
            parts.append(strongest(self.references[name].standardised(values), labels, MSD, MSD_GENRES))
        return torch.stack(parts).mean(0)

    def _losses_of_audio(self) -> dict[str, Tensor]:
        plan = self.plan
        music = draw(self.music, plan.stretches, plan.changes)
        chosen = torch.randint(self._recordings.n_recordings, (plan.recordings,))
        recordings = self._recordings.draw(chosen, WINDOW_S, plan.changes)
        targets = _joined([self.teachers.targets(music), self.teachers.targets(recordings)])
        towers, found, prior = self._predict(torch.cat((window_samples(music), window_samples(recordings))))
        evidence = self.msd_evidence({name: targets[name].logits for name in MSD_TAGGERS})
        mn04, n_labels = self.scales["mn04"], targets["mn04"].logits.shape[1]
        said = mn04.standardised(targets["mn04"].joined())
        tags = (found.tags - mn04.mean[self._tag_rows]) / mn04.deviation[self._tag_rows]
        embedding = (towers.music.mean(1) - mn04.mean[n_labels:]) / mn04.deviation[n_labels:]
        losses = {
            "tags": (tags - said[:, self._tag_rows]).square().mean(),
            "embedding": (embedding - said[:, n_labels:]).clamp(-8, 8).square().mean(),
            "evidence": (found.msd - evidence).square().mean(),
            "spectrum evidence": (prior - evidence).square().mean(),
        }
        for name, head in self.student.heads.items():
            losses[name] = self.scales[name].loss(head(found.embedding), targets[name].joined())
        return losses

    def _losses_of_spectrograms(self) -> dict[str, Tensor]:
        plan, network, device = self.plan, self.student.network, self.device
        track = torch.randint(len(self._frames), (plan.spectrograms,), device=device)
        second = torch.randint(self._tags.shape[1], (plan.spectrograms,), device=device)
        jitter = torch.randint(-_JITTER, _JITTER + 1, (plan.spectrograms,), device=device)
        last = self._frames.shape[1] - SPECTRUM_FRAMES
        first = ((second * _FRAME_RATE).round().long() + jitter).clamp(0, last)
        frames = self._frames[track[:, None], first[:, None] + torch.arange(SPECTRUM_FRAMES, device=device)]
        changed = changed_levels(frames, plan.frame_changes)
        relative = changed - changed.amax((1, 2), keepdim=True)
        windows = masked((relative / RANGE_DB + 1).clamp(min=0), plan.frame_changes)
        labels = nn.functional.one_hot(self._frame_genres[track], len(GTZAN)).float()
        windows, labels, said = mixed(plan.frame_changes, windows, labels, self._tags[track, second])
        pooled = network.spectrum.dropout(network.spectrum.pool(network.spectrum.sequence(windows)))
        smooth = labels * (1 - plan.label_smoothing) + plan.label_smoothing / len(GTZAN)
        losses = {"genre": nn.functional.cross_entropy(network.spectrum.classify(pooled), smooth)}
        asked = ~said.isnan().any(1)
        evidence = self.msd_evidence({MSD_TAGGERS[0]: said[asked]})
        found = network.spectrum_msd(pooled)[asked]
        losses["evidence of spectrograms"] = (found - evidence).square().mean()
        scale = self.references[MSD_TAGGERS[0]]
        losses["tags of spectrograms"] = scale.loss(self.student.spectrum_tags(pooled)[asked], said[asked])
        return losses

    def _predict(self, samples: Tensor) -> tuple[TowerOutputs, Predictions, Tensor]:
        network = self.student.network
        with torch.no_grad():
            spectrum, music = self._inputs(samples)
        towers = network.towers(spectrum, music)
        pooled = network.spectrum.pool(towers.spectrum)
        return towers, network.predict(towers), network.spectrum_msd(pooled)

    def _of_every_recording(self) -> Stretches:
        return self._recordings.draw(torch.arange(self._recordings.n_recordings), WINDOW_S, UNCHANGED)

    @torch.no_grad()
    def _set_scale_of_tags(self) -> None:
        head = self.student.network.head
        towers, _, _ = self._predict(window_samples(self._reference))
        head.tag_map.set_scale(head.music(towers.music.mean(1)))


def _joined(found: Sequence[dict[str, TaggerTargets]]) -> dict[str, TaggerTargets]:
    return {
        name: TaggerTargets(
            torch.cat([targets[name].logits for targets in found]),
            torch.cat([targets[name].embedding for targets in found]),
        )
        for name in found[0]
    }
