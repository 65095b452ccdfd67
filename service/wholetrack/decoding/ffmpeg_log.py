"""Follow what ffmpeg writes to stderr at ``-loglevel level+verbose`` while it decodes one file.

The log is used to classify errors and to describe the stream; it is never passed on to clients. ffmpeg prints tags
verbatim, including line breaks, so a file can imitate any line of the log. Two facts make it usable nevertheless:
ffmpeg prints all tags before it maps the streams, and the description of a stream contains a marker that no file can
know.

The log is parsed line by line as it arrives, so that neither its length nor its content affects the cost or the result.
"""

from __future__ import annotations

import re

from wholetrack.contracts import StreamInfo

# ffmpeg starts a line with a context in brackets or with the level. The rest of a tag with several lines is indented.
_LINE = re.compile(rb"^\[[^\n]*", re.MULTILINE)
_MAX_LINE_BYTES = 4096
_KEPT_BYTES = 4096

_INPUT = re.compile(rb"\[info\] Input #0, ([\w,]{1,60}), from ")
_DURATION = re.compile(
    rb"\[info\]   Duration: (?P<h>\d{1,7}):(?P<m>\d\d):(?P<s>\d\d\.\d{1,6})(?:, start: (?P<start>-?\d{1,9}\.\d{1,9}))?"
)
_STREAM = re.compile(rb"\[info\]   Stream #0:\d{1,5}")
_AUDIO = re.compile(rb"\[info\]   Stream #0:\d{1,5}[^\n]{0,80}?: Audio: (\w{1,40})")
_AUDIO_FORMAT = re.compile(rb"(\d{1,10}) Hz, ([^,]{1,200})")
_COVER_ART = b"(attached pic)"
_ESTIMATED_DURATION = b"Estimating duration from bitrate"
_MAPPING = b"[info] Stream mapping:"
# The source of the filters logs the format of the decoded audio whenever the filters are set up.
_FILTERS = re.compile(rb"\[graph[^\]]{1,100}\] \[verbose\] tb:")
_OUT_OF_PHASE = b"[info] out_phase_start:"
# Contexts of the output. ffmpeg complains there about timestamps that do not increase, but writes all samples.
_OUTPUT_CONTEXTS = (b"[out#", b"[f32le ")
_ERROR_LEVELS = re.compile(rb"^(?:\[[^\]\n]{1,200}\] )*\[(?:error|fatal|panic)\] ")
_SIGNAL = re.compile(rb"\[info\] Exiting normally, received signal (\d{1,3})\.")
_END_TIME = re.compile(rb"size=.{1,40}? time=(\d{1,7}):(\d\d):(\d\d\.\d{1,6})")

# Layouts whose names do not state the number of channels as front.low(.height), as "5.1" and "7.1.4" do.
_LAYOUTS = {
    "mono": 1,
    "stereo": 2,
    "downmix": 2,
    "binaural": 2,
    "quad": 4,
    "quad(side)": 4,
    "hexagonal": 6,
    "octagonal": 8,
    "cube": 8,
    "hexadecagonal": 16,
}
_COUNTED_LAYOUT = re.compile(r"^(\d{1,5}) channels")
_AMBISONIC_LAYOUT = re.compile(r"^ambisonic (\d{1,3})(?:\+(.*))?$")


