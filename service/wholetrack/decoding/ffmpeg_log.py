"""What ffmpeg says on its standard error, at ``-loglevel level+info``, while it decodes one file.

Everything here is read for classification and for the descriptive fields of an answer; none of it is passed on.
Names of tags are printed as they are, line ends included, so a file can imitate any of these lines: what an answer
tells of a stream is read only where ffmpeg put a mark that no file knows, and every expression is bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from wholetrack.contracts import StreamInfo

_INPUT = re.compile(r"^\[info\] Input #0, (?P<container>[\w,]{1,60}), from ", re.MULTILINE)
_DURATION = re.compile(r"^\[info\]   Duration: (?P<h>\d{1,7}):(?P<m>\d\d):(?P<s>\d\d\.\d{1,6})\b", re.MULTILINE)
_AUDIO = re.compile(
    r"^\[info\]   Stream #0:\d{1,5}[^\n]{0,80}?: Audio: (?P<codec>\w{1,40})[^\n]{0,80}?, (?P<mark>[0-9a-f]{16}:)?"
    r"(?P<rate>\d{1,10}) Hz, (?P<layout>[^,\n]{1,200})",
    re.MULTILINE,
)
_STREAM = re.compile(r"^\[info\]   Stream #0:\d{1,5}.*$", re.MULTILINE)
_PICTURE = "(attached pic)"
_ERROR = re.compile(r"^(\[[^\]\n]{1,200}\] )?\[(error|fatal)\] ", re.MULTILINE)
_ENDED = re.compile(r"^\[info\] Exiting normally, received signal (?P<number>\d{1,3})\.", re.MULTILINE)
_ESTIMATED = "Estimating duration from bitrate"
_OUTPUT = ": Audio: pcm_f32le, {mark}="

# Channels of the layouts whose names do not say it as front.low(.height), as "5.1" and "7.1.4" do.
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
_COUNTED = re.compile(r"^(\d{1,5}) channels")
_AMBISONIC = re.compile(r"^ambisonic (\d{1,3})(?:\+(.*))?$")


@dataclass(frozen=True, slots=True)
class Report:
    """What could be learned from the words of one ffmpeg.

    Attributes:
        opened: the container was recognised and opened.
        started: decoding began and the first sound came out.
        stream: the audio stream, if there is one.
        declared_s: duration of the sound that the file itself states; None where it states none, where ffmpeg
            guessed, or where another stream may be the longer one.
        decode_errors: complaints after the file was opened.
        ended_by: the signal at which it closed its output and ended; None if none came since decoding began.
    """

    opened: bool
    started: bool
    stream: StreamInfo | None
    declared_s: float | None
    decode_errors: int
    ended_by: int | None

    @classmethod
    def parse(cls, text: str, mark: str = "") -> Report:
        """Read the text that ffmpeg wrote, which puts ``mark`` where only it writes."""
        opened = _INPUT.search(text)
        if not opened:
            return cls(opened=False, started=False, stream=None, declared_s=None, decode_errors=0, ended_by=None)
        described = _AUDIO.finditer(text, opened.end())
        audio = next((found for found in described if (found["mark"] or "") == mark), None)
        of_others = (_PICTURE, " -> #0:", f", {mark}=")
        streams = [
            line for line in _STREAM.findall(text, opened.end()) if not any(words in line for words in of_others)
        ]
        stated = _DURATION.search(text, opened.end())
        # Tags are told before the output is announced.
        announced = text.find(_OUTPUT.format(mark=mark))
        ended = _ENDED.search(text, announced) if announced >= 0 else None
        return cls(
            opened=True,
            started=announced >= 0,
            stream=StreamInfo(
                codec=audio["codec"],
                container=opened["container"],
                sample_rate_hz=int(audio["rate"]),
                channels=_channels(audio["layout"].strip()),
            )
            if audio
            else None,
            declared_s=int(stated["h"]) * 3600 + int(stated["m"]) * 60 + float(stated["s"])
            if stated and _ESTIMATED not in text and len(streams) == 1
            else None,
            # ffmpeg's threads speak in any order: a decoder may complain before the output is announced.
            decode_errors=len(_ERROR.findall(text, opened.end())),
            ended_by=int(ended["number"]) if ended else None,
        )


def _channels(layout: str) -> int:
    """Number of channels of a layout by ffmpeg's name; 0 for a name that says nothing."""
    if layout in _LAYOUTS:
        return _LAYOUTS[layout]
    if counted := _COUNTED.match(layout):
        return int(counted[1])
    if around := _AMBISONIC.match(layout):
        return (int(around[1]) + 1) ** 2 + (_channels(around[2]) if around[2] else 0)
    digits = re.match(r"^\d+(\.\d+)*", layout)
    return sum(map(int, digits[0].split("."))) if digits else 0
