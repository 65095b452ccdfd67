"""The buffer of uploads: its size and its number of chunks are limited, and nothing is lost."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from wholetrack.api.spool import Spool
from wholetrack.errors import ServiceError


@pytest.mark.parametrize(("n_chunks", "chunk"), [(4, bytes(1 << 18)), (1024, b"x")], ids=["large", "small"])
def test_it_must_be_flushed_when_it_holds_a_mebibyte_or_many_chunks(
    tmp_path: Path, n_chunks: int, chunk: bytes
) -> None:
    spool = Spool(tmp_path, 1 << 24)
    needed = []
    for _ in range(n_chunks):
        needed.append(spool.needs_flush)
        spool.add(chunk)
    needed.append(spool.needs_flush)
    spool.flush()
    needed.append(spool.needs_flush)
    assert needed == [*[False] * n_chunks, True, False]
    spool.add(b"end")
    spool.flush()
    content = n_chunks * chunk + b"end"
    assert spool.path.read_bytes() == content
    assert (spool.n_bytes, spool.sha256.digest()) == (len(content), hashlib.sha256(content).digest())
    spool.discard()
    assert not spool.path.exists()


def test_it_accepts_no_more_than_the_limit(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10)
    spool.add(bytes(10))
    with pytest.raises(ServiceError, match="exceeds the limit of 10 bytes"):
        spool.add(b"x")
    spool.discard()
