"""The command line: options → config → one call → exit code.

Heavy imports (NumPy, torch) live inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; Ctrl-C while it is being loaded is no traceback either."""
    try:
        from charrnn.cli.app import main as run
    except KeyboardInterrupt:
        print("charrnn: interrupted", file=sys.stderr)
        sys.exit(130)
    run()
