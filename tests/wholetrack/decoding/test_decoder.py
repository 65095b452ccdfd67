"""One ffmpeg for one file: right samples, honest remarks, the right refusal, and nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
import tarfile
import threading
import zipfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from tests.harness.processes import ffmpegs
from tests.harness.recordings import LOSSLESS, LOSSY, Kind, Recorder, wav_bytes
from wholetrack.contracts import WarningCode
from wholetrack.decoding.cpu_affinity import Processors
from wholetrack.decoding.decoder import DecodedAudio, Decoding, FfmpegDecoder
from wholetrack.decoding.ffmpeg import Ffmpeg, find_ffmpeg
from wholetrack.errors import ErrorKind, ServiceError, StartupError

RATE = 22050


def decode(decoder: FfmpegDecoder, path: Path, limit_s: float = 60.0) -> tuple[NDArray[np.float32], DecodedAudio]:
    with decoder.open(path, sample_rate=RATE, max_duration_s=limit_s) as decoding:
        blocks = list(decoding.blocks())
        summary = decoding.summary()
    return np.concatenate(blocks), summary


def refusal(decoder: FfmpegDecoder, path: Path, limit_s: float = 60.0) -> ErrorKind:
    with pytest.raises(ServiceError) as caught:
        decode(decoder, path, limit_s)
    assert str(path) not in caught.value.detail
    return caught.value.kind


@pytest.fixture(scope="session")
def long_song(tmp_path_factory: pytest.TempPathFactory, tune: NDArray[np.float32]) -> Path:
    song = tmp_path_factory.mktemp("long") / "song.wav"
    song.write_bytes(wav_bytes(np.tile(tune, 60), 22050))
    return song


@pytest.fixture
def wav(tmp_path: Path, tune: NDArray[np.float32]) -> Path:
    path = tmp_path / "tune.wav"
    path.write_bytes(wav_bytes(tune, RATE))
    return path


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_channels_are_averaged_and_resampled_as_librosa_does(
    decoder: FfmpegDecoder, tmp_path: Path, rng: np.random.Generator, channels: int, rate: int
) -> None:
    time = np.arange(2 * rate) / rate
    pitches = rng.uniform(100, 3000, channels)
    samples = (0.5 * np.sin(2 * np.pi * time[:, None] * pitches)).astype(np.float32)
    path = tmp_path / "channels.wav"
    path.write_bytes(wav_bytes(samples, rate))
    found, summary = decode(decoder, path)
    expected = librosa.resample(librosa.to_mono(samples.T), orig_sr=rate, target_sr=RATE, res_type="soxr_hq")
    assert summary.stream.channels == channels
    assert summary.stream.sample_rate_hz == rate
    assert len(found) == len(expected)
    # The very ends depend on how much a resampler is told of what lies beyond.
    np.testing.assert_allclose(found[200:-200], expected[200:-200], atol=1e-4)


@pytest.mark.parametrize("kind", [*LOSSLESS, *LOSSY], ids=str)
def test_every_container_and_codec_is_heard(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path, tune: NDArray[np.float32], kind: Kind
) -> None:
    path = recorder.convert(recorder.load(wav, "pcm_f32le"), kind, tmp_path / f"converted.{kind.suffix}")
    found, summary = decode(decoder, path)
    assert summary.duration_s == pytest.approx(10.0, abs=0.15)
    assert summary.warnings == ()
    if kind in LOSSLESS:
        np.testing.assert_allclose(found, tune, atol=2 / 32768)
    else:
        # An encoder may delay the sound; its spectrum stays.
        ours, theirs = np.abs(np.fft.rfft(found[: 9 * RATE])), np.abs(np.fft.rfft(tune[: 9 * RATE]))
        assert np.corrcoef(ours[:20_000], theirs[:20_000])[0, 1] > 0.9


def test_cover_art_and_further_streams_are_passed_over(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path, tune: NDArray[np.float32]
) -> None:
    picture = tmp_path / "cover.png"
    recorder.picture(picture)
    song = tmp_path / "song.flac"
    recorder.run("-i", wav, "-i", picture, "-map", "0", "-map", "1", "-disposition:v", "attached_pic", song)
    np.testing.assert_allclose(decode(decoder, song)[0], tune, atol=2 / 32768)
    film = tmp_path / "film.mkv"
    recorder.run(
        *("-f", "lavfi", "-i", "testsrc=d=10:s=64x64", "-i", wav, "-f", "lavfi", "-i", "sine=d=10"),
        *("-map", "0", "-map", "1", "-map", "2", "-c:a", "flac", film),
    )
    np.testing.assert_allclose(decode(decoder, film)[0], tune, atol=2 / 32768)


@pytest.mark.parametrize("kind", [LOSSY[0], LOSSY[1], LOSSY[2], LOSSLESS[0], LOSSLESS[3], LOSSLESS[4]], ids=str)
def test_a_file_cut_in_the_middle_is_heard_as_far_as_it_goes_and_says_so(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path, kind: Kind
) -> None:
    whole = recorder.convert(recorder.load(wav, "pcm_f32le"), kind, tmp_path / f"whole.{kind.suffix}")
    half = tmp_path / f"half.{kind.suffix}"
    # Cut on a sample, so that nothing but the header tells.
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 8 * 4])
    _, summary = decode(decoder, half)
    assert 3 < summary.duration_s < 7
    assert [warning.code for warning in summary.warnings] == [WarningCode.TRUNCATED]


def test_a_wav_whose_header_promises_more_than_there_is(
    decoder: FfmpegDecoder, tmp_path: Path, tune: NDArray[np.float32]
) -> None:
    path = tmp_path / "promise.wav"
    path.write_bytes(wav_bytes(tune, RATE, stated_bytes=2_000_000_000))
    found, summary = decode(decoder, path)
    assert len(found) == len(tune)
    assert [warning.code for warning in summary.warnings] == [WarningCode.TRUNCATED]


@pytest.mark.parametrize("stated", [0, 0xFFFFFFFF])
def test_a_wav_whose_writer_left_the_size_open_is_whole(
    decoder: FfmpegDecoder, tmp_path: Path, tune: NDArray[np.float32], stated: int
) -> None:
    path = tmp_path / "open.wav"
    content = bytearray(wav_bytes(tune, RATE))
    content[40:44] = stated.to_bytes(4, "little")
    path.write_bytes(bytes(content))
    found, summary = decode(decoder, path)
    assert len(found) == len(tune)
    assert summary.warnings == ()


def test_damage_in_the_middle_is_reported(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    path = recorder.convert(recorder.load(wav, "pcm_f32le"), LOSSLESS[4], tmp_path / "damaged.flac")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = np.random.default_rng(5).bytes(3000)
    path.write_bytes(bytes(content))
    _, summary = decode(decoder, path)
    assert {warning.code for warning in summary.warnings} <= {WarningCode.DAMAGED, WarningCode.TRUNCATED}
    assert summary.warnings


def test_a_codec_that_is_not_accepted_in_a_container_that_is(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    for codec in ("ac3", "adpcm_yamaha"):
        film = tmp_path / "film.mkv"
        recorder.run("-y", "-i", wav, "-c:a", codec, film)
        with pytest.raises(ServiceError, match=f"holds {codec} sound, which is not accepted") as caught:
            decode(decoder, film)
        assert caught.value.kind is ErrorKind.UNSUPPORTED_MEDIA


def test_pictures_are_never_decoded(decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path) -> None:
    """Not even to describe them: a picture that breaks its decoder breaks nothing."""
    song, picture = tmp_path / "song.mp3", tmp_path / "cover.png"
    recorder.picture(picture)
    recorder.run("-i", wav, "-i", picture, "-map", "0", "-map", "1", "-disposition:v", "attached_pic", song)
    command = decoder.ffmpeg.decode_command(0, sample_rate=RATE, max_duration_s=10)
    with song.open("rb") as file:
        words = subprocess.run(command, stdin=file, capture_output=True, check=True).stderr.decode()
    # Of a picture that was decoded it would know the size.
    assert "Could not find codec parameters for stream 1 (Video: png, none): unspecified size" in words
    assert decode(decoder, song)[1].warnings == ()


def test_a_header_of_no_codec_is_damage(decoder: FfmpegDecoder, tmp_path: Path) -> None:
    """Nobody can convert it to something else, so nobody is told to."""
    content = bytearray(wav_bytes(np.zeros(RATE, np.float32), RATE))
    content[34:36] = bytes(2)  # bits per sample, which choose between a WAV's codecs
    path = tmp_path / "no codec.wav"
    path.write_bytes(content)
    assert refusal(decoder, path) is ErrorKind.UNDECODABLE_AUDIO


def test_what_is_not_audio_is_refused(decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path) -> None:
    text = tmp_path / "text.mp3"
    text.write_text("La la la.\n" * 10_000)
    picture = tmp_path / "picture.mp3"
    recorder.picture(picture)
    unicode = tmp_path / "unicode.mp3"
    unicode.write_text("La la la.\n" * 10_000, encoding="utf-16")
    noise = tmp_path / "noise.mp3"
    noise.write_bytes(np.random.default_rng(3).bytes(300_000))
    for path in (text, picture, unicode, noise):
        assert refusal(decoder, path) is ErrorKind.UNSUPPORTED_MEDIA


def test_an_archive_is_refused_whatever_it_holds(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    """An mp3 that lies uncompressed in an archive looks like an mp3 with rubbish around it."""
    song = recorder.convert(recorder.load(wav, "pcm_f32le"), LOSSY[0], tmp_path / "song.mp3")
    archive = tmp_path / "archive.mp3"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as opened:
        opened.write(song)
    assert refusal(decoder, archive) is ErrorKind.UNSUPPORTED_MEDIA
    with tarfile.open(archive, "w") as packed:
        packed.add(song, "song.mp3")
    assert refusal(decoder, archive) is ErrorKind.UNSUPPORTED_MEDIA
    # A stream that was recorded from its middle on is none.
    stream = tmp_path / "stream.mp3"
    stream.write_bytes(song.read_bytes()[10_001:])
    assert decode(decoder, stream)[1].stream.codec == "mp3"


def test_a_playlist_never_opens_another_file(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    hls = tmp_path / "hls.mp3"
    hls.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{wav}\n#EXT-X-ENDLIST\n")
    script = tmp_path / "script.mp3"
    script.write_text(f"ffconcat version 1.0\nfile {wav}\n")
    for path in (hls, script):
        assert refusal(decoder, path) is ErrorKind.UNSUPPORTED_MEDIA
    # Without the white list the same ffmpeg does follow the script: this test can fail.
    assert recorder.output("-f", "concat", "-safe", "0", "-i", script, "-f", "f32le", "-") != b""


def test_a_film_without_sound(decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "mute.mp4"
    recorder.run("-f", "lavfi", "-i", "testsrc=d=2:s=64x64", path)
    assert refusal(decoder, path) is ErrorKind.NO_AUDIO_STREAM


def test_no_bytes_and_no_samples(decoder: FfmpegDecoder, tmp_path: Path) -> None:
    path = tmp_path / "empty.wav"
    path.write_bytes(b"")
    assert refusal(decoder, path) is ErrorKind.EMPTY_AUDIO
    path.write_bytes(wav_bytes(np.zeros(0, dtype=np.float32), RATE))
    assert refusal(decoder, path) is ErrorKind.EMPTY_AUDIO


def test_what_starts_like_audio_and_cannot_be_opened(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    whole = recorder.convert(recorder.load(wav, "pcm_f32le"), LOSSY[3], tmp_path / "whole.m4a")
    path = tmp_path / "no-index.m4a"
    path.write_bytes(whole.read_bytes()[:50_000])
    assert refusal(decoder, path) is ErrorKind.UNDECODABLE_AUDIO
    flac = recorder.convert(recorder.load(wav, "pcm_f32le"), LOSSLESS[4], tmp_path / "whole.flac")
    path.write_bytes(flac.read_bytes()[:200])
    assert refusal(decoder, path) is ErrorKind.UNDECODABLE_AUDIO


def test_numbers_that_are_no_sound_are_taken_out_and_reported(
    decoder: FfmpegDecoder, tmp_path: Path, tune: NDArray[np.float32]
) -> None:
    path = tmp_path / "odd.wav"
    for value, limit in ((np.nan, 0.0), (np.inf, 1e6), (-np.inf, 1e6), (1e25, 1e6)):
        odd = tune.copy()
        odd[70_000] = value
        path.write_bytes(wav_bytes(odd, RATE))
        found, summary = decode(decoder, path)
        assert np.isfinite(found).all()
        assert np.abs(found).max() <= max(limit, 1.0)
        assert [warning.code for warning in summary.warnings] == [WarningCode.DAMAGED], value


def test_a_film_longer_than_its_sound_is_not_truncated(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    path = tmp_path / "film.mp4"
    recorder.run("-f", "lavfi", "-i", "testsrc=d=20:s=64x64", "-i", wav, "-map", "0", "-map", "1", path)
    _, summary = decode(decoder, path)
    assert summary.duration_s == pytest.approx(10, abs=0.1)
    assert summary.warnings == ()


def test_many_chapters_and_tags_do_not_hide_the_stream(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    tags = ";FFMETADATA1\n" + "".join(
        f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={10 * i}\nEND={10 * i + 10}\ntitle=Chapter {i} {'x' * 200}\n"
        for i in range(900)
    )
    described = tmp_path / "chapters.txt"
    described.write_text(tags)
    path = tmp_path / "book.m4a"
    recorder.run("-i", wav, "-i", described, "-map_metadata", "1", "-map_chapters", "1", "-ar", "44100", path)
    _, summary = decode(decoder, path)
    assert (summary.stream.codec, summary.stream.sample_rate_hz) == ("aac", 44100)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (signal.SIGKILL, ErrorKind.INTERNAL_ERROR),
        (signal.SIGSEGV, ErrorKind.UNDECODABLE_AUDIO),
        # These two ffmpeg takes for a wish to come to an end: its time of the processor is up, somebody stops it.
        (signal.SIGXCPU, ErrorKind.UNDECODABLE_AUDIO),
        (signal.SIGTERM, ErrorKind.INTERNAL_ERROR),
    ],
)
def test_a_decoder_that_dies_gives_no_answer_about_half_a_recording(
    decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path, number: signal.Signals, kind: ErrorKind
) -> None:
    path = tmp_path / "long.flac"
    recorder.run("-f", "lavfi", "-i", "sine=r=8000", "-t", "7200", path)
    with decoder.open(path, sample_rate=RATE, max_duration_s=10_000) as decoding:
        blocks = decoding.blocks()
        next(blocks)
        (child,) = ffmpegs()
        child.send_signal(number)
        for _ in blocks:
            pass
        with pytest.raises(ServiceError) as caught:
            decoding.summary()
    assert caught.value.kind is kind


def test_too_long_is_found_while_decoding(
    decoder: FfmpegDecoder, recorder: Recorder, wav: Path, tmp_path: Path
) -> None:
    path = tmp_path / "long.flac"
    recorder.run("-f", "lavfi", "-i", "sine=r=8000", "-t", "7200", path)
    with decoder.open(path, sample_rate=RATE, max_duration_s=60) as decoding, pytest.raises(ServiceError) as caught:
        list(decoding.blocks())
    assert caught.value.kind is ErrorKind.AUDIO_TOO_LONG
    assert decoding._n_samples <= 60 * RATE + 262_144
    assert refusal(decoder, wav, limit_s=9.9) is ErrorKind.AUDIO_TOO_LONG
    assert len(decode(decoder, wav, limit_s=10.0)[0]) == 10 * RATE


def test_too_few_samples_a_second_are_found_while_decoding(decoder: FfmpegDecoder, tmp_path: Path) -> None:
    path = tmp_path / "slow.wav"
    path.write_bytes(wav_bytes(np.zeros(20_000, dtype=np.float32), 100))
    with (
        decoder.open(path, sample_rate=RATE, max_duration_s=10_000) as decoding,
        pytest.raises(ServiceError) as caught,
    ):
        next(decoding.blocks())
    assert caught.value.kind is ErrorKind.UNSUPPORTED_MEDIA


def test_a_decoder_that_stands_still_holds_nobody_up(decoder: FfmpegDecoder, long_song: Path) -> None:
    whole, _ = decode(decoder, long_song, limit_s=3600)
    with decoder.open(long_song, sample_rate=RATE, max_duration_s=3600) as decoding:
        blocks, heard = decoding.blocks(), list[NDArray[np.float32]]()
        child = psutil.Process(decoding._process.pid)
        child.suspend()
        while not heard or len(heard[-1]):
            heard.append(next(blocks))
        child.resume()
        heard += blocks
        decoding.summary()
    assert np.array_equal(np.concatenate(heard), whole)


def test_a_decoder_that_cannot_be_started_is_no_fault_of_the_file(wav: Path, ffmpeg: Ffmpeg) -> None:
    with closing(FfmpegDecoder(replace(ffmpeg, path=Path("/nowhere/ffmpeg")))) as decoder:
        assert refusal(decoder, wav) is ErrorKind.INTERNAL_ERROR


def test_no_room_for_a_thread_leaves_nothing(
    decoder: FfmpegDecoder, wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError(f"can't start {thread.name}")

    descriptors = psutil.Process().num_fds()
    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", refuse)
        with pytest.raises(OSError, match="thread"):
            decoder.open(wav, sample_rate=RATE, max_duration_s=60)
    assert psutil.Process().num_fds() == descriptors
    assert ffmpegs() == []


def test_killing_ends_the_reading_and_leaves_nothing(
    decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path
) -> None:
    path = tmp_path / "long.flac"
    recorder.run("-f", "lavfi", "-i", "sine=r=8000", "-t", "7200", path)
    threads = threading.active_count()
    with decoder.open(path, sample_rate=RATE, max_duration_s=10_000) as decoding:
        blocks = decoding.blocks()
        next(blocks)
        (child,) = ffmpegs()
        decoding.kill()
        assert sum(1 for _ in blocks) < 100
    assert not child.is_running()
    assert threading.active_count() == threads


def test_leaving_early_leaves_nothing(decoder: FfmpegDecoder, wav: Path) -> None:
    descriptors = psutil.Process().num_fds()
    with decoder.open(wav, sample_rate=RATE, max_duration_s=60):
        pass
    assert ffmpegs() == []
    assert psutil.Process().num_fds() == descriptors


def test_the_child_inherits_no_secret(
    decoder: FfmpegDecoder, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHOLETRACK_API_KEY", "secret")
    path = tmp_path / "long.flac"
    recorder.run("-f", "lavfi", "-i", "sine=r=8000", "-t", "3600", path)
    with decoder.open(path, sample_rate=RATE, max_duration_s=10_000) as decoding:
        next(decoding.blocks())
        (child,) = ffmpegs()
        assert "secret" not in str(child.environ())


def test_an_ffmpeg_that_is_none_is_refused_with_a_sentence(tmp_path: Path) -> None:
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\necho something else\n")
    fake.chmod(0o755)
    with pytest.raises(StartupError, match="is not ffmpeg"):
        find_ffmpeg(fake)
    with pytest.raises(StartupError, match="does not run"):
        find_ffmpeg(tmp_path / "missing")


def test_an_ffmpeg_that_cannot_decode_is_found_at_the_start(decoder: FfmpegDecoder, tmp_path: Path) -> None:
    decoder.self_test()
    for name, change in (("lacking", '"${@/aresample/nofilter}"'), ("mute", '"${@/-af/-an}"')):
        path = tmp_path / name
        path.write_text(f"#!/bin/bash\nexec {decoder.ffmpeg.path} {change}\n")
        path.chmod(0o755)
        with pytest.raises(StartupError, match="cannot decode a WAV|decodes a known WAV wrongly"):
            FfmpegDecoder(find_ffmpeg(path)).self_test()


def test_ffmpeg_on_the_path_is_preferred(
    decoder: FfmpegDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ffmpeg").symlink_to(decoder.ffmpeg.path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_ffmpeg().origin == "PATH"
    monkeypatch.setenv("PATH", "")
    assert find_ffmpeg().origin == "imageio-ffmpeg"


def test_a_decoder_is_a_batch_job(decoder: FfmpegDecoder, long_song: Path) -> None:
    with decoder.open(long_song, sample_rate=22050, max_duration_s=3600) as decoding:
        next(decoding.blocks())
        threads = decoder_threads(decoding)
        assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}
        assert all(os.sched_getaffinity(thread) == os.sched_getaffinity(0) for thread in threads)


def test_decoders_share_the_processors_evenly(ffmpeg: Ffmpeg, long_song: Path) -> None:
    numbers = sorted(os.sched_getaffinity(0))
    decoder = FfmpegDecoder(ffmpeg, Processors(numbers))

    def processor_of(decoding: Decoding) -> int:
        next(decoding.blocks())
        (processor,) = set[int]().union(*(os.sched_getaffinity(thread) for thread in decoder_threads(decoding)))
        return processor

    with decoder.open(long_song, sample_rate=22050, max_duration_s=3600) as first:
        taken = processor_of(first)
        # However many come and go meanwhile, they go where the first one is not.
        for _ in range(3):
            with decoder.open(long_song, sample_rate=22050, max_duration_s=3600) as other:
                assert processor_of(other) != taken or len(numbers) == 1
    assert decoder._processors
    assert set(decoder._processors._users.values()) == {0}


def decoder_threads(decoding: Decoding) -> list[int]:
    return [int(task.name) for task in Path(f"/proc/{decoding._process.pid}/task").iterdir()]
