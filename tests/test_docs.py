"""The documentation: every page in the site, no dead link, nothing in it that is stale."""

from __future__ import annotations

import importlib.util
import io
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console
from test_train_display import EVALUATED, STARTED

from charrnn import events
from charrnn.cli.app import COMMANDS
from charrnn.display.train import TrainingDisplay
from charrnn.storage.model_file import save_model

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CONFIG = ROOT / "zensical.toml"
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
ATTRIBUTE = re.compile(r"<(a|link|script|img|iframe)\b[^>]*?\b(?:href|src)=\"?([^\" >]+)")
RUN = re.compile(r"^(?:\$ )?(?:\w+=\S+ )*charrnn(?: (\w+))?(.*)$", re.M)


def loaded(name):
    """A script of the documentation as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference():
    return loaded("reference")


@pytest.fixture(scope="module")
def pictures():
    return loaded("pictures")


@pytest.fixture(scope="module")
def pages(reference):
    """The Markdown of each page of the site by its path in docs/."""
    found = {
        path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8")
        for path in DOCS.rglob("*.md")
    }
    return found | {name: reference.copied(source) for name, source in reference.COPIED.items()}


def anchors(text):
    """The anchors that Markdown makes of headings."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.M)
    kept = (re.sub(r"[^\w\s-]", "", re.sub(r"[`*]|\]\(.*?\)", "", title)) for title in titles)
    return {re.sub(r"[-\s]+", "-", title.strip().lower()) for title in kept}


def test_the_reference_is_what_the_program_says(reference):
    text = (DOCS / reference.COMMANDS).read_text(encoding="utf-8")
    assert text == reference.commands(), "stale: run python docs/reference.py"
    assert re.findall(r"^## charrnn (\w+)$", text, re.M) == list(COMMANDS)


def test_every_option_is_in_the_reference(reference):
    text = reference.commands()
    for command in reference.knowledge().commands():
        section = text.split(f"\n## charrnn {command.name}\n")[1].split("\n## ")[0]
        for option in command.options:
            if "--help" not in option.names:
                assert all(f"`{name}`" in section for name in option.names), option.names


