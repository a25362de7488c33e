"""`charrnn sample`."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from charrnn.cli.options import MODEL, open_model
from charrnn.config import SamplingConfig


def sample(
    model: Path = MODEL,
    prompt: str = typer.Option("", "--prompt", "-p", help="Text to continue."),
    temperature: float = typer.Option(
        SamplingConfig.temperature,
        "--temp",
        "-t",
        help="Below 1 more careful, above 1 more daring; 0 always the most probable.",
    ),
    length: int = typer.Option(
        SamplingConfig.length, "--length", "-n", help="Most characters to write."
    ),
    seed: int = typer.Option(None, show_default="fresh", help="Same seed, same text."),
    stream: bool = typer.Option(
        True, "--stream/--no-stream", help="Write each character at once, or all at the end."
    ),
) -> None:
    """Write new text like the training text, to stdout."""
    from charrnn.api import fresh_seed

    if seed is None:
        seed = fresh_seed()
    config = SamplingConfig(temperature=temperature, length=length, seed=seed)
    loaded = open_model(model)
    characters = loaded.stream(
        prompt, temperature=config.temperature, length=config.length, seed=config.seed
    )
    print(f"seed {config.seed}", file=sys.stderr, flush=True)
    last = prompt
    try:
        if stream:
            sys.stdout.write(prompt)
            for last in characters:
                sys.stdout.write(last)
                sys.stdout.flush()
        else:
            last = prompt + "".join(characters)
            sys.stdout.write(last)
    finally:
        if not last.endswith("\n"):
            sys.stdout.write("\n")
