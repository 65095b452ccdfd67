"""Admission turns away what is too much, and says when to come back by how fast places become free."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from service.api.admission import Admission
from service.errors import ErrorKind, ServiceError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def turned_away(admission: Admission) -> ServiceError:
    with pytest.raises(ServiceError) as caught, admission.one():
        pass
    return caught.value


def test_as_many_as_there_is_room_for() -> None:
    admission = Admission(2)
    with admission.one(), admission.one():
        assert admission.under_way == 2
        refused = turned_away(admission)
        assert refused.kind is ErrorKind.OVERLOADED
        assert refused.retry_after_s == 5
    with pytest.raises(ZeroDivisionError), admission.one():
        raise ZeroDivisionError
    assert admission.under_way == 0


def test_when_to_come_back_follows_from_how_long_predictions_last() -> None:
    clock = Clock()
    admission = Admission(2, clock=clock)
    for _ in range(10):
        with admission.one(), admission.one():
            clock.now += 6.0
    with admission.one(), admission.one():
        # Two at a time, six seconds each: one ends every three seconds.
        assert [turned_away(admission).retry_after_s for _ in range(3)] == [3, 6, 9]
        clock.now += 30.0
        # No place was free for half a minute: the rate is less than it was.
        assert turned_away(admission).retry_after_s == 4 * 30
    with ExitStack() as places:
        for _ in range(2):
            places.enter_context(admission.one())
        for _ in range(500):
            refused = turned_away(admission)
        assert refused.retry_after_s == 600


def test_hours_without_work_say_nothing_of_its_speed() -> None:
    clock = Clock()
    admission = Admission(2, clock=clock)
    for _ in range(40):
        with admission.one():
            clock.now += 0.5
        clock.now += 300.0
    with admission.one(), admission.one():
        assert turned_away(admission).retry_after_s == 1


def test_those_who_never_came_back_are_not_waited_for() -> None:
    clock = Clock()
    admission = Admission(2, clock=clock)
    with admission.one(), admission.one():
        clock.now += 10.0
        for _ in range(100):
            turned_away(admission)
    clock.now += 2.0
    with admission.one(), admission.one():
        assert turned_away(admission).retry_after_s == 5


def test_while_it_drains_nobody_is_let_in() -> None:
    admission = Admission(2)
    with admission.one():
        admission.draining = True
        assert turned_away(admission).kind is ErrorKind.DRAINING
    assert admission.under_way == 0
