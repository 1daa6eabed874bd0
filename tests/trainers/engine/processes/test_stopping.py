"""Signals as wishes: nested blocks, a second Ctrl-C, other threads."""

import os
import signal
import threading

import pytest
from warpseg.trainers.engine.processes.stopping import Stopped, terminating


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_remembered_inside_and_by_the_block_around(number, status):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with terminating() as outer:
        with terminating() as inner:
            assert not inner()
            os.kill(os.getpid(), number)
            assert inner()
            assert not outer()
        assert outer()
        assert outer.number == number
        with terminating() as later:
            assert later()
    assert Stopped("x", outer.number).exit_status == status
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_second_ctrl_c_stops_at_once():
    with terminating() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_other_threads_work_without_signals():
    heard = []

    def work():
        with terminating() as stop:
            heard.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [False]
