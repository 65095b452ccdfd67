"""The formats of a prediction, and which one a request gets."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from enum import StrEnum

from wholetrack.errors import ErrorKind, ServiceError


class ResponseFormat(StrEnum):
    """A format of a prediction, by its name in the parameter ``format``."""

    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    SVG = "svg"
    PNG = "png"
    # Last, so that a wildcard does not choose them: not every client can read a stream of events.
    SSE = "sse"
    NDJSON = "ndjson"

    @property
    def media_type(self) -> str:
        """The media type, without parameters."""
        return _MEDIA_TYPES[self]

    @property
    def is_live(self) -> bool:
        """Whether the response is a stream of events."""
        return self in (ResponseFormat.SSE, ResponseFormat.NDJSON)


_MEDIA_TYPES = {
    ResponseFormat.JSON: "application/json",
    ResponseFormat.SSE: "text/event-stream",
    ResponseFormat.NDJSON: "application/x-ndjson",
    ResponseFormat.JSONL: "application/jsonl",
    ResponseFormat.CSV: "text/csv",
    ResponseFormat.PARQUET: "application/vnd.apache.parquet",
    ResponseFormat.SVG: "image/svg+xml",
    ResponseFormat.PNG: "image/png",
}


def negotiate(accept: str, *, unavailable: Collection[ResponseFormat] = ()) -> ResponseFormat:
    """Return the format that an ``Accept`` header prefers (RFC 9110, 12.5.1); JSON if there is no such header.

    Of several formats that it prefers equally, the first one in :class:`ResponseFormat` is chosen, and none that is
    unavailable.

    Raises:
        ServiceError: ``not_acceptable`` if it allows none of the formats.
    """
    if not accept.strip():
        return ResponseFormat.JSON
    ranges = list(_media_ranges(accept))
    best, best_quality = ResponseFormat.JSON, 0.0
    available = [offered for offered in ResponseFormat if offered not in unavailable]
    for offered in available:
        # The most specific range that matches applies, whatever its quality.
        matching = [(range_.count("*"), -quality) for range_, quality in ranges if _matches(range_, offered.media_type)]
        quality = -min(matching)[1] if matching else 0.0
        if quality > best_quality:
            best, best_quality = offered, quality
    if not best_quality:
        raise ServiceError(
            ErrorKind.NOT_ACCEPTABLE,
            f"The header Accept allows none of these: {', '.join(f.media_type for f in available)}.",
        )
    return best


def _media_ranges(accept: str) -> Iterator[tuple[str, float]]:
    for element in accept.split(","):
        range_, *parameters = (part.strip().lower() for part in element.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            yield range_, min(max(float(quality), 0.0), 1.0)
        except ValueError:
            yield range_, 0.0


def _matches(range_: str, media_type: str) -> bool:
    if range_ == "*/*":
        return True
    kind, _, subtype = range_.partition("/")
    return range_ == media_type or (subtype == "*" and media_type.startswith(f"{kind}/"))
