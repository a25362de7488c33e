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
        from charrnn.training.system import is_leader

        with contextlib.suppress(OSError):  # the terminal may be gone
            if not is_leader():
                sys.exit(130)
            print("charrnn: interrupted", file=sys.stderr, flush=True)
        code = 130
    sys.exit(code)
