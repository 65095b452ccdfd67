"""The ffmpeg executable is found, and checked at start-up."""

from __future__ import annotations

from pathlib import Path

import pytest

from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack.decoding.self_test import self_test
from wholetrack.errors import StartupError


def test_ffmpeg_on_the_path_is_preferred(
    decoder: FfmpegDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ffmpeg").symlink_to(decoder.ffmpeg.path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_ffmpeg().origin == "PATH"
    monkeypatch.setenv("PATH", "")
    assert find_ffmpeg().origin == "imageio-ffmpeg"


@pytest.mark.parametrize(
    "content",
    [
        "not a program",
        "#!/bin/sh\necho something else\n",
        "#!/bin/sh\nexit 127\n",
        "#!/bin/sh\nkill -9 $$\n",
        "#!/bin/sh\nprintf '\\377'\n",
        "#!/no/such/interpreter\n",
    ],
)
def test_a_broken_ffmpeg_on_the_path_is_replaced_by_the_bundled_one(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "ffmpeg").write_text(content)
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_ffmpeg().origin == "imageio-ffmpeg"
    (message,) = caplog.messages
    assert message.startswith("the ffmpeg on PATH does not work; using the one in the package imageio-ffmpeg: ")
    assert str(tmp_path / "ffmpeg") in message


def test_a_program_that_is_not_ffmpeg_is_a_startup_error(tmp_path: Path) -> None:
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\necho something else\n")
    fake.chmod(0o755)
    with pytest.raises(StartupError, match="is not ffmpeg"):
        find_ffmpeg(fake)
    with pytest.raises(StartupError, match="cannot be executed"):
        find_ffmpeg(tmp_path / "missing")


def test_the_self_test_detects_an_ffmpeg_that_cannot_decode(decoder: FfmpegDecoder, tmp_path: Path) -> None:
    self_test(decoder)
    for name, change in (("lacking", '"${@/aresample/nofilter}"'), ("mute", '"${@/-af/-an}"')):
        path = tmp_path / name
        path.write_text(f"#!/bin/bash\nexec {decoder.ffmpeg.path} {change}\n")
        path.chmod(0o755)
        with pytest.raises(StartupError, match="cannot decode a WAV|does not decode a known WAV correctly"):
            self_test(FfmpegDecoder(find_ffmpeg(path)))
