"""Documents: each begins and ends by itself, and none knows of another."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charrnn import api
from charrnn.batches.documents import DocumentBatches, document_windows
from charrnn.batches.windows import IGNORE
from charrnn.config import CorpusConfig, ModelConfig
from charrnn.corpus.draft import END, Segmenter
from charrnn.corpus.encode import encode_corpus
from charrnn.models.network import CharNetwork, detach
from charrnn.training.loss import window_loss
from charrnn.vocab import EOS_ID, FIRST_CHARACTER_ID, UNK_ID

CPU = torch.device("cpu")


def segments(pieces, documents, unit="char"):
    """Feed pieces of one input and return the documents as strings."""
    segmenter = Segmenter(documents, unit)
    codes = np.concatenate(
        [segmenter.feed(piece, k == len(pieces) - 1) for k, piece in enumerate(pieces)]
    )
    parts = "".join("\0END" if c == END else chr(c) for c in codes).split("\0END")
    assert parts[-1] == "", "the last document is not ended"
    return parts[:-1]


@pytest.mark.parametrize(
    ("text", "documents", "expected"),
    [
        ("ann\nbob\n", "line", ["ann", "bob"]),
        ("\n\nann\n\n\nbob", "line", ["ann", "bob"]),
        (" ann \n\tbob", "line", [" ann ", "\tbob"]),
        ("", "line", []),
        ("a\nb\n\nc\n\n\n \nd\n", "blank-line", ["a\nb", "c", "d"]),
        ("\n\na\n\n", "blank-line", ["a"]),
        ("a\n\nb\n", "file", ["a\n\nb\n"]),
        ("", "file", []),
    ],
)
def test_what_a_document_is(text, documents, expected):
    assert segments([text], documents) == expected


@given(st.text("ab \n", max_size=40), st.data())
@pytest.mark.parametrize("documents", ["line", "blank-line", "file"])
def test_pieces_do_not_matter(documents, text, data):
    pieces, rest = [], text
    while rest:
        cut = data.draw(st.integers(1, len(rest)))
        pieces.append(rest[:cut])
        rest = rest[cut:]
    assert segments([*pieces, ""], documents) == segments([text], documents)


def test_a_document_never_spans_files(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo")
    (tmp_path / "b.txt").write_text("three\n")
    config = CorpusConfig(documents="line", val_fraction=0)
    corpus = encode_corpus([tmp_path], tmp_path / "corpus", config)
    whole = corpus.vocabulary.decode(FIRST_CHARACTER_ID if i == EOS_ID else i for i in corpus.ids)
    assert len(corpus.documents) == 3
    assert np.count_nonzero(corpus.ids == EOS_ID) == 3
    assert corpus.n_chars == len("onetwothree")
    assert len(whole) == corpus.n_chars + 3


# the split


@pytest.fixture
def encoded(tmp_path):
    def encoded(text, **options):
        path = tmp_path / "lines.txt"
        path.write_text(text)
        config = CorpusConfig(documents="line", **options)
        return encode_corpus([path], tmp_path / "corpus", config)

    return encoded


def strings(corpus, *, validation):
    return [
        corpus.vocabulary.decode(corpus.ids[a : b - 1])
        for spans in corpus.documents.all_spans(validation=validation)
        for a, b in spans.tolist()
    ]


def test_the_validation_part_is_whole_documents_chosen_by_seed(encoded):
    lines = [f"line{k:03d}" for k in range(200)]
    chosen = []
    for seed in (1, 1, 2):
        corpus = encoded("\n".join(lines), val_fraction=0.2, split_seed=seed)
        train, val = strings(corpus, validation=False), strings(corpus, validation=True)
        assert sorted(train + val) == lines
        assert len(val) == 40
        assert corpus.n_train == 160 * 8
        assert corpus.n_val == 40 * 8
        chosen.append(val)
    assert chosen[0] == chosen[1] != chosen[2]
    assert chosen[0] != lines[-40:]


def test_the_vocabulary_is_that_of_the_training_documents(encoded):
    lines = [f"{chr(0x4E00 + k)}a" for k in range(50)]
    corpus = encoded("\n".join(lines), val_fraction=0.3)
    train = "".join(strings(corpus, validation=False))
    assert set(corpus.vocabulary.characters) == set(train)
    assert corpus.n_unknown == 15
    assert all(text[0] == "�" for text in strings(corpus, validation=True))


def test_duplicates_across_the_split_are_counted(encoded):
    lines = [f"unique{k}" for k in range(100)] + ["same"] * 100
    corpus = encoded("\n".join(lines), val_fraction=0.25)
    val = strings(corpus, validation=True)
    assert corpus.n_duplicates == val.count("same") > 0


def test_a_few_documents_are_all_trained_on(encoded):
    assert encoded("ann\nbob\ncid").n_val == 0
    assert encoded("ann\nbob\ncid", val_fraction=0.4).n_val == 4


# windows


def corpus_of(lengths):
    """Return ids whose documents have these lengths, EOS included, and their spans."""
    ids, spans = [], []
    for number, length in enumerate(lengths):
        begin = len(ids)
        ids += [FIRST_CHARACTER_ID + (number + k) % 20 for k in range(length - 1)] + [EOS_ID]
        spans.append((begin, len(ids)))
    return np.array(ids, np.uint8), np.array(spans, np.int64).reshape(-1, 2)


lengths_of_documents = st.lists(st.integers(1, 60), min_size=1, max_size=25)


def follow(windows):
    """Read windows as a network would and return the documents that the rows have seen."""
    carried, documents = [], []
    for window in windows:
        B = len(window.inputs_BT)
        if window.stateless:
            assert not window.keep_B.any()
            before = [None] * B
        else:
            before = carried if window.rows_B is None else [carried[r] for r in window.rows_B]
            before = [
                s if keep else None
                for s, keep in zip(before or [None] * B, window.keep_B, strict=True)
            ]
        after = []
        for b in range(B):
            targets = window.targets_BT[b]
            counted = targets[targets != IGNORE]
            assert (targets[len(counted) :] == IGNORE).all(), "padding stands only at the end"
            seen = before[b] or []
            last = seen[-1] if seen else EOS_ID
            expected = np.concatenate([[last], counted[:-1]])
            np.testing.assert_array_equal(window.inputs_BT[b, : len(counted)], expected)
            assert last != EOS_ID or not seen, "a row continued after EOS"
            seen = seen + counted.tolist()
            after.append(seen)
            if seen[-1] == EOS_ID:
                documents.append(seen)
        assert window.n_targets == int((window.targets_BT != IGNORE).sum())
        if not window.stateless:
            carried = after
    return documents


@given(lengths_of_documents, st.integers(1, 5), st.integers(1, 16), st.booleans())
def test_every_document_is_read_once_from_its_start(lengths, batch_size, bptt, shuffled):
    ids, spans = corpus_of(lengths)
    rng = np.random.default_rng(0) if shuffled else None
    windows = list(document_windows(ids, spans, batch_size=batch_size, bptt=bptt, rng=rng))
    assert sorted(follow(windows)) == sorted(ids[a:b].tolist() for a, b in spans)


@given(lengths_of_documents, st.integers(1, 5), st.integers(1, 16), st.integers(0, 30))
def test_batches_are_resumable(lengths, batch_size, bptt, taken):
    ids, spans = corpus_of(lengths)

    def make():
        return DocumentBatches(
            ids, blocks=1, spans=lambda _: spans, n_ids=len(ids), batch_size=batch_size,
            bptt=bptt, unknown_rate=0.2, seed=4,
        )  # fmt: skip

    one, two = make(), make()
    for _ in range(taken):
        one.next_window()
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert two.served == one.served
    for _ in range(10):
        for a, b in zip(one.next_window(), two.next_window(), strict=True):
            np.testing.assert_array_equal(a, b)


def epoch_of(batches):
    """Yield the windows of one epoch."""
    while batches.epoch < 1:
        yield batches.next_window()


def test_an_epoch_ends_with_its_last_window():
    ids, spans = corpus_of([3, 40, 8, 8, 70, 2, 1, 9, 33])
    batches = DocumentBatches(
        ids, blocks=1, spans=lambda _: spans, n_ids=len(ids), batch_size=3, bptt=8
    )
    assert sum(window.n_targets for window in epoch_of(batches)) == len(ids)
    assert batches.epoch == 1


def test_unk_is_shown_but_never_asked_for():
    ids, spans = corpus_of([30] * 50)
    batches = DocumentBatches(
        ids, blocks=1, spans=lambda _: spans, n_ids=len(ids), batch_size=4, bptt=16,
        unknown_rate=0.3,
    )  # fmt: skip
    hidden = total = 0
    for window in epoch_of(batches):
        assert UNK_ID not in window.targets_BT
        hidden += (window.inputs_BT == UNK_ID).sum()
        total += window.inputs_BT.size
    assert 0.15 < hidden / total < 0.35


def test_little_is_padded_on_a_realistic_mix():
    rng = np.random.default_rng(1)
    lengths = np.clip(np.exp(rng.normal(4, 1.5, 1500)), 1, 100_000).astype(int)
    lengths = [*lengths.tolist(), 1, 100_000, 30_000, 30_000, 5000]
    ids, spans = corpus_of(lengths)
    batches = DocumentBatches(
        ids, blocks=1, spans=lambda _: spans, n_ids=len(ids), batch_size=32, bptt=32
    )
    computed = sum(window.targets_BT.size for window in epoch_of(batches))
    assert 1 - batches.served / computed < 0.15


# independence


def losses_by_document(network, ids, spans, changed=None):
    """Return each document's summed loss and its gradient by the recurrent weights."""
    found = {}
    state = []
    texts = ids.copy()
    if changed is not None:
        begin, end = spans[changed]
        texts[begin : end - 1] = FIRST_CHARACTER_ID + 21
    place = {tuple(ids[a:b].tolist()): k for k, (a, b) in enumerate(spans)}
    owners: list[int] = []
    for original, window in zip(
        document_windows(ids, spans, batch_size=3, bptt=8),
        document_windows(texts, spans, batch_size=3, bptt=8),
        strict=True,
    ):
        B = len(window.inputs_BT)
        if window.stateless:
            rows = [place[tuple(t[t != IGNORE].tolist())] for t in original.targets_BT]
        else:
            before = [*owners] if window.rows_B is None else [owners[r] for r in window.rows_B]
            rows = before or [-1] * B
            for b in np.flatnonzero(window.keep_B == 0):
                start = original.targets_BT[b]
                rows[b] = next(
                    k for k, (a, e) in enumerate(spans)
                    if e - a > 8 and k not in found and k not in rows
                    and np.array_equal(ids[a : a + len(start)][: (start != IGNORE).sum()],
                                       start[start != IGNORE])
                )  # fmt: skip
            owners = rows
        for b in range(B):
            alone = window._replace(
                targets_BT=np.where(np.arange(B)[:, None] == b, window.targets_BT, IGNORE)
            )
            loss, _ = window_loss(network, alone, state, CPU, "float32")
            (gradient,) = torch.autograd.grad(loss, network.layers[0].weight_hh_l0)
            old = found.get(rows[b], (0.0, 0.0))
            found[rows[b]] = (old[0] + float(loss.detach()), old[1] + gradient.double())
        _, after = window_loss(network, window, state, CPU, "float32")
        state = detach(after)
    return found


