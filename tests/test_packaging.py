"""The wheel as others install it: what is in it, how it works without torch, what goes with it."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import yaml
from conftest import CRASH, bash, needs

import charrnn

ROOT = Path(__file__).parents[1]
PACKAGE = Path(charrnn.__file__).parent
FOLDERS = ("tests", "docs", "corpora", "benchmarks", "runs")
"""Folders of the checkout that nobody installs."""


def run(command, cwd, code=0):
    """Run a command outside the checkout and return what it wrote to both streams."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "CHARRNN_DEBUG")
    variables = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=variables, check=False,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


def build(source, folder, *options):
    out, err = run(
        [sys.executable, "-W", "error", "-m", "hatchling", "build", "-d", folder, *options], source
    )
    assert "warning" not in (out + err).lower()
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the wheel and the sdist."""
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def wheel(built):
    """The wheel."""
    (path,) = built.glob("*.whl")
    return path


def names_in(wheel):
    return set(zipfile.ZipFile(wheel).namelist())


def files_under(folder):
    """The files under a folder of the checkout that belong to it."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts}


def test_the_wheel_has_the_package_whole_and_nothing_else(wheel):
    names = names_in(wheel)
    package = {name for name in names if name.startswith("charrnn/")}
    assert package == files_under(PACKAGE)
    parts = ("py.typed", "storage/builtin.safetensors", "export/page.html", "display/page.css")
    assert {f"charrnn/{name}" for name in parts} <= package
    about = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    shared = {f"data/share/{name}" for name in generator().FILES}
    assert {name.partition("/")[2] for name in names - package} == about | shared


def test_the_sdist_makes_the_same_wheel(built, wheel, tmp_path):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = [Path(name) for name in file.getnames()]
        file.extractall(tmp_path, **({"filter": "data"} if sys.version_info >= (3, 12) else {}))
    assert not {name.parts[1] for name in names} & set(FOLDERS)
    build(tmp_path / names[0].parts[0], tmp_path / "dist", "-t", "wheel")
    (again,) = (tmp_path / "dist").glob("*.whl")
    assert again.read_bytes() == wheel.read_bytes()


def metadata(wheel):
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith("METADATA"))
        return email.message_from_bytes(file.read(name))


def test_the_metadata_claims_what_is_so(wheel):
    about = metadata(wheel)
    assert about["Version"] == charrnn.__version__
    assert about["Name"].lower().replace("-", "").replace("_", "") != "charrnn"
    assert "Project-URL" not in about  # there is no page yet
    oldest = tuple(map(int, about["Requires-Python"].removeprefix(">=").split(".")))
    claimed = [c.rpartition(" ")[2] for c in about.get_all("Classifier") if " :: 3." in c]
    assert claimed
    assert all(tuple(map(int, python.split("."))) >= oldest for python in claimed)
    assert set(claimed) <= set(workflow("ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"])


def test_nobody_is_told_to_install_another_project():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob(".github/**/*.*")]
    for path in (*pages, *PACKAGE.rglob("*.py")):
        text = path.read_text("utf-8")
        assert not re.search(r"(pipx?|uv|tool) (install|add) (-\S+ )*charrnn\b(?!-)", text), path


