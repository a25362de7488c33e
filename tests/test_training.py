"""Training reaches what can be known beforehand, and is exactly repeatable and resumable."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import math
import os
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import reference
import safetensors.torch
import texts
import torch
from conftest import needs
from safetensors import safe_open
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

import charrnn
from charrnn import api, events
from charrnn.batches.windows import shifted
from charrnn.config import CELL_NAMES
from charrnn.corpus.corpus import load_corpus
from charrnn.engine.network import Engine, target_logprobs
from charrnn.errors import (
    CharRNNError,
    ConfigError,
    CorpusError,
    DivergenceError,
    RunError,
    StorageError,
)
from charrnn.models.network import CharNetwork
from charrnn.storage.model_file import load_model
from charrnn.training import checkpoint as checkpoint_module
from charrnn.training import learner as learner_module
from charrnn.training import schedule as schedule_module
from charrnn.training import trainer as trainer_module
from charrnn.training.checkpoint import read_record
from charrnn.training.loss import Measured, measure, text_windows
from charrnn.training.prepare import prepare_resume
from charrnn.training.system import multiplies_bfloat16
from charrnn.vocab import EOS_ID, UNK_ID, Vocabulary

CPU = torch.device("cpu")


def run(trainer):
    return list(trainer.run())


def rows_of(trainer):
    """What metrics.jsonl says."""
    return [json.loads(line) for line in trainer.run_directory.metrics.read_text().splitlines()]


def of_type(found, kind):
    return [event for event in found if isinstance(event, kind)]


@contextlib.contextmanager
def after_steps(action):
    """Call `action(steps taken)` after each step; AdamW takes part in every one."""
    taken = iter(range(1, 10**9))

    def count(optimizer, args, kwargs):
        if isinstance(optimizer, torch.optim.AdamW):
            action(next(taken))

    handle = register_optimizer_step_post_hook(count)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def gradients_before_steps():
    """Collect the gradients that the optimiser gets to see, one list of arrays a step."""
    seen = []

    def note(optimizer, args, kwargs):
        groups = optimizer.param_groups
        seen.append([p.grad.clone() for group in groups for p in group["params"]])

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def weights(trainer):
    return load_model(trainer.run_directory.model).weights


def assert_identical(one, other):
    assert set(one) == set(other)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


# what is learned


def test_the_entropy_of_a_markov_chain_is_reached(prepare):
    trainer = prepare(
        texts.markov(40_000),
        steps=400,
        batch_size=32,
        bptt=32,
        learning_rate=0.02,
        val_fraction=0.4,
    )
    found = run(trainer)
    entropy = texts.markov_entropy()
    assert 1.0 < entropy < math.log(5) * 0.8  # the chain is neither trivial nor noise
    assert found[-1].val_loss == pytest.approx(entropy, rel=0.03)
    assert found[-1].train_loss == pytest.approx(entropy, rel=0.03)


@pytest.mark.parametrize(
    ("cell", "nonlinearity"), [*((cell, "tanh") for cell in CELL_NAMES), ("rnn", "relu")]
)
def test_validation_loss_falls_on_prose(prepare, cell, nonlinearity):
    trainer = prepare(texts.english(), steps=150, cell=cell, nonlinearity=nonlinearity)
    losses = [event.val_loss for event in of_type(run(trainer), events.Evaluated)]
    alphabet = len(trainer.corpus.vocabulary)
    assert losses[-1] < 0.75 * losses[0]
    assert losses[-1] < 0.75 * math.log(alphabet)
    assert losses[-1] == pytest.approx(min(losses), rel=0.05)


def test_the_model_on_disk_is_the_best_one(prepare):
    """Noise can only be memorised, so an early model is the best."""
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(list("abcdefghij "), 800))
    trainer = prepare(text, steps=120, learning_rate=0.03, val_fraction=0.5, batch_size=4)
    found = run(trainer)
    rows = of_type(found, events.Evaluated)
    best = min(rows, key=lambda row: row.val_loss)
    assert best is not rows[-1]
    assert found[-1].best_step == best.step
    assert found[-1].val_loss == best.val_loss
    saved = load_model(trainer.run_directory.model)
    assert saved.training["step"] == best.step
    assert saved.training["val_loss_nats"] == best.val_loss
    assert [row.is_best for row in rows] == [
        row.val_loss < min((r.val_loss for r in rows[:k]), default=math.inf)
        for k, row in enumerate(rows)
    ]


# what a step does


def test_the_state_is_carried_and_cut_between_windows(prepare, monkeypatch):
    trainer = prepare(texts.english(4000), steps=4)
    calls = []
    real = learner_module.window_loss

    def spy(network, window, state, *rest):
        loss, after = real(network, window, state, *rest)
        calls.append((state, after))
        return loss, after

    monkeypatch.setattr(learner_module, "window_loss", spy)
    run(trainer)
    assert len(calls) == 4
    for before, _ in calls:
        assert not any(part.requires_grad for part in parts_of(before))
    for (_, after), (before, _) in itertools.pairwise(calls):
        for one, two in zip(parts_of(after), parts_of(before), strict=True):
            torch.testing.assert_close(one.detach(), two, rtol=0, atol=0)


def parts_of(state):
    """The tensors of a state, whatever its nesting."""
    if isinstance(state, torch.Tensor):
        return [state]
    return [part for inner in state for part in parts_of(inner)]


def norm(gradients):
    return math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))


def largest(gradients):
    return max(float(g.abs().max()) for g in gradients)


def seen_gradients(prepare, **options):
    with gradients_before_steps() as seen:
        run(prepare(texts.english(3000), steps=5, optimizer="adamw", **options))
    assert len(seen) == 5
    return seen


def test_gradients_are_clipped_by_norm(prepare):
    free = seen_gradients(prepare, clip_norm=0)
    assert norm(free[0]) > 0.1
    clipped = seen_gradients(prepare, clip_norm=0.01)
    for gradients in clipped:
        assert norm(gradients) == pytest.approx(0.01, rel=1e-3)
    factor = 0.01 / norm(free[0])  # the direction is kept
    for one, two in zip(free[0], clipped[0], strict=True):
        torch.testing.assert_close(one * factor, two, rtol=1e-3, atol=1e-8)
    loose = seen_gradients(prepare, clip_norm=1e6)
    torch.testing.assert_close(loose[0], free[0], rtol=0, atol=0)


def test_gradients_are_clipped_by_value(prepare):
    free = seen_gradients(prepare, clip_norm=0)
    assert largest(free[0]) > 1e-3
    clipped = seen_gradients(prepare, clip_norm=0, clip_value=1e-3)
    for gradients in clipped:
        assert largest(gradients) == pytest.approx(1e-3, rel=1e-5)
    for one, two in zip(free[0], clipped[0], strict=True):
        torch.testing.assert_close(one.clamp(-1e-3, 1e-3), two, rtol=0, atol=0)


def test_the_loss_is_divided_by_the_characters_that_count(prepare):
    """A gradient is that of the mean over the window, however much of it is masked."""
    trainer = prepare(texts.english(500), steps=6, clip_norm=0, val_fraction=0, optimizer="adamw")
    windows, losses = [], []
    real_window, real_loss = trainer._learner.windows.next_window, learner_module.window_loss

    def next_window():
        windows.append(real_window())
        return windows[-1]

    def window_loss(network, window, state, *rest):
        loss, after = real_loss(network, window, state, *rest)
        losses.append(torch.autograd.grad(loss, list(network.parameters()), retain_graph=True))
        return loss, after

    trainer._learner.windows.next_window = next_window
    with gradients_before_steps() as seen, pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner_module, "window_loss", window_loss)
        run(trainer)
    counts = [window.n_targets for window in windows]
    assert min(counts) < max(counts)  # some windows are partly masked
    for count, summed, given in zip(counts, losses, seen, strict=False):
        expected = math.sqrt(sum(float((g**2).sum()) for g in summed)) / count
        assert norm(given) == pytest.approx(expected, rel=1e-4)


def test_weight_decay_is_for_matrices_only(prepare):
    trainer = prepare(texts.english(2000), steps=1, weight_decay=0.3)
    decays = {}
    for optimizer in trainer._learner.optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                decays[parameter] = group["weight_decay"]
    for parameter in trainer._learner.network.parameters():
        assert decays[parameter] == (0.3 if parameter.ndim > 1 else 0.0)


# repeating and resuming

BF16 = pytest.param(
    "bfloat16",
    marks=needs("a processor with bfloat16", multiplies_bfloat16(torch.device("cpu"))),
)
CASE = {
    "steps": 24,
    "dropout": 0.2,
    "recurrent_dropout": 0.2,
    "unknown_rate": 0.05,
    "num_layers": 2,
    "hidden_size": 16,
}


def test_the_seed_decides_every_weight(prepare):
    text = texts.english(4000)
    run(first := prepare(text, **CASE, seed=3))
    run(second := prepare(text, **CASE, seed=3))
    assert_same_run(first, second)
    run(third := prepare(text, **CASE, seed=4))
    assert not np.array_equal(weights(first)["output.weight"], weights(third)["output.weight"])


def untimed(trainer):
    """The rows of metrics.jsonl without what the clock says."""
    clock = ("elapsed_s", "chars_per_s")
    return [{k: v for k, v in row.items() if k not in clock} for row in rows_of(trainer)]


def assert_same_run(one, other):
    """Same metrics, same models kept to the last byte, same weights at the end."""
    assert untimed(one) == untimed(other)
    ends = [trainer._learner.network.export_weights() for trainer in (one, other)]
    assert_identical(*ends)
    directories = one.run_directory, other.run_directory
    for name in ("model", "last"):
        paths = [getattr(directory, name) for directory in directories]
        assert paths[0].exists() == paths[1].exists()
        if paths[0].exists():
            assert paths[0].read_bytes() == paths[1].read_bytes()
    kept = [{path.name for path in directory.path.iterdir()} for directory in directories]
    assert kept[0] == kept[1]


def stopped_at(trainer, step):
    """Run a trainer that the user stops after so many steps of the whole run."""
    take_step = trainer._learner.take_step
    trainer.stop_requested = step == trainer._schedule.step == 0

    def stopping(rate_factor):
        taken = take_step(rate_factor)
        trainer.stop_requested = trainer._schedule.step + 1 == step
        return taken

    trainer._learner.take_step = stopping
    found = run(trainer)
    assert found[-1].reason == "interrupted"
    assert found[-1].step == step
    return found


def resumed(trainer):
    torch.rand(3)  # whoever draws in between does no harm
    return prepare_resume([], out=trainer.run_directory.path)


@pytest.mark.parametrize("stops", [(0,), (1,), (6,), (7,), (23,), (5, 13), (7, 8), (0, 18)])
@pytest.mark.parametrize("limits", [{"steps": 24}, {"steps": None, "epochs": 0.84}, {"epochs": 9}])
def test_a_stopped_run_continues_as_if_it_had_not_stopped(prepare, stops, limits):
    """Evaluated after the steps 6, 12, 18 and 24, or about there."""
    text = texts.english(4000)
    whole = prepare(text, **CASE | limits)
    run(whole)
    trainer = prepare(text, **CASE | limits)
    for step in stops:
        stopped_at(trainer, step)
        trainer = resumed(trainer)
    found = run(trainer)
    assert found[0].resumed_at == stops[-1]
    assert found[-1].reason in ("steps", "epochs")
    assert_same_run(whole, trainer)


@pytest.mark.parametrize("dtype", ["float32", BF16])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("documents", ["none", "line"])
def test_every_kind_of_run_continues_exactly(prepare, cell, dtype, members, documents):
    text = texts.english(4000)
    options = {**CASE, "cell": cell, "dtype": dtype, "members": members, "documents": documents}
    whole = prepare(text, **options)
    expected = run(whole)[-1]
    trainer = prepare(text, **options)
    for step in (7, 16):
        stopped_at(trainer, step)
        trainer = resumed(trainer)
    finished = run(trainer)[-1]
    assert_same_run(whole, trainer)
    assert finished.train_loss == expected.train_loss
    assert finished.val_loss == expected.val_loss


VALIDATION = {6: 2.2, 12: 2.5, 18: 2.6, 24: 2.7}
"""Made-up losses by step; at step 9, where the run is stopped, it is lower, or higher."""


@pytest.mark.parametrize("loss_at_6", [2.2, 3.0])
@pytest.mark.parametrize("loss_at_9", [2.0, 2.4, 9.0])
def test_the_measurement_at_a_stop_leaves_no_trace(prepare, monkeypatch, loss_at_6, loss_at_9):
    losses = {**VALIDATION, 6: loss_at_6, 9: loss_at_9}
    measured = []

    def made_up(trainer):
        def measure(*, validation, temperature=1.0, limit=None):
            measured.append(trainer._schedule.step)
            loss = losses[trainer._schedule.step] if validation else 1.0
            return Measured(loss, temperature or 1.0)

        monkeypatch.setattr(trainer._learner, "measure", measure)
        return trainer

    text = texts.english(4000)
    run(whole := made_up(prepare(text, **CASE)))
    trainer = made_up(prepare(text, **CASE))
    found = stopped_at(trainer, 9)
    assert 9 in measured
    assert [row["step"] for row in rows_of(trainer)] == [6]
    record = read_record(trainer.run_directory.resume)
    assert (record["best"]["step"], record["best"]["loss"]) == (6, loss_at_6)
    is_best = loss_at_9 < loss_at_6
    assert of_type(found, events.Evaluated)[-1].is_best is is_best
    assert found[-1].best_step == (9 if is_best else 6)
    assert found[-1].val_loss == min(loss_at_6, loss_at_9)
    kept = load_model(trainer.run_directory.model).training
    assert (kept["step"], kept["val_loss_nats"]) == (found[-1].best_step, found[-1].val_loss)
    run(trainer := made_up(resumed(trainer)))
    assert_same_run(whole, trainer)
    best = min(VALIDATION, key={**VALIDATION, 6: loss_at_6}.__getitem__)
    assert load_model(trainer.run_directory.model).training["step"] == best


@pytest.mark.parametrize("loss_at_9", [2.0, 2.4])
def test_a_run_limited_by_time_keeps_the_best_model_of_a_stop(prepare, monkeypatch, loss_at_9):
    """It is another run at every attempt, so that nothing speaks against it."""

    def made_up(trainer):
        def measure(*, validation, temperature=1.0, limit=None):
            losses = {6: 2.2, 9: loss_at_9}
            return Measured(losses.get(trainer._schedule.step, 2.5) if validation else 1.0, 1.0)

        monkeypatch.setattr(trainer._learner, "measure", measure)
        return trainer

    trainer = made_up(prepare(texts.english(4000), **CASE, time_s=1e6))
    assert stopped_at(trainer, 9)[-1].val_loss == min(2.2, loss_at_9)
    finished = run(trainer := made_up(resumed(trainer)))[-1]
    best = 9 if loss_at_9 < 2.2 else 6
    assert (finished.best_step, finished.val_loss) == (best, min(2.2, loss_at_9))
    kept = load_model(trainer.run_directory.model).training
    assert (kept["step"], kept["val_loss_nats"]) == (best, min(2.2, loss_at_9))
    assert load_model(trainer.run_directory.last).training["step"] == CASE["steps"]
    assert not trainer.run_directory.set_aside.exists()


def test_a_killed_run_continues_from_its_last_evaluation(prepare):
    text = texts.english(4000)
    run(whole := prepare(text, **CASE))
    killed = prepare(text, **CASE)
    evaluated = 0
    for event in killed.run():
        evaluated += isinstance(event, events.Evaluated)
        if evaluated == 3:
            break  # never finished, never stopped in good order
    run(trainer := resumed(killed))
    assert trainer._resume["schedule"]["step"] == event.step == 18
    assert_same_run(whole, trainer)


def test_a_run_can_be_stopped_at_every_step(prepare):
    text = texts.english(4000)
    run(whole := prepare(text, **CASE))
    trainer = prepare(text, **CASE)
    for step in range(CASE["steps"]):
        stopped_at(trainer, step)
        trainer = resumed(trainer)
    run(trainer)
    assert_same_run(whole, trainer)


def test_a_run_stopped_before_its_first_step_leaves_a_model(prepare):
    trainer = prepare(texts.english(2000), steps=6)
    stopped_at(trainer, 0)
    load_model(trainer.run_directory.model)


def test_a_finished_run_is_neither_resumed_nor_overwritten(prepare, tmp_path):
    trainer = prepare(texts.english(2000), steps=4, out=tmp_path / "mine")
    run(trainer)
    files = {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="is finished: say how much longer"):
        prepare_resume([], out=tmp_path / "mine")
    with pytest.raises(RunError, match="already holds a run"):
        prepare(texts.english(2000), steps=4, out=tmp_path / "mine")
    assert files == {path: path.read_bytes() for path in files}


def test_an_unfinished_run_is_offered_for_resuming_and_not_overwritten(prepare, tmp_path):
    trainer = prepare(texts.english(2000), steps=400, out=tmp_path / "mine")
    trainer.stop_requested = True
    run(trainer)
    with pytest.raises(RunError, match="--resume"):
        prepare(texts.english(2000), steps=4, out=tmp_path / "mine")


@pytest.fixture
def stopped(prepare, tmp_path, monkeypatch):
    """Train on a text for a few steps under `runs/`, and stop."""
    monkeypatch.chdir(tmp_path)

    def stopped(text, **options):
        trainer = prepare(text, steps=30, out=None, **options)
        for event in trainer.run():
            if isinstance(event, events.Progressed):
                trainer.stop_requested = True
        return trainer.run_directory.path

    return stopped


def test_a_resume_finds_the_run_by_its_text(stopped, tmp_path):
    """Two texts of one name: the newest run is of the other, and the name alone says nothing."""
    first, second = texts.english(900), texts.english(900, seed=1)
    runs = [stopped(first), stopped(second), stopped(first)]
    assert [run.name for run in runs] == ["text", "text-2", "text-3"]
    for name, text, run in (("p", first, "text-3"), ("q", second, "text-2")):
        path = tmp_path / name / "moved.txt"
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")
        trainer = prepare_resume([path])
        assert trainer.run_directory.path.name == run
        trainer.run_directory.release()
    (tmp_path / "new.txt").write_text("something else", encoding="utf-8")
    with pytest.raises(RunError, match=r"no unfinished run of the text in new\.txt"):
        prepare_resume(["new.txt"])
    with pytest.raises(CorpusError, match=r"new\.txt has changed since"):
        prepare_resume(["new.txt"], name="text-2")


def test_a_run_is_resumed_after_it_and_its_texts_have_moved(stopped, tmp_path):
    held_out = tmp_path / "held-out.txt"
    held_out.write_text(texts.english(300, seed=2), encoding="utf-8")
    run = stopped(texts.english(900), held_out=[held_out])
    moved = run.rename(tmp_path / "elsewhere")
    for name in ("text.txt", "held-out.txt"):
        (tmp_path / name).rename(tmp_path / f"moved-{name}")
    prepare_resume([], out=moved).run_directory.release()
    trainer = prepare_resume(
        [tmp_path / "moved-text.txt"], out=moved, held_out=[tmp_path / "moved-held-out.txt"]
    )
    assert [event for event in trainer.run()][-1].reason == "steps"


def test_a_running_run_is_neither_resumed_nor_written_over(prepare, stopped, tmp_path):
    run = stopped(texts.english(900))
    trainer = prepare_resume([], out=run)
    for again in (
        lambda: prepare_resume([], out=run),
        lambda: prepare(texts.english(900), steps=2, out=run),
    ):
        with pytest.raises(RunError, match="another charrnn command is working on"):
            again()
    with pytest.raises(RunError, match="no unfinished run is under"):
        prepare_resume([])
    list(trainer.run())
    assert not (run / ".lock").exists()


def test_a_damaged_resume_state_is_refused(prepare):
    trainer = prepare(texts.english(2000), steps=400)
    trainer.stop_requested = True
    run(trainer)
    resume = trainer.run_directory.resume
    whole = resume.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], b"text" * 100):
        resume.write_bytes(damaged)
        with pytest.raises(RunError, match="cannot be read"):
            prepare_resume([], out=trainer.run_directory.path)


@pytest.mark.parametrize("is_begun", [True, False])
def test_a_disk_that_becomes_full_says_how_to_continue(prepare, monkeypatch, is_begun):
    """A run that has saved no model leaves nothing."""
    trainer = prepare(texts.english(4000), **CASE)
    path, running = trainer.run_directory.path, trainer.run()
    while is_begun and not isinstance(next(running), events.Evaluated):
        pass

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="no space left on device") as caught:
            list(running)
    assert path.exists() == is_begun
    command = f"to continue from the last state saved: charrnn train --resume --out {path}"
    assert str(caught.value).endswith(command) == is_begun
    if is_begun:
        load_model(trainer.run_directory.model)
        assert run(resumed(trainer))[-1].step == CASE["steps"]


@needs("/proc/self/maps, which Linux has", os.path.exists("/proc/self/maps"))
def test_a_resume_state_is_not_mapped(prepare, monkeypatch):
    """Another process may cut it short while it is used."""
    trainer = prepare(texts.english(2000), steps=400)
    stopped_at(trainer, 3)
    real, mapped = checkpoint_module._load_arrays, []

    def load(*given, **more):
        mapped.append(Path("/proc/self/maps").read_text())
        return real(*given, **more)

    monkeypatch.setattr(checkpoint_module, "_load_arrays", load)
    stopped_at(resumed(trainer), 5)
    assert mapped
    assert not any(trainer.run_directory.resume.name in one for one in mapped)


def damaged(path, change):
    """Change the arrays of a resume state, and nothing else."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    arrays = safetensors.torch.load_file(path)
    change(arrays)
    arrays = {name: array.contiguous() for name, array in arrays.items()}
    safetensors.torch.save_file(arrays, path, metadata)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("optimizer/", lambda array: array[..., :-1] if array.ndim else array.reshape(1)),
        ("optimizer/", lambda array: array.long()),
        ("optimizer/", lambda array: array.double()),
        ("weights/", lambda array: array.half()),
        ("weights/", lambda array: array[:-1]),
        ("state/", lambda array: array[:, :-1]),
        ("state/", lambda array: torch.cat([array, array])),
        ("rng/", lambda array: array[:-1]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(prepare, kind, change):
    """Each of a kind in its turn: kernels trust the shapes of an optimiser's arrays."""
    trainer = prepare(texts.english(2000), steps=400)
    stopped_at(trainer, 3)
    resume = trainer.run_directory.resume
    whole = resume.read_bytes()
    names = [n for n in safetensors.torch.load_file(resume) if n.startswith(kind)]
    assert names
    for name in names:
        resume.write_bytes(whole)
        damaged(resume, lambda arrays, name=name: arrays.update({name: change(arrays[name])}))
        with pytest.raises(RunError, match="does not fit this run"):
            run(prepare_resume([], out=trainer.run_directory.path))


@pytest.mark.parametrize("kind", ["weights/", "state/", "rng/", "optimizer/"])
def test_arrays_that_are_missing_are_told(prepare, kind):
    """Each of a kind in its turn: an optimiser that has one of a pair would fail in its step."""
    trainer = prepare(texts.english(2000), steps=400)
    stopped_at(trainer, 3)
    resume = trainer.run_directory.resume
    whole = resume.read_bytes()
    for name in [n for n in safetensors.torch.load_file(resume) if n.startswith(kind)]:
        resume.write_bytes(whole)
        damaged(resume, lambda arrays, name=name: arrays.pop(name))
        with pytest.raises(RunError, match="does not fit this run"):
            run(prepare_resume([], out=trainer.run_directory.path))


STRANGE = (None, True, -1, 10**9, 10**30, 1e999, -0.5, 1.5, "text", [], {}, [None], [10**9] * 2)


def places(value, path=()):
    """Where every value of a record is, its inner ones too."""
    yield path
    inner = value.items() if isinstance(value, dict) else []
    if isinstance(value, list):
        inner = enumerate(value[:1])
    for key, part in inner:
        yield from places(part, (*path, key))


def replaced(record, path, value):
    """A copy of a record with another value in one place; Ellipsis takes it out."""
    copy = json.loads(json.dumps(record))
    holder = copy
    for key in path[:-1]:
        holder = holder[key]
    if value is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return copy


@pytest.mark.parametrize("documents", ["none", "line"])
def test_every_value_of_a_resume_state_may_be_anything(prepare, documents):
    """It is refused, or the run ends as it may; nothing hangs, and no other error is seen."""
    trainer = prepare(texts.english(1500), steps=8, documents=documents, hidden_size=4)
    stopped_at(trainer, 5)
    resume = trainer.run_directory.resume
    with safe_open(resume, framework="pt") as file:
        whole = json.loads(file.metadata()["charrnn_resume"])
    arrays = safetensors.torch.load_file(resume)
    refused = 0
    settings = ("model", "training")  # whose fields the tests of the configs look at
    chosen = [p for p in places(whole) if p and (len(p) == 1 or p[0] not in settings)]
    if documents != "none":  # what differs
        chosen = [p for p in chosen if p[0] == "windows"]
    for path in chosen:
        for strange in (..., *STRANGE):
            record = json.dumps(replaced(whole, path, strange))
            safetensors.torch.save_file(arrays, resume, {"charrnn_resume": record})
            try:
                again = prepare_resume([], out=trainer.run_directory.path)
                again.stop_requested = True
                run(again)
            except CharRNNError:
                refused += 1
    assert refused > 5 * len(chosen)


def test_a_generator_that_would_read_beyond_its_table_is_refused(prepare):
    trainer = prepare(texts.english(1500), steps=8, hidden_size=4, dropout=0.2)
    stopped_at(trainer, 5)
    resume = trainer.run_directory.resume
    with safe_open(resume, framework="pt") as file:
        metadata = file.metadata()
    arrays = safetensors.torch.load_file(resume)
    for name in [name for name in arrays if name.startswith("rng/")]:
        arrays[name][16:18] = torch.tensor([112, 2], dtype=torch.uint8)  # the last place, 624
        arrays[name][8:10] = torch.tensor([88, 2], dtype=torch.uint8)  # with 600 numbers left
    safetensors.torch.save_file(arrays, resume, metadata)
    with pytest.raises(RunError, match="resume"):
        run(prepare_resume([], out=trainer.run_directory.path))


@pytest.mark.parametrize("documents", ["none", "line"])
@pytest.mark.parametrize("members", [1, 2])
def test_a_carried_state_of_other_rows_is_refused(prepare, documents, members):
    text = "".join(f"{'abc ' * (3 + k % 40)}\n" for k in range(60))  # some longer than a window
    refused = 0
    for steps in (5, 6, 7, 8):
        trainer = prepare(text, steps=12, documents=documents, members=members, cell="gru")
        stopped_at(trainer, steps)
        resume = trainer.run_directory.resume
        with safe_open(resume, framework="pt") as file:
            metadata = file.metadata()
        arrays = safetensors.torch.load_file(resume)
        for kept in (slice(0), slice(1), slice(2)):
            cut = {n: a[kept].clone() if n.startswith("state/") else a for n, a in arrays.items()}
            safetensors.torch.save_file(cut, resume, metadata)
            try:
                run(prepare_resume([], out=trainer.run_directory.path))
            except RunError:
                refused += 1
    assert refused > (3 if documents == "line" else 11)


def test_a_network_larger_than_its_file_is_not_built(prepare):
    trainer = prepare(texts.english(1500), steps=8, hidden_size=4)
    stopped_at(trainer, 5)
    resume = trainer.run_directory.resume
    with safe_open(resume, framework="pt") as file:
        record = json.loads(file.metadata()["charrnn_resume"])
    arrays = safetensors.torch.load_file(resume)
    for change in ({"hidden_size": 65536, "num_layers": 64}, {"members": 64}, {"vocab_size": 9}):
        changed = {**record, "model": {**record["model"], **change}}
        metadata = {"charrnn_resume": json.dumps(changed)}
        safetensors.torch.save_file(arrays, resume, metadata)
        with pytest.raises(
            RunError, match=r"its (weights|alphabet) (are|is) (not all there|another)"
        ):
            prepare_resume([], out=trainer.run_directory.path)


@pytest.mark.parametrize("val_fraction", [0, 0.1])
def test_the_training_loss_does_not_depend_on_the_clock(prepare, monkeypatch, val_fraction):
    """Without validation text it chooses the model that is kept, so it must be repeatable."""
    found = []
    for pause in (0.0, 1e9):
        monkeypatch.setattr(trainer_module, "REPORT_EVERY_S", pause)
        found.append(run(prepare(texts.english(4000), **CASE, val_fraction=val_fraction)))
    one, two = ([e.train_loss for e in of_type(part, events.Evaluated)] for part in found)
    assert one == two


def test_a_run_without_validation_text_recovers_from_an_early_stop(prepare):
    trainer = prepare(texts.english(2000), steps=60, val_fraction=0)
    stopped_at(trainer, 0)
    assert not trainer.run_directory.metrics.exists()
    run(trainer := resumed(trainer))
    assert load_model(trainer.run_directory.model).training["step"] > 30


def test_a_run_that_diverges_leaves_no_broken_model(prepare):
    trainer = prepare(texts.english(2000), steps=200)
    take_step = trainer._learner.take_step

    def exploding(rate_factor):
        taken = take_step(rate_factor)
        with torch.no_grad():
            trainer._learner.network.members[0].output.bias += math.nan
        return taken

    trainer._learner.take_step = exploding
    with pytest.raises(DivergenceError, match=r"exploded 4 times.*no model was saved"):
        run(trainer)
    assert not trainer.run_directory.path.exists(), "a failed start leaves nothing"


def test_a_stop_while_the_loss_is_no_number_keeps_the_last_sound_state(prepare):
    trainer = prepare(texts.english(4000), steps=80)
    take_step = trainer._learner.take_step

    def broken(rate_factor):
        taken = take_step(rate_factor)
        if trainer._schedule.step + 1 == 45:
            with torch.no_grad():
                trainer._learner.network.members[0].output.bias += math.nan
            trainer.stop_requested = True
        return taken

    trainer._learner.take_step = broken
    run(trainer)
    again = resumed(trainer)
    assert run(again)[0].resumed_at == 40
    assert load_model(again.run_directory.model).training["step"] > 40


@pytest.mark.parametrize("documents", ["none", "line"])
@pytest.mark.parametrize("cut", ["ids.bin", "documents.bin"])
def test_a_text_that_another_program_cuts_short_is_noticed(prepare, documents, cut):
    """To read beyond the end of a mapped file would kill the process."""
    trainer = prepare(texts.english(30_000), steps=2000, documents=documents)
    path = trainer.run_directory.corpus / cut
    if not path.exists():
        pytest.skip("one long text has no documents")

    def shorten(step):
        if step == 600:
            with open(path, "r+b") as file:
                file.truncate(8)

    with after_steps(shorten), pytest.raises(CorpusError, match=f"has cut .*{cut} short"):
        run(trainer)
    load_model(trainer.run_directory.model)


# limits


def test_a_limit_of_steps(prepare):
    found = run(prepare(texts.english(4000), steps=40))
    assert (found[-1].step, found[-1].reason) == (40, "steps")
    assert [e.step for e in of_type(found, events.Evaluated)] == [10, 20, 30, 40]
    assert [e.progress for e in of_type(found, events.Evaluated)] == [0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize("documents", ["none", "line"])
@pytest.mark.parametrize("epochs", [0.3, 2])
def test_a_limit_of_epochs(prepare, documents, epochs):
    trainer = prepare(texts.english(4000), epochs=epochs, documents=documents, val_fraction=0)
    found = run(trainer)
    assert found[-1].reason == "epochs"
    last = of_type(found, events.Evaluated)[-1].epoch
    assert epochs <= last == found[-1].epochs < epochs + 8 * 16 / 3500, "up to one window more"


@pytest.mark.parametrize("n_chars", [10, 100, 1000])
def test_a_short_text_is_read_for_all_its_epochs(prepare, n_chars):
    found = run(prepare(texts.english(n_chars), epochs=20, val_fraction=0, bptt=64))
    assert 20 <= found[-1].epochs < 21


def test_the_first_limit_ends_the_run(prepare):
    text = texts.english(4000)
    assert run(prepare(text, steps=7, epochs=100, time_s=1000.0))[-1].reason == "steps"
    assert run(prepare(text, steps=7000, epochs=0.1, time_s=1000.0))[-1].reason == "epochs"
    assert run(prepare(text, steps=10**9, epochs=1e6, time_s=1.0))[-1].reason == "time"
    found = run(prepare(text, steps=200, epochs=1e6))
    rates = [event.learning_rate for event in of_type(found, events.Progressed)]
    assert rates[-1] < 0.1 * max(rates)


# a run that cannot begin


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"device": "cuda:99"}, ConfigError),
        ({"min_count": 10**6}, ConfigError),
        ({"hidden_size": 65536, "num_layers": 64}, ConfigError),  # no machine has the memory
    ],
)
def test_nothing_is_left_behind_by_a_run_that_could_not_begin(prepare, tmp_path, settings, error):
    out = tmp_path / "new" / "folder" / "run"
    with pytest.raises(error):
        prepare(texts.english(2000), steps=2, out=out, **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_what_was_there_before_stays(prepare, tmp_path):
    mine = tmp_path / "mine" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("keep")
    with pytest.raises(RunError, match="is not empty"):
        prepare("", steps=2, out=mine.parent)
    assert [path.name for path in mine.parent.iterdir()] == ["notes.txt"]
    mine.unlink()
    with pytest.raises(CorpusError, match="no text"):
        prepare("", steps=2, out=mine.parent)
    assert list(mine.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hiden": 3}, "there is no setting called 'hiden'"),
        ({"vocab_size": 30}, "there is no setting called 'vocab_size'"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"documents": "page"}, "documents must be one of none, line, blank-line, file"),
        ({"device": "nowhere"}, "device must be auto, cpu, cuda, cuda:N or mps"),
    ],
)
def test_settings_are_checked_before_anything_is_read(prepare, monkeypatch, settings, message):
    def read(*arguments, **more):
        raise AssertionError("nothing is to be read yet")

    monkeypatch.setattr("charrnn.training.prepare.encode_corpus", read)
    monkeypatch.setattr("charrnn.training.prepare.load_model", read)
    with pytest.raises(ConfigError, match=message):
        prepare(texts.english(2000), **{"steps": 2, "init": "builtin", **settings})


