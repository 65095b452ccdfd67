"""Files of weights: read as they were written, and damaged ones are reported."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch

from wholetrack_training.errors import DataError
from wholetrack_training.systems.checkpoints import load_network, new_network, save_network
from wholetrack_training.systems.taxonomy import AUDIOSET

pytestmark = pytest.mark.torch

TAGS = tuple(dict.fromkeys(tag for tags in AUDIOSET.values() for tag in tags))


def test_a_network_is_read_as_it_was_written(tmp_path: Path) -> None:
    network = new_network(TAGS)
    save_network(tmp_path / "network.pt", network)
    read = load_network(tmp_path / "network.pt")
    assert not read.training
    for name, value in network.state_dict().items():
        torch.testing.assert_close(read.state_dict()[name], value)


@pytest.mark.parametrize("content", [b"", b"{}", b"PK damaged", None])
def test_a_damaged_file_is_reported(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "network.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        load_network(path)


def test_a_file_with_something_else_is_reported(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(DataError, match="does not contain weights"):
        load_network(tmp_path / "list.pt")
    torch.save({"tags": ["Music"]}, tmp_path / "tags.pt")
    with pytest.raises(DataError, match="does not hold the weights"):
        load_network(tmp_path / "tags.pt")
