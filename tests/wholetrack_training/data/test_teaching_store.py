"""Recordings and what taggers say of them survive on disk, and damage is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wholetrack_training.data.teaching_store import Targets, TeachingStore
from wholetrack_training.errors import DataError


def one_target(rng: np.random.Generator) -> Targets:
    return Targets(np.array([0, 2]), rng.normal(size=(2, 5)).astype(np.float32), np.zeros((2, 0), dtype=np.float32))


def test_a_recording_is_read_as_it_was_added(tmp_path: Path, rng: np.random.Generator) -> None:
    store = TeachingStore(tmp_path / "store")
    samples = rng.uniform(-1, 1, 1000).astype(np.float32)
    target = one_target(rng)
    assert "a/b.ogg" not in store
    store.add("a/b.ogg", samples, np.array([0.0, 3.0, 6.0]), {"mn04": target})
    assert "a/b.ogg" in store
    (found,) = store.recordings()
    assert found.name == "a/b.ogg"
    assert found.start_s.tolist() == [0.0, 3.0, 6.0]
    np.testing.assert_allclose(found.targets["mn04"].logits, target.logits, atol=2e-3)
    assert found.targets["mn04"].windows.tolist() == [0, 2]
    np.testing.assert_allclose(found.samples(10, 100), samples[10:110], atol=2e-5)
    beyond = found.samples(950, 100)
    assert not beyond[50:].any()
    np.testing.assert_allclose(beyond[:50], samples[950:], atol=2e-5)


def test_samples_without_targets_are_no_recording(tmp_path: Path) -> None:
    (tmp_path / "0123456789abcdef.pcm").write_bytes(b"12")
    with pytest.raises(DataError, match="no taught recordings"):
        TeachingStore(tmp_path).recordings()


def test_a_damaged_file_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    store = TeachingStore(tmp_path)
    store.add("x", np.zeros(10, dtype=np.float32), np.zeros(1), {"mn04": one_target(rng)})
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match="is damaged"):
        store.recordings()
