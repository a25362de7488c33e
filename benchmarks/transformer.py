"""charrnn beside a small transformer that trains for the same seconds on the same machine.

    python benchmarks/transformer.py TEXT... --time 60

The transformer has the shape and settings that are usual for one on a CPU: 4 layers of
128 with 4 heads, windows of 64 characters, 12 at a time, AdamW at 1e-3, warm-up over 100 steps and
a cosine down to a tenth, weight decay 0.1, clipping at 1, no dropout. It takes as many steps as fit
into the time. charrnn runs with its defaults for the same time.

The last tenth of each text is the validation part. Losses are in nats per character. Both are
measured on the same windows of 64 characters, read without what came before (`windows`), which is
how such a transformer is measured; charrnn also with carried state over the whole (`carried`).
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import machine
from quality import split
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from charrnn.api import train

LAYERS, HEADS, WIDTH, WINDOW, BATCH = 4, 4, 128, 64, 12
RATE, FINAL_RATE, WARMUP_STEPS = 1e-3, 1e-4, 100
WINDOWS = 1000
"""Validation windows that both are measured on."""


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, each after layer normalisation."""

    def __init__(self) -> None:
        """Initialise as torch does."""
        super().__init__()
        self.before_attention, self.before_feeding = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attend, self.mix = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.feed = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x_BTW: Tensor) -> Tensor:
        """Return `[B, T, W]`."""
        b, t, w = x_BTW.shape
        parts = self.attend(self.before_attention(x_BTW)).view(b, t, 3, HEADS, w // HEADS)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTW = x_BTW + self.mix(mixed.transpose(1, 2).reshape(b, t, w))
        fed: Tensor = x_BTW + self.feed(self.before_feeding(x_BTW))
        return fed


class Transformer(nn.Module):
    """Characters in, logits of the next characters out."""

    def __init__(self, vocab_size: int) -> None:
        """Draw all weights with a deviation of 0.02."""
        super().__init__()
        self.characters, self.places = nn.Embedding(vocab_size, WIDTH), nn.Embedding(WINDOW, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)), nn.LayerNorm(WIDTH))
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Return `[B, T, V]`; the output weights are those of the embedding."""
        places = torch.arange(ids_BT.shape[1])
        x_BTW = self.blocks(self.characters(ids_BT) + self.places(places))
        return F.linear(x_BTW, self.characters.weight)


def loss_of(network: Transformer, ids: Tensor, starts: Tensor) -> Tensor:
    """Return the mean loss in the windows that begin at `starts`."""
    windows = ids[starts.unsqueeze(1) + torch.arange(WINDOW + 1)]
    logits = network(windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def train_transformer(train: str, validation: str, starts: Tensor, seconds: float) -> float:
    """Train for so many seconds and return the validation loss."""
    began = time.monotonic()
    torch.manual_seed(0)
    numbers = {c: k for k, c in enumerate(sorted(set(train)))}
    ids = torch.tensor([numbers[c] for c in train])
    network = Transformer(len(numbers))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.1, fused=True
    )
    step = 0
    while (done := (time.monotonic() - began) / seconds) < 1:
        rate = FINAL_RATE + (RATE - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * done))
        optimizer.param_groups[0]["lr"] = min(rate, RATE * (step + 1) / WARMUP_STEPS)
        loss = loss_of(network, ids, torch.randint(len(ids) - WINDOW, (BATCH,)))
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
    with torch.no_grad():
        known = torch.tensor([numbers.get(c, 0) for c in validation])
        return float(loss_of(network, known, starts))


def train_charrnn(
    text: Path, held_out: Path, starts: list[int], seconds: float
) -> tuple[float, float]:
    """Train with the defaults for so many seconds; return the losses in windows and carried."""
    with tempfile.TemporaryDirectory() as folder:
        model = train(
            text, out=Path(folder) / "run", held_out=[held_out], time_s=seconds, sample_every=0
        )
    validation = held_out.read_text("utf-8")
    whole = model.score(validation, eos=False)
    total = count = 0.0
    for start in starts:  # the first character is context, as for the transformer
        piece = validation[start : start + WINDOW + 1]
        score = model.score(piece[1:], context=piece[0], eos=False)
        total, count = total + score.logprob, count + score.n_scored
    return -total / count, -whole.logprob / whole.n_scored


def main() -> None:
    """Compare on every text."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--time", type=float, default=60.0, help="seconds for each")
    arguments = parser.parse_args()
    print(machine())
    for text in arguments.texts:
        with tempfile.TemporaryDirectory() as name:
            train, held_out = split(text, None, Path(name))
            validation = held_out.read_text("utf-8")
            starts = np.random.default_rng(0).integers(len(validation) - WINDOW, size=WINDOWS)
            theirs = train_transformer(
                train.read_text("utf-8"), validation, torch.from_numpy(starts), arguments.time
            )
            windows, carried = train_charrnn(train, held_out, starts.tolist(), arguments.time)
        print(
            f"{text.name:28s} {len(validation) * 10:>10,} characters  transformer {theirs:.4f}  "
            f"charrnn windows {windows:.4f}  carried {carried:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
