"""Characters per second that an exported page writes in headless Chromium, beside our engine.

    python benchmarks/page.py            # needs Chromium and the `browser` extra

Random weights: the time does not depend on them. Both write the same text, one after the other, in
one run.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from charrnn.config import ModelConfig
from charrnn.model import CharModel
from charrnn.storage.model_file import SavedModel
from charrnn.vocab import EOS_ID, Vocabulary

SHAPES = {"1x256": (1, 256, 1), "2x512": (2, 512, 1), "4 members of 1x384": (1, 384, 4)}
ALPHABET = [chr(code) for code in range(32, 95)]


def make(layers: int, hidden: int, members: int) -> CharModel:
    """Return a model of random weights that never ends a text."""
    vocabulary = Vocabulary(ALPHABET)
    config = ModelConfig(
        vocab_size=len(vocabulary), hidden_size=hidden, num_layers=layers, members=members
    )
    rng = np.random.default_rng(1)
    weights = {
        name: (rng.standard_normal(shape) / np.sqrt(hidden)).astype(np.float32)
        for name, shape in config.weight_shapes().items()
    }
    weights["output.bias"][..., EOS_ID] = -50
    return CharModel(SavedModel(config=config, vocabulary=vocabulary, training={}, weights=weights))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="for each figure, about")
    seconds = parser.parse_args().seconds
    print(f"{'shape':20} {'page MB':>8} {'page char/s':>12} {'engine char/s':>14}")
    with sync_playwright() as control, tempfile.TemporaryDirectory() as folder:
        browser = control.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, shape in SHAPES.items():
            model = make(*shape)
            path = model.export(Path(folder) / f"{shape}.html")
            tab = browser.new_page()
            tab.goto(path.as_uri())
            tab.wait_for_selector("#settings:not([disabled])")
            length = 1000
            while True:
                tab.fill("#length", str(length))
                begun = time.perf_counter()
                tab.click("#start")
                tab.wait_for_selector("#stop[disabled]", state="attached", timeout=600_000)
                speed = length / (time.perf_counter() - begun)
                if length >= speed * seconds * 0.7:
                    break
                length = int(speed * seconds)
            tab.close()
            begun = time.perf_counter()
            model.sample(length=length, seed=1, temperature=0.8)
            ours = length / (time.perf_counter() - begun)
            megabytes = path.stat().st_size / 1e6
            print(f"{name:20} {megabytes:8.2f} {speed:12,.0f} {ours:14,.0f}", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
