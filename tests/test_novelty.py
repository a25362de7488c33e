"""Copied runs, against a search that looks at every place."""

import tracemalloc

import numpy as np
import pytest
import texts
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn.sampling import novelty
from charrnn.sampling.novelty import RUN, NoveltyIndex, check_novelty


def by_hand(text, corpus):
    longest = 0
    copied = set()
    for begin in range(len(text)):
        for end in range(begin + 1, len(text) + 1):
            if text[begin:end] in corpus:
                longest = max(longest, end - begin)
                if end - begin >= RUN:
                    copied.update(range(begin, end))
    return longest, copied


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 3), st.integers(0, 120))
def test_agrees_with_a_search_by_hand(random, pieces, corpus_length):
    corpus = "".join(random.choice("abé") for _ in range(corpus_length))
    text = ""
    for _ in range(pieces):
        begin = random.randrange(max(1, len(corpus)))
        text += corpus[begin : begin + random.randrange(60)] + random.choice(["x", "", "b"])
    found = check_novelty(text, corpus)
    longest, copied = by_hand(text, corpus)
    assert len(found.longest) == longest
    assert found.longest in corpus
    assert {i for a, b in found.spans for i in range(a, b)} == copied
    assert found.n_copied == len(copied)


def test_a_run_across_a_block_border_is_found(monkeypatch):
    rng = np.random.default_rng(0)
    corpus = "".join(rng.choice(list("abcdefgh"), 2000))
    monkeypatch.setattr(novelty, "BLOCK", 100)
    text = "zzz" + corpus[170:240] + "zzz"
    found = check_novelty(text, corpus)
    assert found.spans == ((3, 73),)
    assert found.longest == corpus[170:240]


def test_runs_that_continue_elsewhere_are_not_one_run():
    """Runs of `RUN` follow one another in the text, but nowhere in the corpus do as many."""
    rng = np.random.default_rng(1)
    a, b = ("".join(rng.choice(list("abcdefgh"), 100)) for _ in range(2))
    corpus = a + "|" + a[60:] + b[:40] + "|" + b
    text = a + b
    found = check_novelty(text, corpus)
    longest, copied = by_hand(text, corpus)
    assert len(found.longest) == longest == 100
    assert found.n_copied == len(copied) == 200


@pytest.mark.parametrize("text", ["a" * 3000, "ab" * 1500, "a" * 1500 + "b" + "a" * 1499])
def test_the_same_character_again_and_again(text):
    corpus = "a" * 2000 + "b" + "ab" * 400
    found = check_novelty(text, corpus)
    lengths = [k for k in range(len(text) + 1) if any(
        text[i : i + k] in corpus for i in range(min(2, len(text) - k + 1)))]  # fmt: skip
    assert len(found.longest) >= lengths[-1]
    assert found.longest in corpus
    assert found.n_copied >= 0.99 * len(text)


def test_memory_is_linear_in_the_text_whatever_is_copied():
    corpus = texts.english(200_000)
    text = corpus[50_000:130_000]
    index = NoveltyIndex([corpus])
    tracemalloc.start()
    found = index.check(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.longest, found.copied_share) == (text, 1.0)
    assert peak < 80e6


@pytest.mark.parametrize(
    ("documents", "whole", "part"),
    [
        ("line", ["Ann", "Bob  "], ["An", "Bob", "Ann\nBob  ", ""]),
        ("blank-line", ["Ann\nBob  ", "  Eve"], ["Ann", "Eve", "Bob  ", ""]),
        ("file", ["Ann\nBob  \n \n\n  Eve\n"], ["Ann", "Bob", "  Eve"]),
        ("none", [], ["Ann", "Bob  ", "Ann\nBob  \n \n\n  Eve\n"]),
    ],
)
@pytest.mark.parametrize("size", [1, 5, 99])
def test_a_text_that_is_a_document_is_copied_however_short(documents, whole, part, size):
    corpus = "Ann\nBob  \n \n\n  Eve\n"
    pieces = [corpus[k : k + size] for k in range(0, len(corpus), size)]
    index = NoveltyIndex(pieces, documents=documents)
    for text in whole:
        found = index.check(text)
        assert (found.is_whole_document, found.copied_share) == (True, 1.0)
        assert index.check(text[2:], prompt=text[:2]).is_whole_document
        assert not index.check(text, prompt=text[:2]).is_whole_document
    for text in part:
        found = index.check(text)
        assert (found.is_whole_document, found.n_copied) == (False, 0)
        assert found.longest == text


def test_nothing_in_nothing():
    assert NoveltyIndex([], documents="line").check("").n_copied == 0
    assert NoveltyIndex(["", ""], documents="file").check("a").longest == ""
    assert check_novelty("", "abc").copied_share == 0
    assert check_novelty("abc", "").longest == ""