def test_every_page_is_in_the_navigation(pages):
    listed = re.findall(r'"([\w/.-]+\.md)"', CONFIG.read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(pages)


def test_links_between_pages_lead_somewhere(reference, pages):
    dead = []
    for name, text in pages.items():
        for target in LINK.findall(FENCE.sub("", text)):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            page = (DOCS / name).parent.joinpath(path).resolve() if path else DOCS / name
            inside = page.relative_to(DOCS).as_posix() if page.is_relative_to(DOCS) else None
            exists = inside in (*pages, reference.LIVE) or (inside and page.is_file())
            if not exists or (anchor and anchor not in anchors(pages[inside])):
                dead.append((name, target))
    assert dead == []


def test_links_of_the_readme_lead_somewhere():
    for target in LINK.findall(README) + re.findall(r'(?:src|srcset)="(.+?)"', README):
        path, _, anchor = target.partition("#")
        if not path.startswith("https:"):
            page = ROOT / path if path else ROOT / "README.md"
            assert page.exists(), target
            assert not anchor or anchor in anchors(page.read_text(encoding="utf-8")), target


def test_commands_in_pages_have_only_options_that_exist(reference, pages):
    known = {
        command.name: {name for option in command.options for name in option.names}
        for command in reference.knowledge().commands()
    }
    wrong, seen = [], set()
    for name, text in {**pages, "README.md": README}.items():
        if name not in ("README.md", "index.md", "tutorial.md", "guide.md") and "howto" not in name:
            continue
        for block in FENCE.findall(text):
            for command, rest in RUN.findall(block):
                if command not in known:
                    wrong.append((name, command))
                    continue
                seen.add(command)
                bare = re.sub(r"\"[^\"]*\"|'[^']*'|#.*", "", rest)
                options = re.findall(r"(?<!\S)(--?[a-z][\w-]*)", bare)
                wrong += [(name, command, o) for o in options if o not in known[command]]
    assert wrong == []
    assert seen == set(COMMANDS), "a command that no page uses"


def test_recipes_in_pages_exist(pages):
    named = {n for text in pages.values() for n in re.findall(r"corpora/(\w+\.py)", text)}
    assert named
    assert [name for name in named if not (ROOT / "corpora" / name).is_file()] == []


@pytest.fixture(scope="module")
def site(reference, tmp_path_factory):
    """The site, built strictly in a copy of the sources."""
    program = shutil.which("zensical", path=str(Path(sys.executable).parent)) or shutil.which(
        "zensical"
    )
    if not program:
        pytest.skip("zensical is not installed; make docs installs it")
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, folder / "docs")
    shutil.copy(CONFIG, folder)
    reference.live(folder / "docs")
    for name, source in reference.COPIED.items():
        (folder / "docs" / name).write_text(reference.copied(source), encoding="utf-8")
    done = subprocess.run(
        [program, "build", "--clean", "--strict"],
        cwd=folder, check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build" / "site"


def test_the_site_has_every_page_and_no_dead_link(reference, site, pages):
    assert "A small Shakespeare" in (site / reference.LIVE).read_text(encoding="utf-8")
    found = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    del found[site / reference.LIVE]
    built = {path.relative_to(site).with_suffix(".md").as_posix() for path in found}
    assert built - {"404.md"} == set(pages)
    dead = []
    for page, html in found.items():
        if page.name == "404.html":  # its links are those of the server's root
            continue
        for kind, target in ATTRIBUTE.findall(html):
            if re.match(r"(https?:)?//|[a-z]+:", target):
                assert kind == "a", f"{page.name} loads {target}"
                continue
            path, _, anchor = target.partition("#")
            file = page.parent.joinpath(path).resolve() if path else page
            file = file / "index.html" if file.is_dir() else file
            if not file.is_file() or (
                anchor and file in found and not re.search(rf'id="?{anchor}["\s>]', found[file])
            ):
                dead.append((page.name, target))
    assert dead == []


def test_the_site_holds_no_scripts_of_ours(site):
    assert not list(site.rglob("*.py"))


STALE = "stale: run make pictures"


def drawn(pictures, picture, theme="light"):
    return (pictures.FOLDER / f"{picture.name}-{theme}.svg").read_text(encoding="utf-8")


def written(drawing):
    """The lines of text in a picture."""
    pieces = ElementTree.fromstring(drawing).iter("{http://www.w3.org/2000/svg}text")
    rows = groupby(pieces, key=lambda piece: int(piece.get("y")))
    return [" ".join(p.text.replace("\N{NO-BREAK SPACE}", " ") for p in row) for _, row in rows]


def run(charrnn, pictures, picture):
    """What the command of a picture writes on a terminal."""
    return charrnn(
        *shlex.split(picture.command)[1:],
        terminals=("stdout", "stderr"), COLUMNS=str(picture.columns), **pictures.COLOURS,
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of another kind")
def test_pictures_show_what_the_program_writes(charrnn, pictures):
    for picture in pictures.STILL:
        result = run(charrnn, pictures, picture)
        for theme in pictures.THEMES:
            now = pictures.svg(picture, result.err + result.out, theme)
            assert drawn(pictures, picture, theme) == now, STALE


def test_the_readme_shows_what_score_writes(charrnn):
    command, table = re.search(r"^\$ charrnn (score .+)\n((?:.+\n)+)```", README, re.M).groups()
    result = charrnn(*shlex.split(command), terminals=("stdout",), COLUMNS="80")
    lines = re.sub(r"\x1b\[[\d;]*m", "", result.out).splitlines()
    assert table.splitlines() == [line.rstrip() for line in lines if line.strip()]


def test_pages_show_every_picture_for_both_themes(pictures, pages):
    for picture in pictures.ALL:
        for theme in pictures.THEMES:
            assert f'="docs/pictures/{picture.name}-{theme}.svg"' in README
    shown = set(re.findall(r"pictures/([\w-]+\.svg)", README + pages["index.md"]))
    assert shown == {path.name for path in pictures.FOLDER.iterdir()}


def test_the_picture_of_names_has_the_form_of_the_output(charrnn, pictures, tiny_model, tmp_path):
    text = replace(tiny_model.text, documents="line")
    save_model(tmp_path / "runs/names/model.safetensors", replace(tiny_model, text=text))
    picture, around = pictures.NAMES, run(charrnn, pictures, pictures.NAMES).err.splitlines()
    command, *output = written(drawn(pictures, picture))
    assert command == f"$ {picture.command}", STALE
    assert output[: len(around)] == around, STALE
    assert len(output[len(around) :]) == 10, STALE


def form(lines):
    """The words and the kinds of signs in lines that have figures: no sample is among them."""
    kept = " ".join(line for line in lines if re.search(r"\d", line))
    kinds = {"lines": "[\u2500-\u257f]", "blocks": "[\u2580-\u259f]", "spinner": "[\u2800-\u28ff]"}
    signs = {kind for kind, pattern in kinds.items() if re.search(pattern, kept)}
    return signs | set(re.findall(r"[·×]|[^\W\d_]{2,}", re.sub(r"b?float\d+", "", kept)))


def test_the_picture_of_a_training_run_has_the_form_of_the_display(pictures):
    command, *seen = written(drawn(pictures, pictures.TRAINING))
    assert command == f"$ {pictures.TRAINING.command}", STALE
    members = 2 if "ensemble" in " ".join(seen) else 1
    model = replace(STARTED.model, members=members)
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=pictures.TRAINING.columns)
    with TrainingDisplay(console=console) as display:
        display.show(replace(STARTED, model=model, run=Path("runs/names")))
        for step, is_best in ((300, True), (600, False), (650, True)):
            found = replace(EVALUATED, step=step, is_best=is_best)
            display.show(replace(found, elapsed_s=25.0, chars_per_s=4.5e4))
        display.show(
            events.Progressed(
                progress=0.8, step=700, train_loss=1.5, learning_rate=0.004, chars_per_s=1e5,
                eta_s=6.0,
            )
        )  # fmt: skip
        display.show(events.Sampled(text="SAMPLE"))
        until = time.monotonic() + 30
        while "left" not in stream.getvalue() or "SAMPLE" not in stream.getvalue():
            assert time.monotonic() < until
            time.sleep(0.02)  # it is drawn now and then
        now = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", stream.getvalue())
    assert form(seen) == form(now.splitlines()), STALE


def test_pictures_are_small_and_load_nothing(pictures):
    drawings = sorted(path.name for path in pictures.FOLDER.iterdir())
    assert drawings == sorted(f"{p.name}-{t}.svg" for p in pictures.ALL for t in pictures.THEMES)
    for path in pictures.FOLDER.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"://|href|url\(|@import|<(image|script|foreignObject)", text), path
        assert path.stat().st_size < 20_000, path
