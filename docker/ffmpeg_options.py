#!/usr/bin/env python3
"""Print the options of ffmpeg's configure script for a build that contains only what the service uses.

The demuxers and decoders are those in ``wholetrack.decoding.ffmpeg``::

    python docker/ffmpeg_options.py
"""

from wholetrack.decoding.ffmpeg import CODECS, FORMATS

# Besides the demuxers and decoders: the output and the filters of the service's command line, and the parsers that
# split streams into frames.
_COMPONENTS = {
    "demuxer": FORMATS,
    "decoder": CODECS,
    "parser": ("mpegaudio", "aac", "aac_latm", "flac", "vorbis", "opus", "gsm"),
    "protocol": ("file", "pipe", "subfile", "concat"),
    "muxer": ("pcm_f32le",),
    "encoder": ("pcm_f32le",),
    "filter": ("aformat", "pan", "aresample", "asetnsamples", "asplit", "aphasemeter", "anullsink", "anull"),
}
_BUILD_OPTIONS = (
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
    """Return all options: how to build, and one option per kind of component."""
    return [*_BUILD_OPTIONS, *(f"--enable-{kind}={','.join(names)}" for kind, names in _COMPONENTS.items())]


if __name__ == "__main__":
    print(*options(), sep="\n")
