"""Several processes that train one model: the same curve, the same files, one voice, no loss."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import texts
from conftest import posix

from charrnn.batches.documents import document_windows
from charrnn.batches.windows import IGNORE, Share, TextBatches, evaluation_windows
from charrnn.errors import ConfigError
from charrnn.training.checkpoint import read_record
from charrnn.training.distributed import _numbers
from charrnn.training.system import is_leader

PROMPTLY_S = 120
"""What takes longer hangs."""
SMALL = {
    "hidden_size": 12,
    "embedding_size": 6,
    "batch_size": 5,
    "bptt": 12,
    "dtype": "float32",
    "device": "cpu",
    "sample_every": 0,
    "learning_rate": 5e-3,
    "val_fraction": 0.1,
    "seed": 3,
}
"""Rows that two processes cannot share evenly."""
RUNS = {
    "stream": {"steps": 24},
    "stream of two members": {"steps": 24, "members": 2},
    "stream of three members": {"steps": 24, "members": 3},
    "documents": {"steps": 60, "documents": "line"},
    "documents of two members": {"steps": 60, "documents": "line", "members": 2},
    "documents from both sides": {"steps": 24, "documents": "line", "bidirectional": True},
    "dropout": {"steps": 24, "dropout": 0.3},
    "more processes than rows": {"steps": 12, "batch_size": 1},
    "a second": {"time_s": 1.5},
}
"""Settings by the name of the run directory."""
HALF_PRECISION = {"dtype": "float16", "cell": "gru", "num_layers": 2}
BROKEN = {
    "too large": {"steps": 24},
    "too large with two members": {"steps": 24, "members": 2},
    "overflow": {"steps": 24, **HALF_PRECISION},
    "overflow with two members": {"steps": 24, "members": 2, **HALF_PRECISION},
}
"""Runs in which the last process lacks memory, or has a gradient that is not finite."""
BREAKS_AT = 5
"""Step at which it does."""
HALF = 12
"""Steps after which some runs are stopped, to be continued by another number of processes."""


def work(folder):
    """What each of several processes does, one run after the other: see `RUNS`."""
    import hashlib

    import torch
    import torch.distributed as dist

    from charrnn.training.checkpoint import RunFiles
    from charrnn.training.prepare import prepare_resume, prepare_training

    torch.set_num_threads(1)
    sums: list[set[str]] = []
    save = RunFiles.save_state

    def save_and_compare(self, learner, record, metrics):
        save(self, learner, record, metrics)
        if dist.is_initialized() and not learner.by_members:
            digest = hashlib.sha256()
            for parameter in learner.network.parameters():
                digest.update(parameter.detach().numpy().tobytes())
            found = [None] * dist.get_world_size()
            dist.all_gather_object(found, digest.hexdigest())
            sums.append(set(found))

    RunFiles.save_state = save_and_compare
    rank = int(os.environ.get("RANK", "0"))

    def train(trainer, stop_at=None):
        learner, losses, rows = trainer._learner, [], set()
        take_step = learner.take_step

        def stepped(rate):
            loss, count = take_step(rate)
            losses.append(float(loss) / count)
            rows.add(len(learner.state[learner.own[0]][0][0]))
            if len(losses) == stop_at and rank == learner.group.size - 1:
                trainer.stop_requested = True
            return loss, count

        learner.take_step = stepped
        masks = [generator.get_state().sum().item() for generator in learner.generators]
        seen = [type(event).__name__ for event in trainer.run()]
        step = trainer._schedule.step
        progress = trainer._schedule.progress
        return {
            "losses": losses,
            "rows": sorted(rows),
            "events": seen,
            "masks": masks,
            "step": step,
            "progress": progress,
        }

    from charrnn.training import learner as learner_module
    from charrnn.training import probe

    probe.usable_device = lambda model, training: ("cpu", "")  # float16 is for GPUs otherwise

    def broken(name, trainer):
        """Let a step of the last process fail, once."""
        learner, backward = trainer._learner, learner_module.Learner._backward
        numbers = [BREAKS_AT]

        def failing(member, *given):
            is_last = rank == learner.group.size - 1 and member is learner.network.members[-1]
            if is_last and trainer._schedule.step == BREAKS_AT and numbers:
                numbers.pop()
                if "too large" in name:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                outcome = backward(learner, member, *given)
                next(member.parameters()).grad[0, 0] = torch.inf
                return outcome
            return backward(learner, member, *given)

        learner._backward = failing
        return trainer

    told = {}
    for name, settings in BROKEN.items():
        trainer = prepare_training(["text.txt"], {**SMALL, **settings}, out=folder / name)
        told[name] = train(broken(name, trainer))
        scalers = trainer._learner._scalers.values()
        told[name]["scales"] = [scaler.get_scale() for scaler in scalers]
    for name, settings in RUNS.items():
        trainer = prepare_training(["text.txt"], {**SMALL, **settings}, out=folder / name)
        told[name] = train(trainer)
    for name in ("stream", "documents", "stream of two members"):
        out = folder / f"half of {name}"
        trainer = prepare_training(["text.txt"], {**SMALL, **RUNS[name]}, out=out)
        told[out.name] = train(trainer, stop_at=HALF)
    given = Path("continue")
    for out in sorted(given.iterdir()) if given.is_dir() else ():
        told[f"continued {out.name}"] = train(prepare_resume([], out=out))
    told["different weights"] = [len(one) for one in sums if len(one) > 1]
    told["compared"] = len(sums)
    (folder / f"told-{rank}.json").write_text(json.dumps(told))


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def environment(rank, size, port):
    """What torchrun tells a process."""
    return {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


def start(folder, arguments, size):
    """Start processes that know of each other, and return them."""
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=folder,
            env=environment(rank, size, port) if size > 1 else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]


def ended(processes):
    """Wait for processes; return their exit codes and what each has written."""
    try:
        written = [process.communicate(timeout=PROMPTLY_S)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], written


def told(folder, rank=0):
    return json.loads((folder / f"told-{rank}.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder in which one process has made the runs in `one`, and two those in `two`.

    Two also continue what one has stopped; one then continues that of two.
    """
    folder = tmp_path_factory.mktemp("distributed")
    (folder / "text.txt").write_text(texts.english(6000), encoding="utf-8")
    script = [Path(__file__).absolute()]
    for name, size in (("one", 1), ("two", 2)):
        (folder / name).mkdir()
        codes, written = ended(start(folder, [*script, name], size))
        assert codes == [0] * size, written
        if size == 1:
            (folder / "continue").mkdir()
            for run in (folder / name).glob("half of *"):
                run.rename(folder / "continue" / run.name)
    return folder


