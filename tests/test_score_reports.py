"""Reports: characters, words, pairs, comparisons, and the forms they are written in."""

from __future__ import annotations

import json
import math
import re
import subprocess
import unicodedata
import weakref
from html.parser import HTMLParser

import numpy as np
import pytest
import reference
from conftest import bash
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from score_models import CONFIG, ENGINE, VOCABULARY, WEIGHTS, naive, random_text, scorer

from charrnn.display.heatmap import LEVELS, level_of, show_characters, show_heatmap, show_legend
from charrnn.display.page import page
from charrnn.display.records import Records
from charrnn.display.terminal import pasted, terminal_text, visible_text
from charrnn.engine.network import Engine
from charrnn.errors import ConfigError, CorpusError
from charrnn.scoring.batch import score_many
from charrnn.scoring.compare import LEAST_TEXTS, bootstrap, compare
from charrnn.scoring.details import END, UNKNOWN, CharScore, char_scores, word_scores
from charrnn.scoring.pairs import Pair, judge, rank, read_pairs, wilson
from charrnn.scoring.score import Score
from charrnn.scoring.scorer import Scorer, score_blocks, score_pieces
from charrnn.vocab import EOS_ID, UNK_ID, ByteVocabulary, Vocabulary

texts = st.text(st.sampled_from("abcde\n ?é"), max_size=15)


# characters and words


def test_characters_with_ranks_and_alternatives():
    text = "ab?\n"
    events = list(char_scores(scorer(eos=True), [text], alternatives=3))
    assert [one.character for one in events] == ["a", "b", "?", "\n", END]
    assert "".join(one.text for one in events) == text
    assert [one.is_unknown for one in events] == [False, False, True, False, False]
    ids = [*VOCABULARY.encode(text).tolist(), EOS_ID]
    rows = reference.logprobs(reference.run(CONFIG, WEIGHTS, [EOS_ID, *ids][:-1])[0])
    labels = {UNK_ID: UNKNOWN, EOS_ID: END}
    for one, row, i in zip(events, rows, ids, strict=True):
        order = np.argsort(-row)
        assert one.rank == order.tolist().index(i) + 1
        assert one.logprob == pytest.approx(row[i], abs=1e-9)
        assert one.bits == pytest.approx(-row[i] / math.log(2))
        assert [a.character for a in one.alternatives] == [
            labels.get(k, VOCABULARY.strings[k]) for k in order[:3].tolist()
        ]
        assert [a.logprob for a in one.alternatives] == pytest.approx(sorted(row)[:-4:-1])


def test_no_more_alternatives_than_there_are():
    (one,) = char_scores(scorer(), ["a"], alternatives=1000)
    assert len(one.alternatives) == len(VOCABULARY)
    assert math.fsum(math.exp(a.logprob) for a in one.alternatives) == pytest.approx(1)


@given(texts, st.booleans())
def test_characters_and_words_sum_to_the_text(text, eos):
    expected = score_pieces(scorer(eos=eos), [text]).logprob
    events = list(char_scores(scorer(eos=eos), [text]))
    words = list(word_scores(events))
    assert math.fsum(one.logprob for one in events) == pytest.approx(expected, abs=1e-9)
    assert math.fsum(one.logprob for one in words) == pytest.approx(expected, abs=1e-9)
    assert "".join(one.text for one in words) == text


def test_words_are_what_stands_between_white_space():
    words = list(word_scores(char_scores(scorer(eos=True), ["  ab c\n\nd"])))
    assert [(one.kind, one.text) for one in words] == [
        ("space", "  "),
        ("word", "ab"),
        ("space", " "),
        ("word", "c"),
        ("space", "\n\n"),
        ("word", "d"),
        ("end", ""),
    ]
    parts = naive("  ab c\n\nd", eos=True)
    assert words[1].logprob == pytest.approx(parts[2] + parts[3], abs=1e-9)


def byte_scorer():
    vocabulary = ByteVocabulary()
    config = reference.make_config("gru", vocab_size=len(vocabulary), hidden=4)
    return Scorer(Engine(config, reference.random_weights(config), np.float64), vocabulary)