def test_a_model_to_begin_from_decides_its_shape(prepare):
    run(first := prepare(texts.english(3000), steps=3, members=2, unit="byte"))
    path = first.run_directory.path
    shape = {"hidden_size": None, "embedding_size": None}
    again = prepare(texts.english(3000), steps=3, init=path, **shape)
    assert again.model == first.model
    assert again.corpus.vocabulary.unit == "byte"
    assert again.training.learning_rate == 3e-3
    start = again._learner.network.export_weights()
    assert_identical(start, weights(first))
    for setting in ({"members": 3}, {"hidden_size": 30}, {"unit": "char"}):
        (name,) = setting
        with pytest.raises(ConfigError, match=f"^{name} must be .*, as in the model to begin from"):
            prepare(texts.english(3000), **{**shape, "steps": 3, "init": path, **setting})


# small and odd corpora


@pytest.mark.parametrize("n", [1, 2, 10])
@pytest.mark.parametrize("val_fraction", [0, 0.1])
def test_tiny_corpora(prepare, n, val_fraction):
    text = "to be, or not to be"[:n]
    trainer = prepare(text, steps=3, val_fraction=val_fraction, batch_size=32, bptt=32)
    finished = run(trainer)[-1]
    assert finished.step == 3
    model = api.load(trainer.run_directory.model)
    assert math.isfinite(model.score(text).logprob)
    ids = trainer.corpus.ids[trainer.corpus.n_train : n]
    assert (finished.val_loss is None) == (not (ids != UNK_ID).any())


