"""Version 1's weights, read back from its bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch

from tests.harness.paths import PROJECT
from wholetrack_training.errors import DataError
from wholetrack_training.systems.published_crnn import read_crnn

pytestmark = pytest.mark.torch


def test_the_network_has_the_outputs_of_its_bundle() -> None:
    bundle = PROJECT / "tests/folds/fold-1/1"
    windows = np.random.default_rng(0).random((4, 39, 128), dtype=np.float32)
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        found = read_crnn(bundle)(torch.from_numpy(windows)).numpy()
    np.testing.assert_allclose(found, session.run(None, {"windows": windows})[0], atol=1e-5)


def test_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not hold"):
        read_crnn(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"no network")
    with pytest.raises(DataError, match="does not hold"):
        read_crnn(tmp_path)
    with pytest.raises(DataError, match="does not hold"):
        read_crnn(PROJECT / "models/hilsdorf-crnn/1")
