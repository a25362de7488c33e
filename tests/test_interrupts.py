"""Ctrl-C put off: it waits for the end of a block, and then does what it would have done."""

from __future__ import annotations

import signal
import threading

import pytest

from charrnn.training.system import interrupts_put_off


@pytest.fixture(autouse=True)
def default_handler():
    """Python's own handler, which a program that was started in the background lacks."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_comes_after_the_block():
    done = []

    def load():
        with interrupts_put_off():
            signal.raise_signal(signal.SIGINT)
            done.append("loaded")

    with pytest.raises(KeyboardInterrupt):
        load()
    assert done == ["loaded"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_an_interrupt_nothing_happens():
    with interrupts_put_off():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_the_block_is_told_and_the_handler_put_back():
    with pytest.raises(ImportError), interrupts_put_off():
        raise ImportError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_in_another_thread_nothing_changes():
    seen = []

    def load():
        with interrupts_put_off():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
