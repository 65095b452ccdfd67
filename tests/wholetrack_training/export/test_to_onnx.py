"""Export to ONNX: same outputs, no traces of this machine, and only layers that can be translated."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch
from torch import Tensor, nn

from tests.wholetrack_training.small_network import FULL
from wholetrack_training.errors import ExportError
from wholetrack_training.export.operations import mflop_per_window
from wholetrack_training.export.to_onnx import ExportedGraph, export_onnx

pytestmark = pytest.mark.torch


def test_export_keeps_the_outputs_and_contains_no_paths_of_this_machine() -> None:
    torch.manual_seed(0)
    network = FULL.network(10).eval()
    content = export_onnx(network, frames=39, n_mels=128)
    assert b"/training/" not in content
    assert b"site-packages" not in content
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for n_windows in (1, 5, 70):
        windows = np.random.default_rng(n_windows).random((n_windows, 39, 128), dtype=np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(windows)).numpy()
        np.testing.assert_allclose(session.run(None, {"windows": windows})[0], expected, atol=1e-5)
    # The five convolutions by hand, 2 * 9 * channels in * channels out * bands * frames each, and the GRU.
    convolutions = 9 * (
        2 * 24 * 64 * 39 + 24 * 40 * 64 * 39 + 40 * 64 * 32 * 19 + 64 * 112 * 16 * 19 + 112 * 160 * 4 * 19
    )
    recurrent = 19 * 2 * 3 * 64 * (160 + 64)
    assert mflop_per_window(content) == pytest.approx(2 * (convolutions + recurrent) / 1e6, rel=0.005)


def test_a_recurrent_layer_that_cannot_be_translated_is_refused() -> None:
    class Stacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(8, 4, num_layers=2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.gru(x)[0].mean(1)  # type: ignore[no-any-return]

    with pytest.raises(ExportError, match="only a GRU or LSTM with one layer"):
        export_onnx(Stacked(), frames=5, n_mels=8)


def test_the_weights_of_an_exported_graph_can_be_exchanged() -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(5)
            self.gru = nn.GRU(8, 4, bidirectional=True, batch_first=True)
            self.register_buffer("shift", torch.rand(8))

        def forward(self, x: Tensor) -> Tensor:
            return self.gru(self.norm(x))[0].mean(1) + self.shift  # type: ignore[no-any-return]

    torch.manual_seed(0)
    graph = ExportedGraph(Small().eval(), inputs={"x": (5, 8)}, outputs=["y"])
    windows = np.random.default_rng(0).random((3, 5, 8), dtype=np.float32)
    for _ in range(2):
        network = Small().eval()
        network.norm.running_mean = torch.rand(5)
        session = onnxruntime.InferenceSession(graph.with_weights_of(network), providers=["CPUExecutionProvider"])
        with torch.inference_mode():
            expected = network(torch.from_numpy(windows)).numpy()
        np.testing.assert_allclose(session.run(None, {"x": windows})[0], expected, atol=1e-5)
