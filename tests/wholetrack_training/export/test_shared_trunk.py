"""The windows of a strip are classified as they are one by one, wherever the strip begins and ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnxruntime import InferenceSession

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch
from torch import nn

from wholetrack_training.export.shared_trunk import FRAMES, STARTS, export_strip_network
from wholetrack_training.export.to_onnx import INPUT, OUTPUT, export_onnx
from wholetrack_training.systems.recipe import Source
from wholetrack_training.systems.shared_trunk_crnn import SharedTrunkCrnn, SharedTrunkRecipe

pytestmark = pytest.mark.torch

RECIPE = SharedTrunkRecipe.of(Source.PRECOMPUTED).changed({"shape.channels": (16, 16, 16, 16, 32), "shape.hidden": 16})
WINDOW, N_MELS, N_LABELS = 39, 128, 10


@pytest.fixture(scope="module")
def network() -> SharedTrunkCrnn:
    torch.manual_seed(3)
    network = RECIPE.network(N_LABELS)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.rand_like(module.weight) * 0.2 - 0.1
            module.running_var = torch.rand_like(module.weight) * 0.09 + 0.01
    return network.eval()


@pytest.fixture(scope="module")
def track() -> NDArray[np.float32]:
    """Frames of a track that gets louder, with a silent part."""
    rng = np.random.default_rng(5)
    frames = rng.normal(-30, 15, (400, N_MELS)) + np.linspace(0, 20, 400)[:, None]
    frames[150:230] = -100
    return frames.astype(np.float32)


@pytest.fixture(scope="module")
def strips(network: SharedTrunkCrnn) -> InferenceSession:
    return InferenceSession(export_strip_network(network, n_mels=N_MELS), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def expected(network: SharedTrunkCrnn, track: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits of the window at every frame, classified one by one."""
    content = export_onnx(network, frames=WINDOW, n_mels=N_MELS)
    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    windows = (track[None, start : start + WINDOW] for start in range(len(track) - WINDOW + 1))
    return np.concatenate([np.asarray(session.run([OUTPUT], {INPUT: window})[0]) for window in windows])


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_windows_of_a_strip_are_classified_as_they_are_one_by_one(
    data: st.DataObject, strips: InferenceSession, track: NDArray[np.float32], expected: NDArray[np.float32]
) -> None:
    begin = data.draw(st.integers(0, len(track) - WINDOW), "begin")
    end = data.draw(st.integers(begin + WINDOW, len(track)), "end")
    start = st.integers(0, end - begin - WINDOW)
    starts = np.array(data.draw(st.lists(start, min_size=1, max_size=20), "starts"), dtype=np.int64)
    found = strips.run([OUTPUT], {FRAMES: track[begin:end], STARTS: starts})[0]
    np.testing.assert_allclose(found, expected[begin + starts], atol=1e-5)


def test_the_windows_of_the_track_differ(expected: NDArray[np.float32]) -> None:
    assert np.ptp(expected, axis=0).min() > 1e-3


def test_a_window_does_not_depend_on_its_gain(network: SharedTrunkCrnn, track: NDArray[np.float32]) -> None:
    windows = torch.from_numpy(track[None, :WINDOW])
    with torch.inference_mode():
        assert torch.allclose(network(windows), network(windows + 23.5), atol=1e-4)


def test_a_stretch_yields_the_windows_at_every_hop(
    network: SharedTrunkCrnn, track: NDArray[np.float32], expected: NDArray[np.float32]
) -> None:
    stretches = torch.from_numpy(np.stack([track[:65], track[300:365]]))
    with torch.inference_mode():
        found = network(stretches).numpy()
    np.testing.assert_allclose(found, expected[[0, 13, 26, 300, 313, 326]], atol=1e-4)


def test_batches_have_a_target_for_every_window_of_a_stretch(network: SharedTrunkCrnn) -> None:
    from tests.wholetrack_training.toys import toy_set

    tracks = toy_set(per_genre=8)
    for stretches, targets in RECIPE.batches(tracks, np.random.default_rng(0)):
        with torch.inference_mode():
            assert network(torch.from_numpy(stretches)).shape == (len(targets), N_LABELS)
        np.testing.assert_allclose(targets.sum(axis=1), 1.0, atol=1e-5)
