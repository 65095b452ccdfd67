"""Counting what a request consists of, so that no request costs much more than its size suggests."""

from __future__ import annotations

from wholetrack.server.refusals import (
    chunks_too_small,
    headers_too_large,
    too_many_parameters,
    unsupported_transfer_coding,
)

# As in Apache (LimitRequestFields, LimitRequestLine, LimitRequestFieldSize). Every look-up of a header goes through all
# of them, and some headers take longer to process than to receive.
_MAX_HEADERS = 100
_MAX_LINE_BYTES = 8190
_MAX_QUERY_PARAMETERS = 32
# A chunk takes as long to read as some hundred bytes, so one-byte chunks can be sent faster than they can be read.
_MIN_CHUNK_BYTES = 64
_SMALL_CHUNKS = 256


class RequestBudget:
    """Counts the headers and chunks of one request at a time.

    Header bytes need two counters. Bytes that the parser has reported as parts of headers are counted exactly, even if
    a body follows in the same read. Bytes of a header line or chunk extension that never ends are not reported at all,
    so everything read since the last part of a body is counted as well.

    Chunks must have a minimum size on average, except for some hundred. Whether a body is accepted depends only on its
    chunks, not on how they arrive.

    Args:
        max_header_bytes: Limit for either counter of header bytes.
    """

    def __init__(self, max_header_bytes: int) -> None:
        self._max_header_bytes = max_header_bytes
        self.start_request()

    def start_request(self) -> None:
        """Start from zero for the next request."""
        self._read_bytes = 0
        self._header_bytes = 0
        self._url_bytes = 0
        self._n_headers = 0
        self._chunk_credit_bytes = _SMALL_CHUNKS * _MIN_CHUNK_BYTES

    def count_read(self, n_bytes: int) -> None:
        """Count bytes read from the client, whatever they are."""
        self._read_bytes += n_bytes

    def check_read(self) -> None:
        """Check the bytes read since the last part of a body, once the parser has reported what they contain.

        Raises:
            ServiceError: ``headers_too_large``.
        """
        if self._read_bytes > self._max_header_bytes:
            raise self._headers_too_large()

    def count_url(self, part: bytes) -> None:
        """Count a part of the URL.

        Raises:
            ServiceError: ``headers_too_large``.
        """
        self._url_bytes += len(part)
        self._count_header_bytes(len(part), line_bytes=self._url_bytes)

    def count_header(self, name: bytes, value: bytes) -> None:
        """Count a header or trailer.

        Raises:
            ServiceError: ``headers_too_large``, or ``unsupported_transfer_coding``.
        """
        self._n_headers += 1
        n_bytes = len(name) + len(value)
        self._count_header_bytes(n_bytes, line_bytes=n_bytes)
        if self._n_headers > _MAX_HEADERS:
            raise self._headers_too_large()
        if name.lower() == b"transfer-encoding" and value.strip().lower() != b"chunked":
            raise unsupported_transfer_coding()

    def check_query(self, url: bytes) -> None:
        """Check the number of query parameters.

        Raises:
            ServiceError: ``invalid_parameter``.
        """
        if url.partition(b"?")[2].count(b"&") >= _MAX_QUERY_PARAMETERS:
            raise too_many_parameters(_MAX_QUERY_PARAMETERS)

    def count_chunk(self) -> None:
        """Count the start of a chunk of the body.

        Raises:
            ServiceError: ``malformed_request``.
        """
        self._chunk_credit_bytes -= _MIN_CHUNK_BYTES
        if self._chunk_credit_bytes < 0:
            raise chunks_too_small(_MIN_CHUNK_BYTES)

    def count_body(self, n_bytes: int) -> None:
        """Count bytes of the body. Large chunks do not make up for any number of small ones that follow."""
        self._read_bytes = 0
        self._chunk_credit_bytes = min(self._chunk_credit_bytes + n_bytes, _SMALL_CHUNKS * _MIN_CHUNK_BYTES)

    def _count_header_bytes(self, n_bytes: int, *, line_bytes: int) -> None:
        self._header_bytes += n_bytes
        if self._header_bytes > self._max_header_bytes or line_bytes > _MAX_LINE_BYTES:
            raise self._headers_too_large()

    def _headers_too_large(self) -> Exception:
        return headers_too_large(
            max_bytes=self._max_header_bytes, max_headers=_MAX_HEADERS, max_line_bytes=_MAX_LINE_BYTES
        )
