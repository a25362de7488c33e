"""Pictures and pages that a command writes beside its report: `-o FILE.png|.svg|.html`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import charrnn.cli.options as options
from charrnn.errors import CharRNNError, ConfigError

if TYPE_CHECKING:
    from charrnn.display.charts import Chart

KINDS = ("png", "svg", "html")

OUT = options.output(
    None,
    "--out -o",
    "Also write a picture, FILE.png or FILE.svg, or a page, FILE.html.",
    metavar="FILE",
    parser=options.path_name,
    show_default="none",
)
FORCE = options.output(False, "--force", "Replace the file if it exists.")


def check_picture(out: Path | None, *, force: bool, only_page: bool = False) -> None:
    """See that a picture can be drawn and its file be written, before there is work to lose.

    Args:
        out: the file; None for no picture.
        force: it may exist.
        only_page: it is made without matplotlib, and a page.

    Raises:
        ConfigError: it has another ending, exists, or lies in the directory of a run.
        CharRNNError: matplotlib is missing.
    """
    import importlib.util

    from charrnn.storage.runs import require_new_file

    if out is None:
        if force:
            raise ConfigError("--force needs -o: name the file to replace")
        return
    kind = out.suffix.removeprefix(".").lower()
    if kind not in KINDS:
        raise ConfigError(f"must end with .png, .svg or .html, got {out}", field="out")
    if only_page and kind != "html":
        raise ConfigError(
            f"names {out}, and a coloured text is a page: name a FILE.html", field="out"
        )
    require_new_file(out, force=force)
    if not only_page and importlib.util.find_spec("matplotlib") is None:
        raise CharRNNError(
            "matplotlib is missing, which draws pictures: install it with pip install matplotlib"
        )


def write_picture(chart: Chart, out: Path, model: str) -> None:
    """Draw a chart into a file; before the report, whose reader may leave early (`| head`).

    Raises:
        StorageError: the file cannot be written.
    """
    import io

    from charrnn.display import pictures
    from charrnn.storage.atomic import atomic_writer

    kind = out.suffix.removeprefix(".").lower()
    drawn = io.BytesIO()
    pictures.draw(chart, drawn, "svg" if kind == "html" else kind, in_page=kind == "html")
    data = drawn.getvalue()
    if kind == "html":
        page = pictures.page(chart, data.decode("utf-8"), model)
        data = page.encode("utf-8", "replace")
    with atomic_writer(out, follow_links=True) as file:
        file.write(data)


def say_written(out: Path | None) -> None:
    """Say after the report that there is a picture or page; nothing without one."""
    from charrnn.display.terminal import say

    if out is not None:
        say(f"{'page' if out.suffix.lower() == '.html' else 'picture'} {out}")