def losses_of(folder, name, run, rank=0):
    return told(folder / name, rank)[run]["losses"]


@pytest.mark.parametrize("run", [name for name in RUNS if name not in ("dropout", "a second")])
def test_two_processes_have_the_loss_curve_of_one(trained, run):
    one, two = (losses_of(trained, name, run) for name in ("one", "two"))
    assert len(one) == RUNS[run]["steps"]
    np.testing.assert_allclose(two, one, rtol=2e-5)
    assert losses_of(trained, "two", run, rank=1) == two, "both know the losses of all rows"
    rows = [
        json.loads((trained / n / run / "metrics.jsonl").read_text().splitlines()[-1])
        for n in ("one", "two")
    ]
    assert rows[1]["val_loss_nats"] == pytest.approx(rows[0]["val_loss_nats"], rel=2e-5)
    assert rows[1]["temperature"] == pytest.approx(rows[0]["temperature"], abs=0.0011)
    assert rows[1]["epoch"] == rows[0]["epoch"]
    assert [row["processes"] for row in rows] == [1, 2]


def test_the_weights_of_two_processes_are_the_same_at_every_save(trained):
    for rank in range(2):
        record = told(trained / "two", rank)
        assert record["different weights"] == []
        assert record["compared"] > 10


def test_process_0_alone_speaks(trained):
    for run in RUNS:
        speaks, follows = (told(trained / "two", rank)[run] for rank in range(2))
        assert speaks["events"][0] == "Started"
        assert speaks["events"][-1] == "Finished"
        assert follows["events"] == []


def test_rows_or_members_are_shared_out(trained):
    def rows(run):
        return [told(trained / "two", rank)[run]["rows"][-1] for rank in range(2)]

    assert rows("stream") == [3, 2]
    assert rows("stream of three members") == [3, 2]
    assert rows("stream of two members") == [5, 5], "each has a member, with all rows"
    assert rows("more processes than rows") == [1, 0]


@pytest.mark.parametrize("run", ["too large", "too large with two members"])
def test_too_little_memory_in_one_process_halves_the_rows_of_all(trained, run):
    found = [told(trained / "two", rank)[run] for rank in range(2)]
    assert [one["events"].count("RowsHalved") for one in found] == [1, 0]
    assert all(one["step"] == 24 for one in found)
    assert all(one["rows"] for one in found)
    curves = [losses_of(trained, name, run)[-12:] for name in ("one", "two")]
    np.testing.assert_allclose(*curves, rtol=2e-5)
    state = trained / "two" / run / "resume.safetensors"
    assert read_record(state)["training"]["batch_size"] == SMALL["batch_size"] // 2


