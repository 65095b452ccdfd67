"""All models on a real GPU: with memory to spare, with little memory, and with too little."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.bundles import resized
from tests.harness.paths import PROJECT
from tests.harness.recordings import wav_bytes
from tests.harness.server import running_server
from wholetrack.contracts import Rows
from wholetrack.errors import UnavailableModelError
from wholetrack.inference.bundle import BUILT_IN_MODELS, Bundle, load_bundles
from wholetrack.inference.devices import Devices
from wholetrack.inference.gpu_memory import MemoryBudget, measure_gpu
from wholetrack.inference.session import open_session
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings

pytestmark = pytest.mark.gpu

BUNDLES = load_bundles(BUILT_IN_MODELS)
# At 256 windows this one asks for 4.4 GB at once.
LARGEST = "campana-crnn"
MIB = 1 << 20
# One line of the log: a time, a level, and a request id.
RECORD = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+ (INFO|WARNING|ERROR) +\[[^]]*\] wholetrack\.")


@pytest.mark.parametrize("memory_mb", ["", "4096", "1024"])
def test_every_model_runs_with_any_reasonable_budget_and_the_log_has_no_other_lines(memory_mb: str) -> None:
    settings = {"WHOLETRACK_CUDA_MEMORY_MB": memory_mb} if memory_mb else {}
    done = subprocess.run(
        [sys.executable, "-m", "wholetrack", "models"],
        env=os.environ | {"WHOLETRACK_DEVICE": "cuda"} | settings,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == sorted(BUNDLES)
    assert done.stdout.count("cuda:0") == len(BUNDLES)
    assert [line for line in done.stderr.splitlines() if not RECORD.match(line)] == []
    if memory_mb:
        assert f"model {LARGEST} on cuda:0: at most" in done.stderr


def test_models_together_stay_near_their_budget() -> None:
    """The code of the kernels comes on top: CUDA loads it when a model first uses it."""
    budget_mib, code_mib = 2048, 1024
    before = measure_gpu(0).used
    devices = Devices(Settings(device="cuda", cuda_memory_mb=budget_mib), len(BUNDLES))
    opened = [devices.open(bundle) for bundle in BUNDLES.values()]
    assert {model.sessions[0].device for model in opened} == {"cuda:0"}
    assert measure_gpu(0).used - before <= (budget_mib + code_mib) * MIB


def test_a_network_with_too_little_memory_for_one_window_is_unavailable_and_leaves_the_gpu_usable() -> None:
    with pytest.raises(UnavailableModelError) as caught:
        open_session(BUNDLES[LARGEST], Settings(), "cuda:0", memory_limit_bytes=MIB)
    assert "(not enough memory)" in caught.value.reason
    assert open_session(BUNDLES[LARGEST], Settings(), "cuda:0").max_batch == Settings().cuda_batch


def test_a_failed_attempt_releases_its_memory() -> None:
    bundle = BUNDLES[LARGEST]
    open_session(bundle, Settings(cuda_batch=1), "cuda:0")
    before = measure_gpu(0).used
    with MemoryBudget(lambda: measure_gpu(0), 1024 * MIB).sharing(1) as share:
        limit = share
    session = open_session(bundle, Settings(), "cuda:0", memory_limit_bytes=limit)
    assert session.max_batch < Settings().cuda_batch
    del session
    assert measure_gpu(0).used - before <= 256 * MIB


@pytest.mark.parametrize("bundle", BUNDLES.values(), ids=BUNDLES)
def test_cuda_agrees_with_the_cpu_at_every_batch_size(bundle: Bundle) -> None:
    on_gpu, on_cpu = open_session(bundle, Settings(), "cuda:0"), open_session(bundle, Settings(device="cpu"))
    golden = resized(bundle.golden.windows, on_gpu.max_batch)
    expected = Rows.joined([on_cpu.run(golden[i : i + 8]) for i in range(0, len(golden), 8)])
    for n_windows in (1, 3, 100, on_gpu.max_batch):
        found = on_gpu.run(golden[:n_windows])
        for on_device, expected_rows in zip(found.arrays, expected[:n_windows].arrays, strict=True):
            np.testing.assert_allclose(on_device, expected_rows, atol=1e-3)


def test_the_service_on_a_gpu_is_ready_and_says_so(
    pipeline: Pipeline, tune: NDArray[np.float32], tmp_path: Path
) -> None:
    song = tmp_path / "song.wav"
    song.write_bytes(wav_bytes(tune, 22050))
    folder = tmp_path / "server"
    folder.mkdir()
    with running_server(folder, device="auto") as server:
        ready = httpx.get(f"{server.url}/readyz").json()
        assert ready["models"] == dict.fromkeys(BUNDLES, "cuda:0")
        assert ready["unavailable"] == ready["cpu_fallback"] == {}
        for name in BUNDLES:
            body = server.post(song, model=name).json()
            assert body["model"]["device"] == "cuda:0"
            expected = pipeline.predict(song, model=name, max_duration_s=60)
            assert body["prediction"]["summed_score"]["genre"] == expected.summed_score.genre
        records = server.log.read_text().splitlines()
    assert [record for record in records if not record.startswith("{")] == []