def test_no_document_moves_another_one():
    torch.manual_seed(0)
    network = CharNetwork(ModelConfig(vocab_size=24, hidden_size=8, embedding_size=4))
    ids, spans = corpus_of([5, 21, 9, 30, 3, 17, 8, 12, 25])
    before = losses_by_document(network, ids, spans)
    assert sorted(before) == list(range(len(spans)))
    for changed in (1, 4, 6):
        after = losses_by_document(network, ids, spans, changed)
        for k in range(len(spans)):
            same = before[k][0] == after[k][0] and torch.equal(before[k][1], after[k][1])
            assert same == (k != changed), (k, changed)


# from end to end


def test_a_model_of_names_writes_whole_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["Anna", "Berta", "Carla", "Dora"] * 30
    (tmp_path / "names.txt").write_text("\n".join(names))
    model = api.train(
        "names.txt", documents="line", steps=150, hidden_size=32, embedding_size=8,
        dropout=0.0, weight_decay=0.05, sample_every=0, val_fraction=0.1,
    )  # fmt: skip
    assert model.saved.text.documents == "line"
    samples = model.sample(num=20, seed=1, temperature=0.5)
    assert {s.stop_reason for s in samples} == {"eos"}
    assert {s.text for s in samples} <= set(names)
    total = sum(np.exp(model.score(name, eos=True).logprob) for name in set(names))
    assert 0.75 < total < 1.0001


def test_goodbye(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("goodbye")
    for options in ({}, {"documents": "line"}, {"unit": "byte"}):
        model = api.train("text", steps=150, hidden_size=32, sample_every=0, **options)
        sample = model.sample("g", temperature=0)
        assert (sample.text, sample.stop_reason) == ("oodbye", "eos")


@pytest.mark.parametrize("text", ["x", "xxxxxxxxxx", "\n", "\n\n\n", "ab"])
@pytest.mark.parametrize("documents", ["none", "line", "blank-line", "file"])
def test_tiny_texts(tmp_path, monkeypatch, text, documents):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text(text)
    options = {"documents": documents, "steps": 3, "hidden_size": 4, "sample_every": 1}
    if text.strip() or documents in ("none", "file"):
        model = api.train("text", **options)
        assert isinstance(model.sample(length=5).text, str)
    else:
        with pytest.raises(ValueError, match="no text"):
            api.train("text", **options)
