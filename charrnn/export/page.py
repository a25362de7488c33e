"""One web page that writes and scores: a model, and a player for it that asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
from typing import Any

from charrnn import __version__
from charrnn.config import CELL_NAMES, StoredPrecision
from charrnn.errors import ConfigError
from charrnn.export.heat import asset, legend, script_json, style
from charrnn.export.weights import packed_arrays
from charrnn.storage.model_file import SavedModel

MAX_BYTES = 50_000_000
WORKER = ("writing.js", "kernel.js", "network.js", "worker.js")
"""In their order: each uses what stands above it."""


def model_page(
    saved: SavedModel,
    *,
    title: str,
    prompt: str = "",
    precision: StoredPrecision = "float16",
) -> str:
    """Return the page.

    Args:
        saved: the model.
        title: what stands at its top.
        prompt: what stands in its field for the beginning.
        precision: of the weights in the page; it computes in float32.

    Raises:
        ConfigError: the page would be larger than `MAX_BYTES`.
    """
    arrays: dict[str, Any] = {}
    blocks, end = [], 0
    for name, _, packed in packed_arrays(saved, precision):
        begin, end = end, end + len(packed.data)
        arrays[name] = {"dtype": packed.dtype, "rows": packed.rows, "bytes": [begin, end]}
        blocks.append(packed.data)
    size = end * 4 // 3
    if size > MAX_BYTES:
        smaller = "" if precision == "int8" else "--precision int8, or "
        raise ConfigError(
            f"the page would have {size / 1e6:.0f} MB, more than a browser should be given: use "
            f"{smaller}a model of fewer or smaller networks"
        )
    config, made_by = saved.config, __version__
    record = {
        "network": {
            "cell": config.cell,
            "nonlinearity": config.nonlinearity,
            "layers": config.num_layers,
            "hidden": config.hidden_size,
            "members": config.members,
            "vocab": config.vocab_size,
        },
        "vocabulary": saved.vocabulary.to_dict(),
        "normalize": saved.text.normalize,
        "documents": saved.text.documents != "none",
        "lines": saved.text.documents == "line",
        "arrays": arrays,
    }
    script = asset("heat.js") + asset("page.js")
    return asset("page.html").format(
        policy=_policy(script),
        version=made_by,
        title=html.escape(title),
        about=html.escape(about(saved)),
        prompt=html.escape(prompt),
        question="How surprising is each line?"
        if record["lines"]
        else "How surprising is this text?",
        legend=legend(),
        footer=f"Made with charrnn {made_by}. The model is in this page: it asks no "
        "network for anything, and what you type stays here.",
        style=style() + asset("page.css"),
        model=script_json(record),
        weights=base64.b64encode(b"".join(blocks)).decode("ascii"),
        worker="".join(map(asset, WORKER)),
        script=script,
    )


def about(saved: SavedModel) -> str:
    """Return what the model is and what it has learned from, without a path."""
    config = saved.config
    networks = "One network" if config.members == 1 else f"{config.members} networks"
    layers = "one layer" if config.num_layers == 1 else f"{config.num_layers} layers"
    shape = (
        f"{networks} of {layers} of {config.hidden_size} {CELL_NAMES[config.cell]} units, "
        f"{config.num_parameters():,} weights"
    )
    corpus = saved.training.get("corpus")
    if not isinstance(corpus, dict) or not isinstance(corpus.get("name"), str):
        return f"{shape}."
    read = f"trained on {corpus['name']}"
    if isinstance(corpus.get("n_chars"), int):
        read += f", {corpus['n_chars']:,} characters"
    return f"{shape}; {read}."


def _policy(script: str) -> str:
    """Return a policy under which the page runs its own scripts only and asks nobody."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return (
        f"default-src 'none'; script-src 'sha256-{digest}' 'wasm-unsafe-eval' blob:; "
        "worker-src blob:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )
