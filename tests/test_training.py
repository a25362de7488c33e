"""Training reaches what can be known beforehand, and is exactly repeatable and resumable."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
import time

import numpy as np
import pytest
import reference
import texts
import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from charrnn import api, events
from charrnn.corpus.corpus import load_corpus
from charrnn.engine.network import Engine
from charrnn.errors import CharRNNError, ConfigError, RunError
from charrnn.models.network import CharNetwork
from charrnn.scoring.text import char_logprobs
from charrnn.storage.model_file import load_model
from charrnn.training import learner as learner_module
from charrnn.training import trainer as trainer_module
from charrnn.training.loss import measure, text_windows
from charrnn.training.sizing import Speed
from charrnn.vocab import Vocabulary

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
    ("cell", "nonlinearity"), [("lstm", "tanh"), ("gru", "tanh"), ("rnn", "relu")]
)
def test_validation_loss_falls_on_prose(prepare, cell, nonlinearity):
    trainer = prepare(texts.english(), steps=150, cell=cell, nonlinearity=nonlinearity)
    losses = [event.val_loss for event in of_type(run(trainer), events.Evaluated)]
    alphabet = len(trainer.corpus.vocabulary)
    assert losses[-1] < 0.75 * losses[0]
    assert losses[-1] < 0.75 * math.log(alphabet)
    assert losses[-1] == pytest.approx(min(losses), rel=0.05)


def test_the_model_on_disk_is_the_best_one(prepare):
    """Noise can only be learned by heart, so an early model is the best."""
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
        assert not any(part.requires_grad for parts in before for part in parts)
    for (_, after), (before, _) in itertools.pairwise(calls):
        for carried, received in zip(after, before, strict=True):
            for one, two in zip(carried, received, strict=True):
                torch.testing.assert_close(one.detach(), two, rtol=0, atol=0)


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
    marks=pytest.mark.skipif(
        not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no bfloat16 on this processor"
    ),
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
    first = prepare(text, **CASE, seed=3)
    assert_same_curve(run(first), run(second := prepare(text, **CASE, seed=3)))
    assert_identical(weights(first), weights(second))
    run(third := prepare(text, **CASE, seed=4))
    assert not np.array_equal(weights(first)["output.weight"], weights(third)["output.weight"])


def curve(found):
    return {event.step: event.val_loss for event in of_type(found, events.Evaluated)}


def assert_same_curve(whole, *parts):
    """The parts' losses are those of the whole run, to the last bit, where both evaluated."""
    expected = curve(whole)
    found = {step: loss for part in parts for step, loss in curve(part).items()}
    assert set(expected) <= set(found)
    assert {step: found[step] for step in expected} == expected


@pytest.mark.parametrize("dtype", ["float32", BF16])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(prepare, cell, dtype):
    text = texts.english(4000)
    options = {**CASE, "cell": cell, "dtype": dtype}
    whole = prepare(text, **options)
    expected = run(whole)

    stopped = prepare(text, **options)

    def stop(step):
        stopped.stop_requested = step == 7

    with after_steps(stop):
        first_part = run(stopped)
    assert first_part[-1].reason == "interrupted"
    assert first_part[-1].step == 7
    torch.rand(3)  # whoever draws in between does no harm

    resumed = api.prepare_resume([], out=stopped.run_directory.path)
    second_part = run(resumed)
    assert second_part[0].resumed_at == 7
    assert second_part[-1].reason == "complete"
    assert second_part[-1].step == CASE["steps"]
    assert_same_curve(expected, first_part, second_part)
    assert second_part[-1].train_loss == expected[-1].train_loss
    assert_identical(weights(whole), weights(resumed))
    rows = {row["step"]: row for row in rows_of(resumed)}
    for row in rows_of(whole):
        for key in ("val_loss_nats", "epoch", "learning_rate"):
            assert rows[row["step"]][key] == row[key]


def test_a_killed_run_goes_on_from_its_last_evaluation(prepare):
    text = texts.english(4000)
    whole = prepare(text, **CASE)
    expected = run(whole)
    killed = prepare(text, **CASE)
    half = []
    for event in killed.run():
        half.append(event)
        if len(of_type(half, events.Evaluated)) == 3:
            break  # never finished, never stopped in good order
    resumed = api.prepare_resume([], out=killed.run_directory.path)
    rest = run(resumed)
    assert rest[0].resumed_at == half[-1].step
    assert_same_curve(expected, half, rest)
    assert_identical(weights(whole), weights(resumed))


def test_a_run_can_be_stopped_and_resumed_many_times(prepare):
    text = texts.english(4000)
    whole = prepare(text, **CASE)
    run(whole)
    trainer = prepare(text, **CASE)
    for _ in range(3):

        def stop(step, trainer=trainer):
            trainer.stop_requested = step == 5

        with after_steps(stop):
            assert run(trainer)[-1].reason == "interrupted"
        trainer = api.prepare_resume([], out=trainer.run_directory.path)
    assert run(trainer)[-1].reason == "complete"
    assert_identical(weights(whole), weights(trainer))