def test_the_bytes_of_a_byte_model():
    events = list(char_scores(byte_scorer(), ["aé"], alternatives=2))
    assert [one.character for one in events] == ["a", "<C3>", "<A9>"]
    assert "".join(one.text for one in events) == "aé"
    (word,) = word_scores(events)
    assert (word.text, word.n_chars) == ("aé", 2)
    assert word.logprob == pytest.approx(score_pieces(byte_scorer(), ["aé"]).logprob)


# pairs


def scored(**logprobs):
    return {
        text: Score(text=text, n_chars=n, n_bytes=n, n_scored=n, n_unknown=0, logprob=value)
        for text, (value, n) in logprobs.items()
    }


SCORES = scored(a=(-1.0, 1), b=(-2.0, 4), c=(-2.0, 1), d=(-3.0, 2))


def test_accuracy_by_group_and_in_all():
    pairs = [
        Pair("a", "b", "y", 1),
        Pair("c", "b", "y", 2),  # a tie is wrong
        Pair("d", "a", "x", 3),
        Pair("b", "d", "x", 4),
        Pair("a", "d", "x", 5),
    ]
    x, y, total = judge(pairs, SCORES)
    assert (x.group, x.n, x.n_correct, x.n_ties) == ("x", 3, 2, 0)
    assert (y.group, y.n, y.n_correct, y.n_ties) == ("y", 2, 1, 1)
    assert (total.n, total.n_correct, total.accuracy) == (5, 3, 0.6)
    assert total.interval == wilson(3, 5)
    by_char = judge(pairs, SCORES, per_char=True)[-1]
    assert by_char.n_correct == 2  # a -1, b -0.5, c -2, d -1.5: the last two pairs


