"""LitServe: worker processes that decode and classify the requests of their batch (lightning.ai/docs/litserve)."""

import sys

import litserve
import numpy as np
from fastapi import UploadFile
from numpy.typing import NDArray

from bench.peers.work import CORES, MAX_BATCH_TRACKS, WORKERS, Work

Windows = NDArray[np.float32]


class Genres(litserve.LitAPI):
    """Batches requests and classifies the windows of a batch together."""

    def setup(self, device: str) -> None:
        del device
        self.work = Work()

    def decode_request(self, request: UploadFile) -> Windows:
        return self.work.windows(request.file.read())

    def batch(self, inputs: list[Windows]) -> list[Windows]:
        return inputs

    def predict(self, x: Windows | list[Windows]) -> Windows | list[Windows]:
        return self.work.classify_together(x) if isinstance(x, list) else self.work.classify(x)

    def unbatch(self, output: list[Windows]) -> list[Windows]:
        return output

    def encode_response(self, output: Windows) -> dict[str, dict[str, float]]:
        return self.work.shares(output)


if __name__ == "__main__":
    if WORKERS:
        api = Genres(api_path="/predict")
    else:
        api = Genres(max_batch_size=MAX_BATCH_TRACKS, batch_timeout=0.01, api_path="/predict")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=CORES if WORKERS else 1, timeout=False)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
