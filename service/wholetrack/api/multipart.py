"""Parsing a multipart form that consists of exactly one file, while its bytes arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartState, parse_options_header

from wholetrack.api.filename import part_filename
from wholetrack.errors import ErrorKind, ServiceError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_FIELD = b"file"
# Far more than any header of a form has. Headers that consist of semicolons are slow to parse.
_MAX_PARAMETERS = 32
# The parser reads boundaries, and the spaces that may follow them, byte by byte, which is far slower than reading
# content. A form with one file has two boundaries, and no spaces after them.
_MAX_BOUNDARIES = 16
_MAX_PADDING_BYTES = 1024
_SLICE_BYTES = 32 << 10
# These leave the content as it is (RFC 2045, 6.2). HTTP needs no others, and RFC 7578, 4.7 deprecates the header.
_IDENTITY_ENCODINGS = (b"", b"7bit", b"8bit", b"binary")


def header_options(value: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Split a header such as ``form-data; name="file"`` into its value, in lower case, and its parameters.

    Raises:
        ServiceError: ``malformed_request`` if it has too many parameters.
    """
    if value.count(b";") > _MAX_PARAMETERS:
        raise _malformed("A Content-Type or Content-Disposition header has too many parameters.")
    return parse_options_header(value)


class OneFileForm:
    """A multipart body with exactly one part, the field ``file``.

    Args:
        boundary: Boundary stated in the content type of the request.
        on_data: Called with each chunk of the file's content.

    Raises:
        ServiceError: ``malformed_request`` if there is no boundary.
    """

    def __init__(self, boundary: bytes, on_data: Callable[[bytes], None]) -> None:
        if not boundary:
            raise _malformed("The multipart content type has no boundary.")
        self._on_data = on_data
        self._boundary_line = b"\r\n--" + boundary
        self._n_boundaries = 0
        self._padding_bytes = 0
        self._filename: str | None = None
        self._n_files = 0
        self._ended = False
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._encoding = b""
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_end": self._on_end,
        }
        with _form_errors():
            self._parser = MultipartParser(boundary, callbacks)

    def feed(self, chunk: bytes) -> None:
        """Parse the next bytes of the body.

        Raises:
            ServiceError: ``malformed_request`` if the body is not multipart, or for a part other than the one file.
        """
        self._n_boundaries += chunk.count(self._boundary_line)
        if self._n_boundaries > _MAX_BOUNDARIES:
            raise _malformed("The multipart body has too many parts, or lines in the file begin like its boundary.")
        with _form_errors():
            for begin in range(0, len(chunk), _SLICE_BYTES):
                self._padding_bytes += self._parser.write(chunk[begin : begin + _SLICE_BYTES])
                if self._parser.state != MultipartState.BOUNDARY_PADDING:
                    self._padding_bytes = 0
                elif self._padding_bytes > _MAX_PADDING_BYTES:
                    raise _malformed("The multipart body has too many spaces after a boundary.")

    def finish(self) -> str | None:
        """End the body and return the name of the file, if the client sent one.

        Raises:
            ServiceError: ``malformed_request`` if the body is incomplete or contains no file.
        """
        if not self._ended:
            raise _malformed("The multipart body is incomplete.")
        if self._n_files == 0:
            raise _malformed("The request contains no file. Send one as the form field 'file'.")
        return self._filename

    def _on_part_begin(self) -> None:
        self._disposition = self._encoding = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        name = self._header_name.lower()
        if name == b"content-disposition":
            self._disposition = self._header_value
        elif name == b"content-transfer-encoding":
            self._encoding = self._header_value.strip().lower()
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = header_options(self._disposition)
        if options.get(b"name") != _FIELD:
            raise _malformed(
                "The only accepted form field is 'file'. Send parameters such as top_k in the query string of the URL."
            )
        if self._encoding not in _IDENTITY_ENCODINGS:
            raise _malformed(
                "The file is encoded, for example as base64, as its header Content-Transfer-Encoding says. Send its "
                "bytes as they are."
            )
        self._n_files += 1
        if self._n_files > 1:
            raise _malformed("The request contains more than one file. Send each file in its own request.")
        self._filename = part_filename(options.get(b"filename", b""), self._disposition)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._on_data(data[start:end])

    def _on_end(self) -> None:
        self._ended = True


@contextmanager
def _form_errors() -> Iterator[None]:
    try:
        yield
    except FormParserError as error:
        raise _malformed("The multipart body is malformed.") from error


def _malformed(detail: str) -> ServiceError:
    return ServiceError(ErrorKind.MALFORMED_REQUEST, detail)
