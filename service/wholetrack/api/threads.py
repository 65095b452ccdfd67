"""Running each admitted prediction in a thread of its own, and cancelling those whose result is no longer needed."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from fastapi import Request, Response

from wholetrack.api.admission import draining_error
from wholetrack.api.deadline import Deadline
from wholetrack.cancellation import Cancellation
from wholetrack.errors import ErrorKind, ServiceError


class PredictionThreads:
    """Threads for predictions, one each.

    Args:
        max_threads: The maximum number of admitted predictions, so that none of them ever waits for a thread. Which
            track decodes next is up to the fair queue of the pipeline; a queue in front of it would be first come,
            first served.
    """

    def __init__(self, max_threads: int) -> None:
        self._executor = ThreadPoolExecutor(max_threads, thread_name_prefix="track")

    def close(self) -> None:
        """Wait for the running predictions and end the threads."""
        self._executor.shutdown()

    def start(self, work: Callable[[], Response]) -> asyncio.Future[Response]:
        """Run ``work`` in a thread, in the context of the caller, so that log records carry the request id."""
        context = contextvars.copy_context()
        return asyncio.wrap_future(self._executor.submit(context.run, work))

    async def run(
        self, work: Callable[[], Response], *, request: Request, deadline: Deadline, cancellation: Cancellation
    ) -> Response:
        """Run ``work`` in a thread, and return or raise its outcome.

        ``cancellation`` is set if the client disconnects, the deadline passes or the server shuts down, and ``work`` is
        expected to raise its reason. Even then, this coroutine waits for the thread to finish, so that its caller may
        remove the files that the thread reads.

        Args:
            work: Called in a thread; see :meth:`start`.
            request: A request whose body has been read completely.
            deadline: The time limit of the request.
            cancellation: Stops ``work``.
        """
        running = self.start(work)
        disconnected: asyncio.Future[None] = asyncio.create_task(_wait_for_disconnect(request))
        try:
            either: list[asyncio.Future[Any]] = [running, disconnected]
            await asyncio.wait(either, timeout=deadline.remaining_s, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                cancellation.cancel(client_gone() if disconnected.done() else deadline.error())
        except asyncio.CancelledError:
            # uvicorn cancels requests that outlast shutdown_timeout_s. The client still gets a response that says why.
            cancellation.cancel(draining_error())
        finally:
            disconnected.cancel()
        # The thread is still reading the file of the upload.
        await wait_despite_cancellation(running)
        return running.result()


async def wait_despite_cancellation(running: asyncio.Future[Any]) -> None:
    """Wait until ``running`` has an outcome. If the caller is cancelled in the meantime, that is ignored."""
    while not running.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([running])


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def client_gone() -> ServiceError:
    """Return the error for a prediction whose client has disconnected."""
    return ServiceError(ErrorKind.CLIENT_GONE, "The client disconnected before the response.")
