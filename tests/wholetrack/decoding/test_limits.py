"""The limits of a decoder, and what the documentation says about them."""

from __future__ import annotations

import pytest

from tests.harness.paths import PROJECT
from wholetrack.decoding.limits import DecoderMemory, ffmpeg_limits


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/RELIABILITY.md", "docs/deployment.md"])
def test_the_documentation_states_the_memory_of_both_sizes(page: str) -> None:
    text = (PROJECT / page).read_text()
    for memory in DecoderMemory:
        assert f" {memory.value >> 20} MiB" in text.replace("\n", " ")


def test_the_address_space_has_room_for_the_program_and_its_memory_but_no_more() -> None:
    limits = ffmpeg_limits(60.0, DecoderMemory.LARGE, program_bytes=10 << 20)
    assert limits.data_bytes == 256 << 20
    assert limits.address_space_bytes == 266 << 20
