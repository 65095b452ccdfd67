"""Trains one fold of wholetrack-crnn 2: the joint stage on a device, then the labels on the CPU."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from wholetrack_training.data.audio_pool import read_pool
from wholetrack_training.errors import DataError
from wholetrack_training.fitting.fold_data import FoldData
from wholetrack_training.fitting.joint_stage import JointPlan, JointTraining
from wholetrack_training.fitting.label_stage import LabelPlan, fit_labels
from wholetrack_training.fitting.teachers import Teachers, open_teachers
from wholetrack_training.fitting.waveforms import Waveforms
from wholetrack_training.systems.checkpoints import load_network, new_network, read_tensors, save_network
from wholetrack_training.systems.music_student import MusicStudent
from wholetrack_training.systems.published_crnn import read_crnn
from wholetrack_training.systems.taggers.weights import read_weights
from wholetrack_training.systems.taxonomy import kept_tags
from wholetrack_training.systems.two_towers import TaggerHead, TwoTowerCrnn


class FoldTraining:
    """What the folds share. Nothing is loaded to the device before a fold needs it."""

    def __init__(self, *, pool: Path, weights: Path, run: Path, device: torch.device) -> None:
        """Describe a run.

        Args:
            pool: Pool of unlabelled music.
            weights: Folder of the published weights of the taggers.
            run: Folder of the run.
            device: Where to compute the joint stage.
        """
        self._pool, self._weights, self._run, self._device = pool, weights, run, device

    def train(self, fold: int, start: TwoTowerCrnn, data: FoldData) -> TwoTowerCrnn:
        """Train a fold, or continue; the network of the joint stage is kept as ``joint-<fold>.pt``.

        Args:
            fold: Number of the fold.
            start: The network to start from.
            data: What the fold may learn from.

        Returns:
            The trained network, in evaluation mode on the CPU.

        Raises:
            DataError: If there is a network of the joint stage that was trained in another way or from another start.
        """
        plan = JointPlan()
        joint, description = self._run / f"joint-{fold}.pt", self._run / f"joint-{fold}.txt"
        identity = f"{plan}\n{_digest(start)}\n"
        if joint.exists():
            if not description.exists() or description.read_text() != identity:
                raise DataError(
                    f"{joint} was trained with another plan or from other networks; delete it to train anew"
                )
            network = load_network(joint)
        else:
            training = JointTraining(start, self._teachers, self._music, data, plan, device=self._device)
            network = training.run(self._run / f"joint-checkpoint-{fold}.pt")
            description.write_text(identity)
            save_network(joint, network)
        fit_labels(network, data.audio, data.audio_genres.numpy(), LabelPlan())
        return network

    @cached_property
    def _teachers(self) -> Teachers:
        return open_teachers(self._weights).to(self._device)

    @cached_property
    def _music(self) -> Waveforms:
        return Waveforms(read_pool(self._pool), self._device)


def _digest(network: TwoTowerCrnn) -> str:
    """Return a digest of the towers. Everything else starts from random weights."""
    digest = hashlib.sha256()
    for tower in (network.spectrum, network.music.features):
        for name, value in tower.state_dict().items():
            digest.update(name.encode())
            digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def starting_network(music: Path, weights: Path, version_1: Path) -> TwoTowerCrnn:
    """Return a network with the taught music tower, mn04's head as it was taught, and version 1 as spectrum tower.

    Args:
        music: File of the taught music tower.
        weights: Folder of the published weights of the taggers.
        version_1: Bundle of version 1.

    Raises:
        DataError: If a file is missing or damaged.
    """
    labels = read_weights(weights / "mn04.npz").labels
    try:
        state = read_tensors(music, torch.device("cpu"))
        lengths = {
            name.split(".")[1]: len(value)
            for name, value in state.items()
            if name.startswith("heads.") and name.endswith("bias")
        }
        student = MusicStudent(weights / "mn04.npz", lengths)
        student.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{music} does not hold a taught music tower: {error}") from error
    tags = kept_tags(labels)
    network = new_network(tags)
    network.spectrum.load_state_dict(read_crnn(version_1).state_dict())
    network.music.features.load_state_dict(student.mn04.features.state_dict())
    hidden, output = (layer for layer in student.mn04.classifier.values() if isinstance(layer, nn.Linear))
    network.head.music = TaggerHead.of(hidden, output, [labels.index(tag) for tag in tags])
    return network
