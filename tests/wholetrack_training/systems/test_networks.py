"""The networks of all systems: input sizes, number of parameters, cost, and the same output in ONNX."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch

from wholetrack_training.errors import RecipeError
from wholetrack_training.export.operations import mflop_per_window
from wholetrack_training.export.to_onnx import INPUT, OUTPUT, export_onnx
from wholetrack_training.systems.recipe import Source
from wholetrack_training.systems.registry import SYSTEMS

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("name", "source", "window_s", "input_size"),
    [
        # For audio, the sizes that the authors state: 130 x 100, 128 x 94, 128 x 32. Precomputed spectrograms have 13
        # frames per second.
        ("hilsdorf-crnn", Source.AUDIO, None, (130, 100)),
        ("hilsdorf-crnn", Source.PRECOMPUTED, None, (39, 128)),
        ("hilsdorf-crnn", Source.PRECOMPUTED, 30.0, (377, 128)),
        ("campana-crnn", Source.AUDIO, 3.0, (94, 128)),
        ("campana-crnn", Source.AUDIO, 1.0, (32, 128)),
        ("campana-crnn", Source.AUDIO, 5.0, (157, 128)),
        ("campana-crnn", Source.PRECOMPUTED, 1.0, (13, 128)),
        ("campana-crnn", Source.PRECOMPUTED, 30.0, (377, 128)),
        ("guimaraes-cnn", Source.AUDIO, None, (130, 128)),
        ("guimaraes-cnn", Source.PRECOMPUTED, None, (20, 128)),
        ("deepsound-crnn", Source.AUDIO, None, (646, 128)),
        ("deepsound-crnn", Source.PRECOMPUTED, None, (377, 128)),
        ("wholetrack-crnn", Source.AUDIO, None, (39, 128)),
    ],
)
def test_a_network_has_the_published_input_size(
    name: str, source: Source, window_s: float | None, input_size: tuple[int, int]
) -> None:
    recipe = SYSTEMS[name].of(source, window_s=window_s)
    frames, n_mels = recipe.windows.frames, recipe.features.n_mels
    assert (frames, n_mels) == input_size
    with torch.inference_mode():
        output = recipe.network(10).eval()(torch.zeros(3, frames, n_mels))
    assert output.shape == ((3, frames // 8, 10) if name == "deepsound-crnn" else (3, 10))


# An export takes seconds. test_served_systems compares the exported networks of precomputed spectrograms, too.
@pytest.mark.parametrize(
    ("name", "source", "window_s"),
    [*((name, Source.AUDIO, None) for name in SYSTEMS), ("campana-crnn", Source.PRECOMPUTED, 1.0)],
)
def test_a_network_has_the_same_output_in_onnx(name: str, source: Source, window_s: float | None) -> None:
    recipe = SYSTEMS[name].of(source, window_s=window_s)
    frames, n_mels = recipe.windows.frames, recipe.features.n_mels
    network = recipe.network(10).eval()
    content = export_onnx(network, frames=frames, n_mels=n_mels)
    windows = np.random.default_rng(1).random((3, frames, n_mels), dtype=np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(windows)).numpy()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"windows": windows})[0], expected, atol=1e-5)
    if name == "wholetrack-crnn":
        assert mflop_per_window(content) < 150


@pytest.mark.parametrize(
    ("name", "source", "shortest"),
    [
        ("campana-crnn", Source.PRECOMPUTED, 8 / 13),
        ("guimaraes-cnn", Source.PRECOMPUTED, 16 / 13),
        ("deepsound-crnn", Source.PRECOMPUTED, 8 / 13),
        ("campana-crnn", Source.AUDIO, 32 * 512 / 16000),
    ],
)
def test_a_window_too_short_for_the_network_is_refused(name: str, source: Source, shortest: float) -> None:
    recipe = SYSTEMS[name].of(source, window_s=shortest)
    windows = torch.zeros(2, recipe.windows.frames, recipe.features.n_mels)
    assert recipe.network(10).eval()(windows).shape[-1] == 10
    with pytest.raises(RecipeError, match=f"{name} needs windows of at least"):
        SYSTEMS[name].of(source, window_s=shortest - 0.1)


@pytest.mark.parametrize(("name", "parameters"), [("hilsdorf-crnn", 400_000), ("wholetrack-crnn", 360_000)])
def test_the_number_of_parameters(name: str, parameters: int) -> None:
    network = SYSTEMS[name].of(Source.AUDIO).network(10)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(parameters, rel=0.02)


def test_masked_top_bands_do_not_affect_the_output() -> None:
    small = {"shape.channels": (4, 8, 8, 16, 16), "shape.hidden": 8}
    recipe = SYSTEMS["wholetrack-crnn"].of(Source.PRECOMPUTED).changed({**small, "shape.masked_top_bands": 6})
    network = recipe.network(10).eval()
    windows = torch.rand(2, 39, 128)
    changed = windows.clone()
    changed[:, :, -6:] = torch.rand(2, 39, 6)
    with torch.inference_mode():
        assert torch.equal(network(windows), network(changed))
        changed[:, :, -7] = 0.0
        assert not torch.equal(network(windows), network(changed))
    onnx = export_onnx(network, frames=39, n_mels=128)
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        np.testing.assert_allclose(
            session.run([OUTPUT], {INPUT: windows.numpy()})[0], network(windows).numpy(), atol=1e-4
        )
