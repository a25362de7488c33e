"""A GPU: training beside plain torch code and beside its own peak, scoring, sampling, whole runs.

    python benchmarks/gpu.py                          all, some minutes on a large GPU
    python benchmarks/gpu.py --text shakespeare.txt   and runs on a text of one and five minutes
    python benchmarks/gpu.py --tiny --device cpu      the same code in seconds, without value
    python benchmarks/gpu.py --json F                 write the figures as JSON, too

"share of peak" is the arithmetic of the matrix products of a step, as a share of what the device
does in a product of large square matrices in the same precision, measured in the same run. "plain"
is what one would write with torch alone: `nn.LSTM`, `nn.Linear`, fused AdamW, the same clipping and
precision, windows that are on the device already. charrnn scores and samples in float32. What the
machine cannot measure is said to be not measured.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import machine, side_by_side
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

import charrnn
from charrnn.batches.windows import Window
from charrnn.config import ModelConfig, SamplingConfig, TrainingConfig
from charrnn.engine.network import Engine
from charrnn.errors import ConfigError
from charrnn.models.device import choose_device
from charrnn.models.network import CharNetwork, Ensemble, detach
from charrnn.models.runner import Runner
from charrnn.sampling.device import sample_on
from charrnn.sampling.writer import Request, read_prompt
from charrnn.scoring.batch import score_many
from charrnn.scoring.rows import score_in_rows
from charrnn.scoring.scorer import Scorer
from charrnn.training.loss import measure, placed, text_windows, window_loss
from charrnn.training.optimizers import RENEWED_EVERY, build_optimizers
from charrnn.training.system import autocast, choose_dtype, load_torch
from charrnn.vocab import Vocabulary

VOCAB_SIZE, EMBEDDING_SIZE = 67, 32
Row = dict[str, Any]
Task = Callable[[], None]


@dataclass(frozen=True)
class Scale:
    """What is measured."""

    shapes: tuple[tuple[int, int, int, int], ...]
    """Layers, units, batch rows and window of training."""
    peak_size: int
    streams: tuple[int, ...]
    written: int
    """Characters that each stream writes."""
    read: int
    """Characters that are read without learning."""
    rounds: int


LARGE = Scale(
    shapes=((1, 256, 128, 64), (1, 512, 256, 64), (2, 1024, 512, 64), (3, 2048, 512, 64)),
    peak_size=8192,
    streams=(1, 64, 4096),
    written=256,
    read=2_000_000,
    rounds=5,
)
TINY = Scale(
    shapes=((1, 16, 4, 8), (3, 16, 4, 8)),
    peak_size=64,
    streams=(1, 4),
    written=4,
    read=2_000,
    rounds=1,
)


class Bench:
    """A device, a precision, and how to wait for the device."""

    def __init__(self, device: torch.device, scale: Scale) -> None:
        """Choose the precision as training does."""
        self.device, self.scale = device, scale
        self.dtype = choose_dtype(device, 512)

    def seconds(self, tasks: dict[str, Task]) -> dict[str, float]:
        """Return each task's median seconds, side by side, its work on the device included."""

        def finished(task: Task) -> Task:
            def run() -> None:
                task()
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)

            return run

        return side_by_side({n: finished(t) for n, t in tasks.items()}, self.scale.rounds)

    def peak(self) -> float:
        """Return the operations a second of a product of large square matrices."""
        n = self.scale.peak_size
        dtype = getattr(torch, self.dtype)
        a, b, out = (torch.randn(n, n, device=self.device).to(dtype) for _ in range(3))
        return 2 * n**3 / self.seconds({"mm": lambda: _drop(torch.mm(a, b, out=out))})["mm"]

    def training(self, peak: float) -> Iterator[Row]:
        """Yield how fast networks of several shapes train."""
        for layers, hidden, batch, window in self.scale.shapes:
            config = _config(layers, hidden)
            tasks = {"ours": self._our_step(config, batch, window)}
            tasks["plain"] = self._plain_step(config, batch, window)
            times = self.seconds({name: _repeated(task) for name, task in tasks.items()})
            n_chars = RENEWED_EVERY * batch * window
            products = sum(
                config.gates * hidden * (hidden + config.input_size(k)) for k in range(layers)
            )
            operations = 6 * n_chars * (products + hidden * VOCAB_SIZE)
            yield {
                "what": f"training {layers}×{hidden}, {batch}×{window}",
                "char_per_s": n_chars / times["ours"],
                "share_of_peak": operations / times["ours"] / peak,
                "plain_char_per_s": n_chars / times["plain"],
                "times_plain": times["plain"] / times["ours"],
            }

    def _our_step(self, config: ModelConfig, batch: int, window: int) -> Task:
        network = CharNetwork(config).to(self.device)
        optimizers = build_optimizers(network, TrainingConfig(steps=1))
        ids_BT = np.random.default_rng(0).integers(2, VOCAB_SIZE, (batch, window))
        text = Window(ids_BT, ids_BT, np.ones(batch, np.float32), ids_BT.size)
        state = network.initial_state(batch)

        def step() -> None:
            nonlocal state
            network.zero_grad(set_to_none=True)
            there = placed(text, self.device)
            loss, after = window_loss(network, there, state, self.device, self.dtype)
            torch.autograd.backward(loss / text.n_targets)
            nn.utils.clip_grad_norm_(list(network.parameters()), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            state = detach(after)

        return step

    def _plain_step(self, config: ModelConfig, batch: int, window: int) -> Task:
        network = Plain(config).to(self.device)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
        ids_BT = torch.randint(2, VOCAB_SIZE, (batch, window), device=self.device)
        state = network.initial_state(batch, self.device)

        def step() -> None:
            nonlocal state
            optimizer.zero_grad(set_to_none=True)
            with autocast(self.device, self.dtype):
                logits, after = network(ids_BT, state)
            loss = F.cross_entropy(logits.float().flatten(0, 1), ids_BT.flatten())
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(list(network.parameters()), 1.0)
            optimizer.step()
            state = tuple(part.detach() for part in after)

        return step

    def reading(self) -> Row:
        """Return how fast a text is read: on the device in rows, and by the engine in one."""
        hidden = self.scale.shapes[0][1]
        network = CharNetwork(_config(1, hidden)).to(self.device)
        ids = np.random.default_rng(0).integers(2, VOCAB_SIZE, self.scale.read).astype(np.uint16)
        engine = Engine(network.config, network.export_weights())
        few = ids[: min(len(ids), 20_000)]

        def on_device() -> None:
            measure(Ensemble([network]), text_windows(ids), self.device, self.dtype)

        times = self.seconds(
            {
                "device": on_device,
                "engine": lambda: _drop(engine.run(few.astype(np.int64), engine.initial_state())),
            }
        )
        return {
            "what": f"reading 1×{hidden}",
            "char_per_s": len(ids) / times["device"],
            "engine_char_per_s": len(few) / times["engine"],
        }

    def scoring(self) -> Iterator[Row]:
        """Yield how fast texts are scored on the device and by the engine: in rows, and lines."""
        hidden = self.scale.shapes[0][1]
        network = CharNetwork(_config(1, hidden))
        vocabulary = Vocabulary(map(chr, range(0x30, 0x30 + VOCAB_SIZE - 2)))
        n_few = min(self.scale.read, 100_000)
        text = vocabulary.decode(
            np.random.default_rng(0).integers(2, VOCAB_SIZE, self.scale.read).tolist()
        )
        weights = network.export_weights()
        there = Scorer(Runner(network.config, weights, self.device), vocabulary)
        here = Scorer(Engine(network.config, weights), vocabulary)
        rows = max(2, self.scale.streams[-1] // 4)

        def in_rows(scorer: Scorer, text: str) -> Task:
            return lambda: _drop(score_in_rows(scorer, [text], rows=rows, warmup=64))

        def lines(scorer: Scorer, text: str) -> Task:
            several = [text[k : k + 100] for k in range(0, len(text), 100)]
            return lambda: _drop(list(score_many(scorer, several)))

        for what, task in ((f"{rows:,} rows", in_rows), ("lines of 100", lines)):
            times = self.seconds({"device": task(there, text), "engine": task(here, text[:n_few])})
            yield {
                "what": f"scoring 1×{hidden}, {what}",
                "char_per_s": len(text) / times["device"],
                "engine_char_per_s": n_few / times["engine"],
            }

    def writing(self) -> Iterator[Row]:
        """Yield how fast streams are written: on the device, plainly there, and by the engine."""
        hidden = self.scale.shapes[-1 if len(self.scale.shapes) < 3 else 1][1]
        config = _config(1, hidden)
        network, plain = CharNetwork(config), Plain(config).to(self.device).eval()
        weights = network.export_weights()
        engine, runner = Engine(config, weights), Runner(config, weights, self.device)
        for streams in self.scale.streams:
            times = self.seconds(
                {
                    "plain": self._plain_writing(plain, streams),
                    "engine": self._engine_writing(engine, streams),
                    "device": self._device_writing(engine, runner, streams),
                }
            )
            n_chars = streams * self.scale.written
            yield {
                "what": f"writing 1×{hidden}, {streams:,} streams",
                "engine_char_per_s": n_chars / times["engine"],
                "plain_char_per_s": n_chars / times["plain"],
                "device_char_per_s": n_chars / times["device"],
            }

    def _plain_writing(self, network: Plain, streams: int) -> Task:
        @torch.no_grad()
        def write() -> None:
            ids_B1 = torch.ones(streams, 1, dtype=torch.int64, device=self.device)
            state = network.initial_state(streams, self.device)
            for _ in range(self.scale.written):
                with autocast(self.device, self.dtype):
                    logits_B1V, state = network(ids_B1, state)
                ids_B1 = torch.multinomial(logits_B1V[:, 0].float().softmax(-1), 1)
            ids_B1.cpu()

        return write

    def _device_writing(self, engine: Engine, runner: Runner, streams: int) -> Task:
        """Return what `charrnn sample --device` does: filters none, texts decoded and cut."""
        length = self.scale.written
        config = SamplingConfig(length=length, min_length=length, seed=0)
        vocabulary = Vocabulary(map(chr, range(0x30, 0x30 + VOCAB_SIZE - 2)))
        start = read_prompt(engine, np.zeros(0, np.int64))
        requests = [Request(start, "", 1.0, k) for k in range(streams)]
        return lambda: _drop(list(sample_on(runner, vocabulary, requests, config)))

    def _engine_writing(self, engine: Engine, streams: int) -> Task:
        random = np.random.default_rng(0)

        def write() -> None:
            state = engine.initial_state(streams)
            ids = np.ones(streams, np.int64)
            for _ in range(self.scale.written):
                logits = np.asarray(engine.step(ids, state), np.float32)
                weights = np.exp(logits - logits.max(-1, keepdims=True)).cumsum(-1)
                drawn = random.random((streams, 1), np.float32) * weights[:, -1:]
                ids = (weights < drawn).sum(-1)

        return write

    def runs(self, text: Path | None, times_s: tuple[float, ...]) -> Iterator[Row]:
        """Yield the validation loss after some time with default settings, in nats a character."""
        for time_s in times_s:
            row: Row = {"what": f"default settings, {time_s:g} s", "val_loss": None}
            with tempfile.TemporaryDirectory() as folder:
                if text is None and self.scale is TINY:
                    text = Path(folder) / "text.txt"
                    text.write_text("one two three four\n" * 500, "utf-8")
                if text is not None:
                    out, started = Path(folder) / "run", time.perf_counter()
                    model = charrnn.train(text, out=out, time_s=time_s, device=str(self.device))
                    row["val_loss"] = model.saved.training["val_loss_nats"]
                    row["seconds"] = time.perf_counter() - started
            yield row


class Plain(nn.Module):
    """A character model as one would write it with torch alone."""

    def __init__(self, config: ModelConfig) -> None:
        """Build it with torch's own initialisation."""
        super().__init__()
        self.shape = (config.num_layers, config.hidden_size)
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size)
        self.layers = nn.LSTM(
            config.embedding_size, config.hidden_size, config.num_layers, batch_first=True
        )
        self.output = nn.Linear(config.hidden_size, config.vocab_size)

    def initial_state(self, batch: int, device: torch.device) -> tuple[Tensor, ...]:
        """Return a zero state."""
        zeros = torch.zeros(self.shape[0], batch, self.shape[1], device=device)
        return zeros, zeros

    def forward(self, ids_BT: Tensor, state: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return logits and state."""
        y_BTH, after = self.layers(self.embedding(ids_BT), state)
        return self.output(y_BTH), after


def _config(layers: int, hidden: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=hidden,
        num_layers=layers,
        embedding_size=EMBEDDING_SIZE,
    )


def _repeated(step: Task) -> Task:
    """Return a task: the steps in which Muon's updates are recomputed once."""

    def task() -> None:
        for _ in range(RENEWED_EVERY):
            step()

    return task


def _drop(_: object) -> None:
    """Make a task of an expression."""


def show(row: Row) -> None:
    """Print one row."""
    figures = "  ".join(f"{name} {_figure(row[name])}" for name in row if name != "what")
    print(f"{row['what']:30s}  {figures}", flush=True)


def _figure(value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, mps or cpu")
    parser.add_argument("--tiny", action="store_true", help="a few seconds; figures without value")
    parser.add_argument(
        "--text", type=Path, help="a text for whole runs, as corpora/shakespeare.txt"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    load_torch()
    try:
        device = choose_device(arguments.device)
    except ConfigError as error:
        parser.exit(1, f"not measured: {error}\n")
    bench = Bench(device, TINY if arguments.tiny else LARGE)
    is_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if is_gpu else str(device)
    peak = bench.peak()
    print(f"{name}, {machine()}, torch {torch.__version__}")
    print(
        f"{bench.dtype}: {peak / 1e12:.3g} TFLOP/s in products of {bench.scale.peak_size} squared"
    )
    rows: list[Row] = []
    limits = (2.0,) if arguments.tiny else (60.0, 300.0)
    for found in (
        bench.training(peak),
        [bench.reading()],
        bench.scoring(),
        bench.writing(),
        bench.runs(arguments.text, limits),
    ):
        for row in found:
            rows.append(row)
            show(row)
    if arguments.json:
        record = {"device": name, "dtype": bench.dtype, "peak": peak, "rows": rows}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
