"""The documentation: every page in the site, no dead link, a reference that is not stale."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from charrnn.cli.app import COMMANDS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CONFIG = ROOT / "zensical.toml"
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
ATTRIBUTE = re.compile(r"<(a|link|script|img|iframe)\b[^>]*?\b(?:href|src)=\"?([^\" >]+)")
RUN = re.compile(r"^(?:\$ )?(?:\w+=\S+ )*charrnn(?: (\w+))?(.*)$", re.M)


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("docs_reference", DOCS / "reference.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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


def test_commands_in_pages_have_only_options_that_exist(reference, pages):
    known = {
        command.name: {name for option in command.options for name in option.names}
        for command in reference.knowledge().commands()
    }
    wrong, seen = [], set()
    for name, text in pages.items():
        if name != "tutorial.md" and not name.startswith("howto/"):
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
