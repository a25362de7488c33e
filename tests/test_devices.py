"""What training does on a device that is stricter than the CPU, and never waits for.

`strict_device` stands for Apple's MPS; see there.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import strict_device
import texts
import torch
from strict_device import DEVICE, StrictDevice, made_strict, mps_operators

from charrnn import events
from charrnn.batches.windows import Share, TextBatches
from charrnn.config import Cell, ModelConfig, TrainingConfig
from charrnn.engine.network import Engine
from charrnn.errors import ConfigError
from charrnn.models.device import to_device
from charrnn.models.network import CharNetwork, in_one_buffer
from charrnn.scoring.adaptation import Adapter
from charrnn.scoring.scorer import Scorer
from charrnn.storage.model_file import load_model
from charrnn.training import distributed as distributed_module
from charrnn.training import learner as learner_module
from charrnn.training import loss as loss_module
from charrnn.training import probe as probe_module
from charrnn.training import sizing as sizing_module
from charrnn.training import trainer as trainer_module
from charrnn.training.checkpoint import read_record
from charrnn.training.prepare import prepare_resume
from charrnn.training.probe import usable_device
from charrnn.training.sizing import complete_settings, measure_gpu
from charrnn.training.system import has_room_for_text

CELLS = [*((cell, "tanh") for cell in get_args(Cell)), ("rnn", "relu")]
DROPOUT = {"dropout": 0.2, "input_dropout": 0.1, "recurrent_dropout": 0.2}
NAMES = "".join(f"{a}{b}{c}\n" for a, b, c in itertools.product("abcde", "xyz", "lmnop")) * 6
"""A list of 450 documents."""


@pytest.fixture
def strict(monkeypatch):
    """Make the strict device the one that everything is trained on."""
    made_strict(monkeypatch)
    with StrictDevice() as mode:
        yield mode


def trained(trainer):
    found = list(trainer.run())
    assert isinstance(found[-1], events.Finished)
    return found


SMALL = {"hidden_size": 6, "embedding_size": 4, "batch_size": 4, "bptt": 8}


KINDS = [
    (*cell, documents, members)
    for cell in CELLS
    for documents, members in itertools.product(("none", "line"), (1, 2))
    if cell[0] == "lstm" or (documents == "line") == (members == 2)
]
"""Every kind of run for one cell, two of them for each of the others."""


@pytest.mark.parametrize(("cell", "nonlinearity", "documents", "members"), KINDS)
def test_a_run_needs_nothing_that_the_device_lacks(
    prepare, strict, monkeypatch, cell, nonlinearity, documents, members
):
    monkeypatch.setattr(trainer_module, "CALIBRATION_CHARS", 100)
    text = NAMES[:400] if documents == "line" else texts.english(900)
    shape = {"cell": cell, "nonlinearity": nonlinearity, "num_layers": 2, "members": members}
    shape["bidirectional"] = cell == "gru"
    options = {"documents": documents, "val_fraction": 0.4, "clip_value": 0.5, **DROPOUT}
    trainer = prepare(text, steps=2, **SMALL, **shape, **options)
    assert {p.device for p in trainer._learner.network.parameters()} == {DEVICE}
    finished = trained(trainer)[-1]
    assert math.isfinite(finished.val_loss)
    if documents == "none":
        assert finished.temperature != 1, "calibrated"
    assert load_model(finished.model_path).config.members == members


@pytest.mark.parametrize("documents", ["none", "line"])
def test_a_text_on_the_device_trains_the_same_weights(prepare, monkeypatch, documents):
    text = NAMES + "abcd" * 9 + "\n" if documents == "line" else texts.english(1500)
    options = {"documents": documents, "unknown_rate": 0.2, "steps": 15, "val_fraction": 0}
    weights = []
    for is_there in (False, True):
        monkeypatch.setattr(learner_module, "has_room_for_text", lambda *_, x=is_there: x)
        trainer = prepare(text, **SMALL, **options)
        assert (trainer._learner.windows.next_window().places_B3 is not None) == is_there
        trained(trainer)
        weights.append(trainer._learner.network.export_weights())
    for name, array in weights[0].items():
        np.testing.assert_array_equal(array, weights[1][name])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("share", [Share(), Share(1, 3)])
def test_windows_taken_from_a_text_on_the_device(monkeypatch, dtype, share):
    monkeypatch.setattr(loss_module, "UPLOAD", 100)
    rng = np.random.default_rng(0)
    ids = rng.integers(2, np.iinfo(dtype).max, 700, dtype, endpoint=True)
    ids[rng.integers(0, 700, 30)] = 1
    text_N = loss_module.text_on(torch.device("cpu"), ids)
    assert text_N.element_size() == np.dtype(dtype).itemsize
    here, there = (
        TextBatches(ids, newline_id=None, batch_size=8, bptt=30, unknown_rate=0.3, share=share,
                    on_device=on_device)
        for on_device in (False, True)
    )  # fmt: skip
    for _ in range(60):
        window, places = here.next_window(), there.next_window()
        found = loss_module.placed(places, torch.device("cpu"), text_N)
        np.testing.assert_array_equal(found.inputs_BT.numpy(), window.inputs_BT)
        np.testing.assert_array_equal(found.targets_BT.numpy(), window.targets_BT)
        np.testing.assert_array_equal(places.keep_B, window.keep_B)
        assert places.n_targets == window.n_targets
    assert here.state_dict() == there.state_dict()


def test_a_text_lies_on_a_gpu_that_has_room_for_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    cuda = torch.device("cuda")
    assert has_room_for_text(cuda, 100)
    assert not has_room_for_text(cuda, 101)
    assert not has_room_for_text(torch.device("cpu"), 1)


def evaluate_at(trainer, *steps):
    trainer._schedule.evaluation_is_due = lambda served: trainer._schedule.step in steps


@pytest.mark.parametrize("documents", ["none", "line"])
@pytest.mark.parametrize(
    "options", [{}, DROPOUT | {"members": 2, "clip_value": 0.5}, {"bidirectional": True}]
)
def test_a_step_waits_for_nothing(prepare, strict, monkeypatch, documents, options):
    """The device is asked in reports and evaluations only: what it computes piles up."""
    has_text = bool(options)
    monkeypatch.setattr(learner_module, "has_room_for_text", lambda *_: has_text)
    monkeypatch.setattr(trainer_module, "REPORT_EVERY_S", math.inf)
    monkeypatch.setattr(trainer_module, "FADE_EVERY", 10)
    text = NAMES + "a" * 100 + "\n" if documents == "line" else texts.english(4000)
    settings = {"steps": 50, "val_fraction": 0, "documents": documents, **SMALL, **options}
    trainer = prepare(text, **settings)
    evaluate_at(trainer, 30, 50)
    take_step, waits = trainer._learner.take_step, []

    def watched(factor):
        waits.append(list(strict.waits))
        return take_step(factor)

    trainer._learner.take_step = watched
    evaluated = {event.step for event in trainer.run() if isinstance(event, events.Evaluated)}
    assert len(waits) == 50
    assert evaluated == {30, 50}
    for step, (before, after) in enumerate(itertools.pairwise(waits), 1):
        if step not in evaluated:
            assert after[len(before) :] == []


def test_a_loss_that_explodes_between_reports_is_found_at_the_next(prepare, strict, monkeypatch):
    monkeypatch.setattr(trainer_module, "REPORT_EVERY_S", math.inf)
    trainer = prepare(texts.english(3000), steps=50, val_fraction=0, **SMALL)
    evaluate_at(trainer, 40, 50)
    take_step, broken = trainer._learner.take_step, iter([20])

    def exploding(factor):
        loss, count = take_step(factor)
        is_broken = trainer._schedule.step == 20 and next(broken, None) is not None
        return (loss * math.nan if is_broken else loss), count

    trainer._learner.take_step = exploding
    found = trained(trainer)
    (rolled_back,) = [event for event in found if isinstance(event, events.RolledBack)]
    assert (rolled_back.step, rolled_back.exploded_at) == (0, 40)


def test_the_strict_device_is_strict(strict):
    """Else all of the above would be worth nothing."""
    there = torch.ones(3).to(DEVICE, non_blocking=True)
    assert strict.waits == []
    for forbidden in (torch.Tensor.double, torch.Tensor.cfloat):
        with pytest.raises(TypeError, match="Cannot convert"):
            forbidden(there)
    with pytest.raises(NotImplementedError, match="aten::_linalg_svd"):
        torch.linalg.svd(there[:, None])
    with pytest.raises(RuntimeError, match="same device"):
        there + torch.ones(3)
    asked = (float, torch.Tensor.cpu, torch.nonzero, lambda x: x[x > 0], lambda x: x.to("cpu"))
    for number, ask in enumerate(asked, 1):
        ask(there.sum() if ask is float else there)
        assert len(strict.waits) == number
    torch.ones(3).to(DEVICE)
    torch.as_tensor(np.ones(3, np.float32), device=DEVICE)
    assert len(strict.waits) == len(asked) + 2
    assert {"bernoulli_.float", "_fused_adamw_", "lerp_.Scalar", "linalg_vector_norm"} <= (
        mps_operators()
    )


def test_a_copy_to_a_mac_waits(monkeypatch):
    """MPS would read the array when it is gone; a copy to other devices need not wait."""
    asked = []
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *where, **how: asked.append((where, how)))
    for name in ("mps", "cpu"):
        to_device(np.zeros(3), torch.device(name))
    assert [how["non_blocking"] for _, how in asked] == [False, True]


def test_dynamic_evaluation_and_the_model_itself_stay_on_the_cpu(tiny_model, strict):
    adapter = Adapter(
        tiny_model, Scorer(Engine(tiny_model.config, tiny_model.weights), tiny_model.vocabulary)
    )
    assert list(adapter.score(["abcabc" * 20]))
    assert strict.operators == set()


# a device that lacks an operator


@pytest.fixture
def poor(monkeypatch):
    """Make a device that lacks an operator the best of the machine, under the name of mps."""
    made_strict(monkeypatch)

    def choose(name):
        return torch.device("cpu") if name == "cpu" else DEVICE

    for module in (probe_module, sizing_module):
        monkeypatch.setattr(module, "choose_device", choose)
    full = mps_operators()
    monkeypatch.setattr(strict_device, "mps_operators", lambda: full - {"nll_loss_forward"})
    monkeypatch.setattr(distributed_module, "choose_device", choose)
    with StrictDevice() as mode:
        yield mode


def test_a_device_that_lacks_an_operator_is_passed_over(prepare, poor):
    trainer = prepare(texts.english(1500), steps=2, **SMALL, device="auto")
    started = next(event for event in trainer.run() if isinstance(event, events.Started))
    assert (started.device, started.lacking) == ("cpu", "aten::nll_loss_forward")
    assert trainer.training.device == "cpu"


def test_a_device_asked_for_that_lacks_an_operator_is_an_error(prepare, poor):
    with pytest.raises(
        ConfigError, match="mps lacks aten::nll_loss_forward, which training needs"
    ) as error:
        prepare(texts.english(1500), steps=2, **SMALL, device="mps")
    assert error.value.field == "device"


def test_a_device_that_lacks_nothing_is_used(strict):
    for cell, nonlinearity in CELLS:
        model = ModelConfig(vocab_size=9, cell=cell, nonlinearity=nonlinearity)
        assert usable_device(model, TrainingConfig(steps=1)) == ("auto", "")


# a device whose memory is too small


def test_rows_are_halved_once_when_memory_is_too_small(prepare):
    trainer = prepare(texts.english(4000), steps=30, **{**SMALL, "batch_size": 8})
    break_step(trainer, torch.OutOfMemoryError("CUDA out of memory"), at=[12])
    found = trained(trainer)
    (halved,) = [event for event in found if isinstance(event, events.RowsHalved)]
    assert halved.batch_size == 4
    assert halved.step <= 12
    assert found[-1].step == 30
    record = read_record(trainer.run_directory.resume)
    assert record["training"]["batch_size"] == 4


def test_memory_that_is_too_small_for_half_of_the_rows_is_an_error(prepare):
    trainer = prepare(texts.english(4000), steps=30, **SMALL)
    break_step(trainer, RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), at=[3, 5])
    with pytest.raises(ConfigError, match="must be less than 2") as error:
        trained(trainer)
    assert error.value.field == "batch_size"


def test_other_errors_are_not_taken_for_a_lack_of_memory(prepare):
    trainer = prepare(texts.english(4000), steps=30, **SMALL)
    break_step(trainer, RuntimeError("a shape is wrong"), at=[3])
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        trained(trainer)


def break_step(trainer, error, at):
    """Let the steps at these numbers, each once, fail in the middle."""
    real = loss_module.window_loss
    numbers = list(at)

    def failing(*given):
        if numbers and trainer._schedule.step == numbers[0]:
            numbers.pop(0)
            raise error
        return real(*given)

    learner_module.window_loss = failing


@pytest.fixture(autouse=True)
def _unbroken(monkeypatch):
    monkeypatch.setattr(learner_module, "window_loss", loss_module.window_loss)


# precision


def test_float16_is_not_for_the_cpu(prepare):
    with pytest.raises(ConfigError, match="float16 is for GPUs") as error:
        prepare(texts.english(3000), steps=30, dtype="float16")
    assert error.value.field == "dtype"


@pytest.fixture
def half(monkeypatch):
    """Allow float16 on the CPU; torch has no LSTM for it there, but the scaler is the same."""
    monkeypatch.setattr(probe_module, "usable_device", lambda model, training: ("cpu", ""))
    return {"dtype": "float16", "cell": "gru", "num_layers": 2}


def test_float16_scales_the_loss_and_skips_steps_that_overflow(prepare, half, monkeypatch):
    trainer = prepare(texts.english(3000), steps=30, val_fraction=0, **half)
    scales, weights = [], []
    take_step = trainer._learner.take_step

    def watched(factor):
        (scaler,) = trainer._learner._scalers.values()
        weights.append(torch.cat([p.detach().flatten() for p in parameters(trainer)]))
        outcome = take_step(factor)
        scales.append(scaler.get_scale())
        return outcome

    trainer._learner.take_step = watched
    trainer._learner.settle_dtype()
    monkeypatch.setattr(trainer._learner, "settle_dtype", lambda: None)
    (scaler,) = trainer._learner._scalers.values()
    scaler._init_scale = 2.0**32  # far too much
    finished = trained(trainer)[-1]
    assert finished.step == 30
    skipped = [k for k in range(29) if torch.equal(weights[k], weights[k + 1])]
    assert skipped, "at first, all gradients overflow"
    assert skipped == list(range(len(skipped)))
    assert scales[len(skipped) - 1] == 2.0 ** (32 - len(skipped))
    assert scales[-1] == scales[-10], "a step that succeeds keeps the scale"
    assert all(bool(w.isfinite().all()) for w in weights)


def test_a_run_in_float16_continues_exactly(prepare, half):
    options = {"val_fraction": 0.2, **half}
    whole = prepare(texts.english(3000), steps=30, **options)
    expected = load_model(trained(whole)[-1].model_path).weights
    part = prepare(texts.english(3000), steps=30, **options)
    for event in part.run():
        if isinstance(event, events.Evaluated) and event.step >= 10:
            break
    part.run_directory.release()
    again = prepare_resume([], out=part.run_directory.path)
    found = load_model(trained(again)[-1].model_path).weights
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def parameters(trainer):
    return list(trainer._learner.network.parameters())


@pytest.mark.parametrize(("cell", "nonlinearity"), CELLS)
def test_gradients_do_not_depend_on_the_cache_of_autocast(cell, nonlinearity):
    """Ensemble members on other threads empty it at any time."""
    config = ModelConfig(vocab_size=9, cell=cell, nonlinearity=nonlinearity, hidden_size=12)
    network = CharNetwork(config)
    ids_BT = torch.arange(40).view(4, 10) % 9
    found = []
    for cached in (True, False):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=cached):
            logits_BTV, _ = network(ids_BT, network.initial_state(4))
        torch.autograd.backward(logits_BTV.float().square().sum())
        found.append([parameter.grad.clone() for parameter in network.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


# weights as cuDNN wants them


@pytest.mark.parametrize("shapes", [[(12, 3), (12, 4), (12,), (12,)], [(2, 2), (2, 2), (2,), (2,)]])
def test_weights_in_one_buffer_are_the_same_weights(shapes):
    weights = [torch.randn(shape, requires_grad=True) for shape in shapes]
    found = in_one_buffer([weight * 2 for weight in weights])
    place = 0
    for weight, part in zip(weights, found, strict=True):
        torch.testing.assert_close(part, weight * 2)
        assert part.is_contiguous()
        assert part.storage_offset() == place
        assert part.untyped_storage().data_ptr() == found[0].untyped_storage().data_ptr()
        place += weight.numel()
    assert found[0].untyped_storage().nbytes() == 4 * place
    torch.autograd.backward(sum((part**2).sum() for part in found))
    for weight in weights:
        torch.testing.assert_close(weight.grad, 8 * weight.detach())


# sizes on a GPU, whose speed is made up here


@pytest.fixture
def gpu(monkeypatch):
    """Let a machine have a GPU that is busy at 128 rows, and at any number with 2,048 units."""
    monkeypatch.setattr(sizing_module, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(sizing_module, "choose_dtype", lambda *_: "bfloat16")
    monkeypatch.setattr(sizing_module, "_step", lambda place, dtype, *shape: shape)
    window = sizing_module.MEASURED_WINDOW

    def rate(shape, place):
        rows, width = shape
        return min(4e6 * min(rows, 128) / 128, 5e9 / width**2 * 512) / (rows * window)

    monkeypatch.setattr(sizing_module, "_rate", rate)


def test_a_gpu_is_given_rows_until_it_is_busy(gpu):
    speeds = [measure_gpu(torch.device("cuda"), "auto", n) for n in (10**5, 10**6, 10**8)]
    assert [speed.rows for speed in speeds] == [16, 128, 128]
    asked = measure_gpu(torch.device("cuda"), "auto", 10**8, 32)
    assert asked.rows == 32
    assert asked.of(256) == pytest.approx(1e6)
    assert asked.of(2048) < asked.of(512)


def test_a_text_of_a_million_characters_takes_a_gpu_less_than_a_minute(gpu):
    for n_chars in (10**3, 10**6, 10**8):
        model, training = complete_settings(n_chars, 67, {})
        assert training.time_s <= (60 if n_chars <= 10**6 else 570)
    assert training.batch_size == 128
    assert model.hidden_size >= 512
    _, training = complete_settings(10**8, 67, {"batch_size": 64, "time_s": 10.0})
    assert (training.batch_size, training.time_s) == (64, 10.0)


def test_the_benchmark_of_a_gpu_runs_in_a_tiny_form(monkeypatch, tmp_path, capsys):
    """So that a borrowed GPU is not spent on its mistakes."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    import gpu as benchmark

    figures = tmp_path / "figures.json"
    options = ["--tiny", "--device", "cpu", "--json", str(figures)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options])
    monkeypatch.setattr(benchmark, "choose_dtype", lambda *_: "float32")
    benchmark.main()
    rows = json.loads(figures.read_text("utf-8"))["rows"]
    assert [row["what"].split()[0] for row in rows] == [
        "training", "training", "reading", "scoring", "scoring", "writing", "writing", "default",
    ]  # fmt: skip
    assert all(row["share_of_peak"] > 0 for row in rows[:2])
    assert rows[-1]["val_loss"] > 0
    assert all(row["device_char_per_s"] > 0 for row in rows if row["what"].startswith("writing"))
    assert "not measured" not in capsys.readouterr().out
