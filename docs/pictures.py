"""Makes the pictures of the README anew from the program itself: `make pictures`.

Needs Chromium.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import charrnn

HERE = Path(__file__).parent
WIDTH, HEIGHT = 860, 760


def main() -> None:
    """Write `page.png`, the page of the bundled model after it has written."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as control:
        page = charrnn.load("builtin").export(
            Path(folder) / "page.html", title="A small Shakespeare", prompt="ROMEO:\n"
        )
        browser = control.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        tab.goto(page.as_uri())
        tab.wait_for_selector("#start:not([disabled])")
        tab.fill("#length", "400")
        tab.click("#start")
        tab.wait_for_selector("#stop[disabled]", state="attached")
        tab.screenshot(path=HERE / "page.png")
        browser.close()


if __name__ == "__main__":
    main()
