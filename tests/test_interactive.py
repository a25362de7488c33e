"""`charrnn sample --interactive`: what is typed and picked comes out in the end."""

from __future__ import annotations

import dataclasses
import io
import re

import numpy as np
import pytest

from charrnn import api
from charrnn.display.interactive import HELP, Conversation, Proposal
from charrnn.storage.model_file import save_model
from charrnn.vocab import EOS_ID, Vocabulary


@pytest.fixture
def converse(charrnn, tiny_model_path):
    """Run the command in a terminal, type the lines, and return what it left."""

    def converse(*lines, options=(), model=tiny_model_path, length=12, **variables):
        result = charrnn(
            "sample", "-m", model, "--interactive", "--seed", 1, "-n", length, *options,
            stdin="".join(f"{line}\n" for line in lines).encode(),
            terminals=("stdin", "stderr"), NO_COLOR="1", **variables,
        )  # fmt: skip
        assert result.code == 0, result.err
        return result

    return converse


def proposal(model_path, beginning, number):
    """The `number`-th continuation of the first turn, from 0."""
    return api.load(model_path).sample(beginning, num=4, length=12, seed=1)[number].text


def test_the_prompt_is_the_beginning_and_a_picked_proposal_continues_it(converse, tiny_model_path):
    result = converse("2", "/quit", options=["--prompt", "the "])
    assert result.out == "the " + proposal(tiny_model_path, "the ", 1) + "\n"


def test_typed_text_is_taken_and_can_be_taken_back(converse):
    assert converse("abc", "def", "/undo", "/quit").out == "abc\n"


def test_the_end_of_the_input_ends_the_conversation(converse):
    assert converse("abc").out == "abc\n"


def test_a_character_the_model_does_not_know_is_refused_and_nothing_is_lost(converse):
    result = converse("abc", "x€y", "/quit")
    assert result.out == "abc\n"
    assert "the text has characters the model has never seen: '€' (U+20AC)" in result.err
    told = " ".join(result.err.split())
    assert "at position 2; type it without them, or begin again with --on-unknown skip" in told
    assert "leave them out" not in told
    assert converse("x€y", options=["--on-unknown", "skip", "-p", "€"]).out == "€x€y\n"


def offered(result):
    """The continuations of each turn."""
    turns = re.split(r"^> ", re.sub(r"\x1b\[\d*m", "", result.err), flags=re.MULTILINE)
    return [re.findall(r"^ \d  (.*?) *$", turn, re.MULTILINE) for turn in turns][:-1]


def test_every_turn_offers_other_continuations(converse):
    turns = offered(converse("", "", "abc", "/undo"))
    assert [len(set(turn)) for turn in turns] == [4] * 5
    there = [text for turn in (*turns[:3], turns[4]) for text in turn]
    assert len(set(there)) == len(there), "something is offered twice at one place"


@pytest.fixture
def few_letters(tiny_model, tmp_path):
    """A model that writes one of six letters, mostly the first, and then ends."""
    vocabulary = Vocabulary("abcdef")
    config = dataclasses.replace(tiny_model.config, vocab_size=len(vocabulary))
    weights = {name: np.zeros(shape, np.float32) for name, shape in config.weight_shapes().items()}
    weights["output.bias"][2:] = [2, 0, 0, 0, 0, 0]
    weights["output.bias"][1] = -9
    save_model(
        tmp_path / "few",
        dataclasses.replace(tiny_model, config=config, vocabulary=vocabulary, weights=weights),
    )
    return tmp_path / "few"


def test_the_offer_is_filled_up_and_repeated_only_where_nothing_else_is_found(
    converse, few_letters
):
    few = offered(converse("", "", "1", length=1, model=few_letters))
    assert len(set(few[0])) == 4
    assert len(set(few[0] + few[1])) == 6
    greedy = converse("", "1", options=["--greedy"], model=few_letters)
    assert offered(greedy) == [["a" * 12 + "…"]] * 3
    assert greedy.err.count("No other continuations were found") == 1
    assert greedy.out == "a" * 12 + "\n"


def test_commands_are_explained_and_a_slash_can_be_typed(converse, charrnn):
    result = converse("/help", "/halp", "ab", " /undo ", "cd", "/help", "/undo now")
    assert result.out == "cd\n"
    first = result.err.partition("> ")[0]
    assert "/help shows all commands; a text that begins with / is typed with //" in first
    for typed, effect in HELP.items():
        assert re.search(f"{typed} +{effect}", result.err)
    assert "there is no command /halp: /help shows all of them" in result.err
    slashes = converse("//help", "///", "a/b", options=["--on-unknown", "skip"])
    assert slashes.out == "/help//a/b\n"


