"""The feature workers of the service: starts them, distributes tracks over them, and replaces those that are lost."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from wholetrack.contracts import ModelCard
from wholetrack.errors import StartupError
from wholetrack.extraction.client import RemoteWindows, WorkerLostError
from wholetrack.extraction.messages import TrackSpec
from wholetrack.features.inputs import InputFeatures
from wholetrack.sandbox.client import Sandbox
from wholetrack.sandbox.connection import LauncherError
from wholetrack.sandbox.layers import ALL_LAYERS, Layer
from wholetrack.sandbox.limits import Limits
from wholetrack.sandbox.process import SandboxedProcess
from wholetrack.sandbox.target import Functions

_log = logging.getLogger(__name__)

_MODULE = "wholetrack.extraction.worker"
# What that module imports, directly or not, besides the standard library.
_PACKAGES = ("numpy", "soxr", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection")
_MIB = 1 << 20
# A hop of one frame needs about a hundred MiB for the windows of a block. What each track keeps is a block of samples.
_DATA_BYTES, _DATA_BYTES_PER_TRACK = 512 * _MIB, 8 * _MIB
# Room for the interpreter and its libraries, which mostly consist of pages that are never used.
_PROGRAM_BYTES = 1024 * _MIB
_STACK_BYTES = 8 * _MIB
_DESCRIPTORS, _DESCRIPTORS_PER_TRACK = 64, 3
_MAX_SHARED_BYTES = 1024 * _MIB
_STDERR_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class WorkerCounts:
    """How the workers are.

    Attributes:
        running: Number of workers that have not ended.
        replaced: Number of workers that were lost and replaced.
    """

    running: int
    replaced: int


class FeatureWorkers:
    """A fixed number of processes, each of which computes the windows of many tracks.

    Args:
        n_workers: Number of workers.
        max_tracks: Number of tracks that may be open at the same time, in all of them.
        layers: Layers of the sandbox to apply, as far as this machine supports them.

    Raises:
        StartupError: If they cannot be started.
    """

    def __init__(self, n_workers: int, *, max_tracks: int, layers: Collection[Layer] = ALL_LAYERS) -> None:
        self._limits = Limits(
            cpu_s=None,
            max_cpu_s=None,
            data_bytes=_DATA_BYTES + max_tracks * _DATA_BYTES_PER_TRACK,
            address_space_bytes=_PROGRAM_BYTES + _DATA_BYTES + max_tracks * _DATA_BYTES_PER_TRACK,
            stack_bytes=_STACK_BYTES,
            open_files=_DESCRIPTORS + max_tracks * _DESCRIPTORS_PER_TRACK,
            file_bytes=_MAX_SHARED_BYTES,
        )
        self._lock = threading.Lock()
        self._n_replaced = 0
        self._workers: list[_Worker] = []
        self._closed = False
        try:
            self._sandbox = Sandbox(Functions(f"{_MODULE}:prepare", _PACKAGES), wanted=layers)
        except (LauncherError, OSError) as error:
            raise StartupError(f"the sandbox of the feature workers cannot be started: {error}") from error
        try:
            for _ in range(n_workers):
                self._workers.append(_Worker(self._sandbox, self._limits))
        except (LauncherError, OSError) as error:
            self.close()
            raise StartupError(f"the feature workers cannot be started: {error}") from error

    def close(self) -> None:
        """End the workers, and stop the sandbox."""
        with self._lock:
            self._closed = True
            for worker in self._workers:
                worker.close()
        self._sandbox.close()

    def owns(self, pid: int) -> bool:
        """Return whether a process is the launcher of the workers; see :meth:`Sandbox.owns`."""
        return self._sandbox.owns(pid)

    def counts(self) -> WorkerCounts:
        """Return how the workers are. Does not wait for a worker that is being replaced."""
        return WorkerCounts(sum(worker.is_running for worker in tuple(self._workers)), self._n_replaced)

    @contextmanager
    def open_track(
        self, card: ModelCard, features: InputFeatures, *, hop_s: float, peaks_per_s: int, keep_silent: bool
    ) -> Iterator[RemoteWindows]:
        """Open a track in the worker that has the fewest, and close it at the end of the ``with`` block.

        A worker that is lost during the block is replaced, which ends its other tracks as well.

        Args:
            card: Contents of the model's ``model.json``.
            features: The features of the model.
            hop_s: Distance between window starts in seconds.
            peaks_per_s: Peaks of the waveform per second; 0 for none.
            keep_silent: Whether to compute the inputs of silent windows as well.

        Raises:
            WorkerLostError: If the worker has ended and cannot be replaced.
            OSError: If the machine is out of processes or descriptors.
        """
        spec = TrackSpec(card.feature_contract.model_dump_json(), hop_s, peaks_per_s, keep_silent)
        worker = self._acquire()
        try:
            with RemoteWindows(worker.open_track(spec.encode()), features) as windows:
                yield windows
        except WorkerLostError as error:
            self._replace(worker, error)
            raise
        finally:
            self._release(worker)

    def _acquire(self) -> _Worker:
        """Return a running worker, with one more track."""
        with self._lock:
            worker = min(self._workers, key=lambda worker: worker.n_tracks)
            if not worker.is_running:
                worker = self._replacement(worker, "it has ended")
            worker.n_tracks += 1
            return worker

    def _release(self, worker: _Worker) -> None:
        with self._lock:
            worker.n_tracks -= 1

    def _replace(self, worker: _Worker, reason: Exception) -> None:
        """Replace a worker, unless another thread already has. If that fails, the next track tries again."""
        with self._lock, suppress(WorkerLostError, OSError):
            if worker in self._workers:
                self._replacement(worker, str(reason))

    def _replacement(self, worker: _Worker, reason: str) -> _Worker:
        """Kill a worker and return the one that is started in place of it. The caller holds the lock.

        Raises:
            WorkerLostError: If it cannot be started, or the service is stopping.
        """
        worker.close()
        if self._closed:
            raise WorkerLostError("the service is stopping")
        _log.critical("replacing a feature worker, which ends its tracks: %s%s", reason, worker.stderr_text)
        self._n_replaced += 1
        try:
            replacement = _Worker(self._sandbox, self._limits)
        except LauncherError as error:
            raise WorkerLostError(f"a feature worker cannot be started: {error}") from error
        self._workers[self._workers.index(worker)] = replacement
        return replacement


class _Worker:
    """One worker.

    Attributes:
        n_tracks: Number of its tracks. Guarded by the lock of :class:`FeatureWorkers`.
        stderr_text: What it wrote to stderr, once it is closed, to append to a log message.

    Raises:
        LauncherError: If it cannot be started.
        OSError: If the machine is out of processes or descriptors.
    """

    def __init__(self, sandbox: Sandbox, limits: Limits) -> None:
        self.n_tracks = 0
        self.stderr_text = ""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = sandbox.spawn_function(f"{_MODULE}:serve", control=theirs.fileno(), limits=limits)
        except BaseException:
            self._control.close()
            raise
        self._process.stdout.close()
        self._finalizer = weakref.finalize(self, _kill, self._control, self._process)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def open_track(self, spec: bytes) -> socket.socket:
        """Return our end of the socket of a new track.

        Raises:
            WorkerLostError: If the worker has ended.
            OSError: If the machine is out of descriptors.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                socket.send_fds(self._control, [spec], [theirs.fileno()])
        except OSError as error:
            ours.close()
            if isinstance(error, ConnectionError) or error.errno == errno.EBADF:
                raise WorkerLostError("a feature worker has ended") from error
            raise
        return ours

    def close(self) -> None:
        """Kill the worker."""
        self.stderr_text = self._finalizer() or self.stderr_text


def _kill(control: socket.socket, process: SandboxedProcess) -> str:
    """Kill a worker, and return what it wrote to stderr, with a colon before it."""
    control.close()
    process.close()
    with process.stderr as stderr:
        os.set_blocking(stderr.fileno(), False)
        text = (stderr.read(_STDERR_BYTES) or b"").decode(errors="replace").strip()
    return f": {text}" if text else ""
