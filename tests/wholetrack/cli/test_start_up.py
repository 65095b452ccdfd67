"""What can be wrong before a command has begun is one sentence, and Ctrl-C ends any command with one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.server import running_server
from wholetrack.cli.numba_cache import numba_cache
from wholetrack.cli.render import print_rows

pytestmark = pytest.mark.timing


def wholetrack(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with these variables."""
    program = [sys.executable, "-m", "wholetrack", *arguments]
    variables = os.environ | {"WHOLETRACK_DEVICE": "cpu"} | environment
    return subprocess.run(program, cwd=folder, env=variables, capture_output=True, text=True, timeout=120, check=False)


def run_program(program: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("TEMP_DIR", "/nowhere", "no file can be created in /nowhere (No such file or directory): set "),
        ("TEMP_DIR", "a-file", "no file can be created in a-file (Not a directory): set WHOLETRACK_TEMP_DIR to "),
        ("TEMP_DIR", "/proc", "no file can be created in /proc "),
        ("TEMP_DIR", "~nobody-has-this-name", "WHOLETRACK_TEMP_DIR: there is no such home folder: "),
        ("CPU_PRECISON", "int8", "WHOLETRACK_CPU_PRECISON is not a setting; the most similar name is WHOLETRACK_CPU_"),
        ("API_KEYS", "", "API keys are configured with WHOLETRACK_API_KEYS or WHOLETRACK_API_KEYS_FILE but none "),
        ("CLIENT_TIMEOUT_S", "inf", "WHOLETRACK_CLIENT_TIMEOUT_S: Input should be less than or equal to "),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_sentence(
    variable: str, value: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "a-file").touch()
    environment = {"WHOLETRACK_LOG_LEVEL": "warning", f"WHOLETRACK_{variable}": value}
    done = wholetrack(tmp_path, "serve", "--port", "0", **environment)
    assert done.returncode == 1
    assert done.stderr.startswith(f"wholetrack: {sentence}")
    assert len(done.stderr.splitlines()) == 1


def test_a_file_with_settings_that_is_not_text_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"WHOLETRACK_HOST=\xff")
    done = wholetrack(tmp_path, "settings")
    assert done.returncode == 1
    assert done.stderr.startswith("wholetrack: .env is not UTF-8: ")
    assert len(done.stderr.splitlines()) == 1


def test_without_any_folder_for_temporary_files_there_is_one_sentence() -> None:
    program = """
import sys, tempfile
def no_folder():
    raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")
tempfile.gettempdir = tempfile._get_default_tempdir = no_folder
tempfile.TemporaryFile = lambda dir: open("/nowhere/file")
from wholetrack.cli.app import main
sys.argv = ["wholetrack", "models"]
main()
"""
    done = run_program(program)
    assert done.returncode == 1
    assert done.stderr.startswith("wholetrack: no file can be created in /tmp (No such file or directory): set ")
    assert len(done.stderr.splitlines()) == 1


def test_a_blank_option_is_unset(tmp_path: Path) -> None:
    """An empty address would mean all addresses."""
    variables = os.environ | {"WHOLETRACK_DEVICE": "cpu"}
    program = [sys.executable, "-m", "wholetrack", "serve", "--port", "0", "--host", ""]
    with subprocess.Popen(program, cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        address = next(line for line in process.stderr if "listening on" in line)
        process.terminate()
        process.communicate(timeout=60)
    assert "http://127.0.0.1:" in address


def test_web_concurrency_is_ignored_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "many")
    with running_server(tmp_path) as server:
        assert server.get("/readyz").status_code == 200
    assert server.log.read_text().count("WEB_CONCURRENCY is ignored") == 1


