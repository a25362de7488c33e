"""What only a GPU can show: `make test-gpu` runs it all; elsewhere it is skipped.

The GPU is judged by the CPU. CHARRNN_TEST_DEVICE=cpu runs what does not need CUDA itself on the
CPU, to see that these tests are sound where there is no GPU.
"""

from __future__ import annotations

import itertools
import os
import warnings
from typing import get_args

import numpy as np
import pytest
import texts
import torch
from test_runner import DRAWING, KINDS, check_samples, check_scores, model_of, model_on

from charrnn import events
from charrnn.batches.windows import shifted
from charrnn.config import Cell
from charrnn.engine.network import Engine, target_logprobs
from charrnn.errors import ConfigError
from charrnn.models.device import choose_device
from charrnn.storage.model_file import load_model
from charrnn.training.learner import Learner
from charrnn.training.loss import measure, text_windows
from charrnn.training.prepare import prepare_resume
from charrnn.vocab import EOS_ID

DEVICE = os.environ.get("CHARRNN_TEST_DEVICE", "cuda")
HAS_CUDA = torch.cuda.is_available()

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not HAS_CUDA and DEVICE != "cpu", reason="torch finds no CUDA GPU here"),
]
needs_cuda = pytest.mark.skipif(not HAS_CUDA, reason="torch finds no CUDA GPU here")

CELLS = [*((cell, "tanh") for cell in get_args(Cell)), ("rnn", "relu")]
DROPOUT = {"dropout": 0.2, "input_dropout": 0.1, "recurrent_dropout": 0.2}
TEXT = texts.english(20_000)


