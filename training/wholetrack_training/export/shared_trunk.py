"""Export of a network with a shared trunk to the graph that classifies all windows of a strip of frames at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wholetrack_training.export.recurrent import RECURRENT_TRANSLATIONS, with_single_nodes
from wholetrack_training.export.to_onnx import OPSET, OUTPUT, finished, quiet_export
from wholetrack_training.systems.shared_trunk_crnn import SharedTrunkCrnn

FRAMES = "frames"
STARTS = "starts"


class StripNetwork(nn.Module):
    """Maps a strip of frames and the first frame of each window to the logits of the windows.

    Args:
        network: The network, which stays as it is.
    """

    def __init__(self, network: SharedTrunkCrnn) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor, starts: Tensor) -> Tensor:
        """Return ``[n_windows, n_labels]``.

        Args:
            frames: ``[n_frames, n_mels]``, in dB.
            starts: ``[n_windows]``, whole numbers.
        """
        trunk = self.network.trunk(frames[None])[0]
        # Indexing would be exported with shapes that are computed at run time, on the CPU.
        return self.network.head(nn.functional.embedding(starts[:, None] + self.network.steps, trunk))


def export_strip_network(network: SharedTrunkCrnn, *, n_mels: int) -> bytes:
    """Export the graph for strips of any length, with any number of windows at any frames.

    Args:
        network: The network.
        n_mels: Mel bands per frame.

    Returns:
        An ONNX file with the inputs :data:`FRAMES`, ``[n_frames, n_mels]``, and :data:`STARTS`, ``[n_windows]``.

    Raises:
        ExportError: If the graph has a node that the CUDA provider would run on the CPU.
    """
    strip = with_single_nodes(StripNetwork(network)).eval()
    example = torch.zeros((2 * network.frames, n_mels)), torch.zeros(2, dtype=torch.int64)
    n_frames, n_windows = torch.export.Dim("F", min=network.frames), torch.export.Dim("N", min=1)
    with quiet_export():
        program = torch.onnx.export(
            strip,
            example,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[FRAMES, STARTS],
            output_names=[OUTPUT],
            dynamic_shapes=({0: n_frames}, {0: n_windows}),
            custom_translation_table=RECURRENT_TRANSLATIONS,
        )
    assert program is not None
    return finished(program.model_proto)