def test_numbers_take_what_is_offered_and_are_text_after_a_space(converse, tiny_model_path):
    taken = proposal(tiny_model_path, "", 3)
    result = converse("4 ", "5", "9" * 5000, " 4", " 50", options=["--on-unknown", "skip"])
    assert result.out == f"{taken} 4 50\n"
    told = " ".join(re.sub(r"\x1b\[\d*m", "", result.err).split())
    hint = "(1 to 4 are offered): with a space before it, a number is added as text"
    assert f"there is no continuation 5 {hint}" in told
    assert f"there is no continuation {'9' * 20} {hint}" in told


def test_the_temperature_can_be_changed(converse):
    result = converse("/temp 0", "/temp x", "/temp -1", "1")
    first, *others = offered(result)
    assert len(set(first)) == 4
    assert [len(turn) for turn in others] == [1, 4] or len(others[0]) == 1
    assert "/temp takes a number: /temp 0.8" in result.err
    assert "temperature must be" in result.err


@pytest.mark.parametrize("width", [40, 80, 120])
def test_continuations_end_between_words_and_fit_into_a_line(converse, tiny_model, tmp_path, width):
    """A model that ends nearly every word after a few letters, and a text now and then."""
    weights = {**tiny_model.weights, "output.bias": tiny_model.weights["output.bias"].copy()}
    weights["output.bias"][tiny_model.vocabulary.encode(" ")[0]] += 3.5
    weights["output.bias"][EOS_ID] = 1
    save_model(tmp_path / "words", dataclasses.replace(tiny_model, weights=weights))
    result = converse("", "", "", length=500, model=tmp_path / "words", COLUMNS=str(width))
    shown = [line for turn in offered(result) for line in turn]
    assert len(shown) == 16
    assert {line[-1] for line in shown} == {"…", "∎"}
    for line in shown:
        assert len(line) <= width - 4
        assert line.endswith("∎") or line[-2] in " ↵"
    assert max(map(len, shown)) > 10


def test_escapes_are_read_in_what_is_typed(converse):
    result = converse("a\\nb", "\\q", options=["-e"])
    assert result.out == "a\nb\n"
    assert "and not \\q: write" in result.err
    assert converse("a\\nb", options=["--on-unknown", "skip"]).out == "a\\nb\n"


def test_bytes_that_are_not_in_the_encoding_of_the_terminal(charrnn, tiny_model_path):
    given = ("sample", "-m", tiny_model_path, "-i", "-n", 12)
    result = charrnn(*given, stdin=b"\xe9\nabc\n", terminals=("stdin", "stderr"), NO_COLOR="1")
    assert result.code == 0, result.err
    assert "not in the terminal's encoding" in result.err


@pytest.mark.parametrize(
    "options",
    [("--num", 2), ("--temp", "1", "--temp", "2"), ("--format", "jsonl"), ("--unique",),
     ("--check-novelty", "x"), ("--prompts", "x")],
)  # fmt: skip
def test_what_has_no_place_in_a_conversation_is_refused(charrnn, tiny_model_path, options):
    result = charrnn("sample", "-m", tiny_model_path, "-i", *options)
    result.assert_one_error(2, "--interactive writes one text, turn by turn: leave out", options[0])


def test_nothing_written_is_nothing_printed(converse):
    assert converse("/quit").out == ""


def test_an_interrupt_prints_the_text_so_far(charrnn, tiny_model_path, monkeypatch):
    answers = iter(["abc", "def"])

    def ask(talk):
        for answer in answers:
            return answer
        raise KeyboardInterrupt

    monkeypatch.setattr(Conversation, "ask", ask)
    result = charrnn(
        "sample", "-m", tiny_model_path, "-i", "-n", 12, terminals=("stdin", "stderr"), NO_COLOR="1"
    )
    assert (result.code, result.out) == (130, "abcdef\n")
    assert result.err.endswith("charrnn: interrupted\n")


def test_texts_do_nothing_to_the_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    offer = [Proposal("d\x1b]0;x\x07\n", True)]
    Conversation().show("a\x1b[2Jb\nc", offer, are_new=True)
    assert Conversation().ask() is None
    shown = capsys.readouterr().err
    assert "a␛[2Jb\nc" in shown
    assert "d␛]0;x␇↵" in shown
    assert "\x1b" not in shown