@pytest.fixture(autouse=True)
def _exact():
    """Compute in full float32, without TF32, to compare with the CPU."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def learner_of(trainer, device):
    """A learner for the run of a trainer, on a device."""
    training = trainer.training
    object.__setattr__(training, "device", device)
    made = Learner(trainer.corpus, trainer.model, training)
    torch.set_float32_matmul_precision("highest")
    made.network.train()
    return made


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize(("cell", "nonlinearity"), CELLS)
def test_twenty_steps_have_the_losses_of_the_cpu(prepare, cell, nonlinearity, members):
    options = {"cell": cell, "nonlinearity": nonlinearity, "members": members, "num_layers": 2}
    trainer = prepare(TEXT, steps=20, learning_rate=1e-3, **options)
    losses = []
    for device in ("cpu", DEVICE):
        learner = learner_of(trainer, device)
        steps = [learner.take_step(1.0) for _ in range(20)]
        losses.append([float(loss) / count for loss, count in steps])
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-4)


@pytest.mark.parametrize(("cell", "nonlinearity"), CELLS)
def test_logits_and_scores_are_those_of_the_engine_that_samples(prepare, cell, nonlinearity):
    trainer = prepare(TEXT, steps=20, cell=cell, nonlinearity=nonlinearity, num_layers=2)
    learner = learner_of(trainer, DEVICE)
    for _ in range(20):
        learner.take_step(1.0)
    engine = Engine(trainer.model, learner.network.export_weights())
    ids = np.array(trainer.corpus.vocabulary.encode(TEXT[:500]))
    inputs = shifted(ids, EOS_ID)
    network = learner.network.eval()
    with torch.no_grad():
        ids_BT = torch.from_numpy(inputs)[None].to(learner.device)
        logits_BTV, _ = network(ids_BT, network.initial_state(1))
    expected = engine.run(inputs, engine.initial_state())
    found = logits_BTV[0].cpu().numpy()
    np.testing.assert_allclose(found, np.asarray(expected), rtol=2e-3, atol=2e-4)
    measured = measure(network, text_windows(ids), learner.device, "float32")
    assert measured.loss == pytest.approx(-target_logprobs(expected, ids).mean(), rel=1e-3)


@pytest.mark.parametrize("drawing", DRAWING, ids=lambda drawing: "-".join(drawing) or "plain")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_samples_are_those_of_the_engine(kind, drawing):
    check_samples(torch.device(DEVICE), kind, drawing)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_scores_are_those_of_the_engine(kind):
    check_scores(torch.device(DEVICE), kind)


@pytest.mark.parametrize("streams", [2, 4096])
def test_the_same_seed_writes_the_same_text(streams):
    model = model_on(torch.device(DEVICE), model_of(cell="lstm", hidden_size=128, num_layers=2))
    options = {"num": streams, "seed": 4, "length": 30, "top_p": 0.95, "no_repeat": 9}
    found = [model.sample(**options, device="mps") for _ in range(2)]  # its name in the tests
    assert found[0] == found[1]


@needs_cuda
def test_a_block_of_steps_waits_once():
    model = model_on(torch.device("cuda"), model_of(cell="lstm", unit="byte"))
    options = {"num": 300, "seed": 4, "length": 200, "min_length": 200, "device": "mps"}
    model.sample(**options)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            found = model.sample(**options)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    most = max(len(sample.text.encode()) for sample in found)
    assert len(waits) <= 2 * (most / 32 + 2)


@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_a_run_continues_as_if_it_had_not_stopped(prepare, dtype):
    options = {"steps": 40, "device": DEVICE, "dtype": dtype, **DROPOUT}
    whole = prepare(TEXT, **options)
    expected = [e.val_loss for e in whole.run() if isinstance(e, events.Evaluated)]
    part = prepare(TEXT, **options)
    for event in part.run():
        if isinstance(event, events.Evaluated) and event.step >= 20:
            break
    part.run_directory.release()
    again = prepare_resume([], out=part.run_directory.path)
    found = [e.val_loss for e in again.run() if isinstance(e, events.Evaluated)]
    assert found == pytest.approx(expected[-len(found) :], rel=1e-4)


@needs_cuda
@pytest.mark.parametrize("documents", ["none", "line"])
def test_a_step_waits_for_nothing(prepare, documents):
    trainer = prepare(TEXT, steps=40, members=2, documents=documents, device="cuda", **DROPOUT)
    learner = trainer._learner
    learner.settle_dtype()
    learner.network.train()
    for _ in range(5):  # the first steps allocate
        learner.take_step(1.0)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            learner.take_step(1.0)
    finally:
        torch.cuda.set_sync_debug_mode(before)


@needs_cuda
@pytest.mark.parametrize("options", [{}, DROPOUT])
@pytest.mark.parametrize("cell", get_args(Cell))
def test_the_weights_lie_as_cudnn_wants_them(prepare, cell, options):
    trainer = prepare(TEXT, steps=5, cell=cell, num_layers=2, device="cuda", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in trainer.run():
            pass


@needs_cuda
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_learns_as_well(prepare, dtype):
    losses = {}
    for name in ("float32", dtype):
        trainer = prepare(TEXT, steps=60, dtype=name, hidden_size=64, device="cuda")
        finished = list(trainer.run())[-1]
        losses[name] = finished.val_loss
    assert losses[dtype] == pytest.approx(losses["float32"], abs=0.05)


@needs_cuda
def test_rows_are_halved_when_memory_is_too_small(prepare):
    trainer = prepare(TEXT * 20, steps=3, batch_size=512, bptt=256, hidden_size=1024, device="cuda")
    torch.cuda.empty_cache()
    used = torch.cuda.memory_allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((used + (2 << 30)) / total)
    found = []
    try:
        found.extend(trainer.run())
    except ConfigError:  # half of them are too many as well
        pass
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert [e.batch_size for e in found if isinstance(e, events.RowsHalved)] == [256]


@needs_cuda
def test_a_gpu_that_is_not_there_is_named():
    name = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ConfigError, match=f"{name} is not available"):
        choose_device(name)


@needs_cuda
def test_a_model_from_a_gpu_is_a_model_like_others(prepare):
    trainer = prepare(TEXT, steps=10, device="cuda", dtype="auto")
    for _ in trainer.run():
        pass
    saved = load_model(trainer.run_directory.model)
    assert saved.training["device"] == "cuda"
    assert all(array.dtype == np.float32 for array in saved.weights.values())
    assert len({name for name, _ in itertools.groupby(sorted(saved.weights))}) == len(saved.weights)
