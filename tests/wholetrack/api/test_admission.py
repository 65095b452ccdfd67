"""Admission rejects predictions above the limit, and estimates when to retry from how fast permits become free."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from wholetrack.api.admission import Admission
from wholetrack.errors import ErrorKind, ServiceError

pytestmark = [pytest.mark.timing, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def rejection(admission: Admission) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        async with admission.admit():
            pass
    return caught.value


async def test_predictions_are_admitted_up_to_the_limit() -> None:
    admission = Admission(2)
    async with admission.admit(), admission.admit():
        assert admission.in_progress == 2
        rejected = await rejection(admission)
        assert rejected.kind is ErrorKind.OVERLOADED
        assert rejected.retry_after_s == 5
    with pytest.raises(ZeroDivisionError):
        async with admission.admit():
            raise ZeroDivisionError
    assert admission.in_progress == 0


async def test_requests_that_would_wait_too_long_are_rejected() -> None:
    clock = Clock()
    admission = Admission(10, max_wait_s=30, expected_wait_s=lambda n: 12.0 * n, clock=clock)
    async with admission.admit(), admission.admit():
        clock.now += 24.0
    async with admission.admit(), admission.admit(), admission.admit():
        rejected = await rejection(admission)
        assert rejected.kind is ErrorKind.OVERLOADED
        assert rejected.detail.startswith("The wait would be longer than the limit of 30 s.")
        # Three in progress, 24 seconds each: one finishes every eight seconds.
        assert rejected.retry_after_s == 8
        assert (await rejection(admission)).retry_after_s == 16
    # The rejected requests hold no permits.
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(admission.admit())


async def test_a_wait_of_any_length_is_admitted_without_a_limit() -> None:
    admission = Admission(3, expected_wait_s=lambda n: 1000.0 * n)
    async with admission.admit(), admission.admit(), admission.admit():
        assert admission.in_progress == 3


async def test_retry_after_follows_from_the_duration_of_predictions() -> None:
    clock = Clock()
    admission = Admission(2, grace_s=0, clock=clock)
    for _ in range(10):
        async with admission.admit(), admission.admit():
            clock.now += 6.0
    async with admission.admit(), admission.admit():
        # Two at a time, six seconds each: one finishes every three seconds.
        assert [(await rejection(admission)).retry_after_s for _ in range(3)] == [3, 6, 9]
        clock.now += 30.0
        # No permit became free for half a minute, so the rate has dropped.
        assert (await rejection(admission)).retry_after_s == 4 * 30
    async with AsyncExitStack() as permits:
        for _ in range(2):
            await permits.enter_async_context(admission.admit())
        for _ in range(500):
            rejected = await rejection(admission)
        assert rejected.retry_after_s == 600


async def test_idle_time_does_not_count_as_slow_predictions() -> None:
    clock = Clock()
    admission = Admission(2, grace_s=0, clock=clock)
    for _ in range(40):
        async with admission.admit():
            clock.now += 0.5
        clock.now += 300.0
    async with admission.admit(), admission.admit():
        assert (await rejection(admission)).retry_after_s == 1


async def test_rejected_clients_that_never_retried_are_forgotten() -> None:
    clock = Clock()
    admission = Admission(2, grace_s=0, clock=clock)
    async with admission.admit(), admission.admit():
        clock.now += 10.0
        for _ in range(100):
            await rejection(admission)
    clock.now += 2.0
    async with admission.admit(), admission.admit():
        assert (await rejection(admission)).retry_after_s == 5


async def test_nothing_is_admitted_while_draining() -> None:
    admission = Admission(2)
    async with admission.admit():
        admission.draining = True
        assert (await rejection(admission)).kind is ErrorKind.DRAINING
    assert admission.in_progress == 0


async def test_a_full_service_that_is_draining_responds_with_draining_not_overloaded() -> None:
    admission = Admission(1)
    async with admission.admit():
        admission.draining = True
        assert (await rejection(admission)).kind is ErrorKind.DRAINING


async def test_waiting_predictions_get_free_permits_in_order() -> None:
    admission = Admission(1, grace_s=60)
    order = list[int]()

    async def predict(number: int) -> None:
        async with admission.admit():
            order.append(number)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(predict(number))
    assert order == [0, 1, 2, 3]
    assert admission.in_progress == 0


async def test_a_prediction_cancelled_while_waiting_takes_no_permit() -> None:
    admission = Admission(1, grace_s=60)
    async with admission.admit():
        waiting = asyncio.create_task(rejection(admission))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    async with admission.admit():
        assert admission.in_progress == 1


async def test_a_prediction_that_waits_when_draining_starts_is_rejected() -> None:
    admission = Admission(1, grace_s=60)
    async with admission.admit():
        waiting = asyncio.create_task(rejection(admission))
        await asyncio.sleep(0)
        admission.draining = True
    assert (await waiting).kind is ErrorKind.DRAINING
    assert admission.in_progress == 0
