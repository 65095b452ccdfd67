"""The CPU image as Compose runs it: the same predictions, no unneeded content, no unneeded permissions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.containers.prometheus import query_prometheus
from tests.harness.commands import run
from tests.harness.compose import ComposeProject, compose_project
from tests.harness.waiting import until
from wholetrack.decoding.ffmpeg import CODECS, FORMATS
from wholetrack.pipeline import Pipeline

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

SIZE_MB = 500
UID = 10001
_PROMETHEUS_PORT = 18323
_UPLOADS = "import os; print(sorted(os.walk('/tmp')))"


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeProject]:
    folder = tmp_path_factory.mktemp("compose")
    ports = {"WHOLETRACK_PROMETHEUS_PORT": str(_PROMETHEUS_PORT)}
    with compose_project("wholetrack-test", 18321, folder, "docker-compose.yml", **ports) as project:
        project.compose("build")
        project.up()
        yield project


@pytest.mark.data
def test_predictions_are_the_same_as_outside_the_container(
    container: ComposeProject, pipeline: Pipeline, music: Path
) -> None:
    recordings = [path for path in sorted((music / "audio" / "full").iterdir()) if path.suffix != ".csv"]
    assert recordings
    for recording in recordings:
        response = container.post(recording.read_bytes())
        assert response.status_code == 200
        expected = pipeline.predict(recording, max_duration_s=3600)
        np.testing.assert_allclose(
            response.json()["windows"]["probabilities"],
            expected.windows.probabilities,
            atol=1e-4,
            err_msg=recording.name,
        )


def test_the_sandbox_is_complete_and_the_service_is_unprivileged(container: ComposeProject) -> None:
    assert httpx.get(f"{container.url}/readyz").json()["sandbox"] == ["landlock", "limits", "seccomp"]
    status = dict(
        line.split(":\t", 1) for line in container.python("print(open('/proc/1/status').read())").splitlines()
    )
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(UID)}
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    host = container.inspect()[0]["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert not host["Privileged"]


# Number on x86-64 and ARM, and arguments. Docker's default seccomp profile allows some of these calls.
_CALLS = {
    "ptrace": ((101, 117), (0, 0, 0, 0)),
    "process_vm_readv": ((310, 270), (1, 0, 0, 0, 0, 0)),
    "personality": ((135, 92), (0xFFFFFFFF,)),
    "kcmp": ((312, 272), (1, 1, 0, 0, 0)),
    "io_uring_setup": ((425, 425), (1, 0)),
    "memfd_create with other flags": ((319, 279), (0, 0)),
    "mount": ((165, 40), (0, 0, 0, 0, 0)),
    "unshare": ((272, 97), (0x10000000,)),
    "a socket of AF_ALG": ((41, 198), (38, 5, 0)),
    "a socket of AF_VSOCK": ((41, 198), (40, 1, 0)),
}


@pytest.mark.parametrize("call", _CALLS)
def test_unneeded_system_calls_are_not_available(container: ComposeProject, call: str) -> None:
    numbers, arguments = _CALLS[call]
    program = f"""
import ctypes, platform
libc = ctypes.CDLL(None, use_errno=True)
number = {numbers}[platform.machine() == "aarch64"]
print(libc.syscall(number, *map(ctypes.c_long, {arguments})), ctypes.get_errno())
"""
    assert container.python(program) == "-1 38"


@pytest.mark.parametrize("folder", ["/", "/opt/app", "/opt/wholetrack", "/etc", "/var/tmp", "/home", "/run"])
def test_only_uploads_can_be_written(container: ComposeProject, folder: str) -> None:
    program = f"""
try:
    open({folder!r} + "/file", "w")
except OSError as error:
    print(type(error).__name__, error.errno)
