"""Signals that end a run: put off, heeded by the training, and leaving nothing by halves."""

from __future__ import annotations

import contextlib
import signal
import threading

import pytest
import texts

from charrnn import api, events
from charrnn.storage.model_file import load_model
from charrnn.training import prepare as prepare_module
from charrnn.training import trainer as trainer_module
from charrnn.training.prepare import prepare_resume
from charrnn.training.system import SIGNALS, interrupts_put_off


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


def events_of(trainer, number, *kinds):
    """The events of a run, until it is interrupted, with a signal at each event of some kinds."""
    found, running = [], trainer.run()
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(running):
        for event in running:
            found.append(event)
            if isinstance(event, kinds):
                signal.raise_signal(number)
        found.append(None)
    return found


@pytest.mark.parametrize("number", sorted(SIGNALS))
def test_a_signal_ends_a_run_with_everything_saved(prepare, number):
    """The handlers of before are back when the run is over."""
    before = {n: signal.getsignal(n) for n in SIGNALS}
    trainer = prepare(texts.english(4000), steps=100)
    found = events_of(trainer, number, events.Evaluated)
    assert found[-1].reason == "interrupted", "and then a KeyboardInterrupt"
    assert {n: signal.getsignal(n) for n in SIGNALS} == before
    load_model(trainer.run_directory.model)
    *_, last = prepare_resume([], out=trainer.run_directory.path).run()
    assert (last.reason, last.step) == ("steps", 100)


def test_a_second_signal_ends_a_run_at_once(prepare):
    trainer = prepare(texts.english(4000), steps=100)
    found = events_of(trainer, signal.SIGINT, events.Evaluated, events.Stopping)
    assert isinstance(found[-1], events.Stopping)
    *_, last = prepare_resume([], out=trainer.run_directory.path).run()
    assert last.step == 100


def test_what_the_caller_ignores_stays_ignored(prepare):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    trainer = prepare(texts.english(4000), steps=20)
    *_, last, end = events_of(trainer, signal.SIGINT, events.Started, events.Evaluated)
    assert (last.reason, end) == ("steps", None)


def test_a_run_in_another_thread_gets_no_signals(prepare):
    trainer = prepare(texts.english(4000), steps=20)
    thread = threading.Thread(target=lambda: list(trainer.run()))
    thread.start()
    thread.join()
    load_model(trainer.run_directory.model)


@pytest.mark.parametrize("number", sorted(SIGNALS))
def test_a_signal_before_the_first_step_leaves_nothing(prepare, monkeypatch, tmp_path, number):
    real = prepare_module.encode_corpus

    def encode(*arguments, **more):
        signal.raise_signal(number)
        return real(*arguments, **more)

    monkeypatch.setattr(prepare_module, "encode_corpus", encode)
    with pytest.raises(KeyboardInterrupt):
        prepare(texts.english(4000), steps=20, out=tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()


def test_ctrl_c_in_python_saves_the_run(tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text(texts.english(4000))
    real, pressed = trainer_module.metrics_row, iter([True])

    def row(*arguments):
        if next(pressed, False):
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(trainer_module, "metrics_row", row)
    with pytest.raises(KeyboardInterrupt):
        api.train(text, out=tmp_path / "run", steps=100, hidden_size=8, device="cpu")
    load_model(tmp_path / "run" / "model.safetensors")
    *_, last = prepare_resume([], out=tmp_path / "run").run()
    assert last.step == 100
