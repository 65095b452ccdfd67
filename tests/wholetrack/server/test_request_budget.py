"""How many headers, query parameters and chunks a request may consist of."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.server.request_budget import RequestBudget


@pytest.fixture
def budget() -> RequestBudget:
    return RequestBudget(32768)


def count_accepted(budget: RequestBudget, chunk_sizes: Iterable[int]) -> int:
    """Return how many chunks of a body are accepted before it is refused."""
    n_accepted = 0
    for size in chunk_sizes:
        try:
            budget.count_chunk()
        except ServiceError:
            return n_accepted
        budget.count_body(size)
        n_accepted += 1
    return n_accepted


@pytest.mark.parametrize(("size", "limit"), [(1, 260), (2, 264), (32, 511)])
def test_a_body_of_small_chunks_is_refused_after_some_hundred(budget: RequestBudget, size: int, limit: int) -> None:
    assert count_accepted(budget, [size] * 100_000) == limit


@pytest.mark.parametrize("size", [64, 65, 65536])
def test_a_body_of_larger_chunks_may_have_any_number_of_them(budget: RequestBudget, size: int) -> None:
    assert count_accepted(budget, [size] * 100_000) == 100_000


def test_a_refusal_says_how_large_chunks_must_be(budget: RequestBudget) -> None:
    for _ in range(256):
        budget.count_chunk()
    with pytest.raises(ServiceError, match="at least 64 bytes per chunk") as caught:
        budget.count_chunk()
    assert caught.value.kind is ErrorKind.MALFORMED_REQUEST


def test_large_chunks_do_not_make_up_for_any_number_of_small_ones(budget: RequestBudget) -> None:
    assert count_accepted(budget, [1 << 20] * 100 + [1] * 100_000) == 100 + 260


def test_every_request_has_the_whole_budget(budget: RequestBudget) -> None:
    for _ in range(3):
        assert count_accepted(budget, [1] * 200) == 200
        for _ in range(60):
            budget.count_header(b"name", b"value")
        budget.start_request()


def test_the_number_of_headers_is_limited(budget: RequestBudget) -> None:
    for _ in range(100):
        budget.count_header(b"a", b"")
    with pytest.raises(ServiceError, match="at most 100 headers"):
        budget.count_header(b"a", b"")


def test_the_length_of_a_header_and_of_the_url_is_limited(budget: RequestBudget) -> None:
    budget.count_header(b"name", b"v" * 8186)
    with pytest.raises(ServiceError, match="at most 8190 bytes"):
        budget.count_header(b"name", b"v" * 8187)
    for _ in range(2):
        budget.count_url(b"u" * 4095)
    with pytest.raises(ServiceError, match="at most 8190 bytes"):
        budget.count_url(b"u")


def test_the_number_of_query_parameters_is_limited(budget: RequestBudget) -> None:
    budget.check_query(b"/a&b&c?" + b"&".join([b"x=1"] * 32))
    with pytest.raises(ServiceError, match="more than 32 query parameters"):
        budget.check_query(b"/?" + b"&" * 32)


@pytest.mark.parametrize("value", [b"gzip", b"gzip, chunked", b"identity", b"xchunked", b"chunked, chunked", b""])
def test_transfer_codings_other_than_chunked_are_not_supported(budget: RequestBudget, value: bytes) -> None:
    budget.count_header(b"Transfer-Encoding", b" Chunked ")
    with pytest.raises(ServiceError) as caught:
        budget.count_header(b"Transfer-Encoding", value)
    assert caught.value.kind is ErrorKind.UNSUPPORTED_TRANSFER_CODING
