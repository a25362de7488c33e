"""The command line: options → config → one call → exit code.

Heavy imports (NumPy, torch) live inside the commands, so that `--help` answers at once.
"""

from charrnn.cli.app import main

__all__ = ["main"]