def test_wilson_on_known_values():
    """Checked against Newcombe 1998, table I: 81/263 and 0/20, 1/29."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    assert wilson(20, 20)[1] == 1.0


def test_pairs_are_read_from_tsv_and_json():
    expected = [Pair("a b", " c", "", 1), Pair("d", "e", "g", 2)]
    assert read_pairs(["a b\t c", "d\te\tg"]) == expected
    lower = [pair._replace(line=pair.line + 1) for pair in expected]
    assert read_pairs(["Good\tBad\tGroup", "a b\t c", "d\te\tg"]) == lower
    lines = [
        {"sentence_good": "a b", "sentence_bad": " c"},
        {"sentence_good": "d", "sentence_bad": "e", "UID": "g", "field": "syntax"},
    ]
    assert read_pairs([json.dumps(line) for line in lines]) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("only one", "line 2 of p has 1 column:"),
        ("", "line 2 of p has 1 column:"),
        ("a\tb\tc\td", "line 2 of p has 4 columns"),
    ],
)
def test_malformed_tsv_is_named_by_line(line, message):
    with pytest.raises(CorpusError, match=message):
        read_pairs(["a\tb", line], "p")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 of p is not JSON"),
        ("[]", "line 2 of p is not a JSON object"),
        ('{"sentence_good": "a"}', "line 2 of p has no text called sentence_bad"),
        ('{"sentence_good": 1, "sentence_bad": "b"}', "line 2 of p has no text called sentence_g"),
        ("[" * 100_000, "line 2 of p is not JSON"),
    ],
)
def test_malformed_json_is_named_by_line(line, message):
    with pytest.raises(CorpusError, match=message):
        read_pairs(['{"sentence_good": "a", "sentence_bad": "b"}', line], "p")


def test_no_pairs_at_all():
    with pytest.raises(CorpusError, match="p has no pairs"):
        read_pairs([], "p")


def test_ranking():
    several = list(enumerate((Score.total(()), *SCORES.values())))
    assert [(k, one.text) for k, one in rank(several)] == [
        (1, "a"), (2, "b"), (3, "c"), (4, "d"), (0, ""),
    ]  # fmt: skip
    assert [one.text for _, one in rank(several, per_char=True)] == ["b", "a", "d", "c", ""]


# comparison


def other_scorer(characters="abcde\n "):
    vocabulary = Vocabulary(characters)
    config = reference.make_config("gru", vocab_size=len(vocabulary))
    return Scorer(Engine(config, reference.random_weights(config), np.float64), vocabulary)


def test_the_same_model_is_no_different():
    several = list(score_many(scorer(), [random_text(20, k) for k in range(9)]))
    found = compare(several, several, (VOCABULARY, VOCABULARY))
    assert (found.difference, found.low, found.high) == (0, 0, 0)


def test_equal_alphabets_are_compared_per_character():
    lines = [random_text(5 + k, k) for k in range(12)]
    first, second = (list(score_many(rules, lines)) for rules in (scorer(), other_scorer()))
    found = compare(first, second, (VOCABULARY, VOCABULARY))
    assert found.unit == "char"
    assert found.first_bits == pytest.approx(Score.total(first).bits_per_char)
    assert found.second_bits == pytest.approx(Score.total(second).bits_per_char)
    assert found.low < found.difference < found.high
    assert compare(first, second, (VOCABULARY, VOCABULARY)) == found  # seeded
    mirrored = compare(second, first, (VOCABULARY, VOCABULARY))
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=1e-9)


def test_different_alphabets_are_compared_per_byte_with_unk_spelled_out():
    lines = ["abcabcabcab" * 2 + "d"] * 3
    narrow = other_scorer("abc")
    first, second = (list(score_many(rules, lines)) for rules in (scorer(), narrow))
    found = compare(first, second, (VOCABULARY, narrow.vocabulary))
    assert found.unit == "byte"
    assert (found.first.n_unknown, found.second.n_unknown) == (0, 3)
    spelled = Score.total(second)
    bits = -spelled.log2prob + 3 * math.log2(0x110000 - 0x800 - 3)
    assert found.second_bits == pytest.approx(bits / spelled.n_bytes)


def test_comparisons_that_mean_nothing_are_refused():
    narrow = other_scorer("ab")
    lines = ["abcde", "edcba"]
    both = (list(score_many(rules, lines)) for rules in (scorer(), narrow))
    with pytest.raises(ConfigError, match="6 of 10 characters are unknown"):
        compare(*both, (VOCABULARY, narrow.vocabulary))
    skipping = Scorer(narrow.engine, narrow.vocabulary, on_unknown="skip")
    both = (list(score_many(rules, lines)) for rules in (scorer(), skipping))
    with pytest.raises(ConfigError, match="score different texts"):
        compare(*both, (VOCABULARY, narrow.vocabulary))
    with pytest.raises(ConfigError, match="nothing to compare"):
        compare([], [], (VOCABULARY, VOCABULARY))


def test_the_bootstrap_has_the_width_of_the_normal_interval():
    rng = np.random.default_rng(0)
    differences, sizes = rng.normal(0.3, 1.0, 400), np.ones(400)
    low, high = bootstrap(differences, sizes)
    centre, half = differences.mean(), 1.96 * differences.std() / 20
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=0.015)


@pytest.mark.parametrize("n", [1, 2, LEAST_TEXTS - 1, LEAST_TEXTS])
def test_few_texts_give_no_interval(n):
    """All of five favour one model by chance once in sixteen times: a bootstrap cannot know."""
    lines = [random_text(20, k) for k in range(n)]
    first, second = (list(score_many(rules, lines)) for rules in (scorer(), other_scorer()))
    empty = list(score_many(scorer(), [""])) * 9
    found = compare([*first, *empty], [*second, *empty], (VOCABULARY, VOCABULARY))
    if n < LEAST_TEXTS:
        assert (found.n_units, found.is_resampled, found.is_certain) == (n, False, False)
        assert found.to_dict()["n_resampled"] is None
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    else:
        assert (found.n_units, found.is_resampled) == (n, True)
        assert found.low <= found.difference <= found.high


def test_a_long_text_is_resampled_in_blocks():
    blocks = list(score_blocks(scorer(), ["abcde" * 1200]))
    assert compare(blocks, blocks, (VOCABULARY, VOCABULARY)).n_units == 6


# TSV and JSON lines


@given(st.text(st.characters(codec=None), max_size=20))
def test_a_text_comes_back_from_its_json(text):
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as out:
        Records(as_json=True).write({"text": text, "value": math.nan, "other": math.inf})
    out.getvalue().encode("utf-8")
    assert json.loads(out.getvalue()) == {"text": text, "value": None, "other": None}


def test_floats_keep_all_their_digits(capsys):
    records = Records(as_json=False)
    records.write({"name": "a", "value": 0.1 + 0.2, "known": True})
    records.write({"name": "b", "value": 1e-300, "known": False})
    records.write({"name": "c\ud800", "value": math.nan, "known": False})
    heading, first, *others = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert heading == ["name", "value", "known"]
    assert float(first[1]) == 0.1 + 0.2
    assert first[2] == "1"
    assert others == [["b", "1e-300", "0"], ["c\ufffd", "", "0"]]


# the heat map


class Wellformed(HTMLParser):
    """Checks that every element is closed where it should be, and collects what is in them."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.scripts, self.loaded = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.loaded += [v for k, v in attrs if k in ("src", "href")]
        assert len(dict(attrs)) == len(attrs)

    def handle_startendtag(self, tag, attrs):
        assert tag == "meta"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif "p" in self.open:
            self.text.append(data)