class FfmpegLog:
    """What one ffmpeg process has logged so far.

    Args:
        marker: The marker given to :meth:`wholetrack.decoding.ffmpeg.Ffmpeg.decode_command`.

    Attributes:
        n_bytes: Length of the log in bytes.
        stream: The audio stream, once it is described.
        output_rate: Sample rate of the output in Hz; None until decoding produces its first audio.
        decode_errors: Number of errors since the streams were mapped.
        n_formats: How often ffmpeg has set up its filters: once, and again whenever the sample rate or the channels
            change.
        out_of_phase: Whether the channels are out of phase somewhere; only logged by quick decoding.
        exit_signal: Number of the signal at which ffmpeg finished its output and exited; None if it received none.
    """

    def __init__(self, marker: str) -> None:
        self._marker = f", {marker}".encode()
        self._output_marker = f", {marker}=".encode()
        self._partial_line = b""
        self._end = b""
        self._container: str | None = None
        self._is_estimated = False
        self._declared: list[tuple[float, float]] = []
        self._n_streams = 0
        self._end_s: float | None = None
        self.n_bytes = 0
        self.stream: StreamInfo | None = None
        self.output_rate: int | None = None
        self.decode_errors = 0
        self.n_formats = 0
        self.out_of_phase = False
        self.exit_signal: int | None = None

    @property
    def opened(self) -> bool:
        """Whether the container was recognised and opened."""
        return self._container is not None

    @property
    def started(self) -> bool:
        """Whether decoding has produced its first audio."""
        return self.output_rate is not None

    @property
    def declared_s(self) -> float | None:
        """Duration in seconds that the file declares.

        None if it declares none, if ffmpeg estimated it, or if it may be that of another stream.
        """
        if self._is_estimated or len(self._declared) != 1 or self._n_streams != 1:
            return None
        return self._declared[0][0]

    @property
    def end_s(self) -> float | None:
        """Time at which the audio ends according to the timestamps, counted from the same origin as the duration.

        A recording that starts late, or whose timestamps jump, ends later than the duration of its samples says. None
        until ffmpeg has finished.
        """
        start_s = self._declared[0][1] if self._declared else 0.0
        return None if self._end_s is None else self._end_s + max(0.0, start_s)

    def feed(self, data: bytes) -> None:
        """Parse the next part of the log, ``data``, up to its last complete line."""
        self.n_bytes += len(data)
        self._end = (self._end + data)[-_KEPT_BYTES:]
        # The statistics that ffmpeg prints at the end follow a carriage return.
        data = data.replace(b"\r", b"\n")
        complete, newline, rest = data.rpartition(b"\n")
        if newline:
            for line in _LINE.finditer(self._partial_line + complete):
                self._parse(line[0][:_MAX_LINE_BYTES])
            self._partial_line = b""
        self._partial_line = (self._partial_line + rest)[:_MAX_LINE_BYTES]

    def finish(self) -> None:
        """Parse the last line, which may lack its line break."""
        self.feed(b"\n")

    def text(self) -> str:
        """Return the end of the log."""
        return self._end.decode("utf-8", errors="replace")

    def _parse(self, line: bytes) -> None:
        if self._container is None:
            self._parse_opening(line)
        elif self.output_rate is None:
            self._parse_description(line)
        if self._container is not None:
            self._parse_progress(line)

    def _parse_opening(self, line: bytes) -> None:
        if found := _INPUT.match(line):
            self._container = found[1].decode()
        elif _ESTIMATED_DURATION in line:
            self._is_estimated = True

    def _parse_description(self, line: bytes) -> None:
        """Parse a line between the opening of the input and the first output, among which are all tags."""
        if line.startswith(_MAPPING):
            # Only lines after the last one of these are genuine; tags may contain earlier ones.
            self.decode_errors, self.n_formats, self.out_of_phase = 0, 0, False
        elif self._output_marker in line:
            if found := _AUDIO_FORMAT.match(line.partition(self._output_marker)[2]):
                self.output_rate = int(found[1])
        elif found := _DURATION.match(line):
            duration_s = int(found["h"]) * 3600 + int(found["m"]) * 60 + float(found["s"])
            self._declared.append((duration_s, float(found["start"] or 0.0)))
        elif _STREAM.match(line) and b" -> #0:" not in line and _COVER_ART not in line:
            self._n_streams += 1
            self._parse_stream(line)

    def _parse_stream(self, line: bytes) -> None:
        audio = _AUDIO.match(line)
        form = _AUDIO_FORMAT.match(line.partition(self._marker)[2]) if self._marker in line else None
        if audio and form and self.stream is None:
            self.stream = StreamInfo(
                codec=audio[1].decode(),
                container=self._container or "",
                sample_rate_hz=int(form[1]),
                channels=_channels(form[2].decode("utf-8", errors="replace").strip()),
            )

    def _parse_progress(self, line: bytes) -> None:
        """Parse a line that is genuine only after the streams were mapped."""
        if _ERROR_LEVELS.match(line):
            self.decode_errors += not line.startswith(_OUTPUT_CONTEXTS)
        elif _FILTERS.match(line):
            self.n_formats += 1
        elif _OUT_OF_PHASE in line:
            self.out_of_phase = True
        elif self.output_rate is not None and (found := _SIGNAL.match(line)):
            self.exit_signal = int(found[1])
        elif self.output_rate is not None and (times := _END_TIME.findall(line)):
            h, m, s = times[-1]
            self._end_s = int(h) * 3600 + int(m) * 60 + float(s)


def _channels(layout: str) -> int:
    """Return the number of channels of an ffmpeg layout, or 0 if its name does not state it."""
    if layout in _LAYOUTS:
        return _LAYOUTS[layout]
    if counted := _COUNTED_LAYOUT.match(layout):
        return int(counted[1])
    if ambisonic := _AMBISONIC_LAYOUT.match(layout):
        return (int(ambisonic[1]) + 1) ** 2 + (_channels(ambisonic[2]) if ambisonic[2] else 0)
    digits = re.match(r"^\d+(\.\d+)*", layout)
    return sum(map(int, digits[0].split("."))) if digits else 0
