"""charrnn: character-level recurrent language models that train, write and score.

    import charrnn
    model = charrnn.train("shakespeare.txt", time_s=90)
    print(model.sample("ROMEO:\\n", temperature=0.8))
    print(model.score("To be, or not to be").bits_per_char)

Importing charrnn imports neither torch nor NumPy; they come with the first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from charrnn.api import load, merge, resume, train
    from charrnn.model import CharModel

__version__ = "0.1.0"
__all__ = ["CharModel", "__version__", "load", "merge", "resume", "train"]


def __getattr__(name: str) -> Any:
    """Import the Python interface when it is first used."""
    if name in ("CharModel", "load", "merge", "resume", "train"):
        from charrnn import api  # which knows CharModel as well

        return getattr(api, name)
    raise AttributeError(f"module 'charrnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name the Python interface before it is first used, too."""
    return sorted({*globals(), *__all__})