def test_a_run_stopped_before_its_first_step_can_go_on(prepare):
    trainer = prepare(texts.english(2000), steps=6)
    trainer.stop_requested = True
    assert run(trainer)[-1].reason == "interrupted"
    load_model(trainer.run_directory.model)
    finished = run(api.prepare_resume([], out=trainer.run_directory.path))[-1]
    assert (finished.reason, finished.step) == ("complete", 6)


def test_a_finished_run_is_neither_resumed_nor_overwritten(prepare, tmp_path):
    trainer = prepare(texts.english(2000), steps=4, out=tmp_path / "mine")
    run(trainer)
    files = {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    assert not (tmp_path / "mine" / "resume.safetensors").exists()
    with pytest.raises(RunError, match="nothing to resume"):
        api.prepare_resume([], out=tmp_path / "mine")
    with pytest.raises(RunError, match="already holds a run"):
        prepare(texts.english(2000), steps=4, out=tmp_path / "mine")
    assert files == {path: path.read_bytes() for path in files}


def test_an_unfinished_run_is_offered_for_resuming_and_not_overwritten(prepare, tmp_path):
    trainer = prepare(texts.english(2000), steps=400, out=tmp_path / "mine")
    trainer.stop_requested = True
    run(trainer)
    with pytest.raises(RunError, match="--resume"):
        prepare(texts.english(2000), steps=4, out=tmp_path / "mine")


def test_a_damaged_resume_state_is_refused(prepare):
    trainer = prepare(texts.english(2000), steps=400)
    trainer.stop_requested = True
    run(trainer)
    resume = trainer.run_directory.resume
    whole = resume.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], b"text" * 100):
        resume.write_bytes(damaged)
        with pytest.raises(RunError, match="cannot be read"):
            api.prepare_resume([], out=trainer.run_directory.path)


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
    trainer.stop_requested = True
    run(trainer)
    for line in trainer.run_directory.metrics.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    resumed = api.prepare_resume([], out=trainer.run_directory.path)
    run(resumed)
    assert load_model(resumed.run_directory.model).training["step"] > 30


def test_a_run_that_diverges_at_once_leaves_no_broken_model(prepare):
    """Whether it says so with an error or saves the last sound weights."""
    trainer = prepare(
        texts.english(2000),
        steps=20,
        cell="rnn",
        nonlinearity="relu",
        learning_rate=1e9,
        clip_norm=0,
    )
    with contextlib.suppress(CharRNNError):
        run(trainer)
    if trainer.run_directory.model.exists():
        load_model(trainer.run_directory.model)
    metrics = trainer.run_directory.metrics
    for line in metrics.read_text().splitlines() if metrics.exists() else ():
        json.loads(line, parse_constant=pytest.fail)


# budgets


def test_a_time_budget_fixes_the_number_of_steps(prepare):
    found = run(prepare(texts.english(4000), time_s=1.0))
    (planned,) = of_type(found, events.Planned)
    assert planned.duration_s is not None
    total = told = planned.total_steps
    for event in found[found.index(planned) :]:
        if isinstance(event, events.Notice):
            new, old = map(int, re.findall(r"\d+", event.text.replace(",", "")))
            assert old == told
            assert ("slower" if new < told else "faster") in event.text
            total = told = new
        total = getattr(event, "total_steps", total)
        assert abs(total - told) <= 0.05 * told, "a larger change would have been told"
    assert found[-1].step == total
    assert len(of_type(found, events.Evaluated)) >= 1
    rates = [event.learning_rate for event in of_type(found, events.Evaluated)]
    assert rates[-1] < 0.05 * max(rates)  # the schedule came to its end


def test_training_has_half_of_the_time_however_long_the_reading_took(prepare, monkeypatch):
    monkeypatch.setattr(
        "charrnn.training.speed.measure_speed", lambda device, dtype: Speed(1e5, 1e5)
    )
    for late_s, is_late in ((1000, True), (0, False)):
        trainer = prepare(texts.english(4000), time_s=20.0, started=time.monotonic() - late_s)
        budget, used = trainer._budget, []

        def timed_plan(step, elapsed_s, clock, budget=budget, used=used):
            used.append(elapsed_s)
            return budget.plan(30), 1.0

        monkeypatch.setattr(budget, "timed_plan", timed_plan)
        monkeypatch.setattr(budget, "corrected_plan", lambda *arguments: None)
        found = run(trainer)
        assert (found[-1].elapsed_s > 1000) is is_late
        assert (used[0] >= 10) is is_late
        assert used[0] < 100
        notices = [event.text for event in of_type(found, events.Notice)]
        assert any("longer than asked for" in text for text in notices) is is_late


