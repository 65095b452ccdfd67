"""Parse what ffmpeg writes to stderr at ``-loglevel level+info`` while it decodes one file.

The log is used to classify errors and to describe the stream; it is never passed on to clients. ffmpeg prints the names
of tags verbatim, including line breaks, so a file can imitate any line of the log. Therefore the description of a
stream is accepted only with a marker that the file cannot know, and all regular expressions are bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from wholetrack.contracts import StreamInfo

_INPUT = re.compile(r"^\[info\] Input #0, (?P<container>[\w,]{1,60}), from ", re.MULTILINE)
_DURATION = re.compile(r"^\[info\]   Duration: (?P<h>\d{1,7}):(?P<m>\d\d):(?P<s>\d\d\.\d{1,6})\b", re.MULTILINE)
_AUDIO = re.compile(
    r"^\[info\]   Stream #0:\d{1,5}[^\n]{0,80}?: Audio: (?P<codec>\w{1,40})[^\n]{0,80}?, (?P<marker>[0-9a-f]{16}:)?"
    r"(?P<rate>\d{1,10}) Hz, (?P<layout>[^,\n]{1,200})",
    re.MULTILINE,
)
_STREAM = re.compile(r"^\[info\]   Stream #0:\d{1,5}.*$", re.MULTILINE)
_COVER_ART = "(attached pic)"
_STREAM_MAPPING = " -> #0:"
_ERROR = re.compile(r"^(\[[^\]\n]{1,200}\] )?\[(error|fatal)\] ", re.MULTILINE)
_SIGNAL = re.compile(r"^\[info\] Exiting normally, received signal (?P<number>\d{1,3})\.", re.MULTILINE)
_ESTIMATED_DURATION = "Estimating duration from bitrate"
_OUTPUT = ": Audio: pcm_f32le, {marker}="

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


@dataclass(frozen=True, slots=True)
class FfmpegLog:
    """What one ffmpeg process logged.

    Attributes:
        opened: Whether the container was recognised and opened.
        started: Whether decoding started and produced its first audio.
        stream: The audio stream, if there is one.
        declared_s: Duration of the audio in seconds, as the file declares it. None if it declares none, if ffmpeg
            estimated it, or if it may be that of another stream.
        decode_errors: Number of errors after the file was opened.
        exit_signal: Number of the signal at which ffmpeg finished its output and exited; None if it received none after
            it started to decode.
    """

    opened: bool
    started: bool
    stream: StreamInfo | None
    declared_s: float | None
    decode_errors: int
    exit_signal: int | None

    @classmethod
    def parse(cls, text: str, marker: str = "") -> Self:
        """Parse a log.

        Args:
            text: The whole log, or the part written so far.
            marker: The marker given to :meth:`wholetrack.decoding.ffmpeg.Ffmpeg.decode_command`.
        """
        opened = _INPUT.search(text)
        if not opened:
            return cls(opened=False, started=False, stream=None, declared_s=None, decode_errors=0, exit_signal=None)
        # ffmpeg prints all tags before it describes the output, so nothing after that can come from the file.
        output = text.find(_OUTPUT.format(marker=marker))
        signalled = _SIGNAL.search(text, output) if output >= 0 else None
        return cls(
            opened=True,
            started=output >= 0,
            stream=_stream(text, opened, marker),
            declared_s=_declared_duration_s(text, opened, marker),
            # Counted from the description of the input onwards: ffmpeg's threads log in any order, so errors of the
            # decoder can precede the description of the output.
            decode_errors=len(_ERROR.findall(text, opened.end())),
            exit_signal=int(signalled["number"]) if signalled else None,
        )


def _stream(text: str, opened: re.Match[str], marker: str) -> StreamInfo | None:
    """Return the first audio stream that is described with the marker."""
    for audio in _AUDIO.finditer(text, opened.end()):
        if (audio["marker"] or "") == marker:
            return StreamInfo(
                codec=audio["codec"],
                container=opened["container"],
                sample_rate_hz=int(audio["rate"]),
                channels=_channels(audio["layout"].strip()),
            )
    return None


def _declared_duration_s(text: str, opened: re.Match[str], marker: str) -> float | None:
    """Return the duration that the file declares, if the audio stream is its only one."""
    duration = _DURATION.search(text, opened.end())
    ignored = (_COVER_ART, _STREAM_MAPPING, f", {marker}=")
    streams = [line for line in _STREAM.findall(text, opened.end()) if not any(part in line for part in ignored)]
    if duration is None or _ESTIMATED_DURATION in text or len(streams) != 1:
        return None
    return int(duration["h"]) * 3600 + int(duration["m"]) * 60 + float(duration["s"])


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