@pytest.mark.parametrize("run", ["overflow", "overflow with two members"])
def test_a_step_that_overflows_in_one_process_is_left_out_by_all(trained, run):
    """The gradients of all rows are one sum; a member of its own scales its own loss."""
    alone, *found = (told(trained / n, r)[run] for n, r in (("one", 0), ("two", 0), ("two", 1)))
    assert alone["scales"][-1] == 2.0**15, "once half of the scale that torch begins with"
    np.testing.assert_allclose(found[0]["losses"], alone["losses"], rtol=3e-3)
    saved = read_record(trained / "two" / run / "resume.safetensors")["scales"]
    assert [scale["scale"] for scale in saved] == alone["scales"]
    if "members" not in run:
        assert found[0]["scales"] == found[1]["scales"] == alone["scales"]


def test_a_limit_in_time_is_that_of_process_0(trained):
    one, two = (told(trained / "two", rank)["a second"] for rank in range(2))
    assert (one["step"], one["progress"]) == (two["step"], 1.0)
    assert one["losses"] == two["losses"]


def test_the_rows_of_each_process_have_dropout_masks_of_their_own(trained):
    alone = told(trained / "one")["dropout"]["masks"]
    first, second = (told(trained / "two", rank)["dropout"]["masks"] for rank in range(2))
    assert first == alone
    assert second != alone


def test_a_stop_in_one_process_stops_all(trained):
    for rank in range(2):
        found = told(trained / "two", rank)["half of stream"]
        assert found["step"] == HALF


@pytest.mark.parametrize("run", ["stream", "documents", "stream of two members"])
def test_two_processes_continue_what_one_has_begun(trained, run):
    whole = losses_of(trained, "one", run)
    rest = losses_of(trained, "two", f"continued half of {run}")
    assert len(rest) == len(whole) - HALF
    np.testing.assert_allclose(rest, whole[HALF:], rtol=5e-5)


