"""The ffmpeg executable: where it is, its version, and the command line that decodes a file."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wholetrack.errors import StartupError

_log = logging.getLogger(__name__)

# Demuxers by their ffmpeg names: wav and w64, flac, mp3, ogg (vorbis, opus, flac), mov (mp4, m4a), ADTS aac, matroska
# (webm), aiff, asf (wma). None of them opens another file or URL, as hls, concat, dash, image2 and others do: with
# those, a playlist renamed to .mp3 could read any file that the service can read.
FORMATS = ("wav", "w64", "flac", "mp3", "ogg", "mov", "aac", "matroska", "aiff", "asf")

# Decoders by their ffmpeg names, for the codecs that these containers usually hold. There are none for images, because
# cover art and video are untrusted input as well, and ffmpeg would decode some of them only to describe them.
CODECS = (
    *("mp3float", "mp3", "mp2float", "mp2", "mp1float", "mp1", "aac", "aac_latm", "alac", "flac", "vorbis", "opus"),
    *("wmav1", "wmav2", "wmapro", "wmalossless", "wmavoice", "adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt", "gsm_ms"),
    *("pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be"),
    *("pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_alaw", "pcm_mulaw"),
)

# The mean of all channels, as librosa.to_mono computes it, and the first channel: "<" divides by the sum of the gains
# of the channels that the input has. Plain "-ac 1" would sum a stereo pair 3 dB too loud.
_CHANNELS = "FL FR FC LFE BL BR FLC FRC BC SL SR TC TFL TFC TFR TBL TBC TBR DL DR WL WR SDL SDR TSL TSR BFC BFL BFR"
_MEAN_AND_FIRST = "pan=stereo|c0<" + "+".join(_CHANNELS.split()) + "|c1<FL+FC"

# Without this, the mean of 16-bit channels is rounded to 16 bits, which affects quiet passages.
_TO_FLOAT = "aformat=sample_fmts=fltp"

# Since version 7, ffmpeg passes every frame from thread to thread. Large frames reduce the CPU time of an mp3 by a
# quarter (0.51 s to 0.39 s for four minutes with 9.0; no change with 5.1). This is the first filter, so that it reduces
# the overhead of the other filters as well.
_LARGE_FRAMES = "asetnsamples=n=32768:p=0,"
_LARGE_FRAMES_VERSION = 8

_VERSION = re.compile(r"^ffmpeg version (\S+)")
_VERSION_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Ffmpeg:
    """An ffmpeg that can be executed.

    Attributes:
        path: Path of the executable.
        version: Version that the executable reports.
        origin: How it was found: ``setting``, ``PATH`` or ``imageio-ffmpeg``.
    """

    path: Path
    version: str
    origin: str

    @property
    def gains_from_large_frames(self) -> bool:
        """Whether large frames reduce the CPU time of this version, and it logs when it loses one of them.

        Known for version 8 and later. Version 5 gains nothing. A version without a number is an unknown build.
        """
        number = re.match(r"n?(\d+)\.", self.version)
        return number is not None and int(number[1]) >= _LARGE_FRAMES_VERSION

    def decode_command(self, url: str, *, options: Sequence[str] = (), marker: str, large_frames: bool) -> list[str]:
        """Return the command that decodes the first audio stream of a file to stdout.

        The output has two channels of float32, little endian: the mean of all channels, and the first channel. Its
        sample rate is that of the first audio; audio with another rate is converted to it. ffmpeg sets up its filters
        again whenever the rate or the channels change and drops what the previous filters hold, so that none of them
        may hold back samples.

        Args:
            url: What to decode, made of descriptors in the ffmpeg process. A file must be seekable: an mp4 with its
                index at the end cannot be read from a pipe. It is not opened by name, because ffmpeg would trust a
                suffix such as .mp3.
            options: Further options for the input.
            marker: 16 hexadecimal digits and a colon. ffmpeg prints it where it describes a stream; tags of the file
                can imitate the rest of such a line, but not an unpredictable marker.
            large_frames: Collect samples into large frames first, which takes less CPU time, but loses up to 32,768
                samples whenever the rate or the channels change.
        """
        filters = f"{_LARGE_FRAMES if large_frames else ''}{_TO_FLOAT},{_MEAN_AND_FIRST}"
        return [
            str(self.path),
            # The statistics are printed once, at the end. They contain the last timestamp.
            *("-nostdin", "-hide_banner", "-stats", "-stats_period", "1000000", "-loglevel", "level+info"),
            *("-threads", "1", "-filter_threads", "1"),
            *("-protocol_whitelist", "file,subfile,concat", "-format_whitelist", ",".join(FORMATS)),
            *("-codec_whitelist", ",".join(CODECS)),
            *("-dump_separator", f", {marker}"),
            *options,
            *("-i", url),
            *("-map", "0:a:0", "-vn", "-sn", "-dn", "-map_metadata", "-1", "-map_chapters", "-1"),
            *("-af", filters, "-dump_separator", f", {marker}=", "-f", "f32le", "pipe:1"),
        ]


def find_ffmpeg(setting: Path | None = None) -> Ffmpeg:
    """Return the configured ffmpeg, else the one on PATH if it works, else the one in the package imageio-ffmpeg.

    Raises:
        StartupError: If there is none, or the configured one cannot be executed.
    """
    if setting is not None:
        return _checked(setting.absolute(), "setting")
    if on_path := shutil.which("ffmpeg"):
        try:
            return _checked(Path(on_path), "PATH")
        except StartupError as error:
            _log.warning("the ffmpeg on PATH does not work; using the one in the package imageio-ffmpeg: %s", error)
    return bundled_ffmpeg()


def bundled_ffmpeg() -> Ffmpeg:
    """Return the ffmpeg in the package imageio-ffmpeg.

    Raises:
        StartupError: If the package has none for this machine, or it cannot be executed.
    """
    try:
        import imageio_ffmpeg

        packaged = Path(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise StartupError(
            "no working ffmpeg was found: add one to PATH, set WHOLETRACK_FFMPEG, or install the package imageio-ffmpeg"
        ) from error
    return _checked(packaged, "imageio-ffmpeg")


def _checked(path: Path, origin: str) -> Ffmpeg:
    try:
        result = subprocess.run(
            [str(path), "-version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_VERSION_TIMEOUT_S,
            check=True,
            env={},
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(error).rstrip(".")
        raise StartupError(f"ffmpeg at {path} (from {origin}) cannot be executed: {reason}") from error
    version = _VERSION.match(result.stdout)
    if not version:
        raise StartupError(f"{path} (from {origin}) is not ffmpeg")
    return Ffmpeg(path=path, version=version[1], origin=origin)
