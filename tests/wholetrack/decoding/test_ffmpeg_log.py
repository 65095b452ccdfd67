"""Parsing of ffmpeg's log, which a file can imitate in its tags."""

from __future__ import annotations

import pytest

from wholetrack.decoding.ffmpeg_log import FfmpegLog

MARKER = "0123456789abcdef:"
LOG = """[info] Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'file:x':
[info]   Metadata:
[info]     title           : A song
[info]   Duration: 01:02:03.50, start: 0.000000, bitrate: 65 kb/s
[info]   Stream #0:0(und): Video: mjpeg (Baseline), {marker}yuvj420p, {marker}400x400 (attached pic)
[info]   Stream #0:1[0x1](und): Audio: aac (LC) (mp4a), {marker}48000 Hz, {layout}, fltp, 130 kb/s (default)
[info] Stream mapping:
[info]   Stream #0:1 -> #0:0 (aac (native) -> pcm_f32le (native))
[info] Output #0, f32le, to 'pipe:1':
[info]   Stream #0:0: Audio: pcm_f32le, {marker}=48000 Hz, stereo, flt, 3072 kb/s
"""


def log_text(layout: str = "stereo") -> str:
    return LOG.format(layout=layout, marker=MARKER)


def parse(text: str, *, chunk: int = 1 << 16) -> FfmpegLog:
    log = FfmpegLog(MARKER)
    data = text.encode()
    for begin in range(0, len(data), chunk):
        log.feed(data[begin : begin + chunk])
    log.finish()
    return log


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
    log = parse(log_text(layout))
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
    text = log_text().replace("title           : A song", "Stream #0:0: Audio: evil, 1 Hz, mono : x")
    log = parse(text)
    assert log.stream is not None
    assert log.stream.codec == "aac"


def test_a_tag_that_imitates_a_signal_is_ignored() -> None:
    signalled = "[info] Exiting normally, received signal 15.\n"
    text = log_text()
    assert parse(text).exit_signal is None
    assert parse(text.replace("A song", f"A song\n{signalled}")).exit_signal is None
    assert parse(text + signalled).exit_signal == 15


def test_errors_are_counted_once_the_file_is_open() -> None:
    text = "[mp3 @ 0x1] [error] Header missing\n" + log_text()
    assert parse(text).decode_errors == 0
    broken = text + "[aac @ 0x2] [error] Input buffer exhausted\n[error] Error\n[aac @ 0x2] [warning] odd\n"
    assert parse(broken).decode_errors == 2


def test_an_estimated_duration_is_not_a_declared_one() -> None:
    text = "[mp3 @ 0x1] [warning] Estimating duration from bitrate, this may be inaccurate\n"
    assert parse(text + log_text()).declared_s is None


def test_the_duration_of_a_video_is_not_that_of_its_audio() -> None:
    text = log_text().replace(" (attached pic)", "")
    assert parse(text).declared_s is None


def test_a_log_without_an_input_describes_nothing() -> None:
    log = parse("[error] file:x: Invalid data found when processing input\n")
    assert not log.opened
    assert not log.started
    assert log.stream is None


def test_a_tag_that_imitates_the_duration_hides_it_instead_of_changing_it() -> None:
    imitation = "[info]   Duration: 99:00:00.00, start: 0.000000, bitrate: 1 kb/s\n"
    text = log_text().replace("[info]     title", f"{imitation}[info]     title")
    assert parse(text).declared_s is None


FILTERS = "[graph_0_in_0_0 @ 0x1] [verbose] tb:1/44100 samplefmt:fltp samplerate:44100 chlayout:stereo\n"
PHASE = "[Parsed_aphasemeter_3 @ 0x1] [info] out_phase_start: 1.5\n"


def test_a_tag_that_imitates_the_beginning_of_decoding_changes_nothing() -> None:
    imitation = f"[info] Stream mapping:\n[error] Error\n{FILTERS}{PHASE}"
    log = parse(log_text().replace("[info]     title", f"{imitation}[info]     title"))
    assert log.decode_errors == 0
    assert log.n_formats == 0
    assert not log.out_of_phase
    assert log.stream is not None


def test_changes_of_the_format_and_of_the_phase_are_noticed() -> None:
    text = log_text().replace("[info] Output", f"{FILTERS}[info] Output")
    assert (parse(text).n_formats, parse(text).out_of_phase) == (1, False)
    assert parse(text + FILTERS.replace("stereo", "mono")).n_formats == 2
    # Debian's ffmpeg 5.1 prints statistics without a line break before it.
    assert parse(f"{text}[info] size=0kB time=00:00:00.00 bitrate=N/A speed=0x    \r{FILTERS}").n_formats == 2
    assert parse(text + PHASE).out_of_phase


def test_complaints_about_timestamps_of_the_output_are_no_errors() -> None:
    complaint = "Application provided invalid, non monotonically increasing dts to muxer in stream 0: 2 >= 1\n"
    text = log_text() + f"[f32le @ 0x1] [error] {complaint}[out#0/f32le @ 0x1] [f32le @ 0x1] [error] {complaint}"
    assert parse(text).decode_errors == 0


def test_the_end_of_the_timestamps_counts_from_the_origin_of_the_duration() -> None:
    statistics = (
        "[info] size=9kB time=00:00:00.02 bitrate=1kbits/s\r[info] size=1KiB time=00:00:30.50 bitrate= 1kbits/s\n"
    )
    assert parse(log_text()).end_s is None
    assert parse(log_text() + statistics).end_s == 30.5
    assert parse(log_text().replace("start: 0.0", "start: 60.0") + statistics).end_s == 90.5
    assert parse(log_text().replace("A song", f"A song\n{statistics}")).end_s is None


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_the_log_may_arrive_in_parts(chunk: int) -> None:
    text = "[mp3 @ 0x1] [error] Header missing\n" + log_text() + "[aac @ 0x2] [error] Error"
    log = parse(text, chunk=chunk)
    assert log.stream == parse(text).stream
    assert log.output_rate == 48000
    assert log.decode_errors == 1
    assert log.text().endswith("[error] Error\n")


def test_a_log_of_any_length_needs_little_memory() -> None:
    log = FfmpegLog(MARKER)
    for _ in range(100):
        log.feed(b"[info] " + bytes(100_000))
    assert len(log._partial_line) <= 4096
    assert len(log._end) <= 4096