def test_no_validation_text(prepare):
    trainer = prepare(texts.english(2000), steps=60, val_fraction=0)
    found = run(trainer)
    assert all(event.val_loss is None for event in of_type(found, events.Evaluated))
    assert found[-1].val_loss is None
    assert found[-1].verdict.judgement == "no validation"
    assert math.isfinite(found[-1].train_loss)
    assert load_model(trainer.run_directory.model).training["val_loss_nats"] is None


@pytest.mark.parametrize("documents", ["none", "line"])
@pytest.mark.parametrize("members", [1, 2])
def test_unknown_characters_are_read_and_not_judged(prepare, documents, members):
    """The last third of the validation text, which the training text says nothing about."""
    text = texts.english(4000)
    known, unknown = text[:-200], text[:-200] + "жзий\n" * 40
    kind = {"documents": documents, "members": members, "steps": 60, "learning_rate": 0.03}
    held = {"val_fraction": 0.1} if documents == "none" else {"val_fraction": 0.3}
    trainer = prepare(unknown, **kind, **held)
    found = run(trainer)
    share = of_type(found, events.Evaluated)[0].unknown_share
    if documents == "none":
        assert share == pytest.approx(160 / trainer.corpus.n_val)
        measured = trainer._learner.measure(validation=True)
        ids = trainer.corpus.val_ids
        engine = Engine(trainer.model, trainer._learner.network.export_weights(), np.float64)
        logits = engine.run(shifted(ids, EOS_ID), engine.initial_state())
        logprobs = target_logprobs(logits, ids)[ids != UNK_ID]
        assert measured.loss == pytest.approx(-logprobs.mean(), rel=1e-3)
        counts = np.bincount(ids[ids != UNK_ID]) / (ids != UNK_ID).sum()
        entropy = -sum(p * math.log(p) for p in counts if p)
        assert measured.unigram == pytest.approx(entropy)
    losses = [event.val_loss for event in of_type(found, events.Evaluated)]
    assert losses[-1] == min(losses), "as on known characters, it is the better the later"
    assert found[-1].verdict.judgement != "overfits"
    assert math.isfinite(run(prepare(known, **kind, **held))[-1].val_loss)