"""
    assert container.python(program) in {"OSError 30", "PermissionError 13"}


def test_the_image_contains_only_what_the_service_needs(container: ComposeProject) -> None:
    tools = ("pip", "pip3", "gcc", "cc", "make", "git", "curl", "wget", "apt-get-source")
    program = f"import shutil; print([tool for tool in {tools!r} if '/opt' in (shutil.which(tool) or '')])"
    assert container.python(program) == "[]"
    assert container.python("import shutil; print(shutil.which('gcc'), shutil.which('cc'))") == "None None"
    program = "from importlib import metadata; print(sorted(d.name.lower() for d in metadata.distributions()))"
    packages = set(json.loads(container.python(program).replace("'", '"')))
    assert {"wholetrack", "opentelemetry-sdk"} <= packages
    assert not packages & {"librosa", "numba", "scipy", "pydub", "torch", "pytest", "onnxruntime-gpu"}
    program = "import pathlib; print([*pathlib.Path('/opt/app').iterdir()])"
    inside = container.python(program)
    assert "training" not in inside
    assert "tests" not in inside


@pytest.mark.parametrize(
    ("kind", "expected"), [("decoders", CODECS), ("demuxers", FORMATS), ("encoders", ("pcm_f32le",))]
)
def test_its_ffmpeg_has_only_the_components_that_the_service_uses(
    container: ComposeProject, kind: str, expected: tuple[str, ...]
) -> None:
    program = f"""
import subprocess
from wholetrack.decoding.ffmpeg import find_ffmpeg
ffmpeg = find_ffmpeg()
assert ffmpeg.origin == "PATH"
print(subprocess.run([ffmpeg.path, "-hide_banner", "-{kind}"], capture_output=True, text=True, check=True).stdout)
"""
    _, listed = re.split(r"^ -+$", container.python(program), flags=re.MULTILINE)
    assert {line.split()[1].split(",")[0] for line in listed.strip().splitlines()} == set(expected)


def test_the_image_is_small_and_starts(container: ComposeProject, capsys: pytest.CaptureFixture[str]) -> None:
    size_mb = json.loads(run("docker", "image", "inspect", "wholetrack:cpu"))[0]["Size"] / 1e6
    container.compose("down")
    seconds = container.up()
    with capsys.disabled():
        print(f"\nimage of {size_mb:.0f} MB; healthy {seconds:.1f} s after `docker compose up`")
    assert size_mb < SIZE_MB
    labels = container.inspect()[0]["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "wholetrack"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n", 415),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", 415),
        (b"RIFF\xff\xff\xff\xffWAVEfmt ", 422),
        (b"", 400),
        (bytes(range(256)) * 4096, 415),
    ],
)
def test_hostile_files_are_refused(container: ComposeProject, tmp_path: Path, content: bytes, status: int) -> None:
    file = tmp_path / "song.mp3"
    file.write_bytes(content)
    before = container.python(_UPLOADS)
    response = container.post(file.read_bytes())
    assert response.headers["content-type"] == "application/problem+json"
    assert response.status_code in {status, 422}
    assert "/tmp" not in response.text
    assert container.python(_UPLOADS) == before


def test_prometheus_discovers_the_service(container: ComposeProject) -> None:
    container.up("prometheus")
    until(
        lambda: [value for _, value in query_prometheus(_PROMETHEUS_PORT, 'up{job="wholetrack"}')] == [1.0], seconds=60
    )


@pytest.mark.data
def test_admitted_requests_finish_when_the_container_stops(container: ComposeProject, music: Path) -> None:
    recording = music / "audio" / "full" / "fantasma.mp3"

    def predict(_: int) -> int:
        return container.post(recording.read_bytes(), windows="none").status_code

    # Two recordings take much less time than draining allows, also while other tests use the processors.
    with ThreadPoolExecutor(2) as clients:
        requests = [clients.submit(predict, i) for i in range(2)]
        until(lambda: "wholetrack_predictions_in_progress 2.0" in httpx.get(f"{container.url}/metrics").text)
        container.compose("stop")
        statuses = [request.result() for request in requests]
    assert statuses == [200, 200]
    state = container.inspect()[0]["State"]
    assert (state["Status"], state["ExitCode"], state["OOMKilled"]) == ("exited", 0, False)
    container.up()