def test_the_page_is_wellformed_and_escaped():
    nasty = "</script><b>&amp;\"'\0\x1b\udce9\n\ta "
    events = [list(char_scores(scorer(eos=True), [t], alternatives=4)) for t in (nasty, "", "ab")]
    made = page(events, "<model> & co")
    made.encode("utf-8")
    found = Wellformed()
    found.feed(made)
    found.close()
    assert not found.open
    assert found.loaded == []  # nothing comes from elsewhere
    assert "://" not in made
    shown = "".join(found.text)
    assert "</script><b>&amp;\"'" in shown
    assert "<model> & co" in shown
    assert not set(made) & {"\0", "\x1b"}
    assert not set(found.scripts[0]) & set("<>&")  # nothing in it can end the script
    rows = json.loads(found.scripts[0])
    assert len(rows) == len(nasty) + 2 + 3
    assert made.count('<span class="l') == len(rows)
    assert "prefers-color-scheme: dark" in made
    first = events[0][0]
    assert rows[0][1:3] == [round(first.bits, 3), str(first.rank)]
    assert len(rows[0][3]) == 4


def test_the_page_of_a_byte_model_has_one_span_for_each_character():
    """Its colour and its card are those of all its bytes."""
    rules = Scorer(byte_scorer().engine, ByteVocabulary(), eos=True)
    events = list(char_scores(rules, ["né中"], alternatives=1))
    made = page([events], "m")
    found = Wellformed()
    found.feed(made)
    assert "né中" in "".join(found.text)
    rows = json.loads(found.scripts[0])
    assert [row[0] for row in rows] == ["n", "é <C3> <A9>", "中 <E4> <B8> <AD>", "the end"]
    assert rows[1][1] == pytest.approx(events[1].bits + events[2].bits, abs=1e-3)
    assert rows[1][2] == f"{events[1].rank}, {events[2].rank}"
    assert made.count('<span class="l') == 4
    mean = score_pieces(rules, ["né中"]).bits_per_char
    assert f"<strong>{mean:.3f}</strong><span>bits per character or end</span>" in made


def test_the_page_is_for_the_keyboard_and_without_colours():
    events = list(char_scores(scorer(), ["ab"], alternatives=1))
    made = page([events], "m")
    assert '<article tabindex="0" aria-label=' in made
    assert 'role="status"' in made
    assert "default-src 'none'" in made  # nothing is loaded, whatever a text says
    for level in range(29):
        (rule, *_) = re.findall(rf"\.chars \.l{level},.*", made)
        assert ("box-shadow" in rule) == (level >= 8)


def test_extreme_figures_stay_short():
    event = CharScore("a", "a", -1e30, 1, False, ())
    certain = CharScore("a", "a", 0.0, 1, False, ())
    boxes = re.findall(r"<strong>(.*?)</strong>", page([[event]], "m"))
    assert max(map(len, boxes)) < 12
    assert "-0.0" not in "".join(re.findall(r"<strong>(.*?)</strong>", page([[certain]], "m")))
    assert math.copysign(1, certain.bits) == 1
    assert "<strong>nan" not in page([[]], "m")


