"""Characters per second that an exported page writes in headless Chromium, beside our engine.

    python benchmarks/page.py            # needs Chromium and the `browser` extra

Random weights: the time does not depend on them. "plain" is the page without WebAssembly, as in a
browser whose WebAssembly has no vectors. All write the same text, one after the other, in one run.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, sync_playwright

from charrnn.config import ModelConfig
from charrnn.model import CharModel
from charrnn.storage.model_file import SavedModel
from charrnn.vocab import EOS_ID, Vocabulary

SHAPES = {"1x256": (1, 256, 1), "2x512": (2, 512, 1), "4 members of 1x384": (1, 384, 4)}
VECTORS = "if (!WebAssembly.validate(bytes))"
"""Where a page chooses plain JavaScript."""
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


def page_speed(browser: Browser, path: Path, seconds: float) -> tuple[float, int]:
    """Return the characters a second that a page writes, and how many it wrote."""
    tab = browser.new_page()
    tab.goto(path.as_uri())
    tab.wait_for_selector("#settings:not([disabled])")
    length = 500
    while True:
        tab.fill("#length", str(length))
        begun = time.perf_counter()
        tab.click("#start")
        tab.wait_for_selector("#stop[disabled]", state="attached", timeout=600_000)
        speed = length / (time.perf_counter() - begun)
        if length >= speed * seconds * 0.7:
            tab.close()
            return speed, length
        length = int(speed * seconds)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="for each figure, about")
    seconds = parser.parse_args().seconds
    print(f"{'':20} {'':8} {'char/s: page':>13} {'page, plain':>13} {'engine':>13}")
    with sync_playwright() as control, tempfile.TemporaryDirectory() as folder:
        browser = control.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, shape in SHAPES.items():
            model = make(*shape)
            path = model.export(Path(folder) / "page.html", force=True)
            plain = Path(folder) / "plain.html"
            source = path.read_text(encoding="utf-8")
            assert VECTORS in source
            plain.write_text(source.replace(VECTORS, "if (true)"), encoding="utf-8")
            speed, length = page_speed(browser, path, seconds)
            slow, _ = page_speed(browser, plain, seconds)
            begun = time.perf_counter()
            model.sample(length=length, seed=1, temperature=0.8)
            ours = length / (time.perf_counter() - begun)
            size = f"{path.stat().st_size / 1e6:.2f} MB"
            print(f"{name:20} {size:>8} {speed:13,.0f} {slow:13,.0f} {ours:13,.0f}", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
