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

# The mean of all channels, as librosa.to_mono computes it: "<" divides by the sum of the gains of the channels that the
# input has. Plain "-ac 1" would sum a stereo pair 3 dB too loud.
_FIRST = "FL+FC"
_OTHERS = "FR+LFE+BL+BR+FLC+FRC+BC+SL+SR+TC+TFL+TFC+TFR+TBL+TBC+TBR+DL+DR+WL+WR+SDL+SDR+TSL+TSR+BFC+BFL+BFR"
_MEAN = f"c0<{_FIRST}+{_OTHERS}"

# Without this, the mean of 16-bit channels is rounded to 16 bits, which affects quiet passages.
_TO_FLOAT = "aformat=sample_fmts=fltp"

# Since version 7, ffmpeg passes every frame from thread to thread, which takes less CPU time for fewer, larger frames.
# This is the first filter, so that it reduces the overhead of the other filters as well.
_LARGE_FRAMES = "asetnsamples=n=32768:p=0"

# Logs where the first channel and the mean of the others are out of phase. The average of a frame is -1 if one is the
# inverse of the other, and below the cosine of this angle, -0.3, even if that is so in only two thirds of the frame: a
# frame lasts 0.7 s, and the channels may cancel for a single second. Few recordings of music have such a frame. A rough
# copy at a low sample rate is enough to tell, and takes little time.
_PHASE_METER = (
    f"pan=stereo|c0<{_FIRST}|c1<{_OTHERS},aresample=4000:filter_size=1:phase_shift=0,"
    "aphasemeter=video=0:phasing=1:angle=107:duration=0"
)

# Quick decoding: mono at the sample rate of the model. The resampler is soxr, as in librosa. Its signal-to-noise ratio
# is much higher than that of ffmpeg's default.
_QUICK = (
    f"{_LARGE_FRAMES},{_TO_FLOAT},asplit[sound][phase];[phase]{_PHASE_METER},anullsink;"
    f"[sound]pan=mono|{_MEAN},aresample={{sample_rate}}:resampler=soxr"
)
# Exact decoding: the mean, and the first channel, at the sample rate of the first audio.
_EXACT = f"{_TO_FLOAT},pan=stereo|{_MEAN}|c1<{_FIRST}"

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

    def decode_command(
        self, url: str, *, options: Sequence[str] = (), marker: str, sample_rate: int | None
    ) -> list[str]:
        """Return the command that decodes the first audio stream of a file to stdout, as float32, little endian.

        ffmpeg sets up its filters again whenever the sample rate or the channels change, and drops what the previous
        ones hold. It also logs that it does.

        Args:
            url: What to decode, made of descriptors in the ffmpeg process. A file must be seekable: an mp4 with its
                index at the end cannot be read from a pipe. It is not opened by name, because ffmpeg would trust a
                suffix such as .mp3.
            options: Further options for the input.
            marker: 16 hexadecimal digits and a colon. ffmpeg prints it where it describes a stream; tags of the file
                can imitate the rest of such a line, but not an unpredictable marker.
            sample_rate: For quick decoding, the sample rate of the output in Hz. The output is mono, the filters lose
                up to 0.7 s whenever the format changes, and the log tells where the channels are out of phase. None for
                exact decoding: the output has two channels, the mean of all channels and the first one, at the sample
                rate of the first audio, and filters that hold nothing.
        """
        filters = _EXACT if sample_rate is None else _QUICK.format(sample_rate=sample_rate)
        return [
            str(self.path),
            # The statistics are printed once, at the end. They contain the last timestamp.
            *("-nostdin", "-hide_banner", "-stats", "-stats_period", "1000000", "-loglevel", "level+verbose"),
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
