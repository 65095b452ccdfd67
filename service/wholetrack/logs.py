"""Log records on standard error, as JSON objects or as text, each with the id of its request."""

from __future__ import annotations

import logging
import sys
from typing import Literal

from asgi_correlation_id import CorrelationIdFilter
from pythonjsonlogger.json import JsonFormatter

_FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s %(correlation_id)s"
_RENAMED = {"asctime": "time", "levelname": "level", "name": "logger", "correlation_id": "request_id"}


def configure_logs(*, level: str, log_format: Literal["auto", "json", "text"]) -> None:
    """Send the log records of this process to standard error.

    Args:
        level: The lowest severity to write, such as ``info``.
        log_format: ``json`` for one JSON object per record, ``text`` for one line of text, or ``auto`` for text if
            standard error is a terminal, and JSON otherwise.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(CorrelationIdFilter(default_value=None))
    if log_format == "json" or (log_format == "auto" and not sys.stderr.isatty()):
        handler.setFormatter(JsonFormatter(_FIELDS, rename_fields=_RENAMED))
    else:
        handler.setFormatter(
            _SingleLineFormatter("%(asctime)s %(levelname)-7s [%(correlation_id)s] %(name)s: %(message)s")
        )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def printable(text: str) -> str:
    """Return text on one line, with all characters escaped that a terminal could interpret or cannot show."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _SingleLineFormatter(logging.Formatter):
    """Formats each record as one line, so that client input can neither forge a record nor control a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Return the record with control characters escaped."""
        return printable(super().formatMessage(record))
