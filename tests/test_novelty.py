"""Copied runs, against a search that looks at every place."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn.sampling import novelty
from charrnn.sampling.novelty import RUN, check_novelty


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


def test_nothing_in_nothing():
    assert check_novelty("", "abc").copied_share == 0
    assert check_novelty("abc", "").longest == ""
