from __future__ import annotations

import threading

import pytest

from workbench.serving.turns import Busy, Turns


def test_one_at_a_time_and_the_next_one_follows():
    turns, order = Turns(waiting=2, patience=10), []
    first = turns.take()

    def second() -> None:
        end = turns.take()
        order.append("second")
        end()

    thread = threading.Thread(target=second)
    thread.start()
    thread.join(0.2)
    assert order == [] and turns.n_inside == 2
    order.append("first")
    first()
    thread.join(5)
    assert order == ["first", "second"] and turns.n_inside == 0


def test_a_full_queue_is_429_and_an_endless_wait_503():
    turns = Turns(waiting=0, patience=0.05)
    end = turns.take()
    with pytest.raises(Busy) as full:
        turns.take()
    assert full.value.status == 429
    turns.waiting = 1
    with pytest.raises(Busy) as late:
        turns.take()
    assert late.value.status == 503 and turns.n_inside == 1
    end()
    end()  # a second time does nothing
    turns.take()()
    assert turns.n_inside == 0
