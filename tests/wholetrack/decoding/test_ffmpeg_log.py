"""Reading ffmpeg's words, also those that somebody put into a tag."""

from __future__ import annotations

import pytest

from wholetrack.decoding.ffmpeg_log import Report

SPOKEN = """[info] Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'file:x':
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
    report = Report.parse(SPOKEN.format(layout=layout))
    assert report.opened
    assert report.started
    assert report.stream is not None
    assert report.stream.codec == "aac"
    assert report.stream.container == "mov,mp4,m4a,3gp,3g2,mj2"
    assert report.stream.sample_rate_hz == 48000
    assert report.stream.channels == channels
    assert report.declared_s == 3723.5
    assert report.decode_errors == 0


def test_a_tag_cannot_pass_for_a_stream() -> None:
    spoken = SPOKEN.format(layout="stereo").replace(
        "title           : A song", "Stream #0:0: Audio: evil, 1 Hz, mono : x"
    )
    report = Report.parse(spoken)
    assert report.stream is not None
    assert report.stream.codec == "aac"


def test_a_tag_cannot_pass_for_a_signal() -> None:
    words = "[info] Exiting normally, received signal 15.\n"
    spoken = SPOKEN.format(layout="stereo")
    assert Report.parse(spoken).ended_by is None
    assert Report.parse(spoken.replace("A song", f"A song\n{words}")).ended_by is None
    assert Report.parse(spoken + words).ended_by == 15


def test_errors_count_once_the_file_is_open() -> None:
    spoken = "[mp3 @ 0x1] [error] Header missing\n" + SPOKEN.format(layout="stereo")
    assert Report.parse(spoken).decode_errors == 0
    broken = spoken + "[aac @ 0x2] [error] Input buffer exhausted\n[error] Error\n[aac @ 0x2] [warning] odd\n"
    assert Report.parse(broken).decode_errors == 2


def test_a_guessed_duration_is_none() -> None:
    spoken = "[mp3 @ 0x1] [warning] Estimating duration from bitrate, this may be inaccurate\n"
    assert Report.parse(spoken + SPOKEN.format(layout="stereo")).declared_s is None


def test_the_duration_of_a_film_is_not_that_of_its_sound() -> None:
    spoken = SPOKEN.format(layout="stereo").replace(" (attached pic)", "")
    assert Report.parse(spoken).declared_s is None


def test_nothing_recognised() -> None:
    report = Report.parse("[error] file:x: Invalid data found when processing input\n")
    assert not report.opened
    assert not report.started
    assert report.stream is None
