"""How many decoders a budget admits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wholetrack.decoding.limits import DecoderMemory
from wholetrack.scheduling import decoder_budget
from wholetrack.scheduling.decoder_budget import decoder_budget_bytes, decoders_at_once

_MIB = 1 << 20
_GIB = 1 << 30


@pytest.mark.parametrize(
    ("budget_mib", "ordinary", "large"),
    [
        # Each is charged 4 MiB more than its limit, and large ones have at most a quarter, but at least one.
        (260 + 68, 1, 1),
        (260 + 2 * 68, 2, 1),
        (1300, 15, 1),
        (2080, 22, 2),
        (3000, 32, 2),
        (100_000, 32, 32),
    ],
)
def test_both_sizes_share_the_budget(budget_mib: int, ordinary: int, large: int) -> None:
    admitted = decoders_at_once(budget_mib * _MIB, tracks_open=32)
    assert admitted == {DecoderMemory.ORDINARY: ordinary, DecoderMemory.LARGE: large}
    assert sum(n * (memory.value + 4 * _MIB) for memory, n in admitted.items()) <= budget_mib * _MIB


def test_a_budget_that_is_too_small_admits_one_of_each_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert decoders_at_once(100 * _MIB, tracks_open=32) == {DecoderMemory.ORDINARY: 1, DecoderMemory.LARGE: 1}
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "more memory" in record.getMessage()


def test_no_more_decoders_are_admitted_than_tracks() -> None:
    assert decoders_at_once(100 * _GIB, tracks_open=1) == {DecoderMemory.ORDINARY: 1, DecoderMemory.LARGE: 1}


class TestBudget:
    """On a fake machine with 2 GiB, of which the service uses 200 MiB."""

    @pytest.fixture(autouse=True)
    def _machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(decoder_budget, "memory_limit_bytes", lambda: 2 * _GIB)
        monkeypatch.setattr(decoder_budget, "used_bytes", lambda: 200 * _MIB)
        monkeypatch.setattr(decoder_budget, "is_in_memory", lambda _: False)

    def test_decoders_get_three_quarters_of_what_is_left(self, tmp_path: Path) -> None:
        assert decoder_budget_bytes(reserved_bytes=0, temp_dir=tmp_path) == (2048 - 200) * _MIB * 3 // 4
        assert decoder_budget_bytes(reserved_bytes=100 * _MIB, temp_dir=tmp_path) == (2048 - 300) * _MIB * 3 // 4

    @pytest.mark.parametrize(("tmpfs_mib", "left_mib"), [(512, 1848 - 512), (2048, 924)])
    def test_uploads_on_a_tmpfs_take_up_to_half_of_what_is_left(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmpfs_mib: int, left_mib: int
    ) -> None:
        blocks = os.statvfs_result((4096, 4096, tmpfs_mib * _MIB // 4096, 0, 0, 0, 0, 0, 0, 255))
        monkeypatch.setattr(decoder_budget, "is_in_memory", lambda _: True)
        monkeypatch.setattr(os, "statvfs", lambda _: blocks)
        assert decoder_budget_bytes(reserved_bytes=0, temp_dir=tmp_path) == left_mib * _MIB * 3 // 4

    def test_a_service_that_uses_more_than_its_limit_has_no_budget(self, tmp_path: Path) -> None:
        assert decoder_budget_bytes(reserved_bytes=3 * _GIB, temp_dir=tmp_path) == 0
