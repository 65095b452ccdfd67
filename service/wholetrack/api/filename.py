"""The name of an uploaded file, in any of the encodings that clients use."""

from __future__ import annotations

import re
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.utils import collapse_rfc2231_value, decode_params, unquote

_MAX_CHARACTERS = 255
# No encoding of 255 characters is longer. The limit matters because decoding takes quadratic time.
_MAX_ENCODED = 4096
_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:\\.|[^"\\])*"|[^;]*)', re.DOTALL)


def part_filename(plain: bytes, disposition: bytes) -> str | None:
    """Return the name of the file in a part of a form.

    Browsers send it in UTF-8, as RFC 7578 demands. Some libraries send ``filename*`` (RFC 8187), which takes
    precedence, or encoded words (RFC 2047).

    Args:
        plain: The parameter ``filename``; empty if there is none.
        disposition: The whole ``Content-Disposition`` header.
    """
    name = _extended(disposition[:_MAX_ENCODED]) if b"filename*" in disposition.lower() else None
    if name is None:
        name = _words(plain[:_MAX_ENCODED].decode("utf-8", errors="replace"))
    # Some charsets can encode half of a surrogate pair, which no response can contain.
    return name[:_MAX_CHARACTERS].encode("utf-8", errors="replace").decode("utf-8") or None


def _extended(disposition: bytes) -> str | None:
    """Return the decoded parameter ``filename*``; None if there is none."""
    parameters = [(name.lower(), value.strip()) for name, value in _PARAMETER.findall(disposition.decode("latin-1"))]
    # The first element stands for the value in front of the parameters.
    _, *decoded = decode_params([("", ""), *parameters])
    extended = [value for name, value in decoded if name == "filename" and isinstance(value, tuple)]
    if not extended:
        return None
    charset, language, text = extended[0]
    return collapse_rfc2231_value((charset, language, unquote(text)))


def _words(name: str) -> str:
    """Return a name with its encoded words decoded; unchanged if it has none or they are invalid."""
    if "=?" not in name:
        return name
    try:
        return str(make_header(decode_header(name)))
    except (HeaderParseError, LookupError, ValueError):
        return name