def test_ctrl_c_stops_the_service_without_an_error(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        server.process.send_signal(signal.SIGINT)
        server.process.wait(timeout=60)
    assert "ERROR" not in server.log.read_text()
    assert "interrupted" not in server.log.read_text()


def test_ctrl_c_while_a_module_is_imported_is_one_sentence() -> None:
    done = run_program("""
import signal
from wholetrack.cli import app
def run():
    try:
        signal.raise_signal(signal.SIGINT)
    except BaseException as error:
        raise ImportError("initialization failed") from error
app._run = run
app.main()
""")
    assert (done.returncode, done.stderr) == (130, "wholetrack: interrupted\n")


def test_the_second_ctrl_c_ends_a_command_that_does_not_stop() -> None:
    done = run_program("""
import signal
from wholetrack.cli import app
def run():
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.raise_signal(signal.SIGINT)
        print("still running")
app._run = run
app.main()
""")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_replaced(closed: str, tmp_path: Path) -> None:
    report = tmp_path / "report"
    program = tmp_path / "program.py"
    program.write_text(f"""
import os, subprocess, sys
from wholetrack.cli.standard_streams import prepare_standard_streams
prepare_standard_streams()
print("to standard output")
print("to standard error", file=sys.stderr)
# The first file that is opened does not get the descriptor of a standard stream, here or in a child.
opened = os.open(os.devnull, os.O_RDONLY)
child = [sys.executable, "-c", "import os; os.open(os.devnull, 0); [os.fstat(i) for i in range(3)]"]
status = subprocess.run(child).returncode
open({str(report)!r}, "w").write(f"{{opened > 2}} {{status}}")
""")
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, str(program)]
    assert subprocess.run(shell, capture_output=True, timeout=60, check=False).returncode == 0
    assert report.read_text() == "True 0"


def test_a_command_runs_with_all_standard_streams_closed(tmp_path: Path) -> None:
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-m", "wholetrack", "settings"]
    assert subprocess.run(shell, cwd=tmp_path, timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("arguments", [["settings"], ["models"], ["key", "alice"], ["--version"]], ids=" ".join)
def test_a_full_disk_is_one_sentence(arguments: list[str], tmp_path: Path) -> None:
    shell = ["sh", "-c", 'exec "$@" > /dev/full', "sh", sys.executable, "-m", "wholetrack", *arguments]
    done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "wholetrack: cannot write the output: No space left on device"
    assert "Traceback" not in done.stderr


def test_text_in_tables_is_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(("name", "text"), [("[red]a", "[name] and :smile: [/]")])
    assert capsys.readouterr().out.splitlines()[1].split(None, 1) == ["[red]a", "[name] and :smile: [/]"]


def test_names_and_values_of_settings_are_complete_on_a_narrow_terminal() -> None:
    value = "/a/long/folder/" + "x" * 60
    program = f"""
import os, pty, sys
sys.argv = ["wholetrack", "settings"]
os.environ |= {{"COLUMNS": "90", "TERM": "dumb", "WHOLETRACK_MODELS_DIR": "{value}"}}
from wholetrack.cli.app import main
pid, terminal = pty.fork()
if pid == 0:
    main()
shown = b""
try:
    while part := os.read(terminal, 10_000):
        shown += part
except OSError:  # the other end is closed
    pass
sys.stdout.write(shown.decode())
"""
    lines = run_program(program).stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("WHOLETRACK_MODELS_DIR "))
    column = lines[start].index("/a/long")
    shown = "".join(line[column:].split(" ")[0] for line in lines[start : start + 12])
    assert value in shown
    assert any(line.startswith("WHOLETRACK_KEY_REQUESTS_PER_MINUTE ") for line in lines)


def test_the_settings_are_printed_with_their_brackets(tmp_path: Path) -> None:
    done = wholetrack(tmp_path, "settings", WHOLETRACK_DEFAULT_MODEL="[bold]")
    assert "[name] with sha256" in done.stdout
    assert re.search(r"^WHOLETRACK_DEFAULT_MODEL +\[bold\] ", done.stdout, re.MULTILINE)


def test_verify_names_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    done = wholetrack(tmp_path, "verify", "missing.wav")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "wholetrack: missing.wav: No such file or directory"
    assert "Traceback" not in done.stderr


def test_numba_gets_a_temporary_folder_only_if_its_own_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    writable = tmp_path / "cache"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(writable))
    with numba_cache(tmp_path):
        assert os.environ["NUMBA_CACHE_DIR"] == str(writable)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with numba_cache(tmp_path):
        folder = Path(os.environ["NUMBA_CACHE_DIR"])
        assert folder.parent == tmp_path
        assert folder.is_dir()
    assert not folder.exists()
