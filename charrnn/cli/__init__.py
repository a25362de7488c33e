"""The command line: options → config → one call → exit code.

Heavy imports (NumPy, torch, rich) live inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; every outcome is an exit code, Ctrl-C while loading included."""
    try:
        from charrnn.cli.app import run

        code = run()
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # the terminal may be gone
            print("charrnn: interrupted", file=sys.stderr, flush=True)
        code = 130
    sys.exit(code)