def test_a_validation_text_of_unknown_characters_only_is_none(prepare):
    trainer = prepare("abc\n" * 450 + "жзий" * 50, steps=20, val_fraction=0.1)
    found = run(trainer)
    assert found[-1].val_loss is None
    assert all(e.unknown_share == 1 for e in of_type(found, events.Evaluated))
    assert found[-1].verdict.judgement == "unknown validation"
    assert api.load(trainer.run_directory.model).sample(length=5) is not None


# measuring


def mean_loss(network, ids, **limit):
    return measure(network, text_windows(ids, **limit), CPU, "float32").loss


def test_many_rows_measure_almost_what_one_row_does(monkeypatch):
    text = texts.english(6000)
    vocabulary = Vocabulary(set(text))
    ids = vocabulary.encode(text)
    torch.manual_seed(1)
    network = CharNetwork(
        reference.make_config("lstm", layers=2, embedding=4, vocab_size=len(vocabulary), hidden=20)
    )
    many = mean_loss(network, ids)
    monkeypatch.setattr("charrnn.training.loss.ROWS", 1)
    one = mean_loss(network, ids)
    assert many == pytest.approx(one, rel=1e-4)

    engine = Engine(network.config, network.export_weights(), np.float64)
    logits = engine.run(shifted(ids, EOS_ID), engine.initial_state())
    logprobs = target_logprobs(logits, ids)
    assert one == pytest.approx(-logprobs.mean(), rel=1e-6)
    limited = mean_loss(network, ids, limit=777)
    assert limited == pytest.approx(-logprobs[:777].mean(), rel=1e-6)


