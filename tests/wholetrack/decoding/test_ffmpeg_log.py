"""Parsing of ffmpeg's log, which a file can imitate in its tags."""

from __future__ import annotations

import pytest

from wholetrack.decoding.ffmpeg_log import FfmpegLog

LOG = """[info] Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'file:x':
[info]   Metadata:
[info]     title           : A song
[info]   Duration: 01:02:03.50, start: 0.000000, bitrate: 65 kb/s
[info]   Stream #0:0(und): Video: mjpeg (Baseline), yuvj420p, 400x400 (attached pic)
[info]   Stream #0:1[0x1](und): Audio: aac (LC) (mp4a / 0x6134706D), 48000 Hz, {layout}, fltp, 130 kb/s (default)
[info] Stream mapping:
[info]   Stream #0:1 -> #0:0 (aac (native) -> pcm_f32le (native))
[info] Output #0, f32le, to 'pipe:1':
[info]   Stream #0:0: Audio: pcm_f32le, =22050 Hz, mono, flt, 705 kb/s
"""


@pytest.mark.parametrize(
    ("layout", "channels"),
    [
        ("mono", 1),
        ("stereo", 2),
        ("2.1", 3),
        ("quad", 4),
        ("5.1(side)", 6),
        ("7.1", 8),
        ("7.1.4", 12),
        ("10 channels (FL+FR)", 10),
        ("hexadecagonal", 16),
        ("ambisonic 1", 4),
        ("ambisonic 3+stereo", 18),
        ("something new", 0),
    ],
)
def test_the_stream_is_described(layout: str, channels: int) -> None:
    log = FfmpegLog.parse(LOG.format(layout=layout))
    assert log.opened
    assert log.started
    assert log.stream is not None
    assert log.stream.codec == "aac"
    assert log.stream.container == "mov,mp4,m4a,3gp,3g2,mj2"
    assert log.stream.sample_rate_hz == 48000
    assert log.stream.channels == channels
    assert log.declared_s == 3723.5
    assert log.decode_errors == 0


def test_a_tag_that_imitates_a_stream_is_ignored() -> None:
    text = LOG.format(layout="stereo").replace("title           : A song", "Stream #0:0: Audio: evil, 1 Hz, mono : x")
    log = FfmpegLog.parse(text)
    assert log.stream is not None
    assert log.stream.codec == "aac"


def test_a_tag_that_imitates_a_signal_is_ignored() -> None:
    signalled = "[info] Exiting normally, received signal 15.\n"
    text = LOG.format(layout="stereo")
    assert FfmpegLog.parse(text).exit_signal is None
    assert FfmpegLog.parse(text.replace("A song", f"A song\n{signalled}")).exit_signal is None
    assert FfmpegLog.parse(text + signalled).exit_signal == 15


def test_errors_are_counted_once_the_file_is_open() -> None:
    text = "[mp3 @ 0x1] [error] Header missing\n" + LOG.format(layout="stereo")
    assert FfmpegLog.parse(text).decode_errors == 0
    broken = text + "[aac @ 0x2] [error] Input buffer exhausted\n[error] Error\n[aac @ 0x2] [warning] odd\n"
    assert FfmpegLog.parse(broken).decode_errors == 2


def test_an_estimated_duration_is_not_a_declared_one() -> None:
    text = "[mp3 @ 0x1] [warning] Estimating duration from bitrate, this may be inaccurate\n"
    assert FfmpegLog.parse(text + LOG.format(layout="stereo")).declared_s is None


def test_the_duration_of_a_video_is_not_that_of_its_audio() -> None:
    text = LOG.format(layout="stereo").replace(" (attached pic)", "")
    assert FfmpegLog.parse(text).declared_s is None


def test_a_log_without_an_input_describes_nothing() -> None:
    log = FfmpegLog.parse("[error] file:x: Invalid data found when processing input\n")
    assert not log.opened
    assert not log.started
    assert log.stream is None
