"""`charrnn sample --interactive`: what is typed and picked comes out in the end."""

from __future__ import annotations

import io

import pytest

from charrnn import api
from charrnn.display.interactive import Conversation


@pytest.fixture
def converse(charrnn, tiny_model_path):
    """Run the command in a terminal, type the lines, and return what it left."""

    def converse(*lines, options=()):
        result = charrnn(
            "sample", "-m", tiny_model_path, "--interactive", "--seed", 1, "-n", 12, *options,
            stdin="".join(f"{line}\n" for line in lines).encode(),
            terminals=("stdin", "stderr"), NO_COLOR="1",
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
    assert "the prompt has characters the model has never seen: '€' (U+20AC)" in result.err


def test_nothing_written_is_nothing_printed(converse):
    assert converse("/quit").out == ""


def test_an_interrupt_prints_the_text_so_far(charrnn, tiny_model_path, monkeypatch):
    turns = iter(["abc", "def"])

    def turn(talk, text, proposals):
        for answer in turns:
            return answer
        raise KeyboardInterrupt

    monkeypatch.setattr(Conversation, "turn", turn)
    result = charrnn(
        "sample", "-m", tiny_model_path, "-i", "-n", 12, terminals=("stdin", "stderr"), NO_COLOR="1"
    )
    assert (result.code, result.out) == (130, "abcdef\n")
    assert result.err.endswith("charrnn: interrupted\n")


def test_texts_do_nothing_to_the_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert Conversation().turn("a\x1b[2Jb\nc", ["d\x1b]0;x\x07\n"]) is None
    shown = capsys.readouterr().err
    assert "a␛[2Jb\nc" in shown
    assert "d␛]0;x␇↵" in shown
    assert "\x1b" not in shown
