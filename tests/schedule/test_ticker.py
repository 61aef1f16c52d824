"""The heartbeat beside the work, and the one way to stop it all."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress

import pytest

from salt_lab.schedule.interrupts import signals_as_interrupt
from salt_lab.schedule.ticker import Ticker


def test_it_ticks_while_the_work_goes_on_and_once_more_when_it_is_over():
    ticks = []
    with Ticker(lambda: ticks.append(threading.current_thread()), period=0.01):
        time.sleep(0.1)
        during = len(ticks)
    assert during >= 2
    assert ticks[-1] is threading.current_thread() and len(ticks) >= during + 1


def test_the_works_own_error_goes_before_the_tickers():
    def broken():
        raise ValueError("display")

    with pytest.raises(ZeroDivisionError), Ticker(broken, period=0.01):
        raise ZeroDivisionError


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_interrupt_and_the_former_handlers_come_back(number):
    former = signal.getsignal(number)
    with signals_as_interrupt() as interrupt, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert interrupt.signal_name == signal.Signals(number).name
    assert signal.getsignal(number) is former


def test_an_interrupt_that_a_library_swallowed_is_not_lost():
    with signals_as_interrupt() as interrupt:
        with suppress(KeyboardInterrupt):  # what a __del__ or a C callback does with it
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            interrupt.raise_if_asked()


def test_outside_the_main_thread_nothing_is_changed():
    former, inside = signal.getsignal(signal.SIGTERM), []

    def work():
        with signals_as_interrupt():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [former]
