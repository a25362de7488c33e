"""The rooms of the house: who may import whom, and what is imported when."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import charrnn

PACKAGE = Path(charrnn.__file__).parent

FLOORS = (
    {"errors"},
    {"config", "normalize", "rng"},
    {"vocab"},
    {"events", "storage"},
    {"corpus", "engine"},
    {"models"},
    {"batches"},
    {"sampling", "scoring"},
    {"export", "inspection", "training"},
    {"model"},
    {"api"},
    {"display"},
    {"cli"},
)
"""The rooms from the ground up (docs/design.md); a room imports only from lower floors."""

LAYERS = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

APART = {
    "model": {"training", "corpus"},
    "sampling": {"corpus"},
    "scoring": {"corpus"},
}
"""Rooms that are lower, and closed all the same: a model is used without what trained it."""

FACADE = "charrnn"
"""The package itself: its version for everybody, `api` for its users."""


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(name):
    """`charrnn.engine.cells` → `engine`; `charrnn` itself is the facade."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else FACADE


def imported_modules(path):
    """Names of all modules that a file imports, at the top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            base = node.module or ""
            if base == "charrnn":  # from charrnn import events
                for alias in node.names:
                    is_module = (PACKAGE / f"{alias.name}.py").exists() or (
                        PACKAGE / alias.name
                    ).is_dir()
                    yield f"charrnn.{alias.name}" if is_module else "charrnn"
            else:
                yield base


def asks_for_the_version_only(path):
    """Say whether a file imports nothing of the facade but `__version__`, beside modules."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import) and FACADE in {alias.name for alias in node.names}:
            return False
        if isinstance(node, ast.ImportFrom) and node.module == FACADE:
            names = {alias.name for alias in node.names} - set(LAYERS)
            if not names <= {"__version__"}:
                return False
    return True


def imports_own(path):
    return {name for name in imported_modules(path) if name.split(".")[0] == "charrnn"}


def imports_foreign(path):
    return {name.split(".")[0] for name in imported_modules(path)} - {"charrnn"}


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_a_module_imports_only_from_lower_layers(path):
    own = room(module_name(path))
    if own == FACADE:
        assert imports_own(path) <= {"charrnn.api", "charrnn.model"}
        return
    if own == "__main__":
        assert imports_own(path) == {"charrnn.cli"}
        return
    for name in imports_own(path):
        other = room(name)
        if other == own:
            continue
        if other == FACADE:
            assert own == "cli" or asks_for_the_version_only(path)
            continue
        assert LAYERS[other] < LAYERS[own], f"{own} may not import {other}"
        assert other not in APART.get(own, ()), f"{own} may not import {other}"


def test_there_are_no_circles_not_even_inside_a_room():
    """Files in an order in which each imports only from those before it.

    Nothing waits for the facade, which is asked for its version: it imports `api` when it is used.
    """
    names = {module_name(path) for path in modules()} - {FACADE}
    imports = {
        module_name(path): (imports_own(path) & names) - {module_name(path)} for path in modules()
    }
    while imports:
        free = {name for name, wanted in imports.items() if not wanted & set(imports)}
        assert free, f"these import each other: {sorted(imports)}"
        imports = {name: wanted for name, wanted in imports.items() if name not in free}


def test_the_packages_are_no_modules_themselves():
    """Each name is imported from the module that defines it; a package has a docstring only."""
    for path in PACKAGE.rglob("*/__init__.py"):
        body = ast.parse(path.read_text("utf-8")).body
        if path.parent.name != "cli":
            assert len(body) == 1, path


def test_every_room_is_in_the_table():
    rooms = {room(module_name(path)) for path in modules()} - {FACADE, "__main__"}
    assert rooms == set(LAYERS)


TORCH_ROOMS = {"models", "training", "scoring", "sampling", "inspection"}
"""Rooms that may import torch; of scoring, only dynamic evaluation does, of sampling, only what
draws on a device, of inspection, only gradients."""


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_torch_stays_in_the_rooms_that_train(path):
    if "torch" in imports_foreign(path) or "safetensors.torch" in set(imported_modules(path)):
        assert room(module_name(path)) in TORCH_ROOMS


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_only_the_display_is_rich(path):
    if "rich" in imports_foreign(path):
        assert room(module_name(path)) == "display"
    if "typer" in imports_foreign(path):
        assert room(module_name(path)) == "cli"


FILE_CALLS = {"open", "read_text", "write_text", "read_bytes", "write_bytes", "unlink", "mkdir"}


@pytest.mark.parametrize("path", sorted((PACKAGE / "display").glob("*.py")), ids=module_name)
def test_the_display_touches_neither_files_nor_tensors(path):
    assert not imports_foreign(path) & {"torch", "numpy", "safetensors", "os", "io", "shutil"}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            assert name not in FILE_CALLS


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_arrays_are_not_written_by_tofile(path):
    """NumPy's `tofile` drops the error of its last buffer: a full disk would cut texts short."""
    called = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    assert not any(isinstance(node, ast.Attribute) and node.attr == "tofile" for node in called)


# what a process has imported when it is done


def modules_after(code, cwd):
    """Names of the top-level modules that a fresh interpreter has after running `code`."""
    probe = f"""
import sys
try:
    {code}
except SystemExit as end:
    assert not end.code, end.code
print("\\nMODULES", *{{name.split(".")[0] for name in sys.modules}})
"""
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, cwd=cwd, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("MODULES")[2].split())


def command(*arguments):
    return f"sys.argv = {['charrnn', *map(str, arguments)]!r}; from charrnn.cli import main; main()"


@pytest.mark.parametrize(
    "code",
    ["import charrnn; charrnn.__version__", command("--help"), command("--version")],
    ids=["import charrnn", "--help", "--version"],
)
def test_what_must_be_quick_imports_nothing_heavy(code, tmp_path):
    found = modules_after(code, tmp_path)
    assert "charrnn" in found
    assert not found & {"torch", "numpy", "rich", "safetensors"}


@pytest.mark.parametrize("name", ["train", "sample", "score", "info", "inspect", "plot"])
def test_the_help_of_a_command_imports_neither_torch_nor_numpy(name, tmp_path):
    assert not modules_after(command(name, "--help"), tmp_path) & {"torch", "numpy"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("sample", "--length", 5),
        ("score", "abc"),
        ("info",),
        ("export", "-o", "page.html"),
        ("inspect", "--text", "ab", "--unit", 1),
    ],
    ids=["sample", "score", "info", "export", "inspect"],
)
def test_using_a_model_on_the_cpu_imports_no_torch(arguments, tiny_model_path, tmp_path):
    found = modules_after(command(*arguments, "-m", tiny_model_path), tmp_path)
    assert "numpy" in found
    assert "torch" not in found


def test_the_python_interface_comes_with_its_first_use(tiny_model_path, tmp_path):
    code = f"import charrnn; charrnn.load({str(tiny_model_path)!r}).sample(length=3, seed=1)"
    found = modules_after(code, tmp_path)
    assert "numpy" in found
    assert "torch" not in found
