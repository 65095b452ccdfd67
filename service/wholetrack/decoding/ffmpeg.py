"""The ffmpeg binary: where it is, which version, and how it is called."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from wholetrack.errors import StartupError

# Demuxers by ffmpeg's names: wav and w64, flac, mp3, ogg (vorbis, opus, flac), mov (mp4, m4a), adts aac, matroska
# (webm), aiff, asf (wma). Never one that opens another file or address (hls, concat, dash, image2, ...): with those,
# a playlist renamed .mp3 reads any file that the service may read.
FORMATS = ("wav", "w64", "flac", "mp3", "ogg", "mov", "aac", "matroska", "aiff", "asf")

# Decoders by ffmpeg's names, of the codecs that those containers usually hold. None for pictures: cover art and film
# are hostile input as well, and ffmpeg would decode some of them only to describe them.
CODECS = (
    *("mp3float", "mp3", "mp2float", "mp2", "mp1float", "mp1", "aac", "aac_latm", "alac", "flac", "vorbis", "opus"),
    *("wmav1", "wmav2", "wmapro", "wmalossless", "wmavoice", "adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt", "gsm_ms"),
    *("pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be"),
    *("pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_alaw", "pcm_mulaw"),
)

# The mean over whatever channels there are, as librosa.to_mono: "<" divides by the sum of the gains of the channels
# that the input has. Plain "-ac 1" would sum a stereo pair 3 dB too loud.
_CHANNELS = "FL FR FC LFE BL BR FLC FRC BC SL SR TC TFL TFC TFR TBL TBC TBR DL DR WL WR SDL SDR TSL TSR BFC BFL BFR"
_MEAN_OF_CHANNELS = "pan=mono|c0<" + "+".join(_CHANNELS.split())

# Without this the mean of 16-bit channels is rounded to 16 bits, which the quiet bars of a recording notice.
_TO_FLOAT = "aformat=sample_fmts=fltp"

# Since version 7 every frame is handed from thread to thread; large frames take a quarter off the CPU time of an mp3
# (0.51 s to 0.39 s for four minutes with 9.0; no change with 5.1). Before all filters, they have less to do, too.
_LARGE_FRAMES = "asetnsamples=n=32768:p=0"

_VERSION = re.compile(r"^ffmpeg version (\S+)")
_VERSION_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Ffmpeg:
    """An ffmpeg that runs.

    Attributes:
        path: the binary.
        version: as it calls itself.
        origin: where it was found: ``setting``, ``PATH`` or ``imageio-ffmpeg``.
    """

    path: Path
    version: str
    origin: str

    def decode_command(self, descriptor: int, *, sample_rate: int, max_duration_s: float, mark: str = "") -> list[str]:
        """The command that writes the first audio stream of a file to its output: mono, float32, little endian.

        Args:
            descriptor: the file, open for reading in the child under this number. It must be seekable: an mp4 whose
                index is at the end cannot be read from a pipe. By name, ffmpeg would believe a suffix such as .mp3.
            sample_rate: of the output, in Hz. Resampling is soxr's, as librosa's: 73 dB of signal to noise against
                35 dB of ffmpeg's own default, at the same cost.
            max_duration_s: decoding stops a second after this.
            mark: 16 hexadecimal digits and a colon, or nothing; stands in ffmpeg's own descriptions of streams, which
                tags of the file can imitate but for it.
        """
        filters = f"{_LARGE_FRAMES},{_TO_FLOAT},{_MEAN_OF_CHANNELS},aresample={sample_rate}:resampler=soxr"
        return [
            str(self.path),
            *("-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info"),
            *("-threads", "1", "-filter_threads", "1"),
            *("-protocol_whitelist", "file", "-format_whitelist", ",".join(FORMATS)),
            *("-codec_whitelist", ",".join(CODECS)),
            *("-dump_separator", f", {mark}"),
            *("-i", f"file:/dev/fd/{descriptor}"),
            *("-map", "0:a:0", "-vn", "-sn", "-dn", "-map_metadata", "-1", "-map_chapters", "-1"),
            *(
                "-t",
                f"{max_duration_s + 1:.3f}",
                "-af",
                filters,
                "-dump_separator",
                f", {mark}=",
                "-f",
                "f32le",
                "pipe:1",
            ),
        ]


def find_ffmpeg(setting: Path | None = None) -> Ffmpeg:
    """The configured ffmpeg, else the one on PATH, else the one that the imageio-ffmpeg package ships.

    Raises:
        StartupError: if there is none, or it does not run.
    """
    if setting is not None:
        return _checked(setting.absolute(), "setting")
    if on_path := shutil.which("ffmpeg"):
        return _checked(Path(on_path), "PATH")
    try:
        import imageio_ffmpeg

        shipped = Path(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise StartupError(
            "no ffmpeg: put one on PATH, name it in WHOLETRACK_FFMPEG, or install the package imageio-ffmpeg"
        ) from error
    return _checked(shipped, "imageio-ffmpeg")


def _checked(path: Path, origin: str) -> Ffmpeg:
    try:
        done = subprocess.run(
            [path, "-version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S, check=True, env={}
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise StartupError(f"the ffmpeg from {origin} ({path}) does not run: {error}") from error
    found = _VERSION.match(done.stdout)
    if not found:
        raise StartupError(f"{path} (from {origin}) is not ffmpeg")
    return Ffmpeg(path=path, version=found[1], origin=origin)
