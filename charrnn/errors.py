"""Every error charrnn raises for its users.

    CharRNNError                 base; `exit_code` is what the command line returns
    ├── ConfigError              an option or setting outside its range    (ValueError, exit 2)
    ├── CorpusError              no text, unreadable or undecodable text          (ValueError)
    ├── UnknownCharacterError    text with characters the model never saw         (ValueError)
    ├── ModelFileError           not a model file, or one that contradicts itself (ValueError)
    ├── RunError                 a run directory that is taken or cannot be resumed
    ├── DivergenceError          training whose loss explodes again and again
    └── StorageError             a file, or stdout, that cannot be written

Each message is one sentence: what is wrong, where, and what to do about it.
Our own invariants are `assert`s, not members of this tree.
"""

from __future__ import annotations


class CharRNNError(Exception):
    """Base of the tree; caught once, in `charrnn.cli`."""

    exit_code = 1


class ConfigError(CharRNNError, ValueError):
    """An option or setting is outside its range.

    Args:
        problem: what is wrong. With a field, what follows its name: `must be at least 1, got 0`.
        field: the setting, as the Python keyword. The message begins with it; the command line
            puts the name of its own option there.
    """

    exit_code = 2

    def __init__(self, problem: str, *, field: str | None = None) -> None:
        """Keep the parts of the message."""
        super().__init__(problem if field is None else f"{field} {problem}")
        self.problem = problem
        self.field = field


class CorpusError(CharRNNError, ValueError):
    """The input text is missing, empty, unreadable or cannot be decoded."""


class UnknownCharacterError(CharRNNError, ValueError):
    """A text contains characters that are not in the model's vocabulary."""


class ModelFileError(CharRNNError, ValueError):
    """A file is not a charrnn model, or contradicts itself."""


class RunError(CharRNNError):
    """A run directory is already taken, or cannot be resumed."""


class DivergenceError(CharRNNError):
    """Training diverges even with a lowered learning rate."""


class StorageError(CharRNNError):
    """A file cannot be written: no space, no permission, not a directory."""
