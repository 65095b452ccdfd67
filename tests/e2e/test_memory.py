"""Recordings that need much memory to decode, many at once, in a container with little memory."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.big_index import with_big_index
from tests.harness.memory_group import memory_group
from tests.harness.recordings import Recorder, wav_bytes
from tests.harness.server import running_server

pytestmark = [pytest.mark.cgroup, pytest.mark.timing, pytest.mark.timeout(900)]

_LIMIT_BYTES = 2 << 30
_N_AT_ONCE = 32
# Needs 200 MiB with ffmpeg 9. The small tracks fill what the limit leaves, so that ordinary memory is never enough.
_TRACKS = (1_500_000,) * 3 + (300_000,) * 2 + (30_000,) * 10


def test_many_recordings_that_need_much_memory_do_not_exceed_the_limit_of_the_container(
    recorder: Recorder, tmp_path: Path, tune: NDArray[np.float32]
) -> None:
    """Together they would need 6.4 GB. They wait for each other; a song that is sent meanwhile does not."""
    song, m4a, service = tmp_path / "song.wav", tmp_path / "song.m4a", tmp_path / "service"
    song.write_bytes(wav_bytes(tune, 22050))
    recorder.run("-i", song, "-c:a", "aac", m4a)
    big = with_big_index(m4a.read_bytes(), _TRACKS)
    service.mkdir()
    with memory_group(_LIMIT_BYTES) as group, running_server(service, group) as server:
        with ThreadPoolExecutor(_N_AT_ONCE) as threads:
            sent = [threads.submit(server.post, big, "big.m4a", timeout_s=500) for _ in range(_N_AT_ONCE)]
            while not any(each.done() for each in sent):
                assert server.post(song).status_code == 200
            assert not all(each.done() for each in sent)
        assert Counter(each.result().status_code for each in sent) == {200: _N_AT_ONCE}
        genres = {each.result().json()["prediction"]["summed_score"]["genre"] for each in sent}
        assert genres == {server.post(m4a).json()["prediction"]["summed_score"]["genre"]}
        assert group.n_killed() == 0
        assert group.peak_bytes() < _LIMIT_BYTES