# in an environment of its own


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The wheel in an environment that has the other libraries of this one, and no torch."""
    pytest.importorskip("pip")
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    scheme = "venv" if "venv" in sysconfig.get_scheme_names() else None
    names = {"base": str(folder), "platbase": str(folder)}
    paths = sysconfig.get_paths(scheme or sysconfig.get_default_scheme(), names)
    python = Path(paths["scripts"]) / f"python{'.exe' if os.name == 'nt' else ''}"
    run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps",
         "--no-index", "--disable-pip-version-check", wheel],
        folder,
    )  # fmt: skip
    others = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    hook = "import sys; sys.modules['torch'] = None"  # as if it were not installed
    Path(paths["purelib"], "others.pth").write_text("\n".join([*others, hook, ""]), "utf-8")
    return folder, python, Path(paths["scripts"]) / "charrnn"


@pytest.fixture
def installed_charrnn(installed, tmp_path):
    """Run the installed command in an empty folder."""
    return lambda *words, code=0: run([installed[2], *words], tmp_path, code)


def test_the_installed_package_is_the_one_of_the_wheel(installed, tmp_path):
    folder, python, _ = installed
    out, _ = run([python, "-c", "import charrnn; print(charrnn.__file__)"], tmp_path)
    assert Path(out.strip()).resolve().is_relative_to(folder.resolve())
    assert (folder / "share" / "man" / "man1" / "charrnn.1").exists()


def test_the_wheel_writes_scores_and_exports_without_torch(installed_charrnn, tmp_path):
    text, said = installed_charrnn("sample", "--length", 40, "--seed", 1)
    assert len(text.strip()) > 20
    assert "model builtin" in said
    out, _ = installed_charrnn("score", "--format", "jsonl", "To be, or not to be")
    assert '"bits_per_char"' in out
    installed_charrnn("export", "-o", "page.html")
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    assert "alphabet" in installed_charrnn("info")[0]
    assert "torch          not installed" in installed_charrnn("info", "--system")[0]


@pytest.mark.parametrize(
    "words",
    [("train", "text.txt", "--steps", 1), ("train", "text.txt", "--device", "cuda"),
     ("score", "--adapt", "To be")],
    ids=["train", "train on a GPU", "score --adapt"],
)  # fmt: skip
def test_what_needs_torch_says_so(installed_charrnn, tmp_path, words):
    (tmp_path / "text.txt").write_text("a text " * 50)
    _, err = installed_charrnn(*words, code=1)
    assert not CRASH.search(err)
    told = err.splitlines()[-1]
    assert told.startswith("charrnn: ")
    assert "pip install torch" in told
    assert os.listdir(tmp_path) == ["text.txt"] or not any((tmp_path / "runs").iterdir())


# what goes with it


def generator():
    """share/generate.py as a module."""
    spec = spec_from_file_location("generate", ROOT / "share" / "generate.py")
    module = module_from_spec(spec)
    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", generator().FILES)
def test_man_page_and_completions_are_those_of_the_program(name):
    made = generator().FILES[name]()
    assert (ROOT / "share" / name).read_text("utf-8") == made, "make share makes them anew"


def test_every_option_is_in_the_man_page_and_the_completions():
    made = generator()
    for text in (made.man_page().replace("\\-", "-"), made.bash(), made.zsh()):
        for command in made.commands():
            assert command.name in text
            assert all(name in text for option in command.options for name in option.names)


@bash
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("charrnn exp", "export"),
        ("charrnn train --cell g", "gru gru-simple"),
        ("charrnn train --cell = r", "rnn"),
        ("charrnn info --sy", "--system"),
        ("charrnn sample text", ""),
    ],
)
def test_bash_completes(words, found, tmp_path):
    place = ROOT / "share" / "bash-completion" / "completions" / "charrnn"
    script = f"source '{place}'; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); "
    out, _ = run(["bash", "-c", script + '_charrnn; echo "${COMPREPLY[*]}"'], tmp_path)
    assert out.strip() == found


@needs("groff", shutil.which("groff"))
def test_the_man_page_has_no_mistake():
    page = ROOT / "share" / "man" / "man1" / "charrnn.1"
    out, err = run(["groff", "-k", "-man", "-Tutf8", "-ww", page], ROOT)
    assert err == ""
    assert "charrnn train" in out


# those who look after it


def workflow(name):
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text("utf-8"))


def test_the_workflows_run_what_there_is():
    jobs = workflow("ci.yml")["jobs"]
    commands = "\n".join(
        step["run"] for job in jobs.values() for step in job["steps"] if "run" in step
    )
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    asked = {word for words in re.findall(r"make ([a-z -]+)", commands) for word in words.split()}
    assert {"lint", "type"} <= asked <= targets
    systems = jobs["test"]["strategy"]["matrix"]["system"]
    assert [system.partition("-")[0] for system in systems] == ["ubuntu", "macos", "windows"]


def test_a_bug_report_asks_for_what_it_takes():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        assert yaml.safe_load(path.read_text("utf-8"))
    form = (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text("utf-8")
    assert "charrnn info --system" in form
    assert "CHARRNN_DEBUG=1" in form


def test_the_hooks_are_the_tools_of_the_project():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    entries = [hook["entry"] for repo in hooks["repos"] for hook in repo["hooks"]]
    assert any("ruff" in entry for entry in entries)
    assert any("mypy" in entry for entry in entries)