def test_measuring_leaves_the_network_as_it_was(prepare):
    """Dropout is off while measuring, and on again afterwards; no random number is used."""
    trainer = prepare(texts.english(2000), steps=2, dropout=0.5)
    network = trainer._learner.network.train()
    before = torch.get_rng_state()
    first = mean_loss(network, trainer.corpus.ids)
    assert mean_loss(network, trainer.corpus.ids) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert network.training
    assert all(p.grad is None for p in network.parameters())


def test_the_reported_validation_loss_is_that_of_the_saved_model(prepare):
    trainer = prepare(texts.english(4000), steps=30)
    finished = run(trainer)[-1]
    model = api.load(trainer.run_directory.model)
    vocabulary, corpus = model.saved.vocabulary, load_corpus(trainer.run_directory.corpus)
    text = vocabulary.decode(corpus.val_ids.tolist())
    assert finished.val_loss == pytest.approx(-model.score(text).logprob / len(text), rel=1e-4)


# what is written


def test_metrics_and_model_tell_the_same_story(prepare):
    trainer = prepare(texts.english(4000), steps=40, seed=9, dropout=0.1)
    found = run(trainer)
    lines = trainer.run_directory.metrics.read_text().splitlines()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    evaluated = of_type(found, events.Evaluated)
    assert [row["step"] for row in rows] == [event.step for event in evaluated]
    assert [row["val_loss_nats"] for row in rows] == [event.val_loss for event in evaluated]
    training = load_model(trainer.run_directory.model).training
    clock = ("elapsed_s", "chars_per_s")
    plain = [{k: v for k, v in row.items() if k not in clock} for row in rows]
    assert training["curve"] == plain[: len(training["curve"])]
    assert {row["unit"] for row in rows} == {training["unit"]} == {"char"}
    assert [row["bits_per_char"] for row in rows] == [event.bits_per_char for event in evaluated]
    assert not {"elapsed_s", "chars_per_s"} & set(training)
    assert (training["charrnn"], training["torch"]) == (charrnn.__version__, version("torch"))
    assert training["config"]["seed"] == 9
    assert training["corpus"]["sha256"] == trainer.corpus.sha256
    assert training["dtype"] == "float32"


