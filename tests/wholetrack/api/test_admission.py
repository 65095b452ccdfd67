"""Admission turns away what is too much, and says when to come back by how fast places become free."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from wholetrack.api.admission import Admission
from wholetrack.errors import ErrorKind, ServiceError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def turned_away(admission: Admission) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        async with admission.one():
            pass
    return caught.value


async def test_as_many_as_there_is_room_for() -> None:
    admission = Admission(2)
    async with admission.one(), admission.one():
        assert admission.under_way == 2
        refused = await turned_away(admission)
        assert refused.kind is ErrorKind.OVERLOADED
        assert refused.retry_after_s == 5
    with pytest.raises(ZeroDivisionError):
        async with admission.one():
            raise ZeroDivisionError
    assert admission.under_way == 0


async def test_when_to_come_back_follows_from_how_long_predictions_last() -> None:
    clock = Clock()
    admission = Admission(2, patience_s=0, clock=clock)
    for _ in range(10):
        async with admission.one(), admission.one():
            clock.now += 6.0
    async with admission.one(), admission.one():
        # Two at a time, six seconds each: one ends every three seconds.
        assert [(await turned_away(admission)).retry_after_s for _ in range(3)] == [3, 6, 9]
        clock.now += 30.0
        # No place was free for half a minute: the rate is less than it was.
        assert (await turned_away(admission)).retry_after_s == 4 * 30
    async with AsyncExitStack() as places:
        for _ in range(2):
            await places.enter_async_context(admission.one())
        for _ in range(500):
            refused = await turned_away(admission)
        assert refused.retry_after_s == 600


async def test_hours_without_work_say_nothing_of_its_speed() -> None:
    clock = Clock()
    admission = Admission(2, patience_s=0, clock=clock)
    for _ in range(40):
        async with admission.one():
            clock.now += 0.5
        clock.now += 300.0
    async with admission.one(), admission.one():
        assert (await turned_away(admission)).retry_after_s == 1


async def test_those_who_never_came_back_are_not_waited_for() -> None:
    clock = Clock()
    admission = Admission(2, patience_s=0, clock=clock)
    async with admission.one(), admission.one():
        clock.now += 10.0
        for _ in range(100):
            await turned_away(admission)
    clock.now += 2.0
    async with admission.one(), admission.one():
        assert (await turned_away(admission)).retry_after_s == 5


async def test_while_it_drains_nobody_is_let_in() -> None:
    admission = Admission(2)
    async with admission.one():
        admission.draining = True
        assert (await turned_away(admission)).kind is ErrorKind.DRAINING
    assert admission.under_way == 0


async def test_while_it_drains_nobody_is_told_to_come_back_here() -> None:
    admission = Admission(1)
    async with admission.one():
        admission.draining = True
        assert (await turned_away(admission)).kind is ErrorKind.DRAINING


async def test_a_place_that_becomes_free_is_taken_by_who_just_came() -> None:
    admission = Admission(1, patience_s=60)
    order = list[int]()

    async def ask(number: int) -> None:
        async with admission.one():
            order.append(number)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(ask(number))
    assert order == [0, 1, 2, 3]
    assert admission.under_way == 0


async def test_who_leaves_while_waiting_takes_no_place() -> None:
    admission = Admission(1, patience_s=60)
    async with admission.one():
        waiting = asyncio.create_task(turned_away(admission))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    async with admission.one():
        assert admission.under_way == 1


async def test_who_waits_when_it_begins_to_drain_is_sent_away() -> None:
    admission = Admission(1, patience_s=60)
    async with admission.one():
        waiting = asyncio.create_task(turned_away(admission))
        await asyncio.sleep(0)
        admission.draining = True
    assert (await waiting).kind is ErrorKind.DRAINING
    assert admission.under_way == 0
