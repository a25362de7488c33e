"""What a machine has and what charrnn would do with it: the facts of a bug report."""

from __future__ import annotations

import importlib.util
import locale
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from charrnn.engine.quantized import usable_cores
from charrnn.models.device import choose_device
from charrnn.storage.listing import list_runs
from charrnn.storage.runs import DEFAULT_ROOT
from charrnn.training.system import MIN_HIDDEN, choose_dtype, load_torch

LIBRARIES = ("numpy", "safetensors", "typer", "rich", "numkong")
VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
    "TERM", "COLORTERM", "COLUMNS", "NO_COLOR", "FORCE_COLOR", "LC_ALL", "LC_CTYPE", "LANG",
    "PYTHONUTF8", "PYTHONIOENCODING", "CHARRNN_DEBUG",
)  # fmt: skip
"""Environment variables that change what charrnn does."""


@dataclass(frozen=True, kw_only=True)
class Torch:
    """What torch offers.

    Attributes:
        version: empty where torch is not installed.
        problem: why it cannot be loaded, or what it failed at.
        devices: the names of the GPUs, by what `--device` calls them.
        device: the one that `--device auto` stands for.
        dtypes: the precisions of small networks and of others.
        smallest: the units from which the second one is used.
    """

    version: str = ""
    problem: str = ""
    threads: int = 0
    devices: Mapping[str, str]
    device: str = ""
    dtypes: tuple[str, str] = ("", "")
    smallest: int = MIN_HIDDEN


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The facts.

    Attributes:
        libraries: versions by name; empty for what is missing.
        blas: the library of NumPy's products, with its version.
        memory: in bytes; 0 where the system does not say.
        runs: the folder of the runs, the home directory written as ~.
        n_runs: how many there are.
        encodings: of the streams, of texts and of file names.
        terminals: the standard streams that are terminals.
        variables: environment variables that are set.
    """

    python: str
    libraries: Mapping[str, str]
    blas: str
    torch: Torch
    system: str
    processor: str
    cores: int
    usable_cores: int
    memory: int
    runs: str
    n_runs: int
    encodings: Mapping[str, str]
    terminals: tuple[str, ...]
    variables: Mapping[str, str]


def this_machine() -> Machine:
    """Return the facts of this machine and process; imports torch if it is installed."""
    streams = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
    encodings = {name: str(stream.encoding) for name, stream in streams.items() if stream}
    encodings["locale"] = locale.getpreferredencoding(False)
    encodings["file names"] = sys.getfilesystemencoding()
    return Machine(
        python=f"{platform.python_version()} ({platform.python_implementation()})",
        libraries={name: _version(name) for name in LIBRARIES},
        blas=_blas(),
        torch=_torch(),
        system=f"{platform.platform()} ({platform.machine()})",
        processor=_processor(),
        cores=os.cpu_count() or 1,
        usable_cores=usable_cores(),
        memory=_memory(),
        runs=without_home(DEFAULT_ROOT.absolute()),
        n_runs=len(list_runs()),
        encodings=encodings,
        terminals=tuple(name for name, stream in streams.items() if stream and stream.isatty()),
        variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
    )


def without_home(path: Path) -> str:
    """Return a path with the home directory, which has the user's name, written as ~."""
    try:
        homes = {Path.home(), Path.home().resolve()}
    except (RuntimeError, OSError):  # nobody's
        return str(path)
    for home in homes:
        if home != Path(home.anchor) and path.is_relative_to(home):
            return str(Path("~") / path.relative_to(home))
    return str(path)


def _version(name: str) -> str:
    """Return the version of a library; empty if it is not installed."""
    try:
        return version(name) if importlib.util.find_spec(name) else ""
    except PackageNotFoundError:
        return "of unknown version"


def _torch() -> Torch:
    found = _version("torch")
    if not found:
        return Torch(devices={})
    try:
        load_torch()
        import torch

        cuda = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
        devices = {f"cuda:{i}": torch.cuda.get_device_name(i) for i in cuda}
        if torch.backends.mps.is_available():
            devices["mps"] = platform.processor()
        device = choose_device("auto")
        small, large = (choose_dtype(device, n) for n in (MIN_HIDDEN - 1, MIN_HIDDEN))
        return Torch(
            version=torch.__version__,
            threads=torch.get_num_threads(),
            devices=devices,
            device=str(device),
            dtypes=(small, large),
        )
    except Exception as error:  # whatever a damaged installation or a driver raises
        return Torch(version=found, problem=f"{type(error).__name__}: {error}", devices={})


def _blas() -> str:
    try:
        import numpy as np

        config: Any = np.show_config(mode="dicts")
        blas = config["Build Dependencies"]["blas"]
        return f"{blas['name']} {blas['version']}"
    except (ImportError, LookupError, TypeError):
        return "unknown"


def _processor() -> str:
    """Return the name of the processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not every system says
        return 0