def test_a_step_budget_is_known_from_the_start(prepare):
    found = run(prepare(texts.english(4000), steps=40))
    kinds = [type(event) for event in found if not isinstance(event, events.Notice)]
    assert kinds[:2] == [events.Started, events.Planned]
    (planned,) = of_type(found, events.Planned)
    assert (planned.total_steps, planned.duration_s) == (40, None)
    assert found[-1].step == 40
    assert [e.step for e in of_type(found, events.Evaluated)] == [10, 20, 30, 40]


def test_an_epoch_budget_reads_the_text_so_often(prepare):
    trainer = prepare(texts.english(4000), epochs=2, val_fraction=0)
    found = run(trainer)
    (planned,) = of_type(found, events.Planned)
    assert planned.total_steps >= math.ceil(2 * 4000 / (8 * 16)), "segments end within windows"
    assert planned.epochs == pytest.approx(2, rel=0.02)
    assert of_type(found, events.Evaluated)[-1].epoch == pytest.approx(2, rel=0.03)


@pytest.mark.parametrize("n_chars", [10, 100, 1000])
def test_passes_over_a_short_text_are_counted_about_right(prepare, n_chars):
    found = run(prepare(texts.english(n_chars), epochs=20, val_fraction=0, bptt=64))
    assert of_type(found, events.Evaluated)[-1].epoch == pytest.approx(20, rel=0.35)


def test_patience_stops_early(prepare):
    found = run(prepare(texts.english(3000), steps=400, learning_rate=3.0, patience=2))
    assert found[-1].reason == "patience"
    assert found[-1].step < 400
    judged = [event.is_best for event in of_type(found, events.Evaluated)]
    assert judged[-2:] == [False, False]


def test_patience_evaluates_each_step_once(prepare):
    found = run(prepare(texts.english(3000), steps=400, learning_rate=3.0, patience=1))
    steps = [event.step for event in of_type(found, events.Evaluated)]
    assert steps == sorted(set(steps))


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
    assert (finished.val_loss is None) == (trainer.corpus.n_train == n)


def test_no_validation_text(prepare):
    trainer = prepare(texts.english(2000), steps=20, val_fraction=0)
    found = run(trainer)
    assert all(event.val_loss is None for event in of_type(found, events.Evaluated))
    assert found[-1].val_loss is None
    assert "without validation text" in found[-1].verdict
    assert math.isfinite(found[-1].train_loss)
    assert load_model(trainer.run_directory.model).training["val_loss_nats"] is None


def test_unknown_characters_in_the_validation_text_are_charged(prepare):
    found = run(prepare("abc\n" * 450 + "xyz\n" * 50, steps=5))
    assert math.isfinite(found[-1].val_loss)


# measuring


def mean_loss(network, ids, **limit):
    return measure(network, text_windows(ids, **limit), CPU, "float32").loss


def test_many_lanes_measure_almost_what_one_lane_does(monkeypatch):
    text = texts.english(6000)
    vocabulary = Vocabulary(set(text))
    ids = vocabulary.encode(text)
    torch.manual_seed(1)
    network = CharNetwork(
        reference.make_config("lstm", layers=2, embedding=4, vocab_size=len(vocabulary), hidden=20)
    )
    many = mean_loss(network, ids)
    monkeypatch.setattr("charrnn.training.loss.LANES", 1)
    one = mean_loss(network, ids)
    assert many == pytest.approx(one, rel=1e-4)

    engine = Engine(network.config, network.export_weights(), np.float64)
    logprobs = char_logprobs(engine, vocabulary, text)
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
    assert training["curve"] == rows[: len(training["curve"])]
    assert training["config"]["seed"] == 9
    assert training["corpus"]["sha256"] == trainer.corpus.sha256
    assert training["dtype"] == "float32"


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
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
        ),
    ],
)
def test_the_device_asked_for_is_used(prepare, device):
    trainer = prepare(texts.english(3000), steps=6, device=device)
    used = set()
    real = trainer._learner.network.forward

    def forward(ids, state):
        used.add(ids.device.type)
        return real(ids, state)

    trainer._learner.network.forward = forward
    trainer.stop_requested = False
    with after_steps(lambda step: setattr(trainer, "stop_requested", step == 3)):
        found = run(trainer)
    assert used == {device}
    assert torch.device(found[0].device).type == device
    assert {p.device.type for p in trainer._learner.network.parameters()} == {device}
    rest = run(api.prepare_resume([], out=trainer.run_directory.path))
    assert rest[-1].reason == "complete"
    assert api.load(trainer.run_directory.model).score("the key").logprob < 0


@pytest.mark.parametrize("device", ["nowhere", "cuda:99", "meta"])
def test_a_device_that_is_not_here_is_told(prepare, device):
    with pytest.raises(ConfigError, match=device):
        prepare(texts.english(2000), steps=2, device=device)