@pytest.mark.parametrize("run", ["stream", "documents", "stream of two members"])
def test_one_process_continues_what_two_have_begun(trained, run):
    from charrnn.training.prepare import prepare_resume

    trainer, losses = prepare_resume([], out=trained / "two" / f"half of {run}"), []
    take_step = trainer._learner.take_step

    def stepped(rate):
        loss, count = take_step(rate)
        losses.append(float(loss) / count)
        return loss, count

    trainer._learner.take_step = stepped
    *_, last = trainer.run()
    assert last.step == RUNS[run]["steps"]
    np.testing.assert_allclose(losses, losses_of(trained, "one", run)[HALF:], rtol=5e-5)
    rows = (trained / "two" / f"half of {run}" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["processes"] == 1


# how they end


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run of two processes whose second one has been killed, and what both have written."""
    from charrnn.training.checkpoint import read_record

    folder = tmp_path_factory.mktemp("killed")
    (folder / "text.txt").write_text(texts.english(3000), encoding="utf-8")
    small = ("--hidden", 8, "--batch", 4, "--bptt", 8, "--dtype", "float32", "--device", "cpu")
    limit = ("--steps", 4000, "--val-fraction", 0.001)
    processes = start(folder, ["-m", "charrnn", "train", "text.txt", *limit, *small], 2)
    deadline = time.monotonic() + PROMPTLY_S
    resume = folder / "runs/text/resume.safetensors"
    while not (resume.exists() and read_record(resume)["schedule"]["step"]):
        assert time.monotonic() < deadline
        assert processes[0].poll() is None, processes[0].communicate()
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGKILL)
    return folder, *ended(processes)


@posix
def test_a_process_that_dies_ends_all_with_one_line(killed):
    _, codes, written = killed
    assert codes == [1, -signal.SIGKILL]
    said = [line for line in written[0].splitlines() if line.startswith("charrnn: ")]
    assert len(said) == 1, written[0]
    assert "another process of this training has ended" in said[0]
    assert "charrnn train --resume --out" in said[0]
    assert "Traceback" not in written[0]
    assert written[1] == "", "only process 0 speaks"


@posix
def test_its_run_can_be_resumed(killed):
    from charrnn.training.prepare import prepare_resume

    trainer = prepare_resume([], out=killed[0] / "runs" / "text")
    running = trainer.run()
    with contextlib.closing(running):
        assert next(running).resumed_at > 0


@posix
def test_torchrun_ends_a_run_in_good_order(tmp_path):
    """A signal to torchrun comes to both processes; an error is told by one of them."""
    (tmp_path / "text.txt").write_text(texts.english(3000), encoding="utf-8")
    small = ("--hidden", 8, "--batch", 4, "--bptt", 8, "--dtype", "float32", "--device", "cpu")
    begin = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    command = ["-m", "charrnn", "train", "text.txt", "--steps", 50000, *small]
    (process,) = start(tmp_path, [*begin, *command], 1)
    deadline = time.monotonic() + PROMPTLY_S
    while not (tmp_path / "runs/text/resume.safetensors").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, (written,) = ended([process])
    assert written.count("Interrupted after") == 1, written
    assert "2 × cpu (rows shared out)" in written
    assert "internal error" not in written
    assert (tmp_path / "runs/text/model.safetensors").exists()


# who is who


def test_a_process_knows_its_number():
    known = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"}
    assert _numbers(known) == (1, 2)
    for name in known:
        with pytest.raises(ConfigError, match=f"{name} is not set"):
            _numbers({**known, name: ""})
    for rank in ("2", "-1", "x"):
        with pytest.raises(ConfigError, match="RANK must be a number below WORLD_SIZE"):
            _numbers({**known, "RANK": rank})


@pytest.mark.parametrize("rank", [0, 1])
def test_wrong_usage_is_told_by_one(charrnn, monkeypatch, rank):
    monkeypatch.setattr("charrnn.cli.app.SILENCE_S", 0.0)
    world = {"WORLD_SIZE": "2", "RANK": str(rank)}
    found = [charrnn("train", *words, **world) for words in ((), ("--lrr", 1), ("x", "--lr", -1))]
    assert [one.code for one in found] == [2, 2, 2]
    assert all(one.err.startswith("charrnn: ") == (rank == 0) for one in found)
    assert rank == 0 or not any(one.err or one.out for one in found)


def test_only_the_first_process_leads(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert is_leader()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert not is_leader()


# the windows of a share


def together(shares):
    """The rows of several processes' windows, as one process would have them."""
    targets = shares[0].targets_BT.shape[1]
    readers_A = shares[0].readers_A
    found = np.empty((len(readers_A), 3, targets), np.int64)
    for rank, window in enumerate(shares):
        for k, array in enumerate((window.inputs_BT, window.targets_BT)):
            found[readers_A == rank, k] = array
        found[readers_A == rank, 2] = window.keep_B[:, None]
    return found


@pytest.mark.parametrize("size", [2, 3, 7])
def test_shares_of_a_text_are_its_windows(size):
    ids = np.random.default_rng(0).integers(2, 9, 900).astype(np.uint8)
    settings = {"newline_id": 2, "batch_size": 5, "bptt": 7, "unknown_rate": 0.2, "seed": 1}
    whole = TextBatches(ids, **settings)
    parts = [TextBatches(ids, **settings, share=Share(rank, size)) for rank in range(size)]
    for _ in range(60):
        window, shares = whole.next_window(), [part.next_window() for part in parts]
        assert {share.n_targets for share in shares} == {window.n_targets}
        found = together(shares)
        np.testing.assert_array_equal(found[:, 0], window.inputs_BT)
        np.testing.assert_array_equal(found[:, 1], window.targets_BT)
        np.testing.assert_array_equal(found[:, 2, 0], window.keep_B)
    assert all(part.state_dict() == whole.state_dict() for part in parts)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_shares_of_documents_carry_the_rows_of_their_own(size):
    """Each id is a target once, and a row that continues has its own predecessor's state."""
    rng = np.random.default_rng(1)
    ends = np.cumsum(rng.integers(1, 40, 50))
    spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
    ids = np.arange(2, ends[-1] + 2)
    shares = [
        document_windows(
            ids, spans, batch_size=5, bptt=8, rng=np.random.default_rng(2), share=Share(r, size)
        )
        for r in range(size)
    ]
    seen: list[int] = []
    carried: list[np.ndarray] = [np.zeros(0)] * size
    for windows in zip(*shares, strict=True):
        n_targets = 0
        for rank, window in enumerate(windows):
            counted = window.targets_BT[window.targets_BT != IGNORE]
            seen += counted.tolist()
            n_targets += len(counted)
            if window.stateless:
                continue
            before = carried[rank]
            if window.rows_B is not None:
                before = before[window.rows_B]
            after = window.targets_BT.max(axis=1, initial=0)
            for b in np.flatnonzero(window.keep_B):
                assert before[b] + 1 == window.targets_BT[b, 0]
            carried[rank] = after
        assert {window.n_targets for window in windows} == {n_targets}
    assert sorted(seen) == ids.tolist()


@pytest.mark.parametrize("size", [2, 5])
def test_shares_of_an_evaluation_count_every_character_once(size):
    ids = np.arange(2, 302)
    settings = {"batch_size": 4, "bptt": 16, "warmup": 10}
    shares = [evaluation_windows(ids, **settings, share=Share(r, size)) for r in range(size)]
    seen: list[int] = []
    for windows in zip(*shares, strict=True):
        counted = [w.targets_BT[w.targets_BT != IGNORE] for w in windows]
        seen += np.concatenate(counted).tolist()
        assert {w.n_targets for w in windows} == {sum(map(len, counted))}
    assert sorted(seen) == ids.tolist()


if __name__ == "__main__":
    work(Path(sys.argv[1]).absolute())