@pytest.mark.parametrize("documents", ["none", "line"])
def test_the_bits_of_a_byte_model_are_per_character(prepare, documents):
    """Two bytes a letter, one a line end or an EOS."""
    text = "жзийк\n" * 600
    trainer = prepare(text, steps=30, unit="byte", documents=documents, val_fraction=0.1)
    found = run(trainer)
    per_unit = found[-1].val_loss / math.log(2)
    assert found[0].unit == "byte"
    assert found[-1].bits_per_char == pytest.approx(per_unit * 11 / 6)
    (row,) = rows_of(trainer)[-1:]
    assert (row["unit"], row["bits_per_char"]) == ("byte", pytest.approx(per_unit * 11 / 6))


def test_the_beginning_of_a_run_is_recorded(prepare, tmp_path):
    trainer = prepare(texts.english(2000), steps=2)
    record = trainer.run_directory.read_record()
    assert set(record) == {"charrnn", "torch", "started", "text"}
    assert (record["charrnn"], record["text"]) == (charrnn.__version__, "text")
    datetime.fromisoformat(record["started"])


def test_the_training_loss_is_that_of_the_latest_steps(prepare, monkeypatch):
    """A spike at the beginning is no matter of the end, where the loss decides what is kept."""
    trainer = prepare(texts.english(4000), steps=4000, val_fraction=0, hidden_size=4)
    take_step = trainer._learner.take_step
    monkeypatch.setattr(schedule_module, "GRID", 4)

    def spiking(rate_factor):
        loss, count = take_step(rate_factor)
        extra = 1e6 if 50 <= trainer._schedule.step < 52 else 0.0
        trainer._learner.meter.add(torch.tensor(extra, dtype=torch.float64), 0)
        return loss, count

    trainer._learner.take_step = spiking
    for event in trainer.run():
        if isinstance(event, events.Evaluated):
            break
    assert event.train_loss < 4


