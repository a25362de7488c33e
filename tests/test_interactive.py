"""`charrnn sample --interactive` in a terminal: what is typed and picked comes out in the end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from charrnn import api

pty = pytest.importorskip("pty", reason="pseudo-terminals are Unix's")


@pytest.fixture
def converse(tiny_model_path, tmp_path):
    """Start the command in a terminal, type the lines, and return its standard output."""

    def converse(*lines, options=()):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "charrnn", "sample", "-m", str(tiny_model_path)]
        with subprocess.Popen(
            [*command, "--interactive", "--seed", "1", "-n", "12", *options],
            stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, cwd=tmp_path,
        ) as process:  # fmt: skip
            os.close(theirs)
            os.write(ours, "".join(f"{line}\n" for line in lines).encode())
            screen = b""
            while True:
                try:
                    seen = os.read(ours, 4096)
                except OSError:  # the other end is closed
                    break
                if not seen:
                    break
                screen += seen
            assert process.stdout is not None
            product = process.stdout.read().decode()
            assert process.wait(timeout=60) == 0, screen.decode(errors="replace")
        os.close(ours)
        return product

    return converse


def proposal(model_path, beginning, number):
    """The `number`-th continuation of the first turn, from 0."""
    return api.load(model_path).sample(beginning, num=4, length=12, seed=1)[number].text


def test_the_prompt_is_the_beginning_and_a_picked_proposal_goes_on(converse, tiny_model_path):
    product = converse("2", "/quit", options=["--prompt", "the "])
    assert product == "the " + proposal(tiny_model_path, "the ", 1) + "\n"


def test_typed_text_is_taken_and_can_be_taken_back(converse):
    assert converse("abc", "def", "/undo", "/quit") == "abc\n"


def test_a_character_the_model_does_not_know_is_refused_and_nothing_is_lost(converse):
    assert converse("abc", "x€y", "/quit") == "abc\n"


def test_nothing_written_is_nothing_printed(converse):
    assert converse("/quit") == ""