def console(width=20, **options):
    return Console(width=width, force_terminal=True, color_system="truecolor", **options)


def test_the_heat_map_is_the_text_and_no_line_is_too_wide(capsys):
    text = "the quick brown fox jumps\nover 中中中中中中中中中中中 the lazy\tdog"
    show_heatmap(console(no_color=True), ((c, 0.0) for c in text))
    lines = capsys.readouterr().out.splitlines()
    assert "".join(lines).replace("↵", "\n").replace("→", "\t") == text
    from rich.cells import cell_len

    assert max(map(cell_len, lines)) <= 20
    assert lines[0] == "the quick brown fox "


def test_colours_and_their_absence(capsys):
    cells = [(c, level.from_bits) for c, level in zip("abcdefg", LEVELS, strict=True)]
    show_heatmap(console(), cells)
    show_legend(console(80))
    coloured = capsys.readouterr().out
    assert "38;2;" in coloured
    assert "≥13" in coloured
    show_heatmap(console(no_color=True), cells)
    plain = capsys.readouterr().out
    assert "38;" not in plain
    assert "48;" not in plain
    assert "\x1b[4m" in plain  # underlined instead


def test_the_legend_is_broken_between_its_bands(capsys):
    show_legend(console(40, no_color=True), "bits per character")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= 40
    bands = re.split(r"\s+", "   ".join(lines).strip())
    assert bands == ["bits", "per", "character", "0–1", "1–2", "2–4", "4–6", "6–9", "9–13", "≥13"]
    show_legend(Console(width=40), "bits per character")
    assert capsys.readouterr().out.count("\n") == 1, "a pipe has no width"


def test_a_heat_map_does_not_hold_its_text(capsys):
    """Of a text of any length it keeps the most surprising events, and what stood before them."""
    alive = weakref.WeakSet()
    most = 0

    def events():
        nonlocal most
        for k in range(3000):
            one = CharScore(
                "x" if k % 50 else "\n", "x" if k % 50 else "\n", -(k % 7), k, False, ()
            )
            alive.add(one)
            most = max(most, len(alive))
            yield one

    show_characters([events()], "table", 0)
    assert most < 300
    table = capsys.readouterr().out.partition("most surprising")[2].splitlines()
    found = [int(line.split()[-1]) for line in table[1:9]]
    assert found == [k for k in range(3000) if k % 7 == 6][:8]


def test_levels_and_control_characters():
    assert level_of(-1e-9) == LEVELS[0]
    assert level_of(3.99).from_bits == 2
    assert level_of(1e9) == LEVELS[-1]
    assert visible_text("a\x1b[2J\x9b\u202e\nb", 0) == "a␛[2J\\x9b\\u202e↵b"
    assert visible_text("abcdef", 3) == "abc…"


@given(st.text(st.characters(codec=None), max_size=20))
def test_nothing_but_what_shows_reaches_a_terminal(text):
    dangerous = {"Cc", "Cs", "Zl", "Zp", "Cf"}
    for shown, kept in ((visible_text(text), ""), (terminal_text(text), "\n\t\u200c\u200d")):
        assert not [c for c in shown if unicodedata.category(c) in dangerous and c not in kept]
    assert terminal_text("né\n\tज्‍ष") == "né\n\tज्‍ष"


@bash
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)))
def test_a_command_can_be_pasted(words):
    line = pasted(["printf", "%s\\0", *words])
    assert line.isprintable()
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}
    )
    assert done.stdout.decode("utf-8", "surrogateescape") == "".join(
        f"{word}\0" for word in (words or [""])
    )


def test_engine_is_the_naive_one():
    """The judge of this file is itself judged."""
    found = [one.logprob for one in char_scores(Scorer(ENGINE, VOCABULARY), ["abc de"])]
    assert found == pytest.approx(naive("abc de"), abs=1e-9)