def test_samples_are_shown_as_often_as_asked(prepare):
    found = run(prepare(texts.english(3000), steps=40, sample_every=5, val_fraction=0))
    assert len(of_type(found, events.Evaluated)) == 20
    samples = of_type(found, events.Sampled)
    assert len(samples) == 4
    assert all(0 <= len(sample.text) <= 160 for sample in samples)


# where it runs


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("cuda", marks=needs("a GPU", torch.cuda.is_available())),
    ],
)
def test_the_device_asked_for_is_used(prepare, device):
    trainer = prepare(texts.english(3000), steps=6, device=device)
    used = set()
    real = trainer._learner.network.forward

    def forward(ids, *others):
        used.add(ids.device.type)
        return real(ids, *others)

    trainer._learner.network.forward = forward
    trainer.stop_requested = False
    with after_steps(lambda step: setattr(trainer, "stop_requested", step == 3)):
        found = run(trainer)
    assert used == {device}
    assert torch.device(found[0].device).type == device
    assert {p.device.type for p in trainer._learner.network.parameters()} == {device}
    rest = run(prepare_resume([], out=trainer.run_directory.path))
    assert rest[-1].reason == "steps"
    assert api.load(trainer.run_directory.model).score("the key").logprob < 0


@pytest.mark.parametrize("device", ["cuda:99", "mps"])
def test_a_device_that_is_not_here_is_told(prepare, device):
    with pytest.raises(ConfigError, match=device):
        prepare(texts.english(2000), steps=2, device=device)
