"""What ffmpeg says on its standard error, at ``-loglevel level+info``, while it decodes one file.

Everything here is read for classification and for the descriptive fields of an answer; none of it is passed on.
Tags of the file may imitate these lines, so nothing that matters depends on a single one of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from service.contracts import StreamInfo

_INPUT = re.compile(r"^\[info\] Input #0, (?P<container>[\w,]+), from ", re.MULTILINE)
_DURATION = re.compile(r"^\[info\]   Duration: (?P<h>\d+):(?P<m>\d\d):(?P<s>\d\d\.\d+)", re.MULTILINE)
_AUDIO = re.compile(
    r"^\[info\]   Stream #0:\d+\S*: Audio: (?P<codec>\w+).*?, (?P<rate>\d+) Hz, (?P<layout>[^,\n]+)", re.MULTILINE
)
_STREAM = re.compile(r"^\[info\]   Stream #0:\d+\S*: .*$", re.MULTILINE)
_PICTURE = "(attached pic)"
_ERROR = re.compile(r"^(\[[^\]]+\] )?\[(error|fatal)\] ", re.MULTILINE)
_REFUSED = re.compile(r"^\[(?P<codec>\w+) @ \w+\] \[error\] Codec \((?P=codec)\) not on whitelist", re.MULTILINE)
_ESTIMATED = "Estimating duration from bitrate"
_OUTPUT = "[info] Output #0"

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
_COUNTED = re.compile(r"^(\d+) channels")


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
        refused: name of the sound's codec if it is none of those accepted.
    """

    opened: bool
    started: bool
    stream: StreamInfo | None
    declared_s: float | None
    decode_errors: int
    refused: str | None

    @classmethod
    def parse(cls, text: str) -> Report:
        """Read the text that ffmpeg wrote."""
        before, started, _ = text.partition(_OUTPUT)
        opened = _INPUT.search(before)
        audio = _AUDIO.search(before, opened.end()) if opened else None
        streams = [line for line in _STREAM.findall(before, opened.end()) if _PICTURE not in line] if opened else []
        # Of other streams it is said earlier, when they are looked at: only the sound's decoder is opened after that.
        refused = _REFUSED.search(text, opened.end()) if opened else None
        stated = _DURATION.search(before, opened.end()) if opened else None
        return cls(
            opened=opened is not None,
            started=bool(started),
            stream=StreamInfo(
                codec=audio["codec"],
                container=opened["container"],
                sample_rate_hz=int(audio["rate"]),
                channels=_channels(audio["layout"].strip()),
            )
            if opened and audio
            else None,
            declared_s=int(stated["h"]) * 3600 + int(stated["m"]) * 60 + float(stated["s"])
            if stated and _ESTIMATED not in before and len(streams) == 1
            else None,
            # ffmpeg's threads speak in any order: a decoder may complain before the output is announced.
            decode_errors=len(_ERROR.findall(text, opened.end())) if opened else 0,
            refused=refused["codec"] if refused else None,
        )


def _channels(layout: str) -> int:
    """Number of channels of a layout by ffmpeg's name; 0 for a name that says nothing."""
    if layout in _LAYOUTS:
        return _LAYOUTS[layout]
    if counted := _COUNTED.match(layout):
        return int(counted[1])
    digits = re.match(r"^\d+(\.\d+)*", layout)
    return sum(map(int, digits[0].split("."))) if digits else 0
