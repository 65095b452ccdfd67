"""A track in a feature worker, as the service sees it."""

from __future__ import annotations

import errno
import os
import socket
import time
from contextlib import suppress
from types import TracebackType
from typing import IO, Self

from wholetrack.decoding.pipes import BLOCK_TIMEOUT_S, LogReader
from wholetrack.decoding.receiving import Received
from wholetrack.extraction.messages import MAX_MESSAGE_BYTES, NEXT, Block, Part, read_arrays
from wholetrack.extraction.windows import ExtractedWindows
from wholetrack.features.inputs import InputFeatures

# A worker replies within a second and the time that the features of its other tracks take.
_REPLY_TIMEOUT_S = 20.0


class WorkerLostError(Exception):
    """A feature worker has ended or does not reply, so that its tracks are lost. Another one can compute them again."""


class RemoteWindows:
    """Receives the windows of one track from a feature worker; a :class:`wholetrack.decoding.receiving.Receiver`.

    Leaving it as a context manager makes the worker forget the track.

    Args:
        connection: Our end of the track's socket.
        features: The features that the worker computes.

    Attributes:
        nothing: No windows.
        features_s: Time that the worker spent on the latest block, in seconds.
    """

    def __init__(self, connection: socket.socket, features: InputFeatures) -> None:
        self.nothing = ExtractedWindows.none(features)
        self.features_s = 0.0
        self._connection = connection
        self._shapes = features.shapes
        self._was_aborted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def begin(self, stdout: IO[bytes], *, rate: int | None, is_last: bool) -> None:
        """Pass the output of the next ffmpeg process on to the worker, and close it here."""
        # If the worker has closed the socket, the next block says why.
        with stdout, suppress(ConnectionError):
            socket.send_fds(self._connection, [Part(rate, is_last).encode()], [stdout.fileno()])

    def receive(self, log: LogReader) -> Received[ExtractedWindows]:
        """Return the windows of the next block.

        Raises:
            WorkerLostError: If the worker has ended or does not reply.
            MessageError: If the worker failed to compute them.
        """
        with suppress(ConnectionError):
            self._connection.send(NEXT)
        self._wait(log)
        message, memory = self._reply()
        try:
            return self._block(message, memory)
        finally:
            for descriptor in memory:
                os.close(descriptor)

    def abort(self) -> None:
        """End the wait for a block. Any thread may call this."""
        self._was_aborted = True
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            # It was closed.
            return

    def _wait(self, log: LogReader) -> None:
        """Wait for a reply.

        Only time in which this process runs counts: it may be suspended together with the worker.
        """
        waited_s = 0.0
        while not log.wait_for(self._connection.fileno(), deadline=time.monotonic() + BLOCK_TIMEOUT_S):
            waited_s += 0.2
            if waited_s > _REPLY_TIMEOUT_S:
                raise WorkerLostError(f"a feature worker has not replied for {_REPLY_TIMEOUT_S:g} seconds")

    def _reply(self) -> tuple[bytes, list[int]]:
        """Return the next message, which is empty if the socket was closed, and its descriptors."""
        try:
            message, memory, *_ = socket.recv_fds(self._connection, MAX_MESSAGE_BYTES, 1)
        except ConnectionResetError:
            # The worker closed its end with a message unread. The error that it sent can still be received.
            message, memory, *_ = socket.recv_fds(self._connection, MAX_MESSAGE_BYTES, 1)
        return message, memory

    def _block(self, message: bytes, memory: list[int]) -> Received[ExtractedWindows]:
        if not message:
            if not self._was_aborted:
                raise WorkerLostError("a feature worker has ended")
            return Received(content=self.nothing, ended=True)
        block = Block.decode(message)
        if block.has_arrays and not memory:
            # The kernel dropped a descriptor that exceeds RLIMIT_NOFILE.
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.features_s = block.features_s
        return Received(
            content=read_arrays(memory[0], block, self._shapes) if memory else self.nothing,
            n_samples=block.n_samples,
            peak=block.peak,
            cancelled_s=block.cancelled_s,
            has_replaced=block.has_replaced,
            stalled=block.stalled,
            ended=block.ended,
        )
