#!/usr/bin/env python3
"""Options of ffmpeg's configure script for a binary with nothing but what the service lets it open.

``python docker/ffmpeg_options.py`` prints them; the lists are those of ``wholetrack.decoding.ffmpeg``.
"""

from wholetrack.decoding.ffmpeg import CODECS, FORMATS

# What the command of the service names besides: the output, its filters, and the parsers that find frames in streams.
_PARTS = {
    "demuxer": FORMATS,
    "decoder": CODECS,
    "parser": ("mpegaudio", "aac", "aac_latm", "flac", "vorbis", "opus", "gsm"),
    "protocol": ("file", "pipe"),
    "muxer": ("pcm_f32le",),
    "encoder": ("pcm_f32le",),
    "filter": ("aformat", "pan", "aresample", "asetnsamples", "atrim", "anull"),
}
_REST = (
    "--disable-everything",
    "--disable-autodetect",
    "--disable-programs",
    "--enable-ffmpeg",
    "--disable-avdevice",
    "--disable-swscale",
    "--disable-network",
    "--disable-doc",
    "--disable-debug",
    "--enable-libsoxr",
    "--enable-zlib",
    "--toolchain=hardened",
)


def options() -> list[str]:
    """All options, one for each list of parts."""
    return [*_REST, *(f"--enable-{kind}={','.join(names)}" for kind, names in _PARTS.items())]


if __name__ == "__main__":
    print(*options(), sep="\n")
