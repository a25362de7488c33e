"""Bidirectional models: both engines, what they see, filling gaps, scores, and what they refuse."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import reference
import torch

from charrnn.api import load
from charrnn.batches.documents import document_windows
from charrnn.batches.windows import (
    IGNORE,
    Share,
    TextBatches,
    evaluation_windows,
    from_both_sides,
    shared_window,
)
from charrnn.config import SamplingConfig
from charrnn.engine.bidirectional import AHEAD, STRETCH, BidirectionalEngine
from charrnn.engine.network import Engine
from charrnn.errors import ConfigError, UnknownCharacterError
from charrnn.model import CharModel
from charrnn.models.network import Ensemble, build_member
from charrnn.sampling.fill import Filler, GapText
from charrnn.storage.model_file import SavedModel, save_model
from charrnn.training.loss import window_loss
from charrnn.vocab import EOS_ID, UNK_ID, ByteVocabulary, Vocabulary, is_utf8, may_follow

LETTERS = "abc"


def saved_model(cell="lstm", *, vocabulary=None, seed=0, scale=0.8, **shape):
    vocabulary = vocabulary or Vocabulary(LETTERS)
    config = reference.make_config(
        cell, vocab_size=len(vocabulary), bidirectional=True, **{"hidden": 4, **shape}
    )
    weights = reference.random_weights(config, seed, scale)
    return SavedModel(config=config, vocabulary=vocabulary, weights=weights, training={})


def filler_of(saved):
    engine = BidirectionalEngine(saved.config, saved.weights, np.float64)
    return Filler(engine, saved.vocabulary)


# windows


def seen(window):
    """For each target that counts, what the two networks have read before it, outermost first."""
    found = []
    for row in range(len(window.targets_BT)):
        inputs, targets = window.inputs_BT[row], window.targets_BT[row]
        back, order = window.reversed_BT[row], window.order_BT[row]
        for t in np.flatnonzero(targets != IGNORE):
            found.append((targets[t], inputs[: t + 1].tolist(), back[: order[t] + 1].tolist()))
    return found


def expected_of(texts_of_window):
    return [
        (text[t], [EOS_ID, *text[:t]], [EOS_ID, *text[:t:-1]])
        for text in texts_of_window
        for t in range(len(text))
    ]


def test_a_window_of_documents_reads_each_from_both_ends():
    documents = [[2, 3, 4, 5], [6, 7], [8, 9, 2]]
    ids = np.array([i for one in documents for i in [*one, EOS_ID]], np.uint8)
    ends = np.flatnonzero(ids == EOS_ID) + 1
    spans = np.column_stack([[0, *ends[:-1]], ends])
    windows = [
        from_both_sides(window) for window in document_windows(ids, spans, batch_size=4, bptt=8)
    ]
    found = [event for window in windows for event in seen(window)]
    key = lambda event: (event[1], event[0])  # noqa: E731
    assert sorted(found, key=key) == sorted(expected_of(documents), key=key)
    assert sum(window.n_targets for window in windows) == sum(map(len, documents))


def test_a_window_of_a_text_sees_no_further_than_its_end():
    text = list(range(2, 40))
    batches = TextBatches(np.array(text, np.uint8), newline_id=None, batch_size=1, bptt=10)
    window = from_both_sides(batches.next_window())
    targets = [i for i in window.targets_BT[0].tolist() if i != IGNORE]
    assert len(targets) > 1
    assert seen(window) == expected_of([targets])


def test_warm_up_is_read_and_does_not_count():
    ids = np.arange(2, 62, dtype=np.uint8)
    windows = evaluation_windows(ids, batch_size=3, bptt=8, warmup=5)
    counted = []
    for window in windows:
        both = from_both_sides(window)
        assert both.reversed_BT.min() >= 0
        counted += [target for target, _, _ in seen(both)]
        for target, before, behind in seen(both):
            assert target not in before + behind
            if len(behind) > 1:
                assert behind[-1] == target + 1
    assert sorted(counted) == ids.tolist()


def test_hidden_characters_are_unknown_from_both_sides():
    ids = np.arange(2, 250, dtype=np.uint8)
    batches = TextBatches(ids, newline_id=None, batch_size=1, bptt=200, unknown_rate=0.3)
    window = from_both_sides(batches.next_window())
    n = int((window.targets_BT[0] != IGNORE).sum())
    inputs, back = window.inputs_BT[0, :n], window.reversed_BT[0, :n]
    # inputs[t + 1] and back[n - t] are both character t, and the last is the first to be read back
    np.testing.assert_array_equal(inputs[2:], back[2:][::-1])
    assert (back == UNK_ID).sum() > n / 10 > 0
    assert UNK_ID not in window.targets_BT


def test_processes_count_the_same_targets_as_one():
    ids = np.array([2, 3, EOS_ID, 4, EOS_ID, 5, 6, 7, EOS_ID], np.uint8)
    places = [(0, 0, 3), (3, 3, 5), (5, 5, 9)]
    from charrnn.batches.windows import Place

    whole = from_both_sides(shared_window(ids, [Place(*p) for p in places], 4, Share()))
    parts = [
        from_both_sides(shared_window(ids, [Place(*p) for p in places], 4, Share(rank, 2)))
        for rank in range(2)
    ]
    assert [part.n_targets for part in parts] == [6, 6]
    assert whole.n_targets == 6
    assert sum(len(seen(part)) for part in parts) == 6


# engines


@pytest.mark.parametrize("cell", reference.CELLS)
@pytest.mark.parametrize("members", [1, 3])
def test_both_engines_are_the_sum_of_two_readings(cell, members):
    saved = saved_model(cell, members=members, layers=2, embedding=3)
    rng = np.random.default_rng(0)
    ids_BT = rng.integers(0, len(saved.vocabulary), (2, 9))
    right = np.stack(
        [reference.run_both_sides(saved.config, saved.weights, ids.tolist()) for ids in ids_BT]
    )
    engine = BidirectionalEngine(saved.config, saved.weights, np.float64)
    forwards = engine.forwards.run(
        np.column_stack([[EOS_ID] * 2, ids_BT[:, :-1]]), engine.forwards.initial_state(2)
    )
    np.testing.assert_allclose(forwards + engine.from_right(ids_BT), right, atol=1e-12)

    network = Ensemble([build_member(saved.config) for _ in range(members)]).double().eval()
    network.import_weights(saved.weights)
    window = from_both_sides(
        shared_window_of(ids_BT)._replace(targets_BT=np.where(ids_BT == EOS_ID, 2, ids_BT))
    )
    inputs, back, order = (
        torch.from_numpy(np.array(a))
        for a in (window.inputs_BT, window.reversed_BT, window.order_BT)
    )
    # EOS within the text is no end here
    back = torch.from_numpy(np.column_stack([[EOS_ID] * 2, ids_BT[:, :0:-1]]))
    logits, _ = network(inputs, network.initial_state(2), (back, order))
    np.testing.assert_allclose(logits.detach().numpy(), right, atol=1e-12)
    for name, array in network.export_weights().items():
        np.testing.assert_allclose(array, saved.weights[name], rtol=1e-6)


def shared_window_of(ids_BT):
    """A window of whole texts."""
    from charrnn.batches.windows import Window, shifted

    return Window(shifted(ids_BT, EOS_ID), ids_BT, np.zeros(len(ids_BT), np.float32), ids_BT.size)


@pytest.mark.parametrize("cell", reference.CELLS)
def test_a_prediction_never_depends_on_its_own_character(cell):
    saved = saved_model(cell, layers=2, vocabulary=Vocabulary("abcdefgh"))
    network = Ensemble([build_member(saved.config)]).double().eval()
    network.import_weights(saved.weights)
    engine = BidirectionalEngine(saved.config, saved.weights, np.float64)

    def by_torch(ids):
        window = from_both_sides(shared_window_of(ids[None]))
        arrays = (window.inputs_BT, window.reversed_BT, window.order_BT)
        inputs, back, order = (torch.from_numpy(np.array(array)) for array in arrays)
        logits, _ = network(inputs, network.initial_state(1), (back, order))
        return logits[0].detach().numpy()

    def by_numpy(ids):
        state = engine.forwards.initial_state()
        return engine.forwards.run([EOS_ID, *ids[:-1]], state) + engine.from_right(ids[None])[0]

    ids = np.array([2, 5, 3, 9, 4, 4, 7])
    for logits_of in (by_torch, by_numpy):
        before = logits_of(ids)
        for t in range(len(ids)):
            changed = ids.copy()
            changed[t] = 6
            after = logits_of(changed)
            moved = np.abs(after - before).max(axis=1) > 1e-9
            assert not moved[t]
            assert moved[np.arange(len(ids)) != t].all()


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn-tanh"])
def test_gradients_against_finite_differences(cell):
    saved = saved_model(cell, hidden=3)
    network = build_member(saved.config).double()
    network.import_weights(saved.weights)
    ids = np.array([[2, 3, 4, 2], [4, 3, EOS_ID, IGNORE]])
    window = from_both_sides(
        shared_window_of(np.maximum(ids, 0))._replace(targets_BT=ids, n_ends=1)
    )

    def loss():
        return window_loss(
            network, window, network.initial_state(2), torch.device("cpu"), "float32"
        )[0]

    parameters = list(network.parameters())
    # the loss is computed in float32: compare with the naive float64 loss instead
    gradients = torch.autograd.grad(loss(), parameters)
    exported = [*network.named_parameters()]
    rng = np.random.default_rng(1)
    texts_of_rows = ([2, 3, 4, 2], [4, 3])

    def naive():
        weights = {k: np.asarray(v, np.float64) for k, v in names_of(network).items()}
        total = 0.0
        for text in texts_of_rows:
            rows = reference.logprobs(reference.run_both_sides(saved.config, weights, text))
            total -= sum(row[i] for row, i in zip(rows, text, strict=True))
        return total

    for (_, parameter), gradient in zip(exported, gradients, strict=True):
        flat = parameter.data.view(-1)
        for k in rng.choice(len(flat), size=min(3, len(flat)), replace=False):
            was = float(flat[k])
            flat[k] = was + 1e-5
            above = naive()
            flat[k] = was - 1e-5
            below = naive()
            flat[k] = was
            slope = (above - below) / 2e-5
            assert float(gradient.view(-1)[k]) == pytest.approx(slope, abs=2e-4)


def names_of(network):
    """The arrays in float64, by the names of the file."""
    found = {}
    for prefix, part in (("", network.forwards), ("reverse.", network.backwards)):
        for name, value in part.named_parameters():
            found[prefix + name.removesuffix("_l0")] = value.detach().numpy()
    return found


def test_a_long_text_is_read_in_stretches_of_the_trained_length():
    saved = saved_model(hidden=6)
    engine = BidirectionalEngine(saved.config, saved.weights, np.float64)
    ids = np.random.default_rng(2).integers(2, 5, 300)
    nothing = ids[None, :0]
    whole = engine.from_right_of_long(ids[None], nothing)[0]
    for t in (0, 63, 64, 200, 299):
        start = t - t % STRETCH
        visible = ids[start : min(300, start + STRETCH + AHEAD)]
        right = engine.from_right(visible[None])[0][t - start]
        np.testing.assert_allclose(whole[t], right, atol=1e-12)
    parts = [
        engine.from_right_of_long(ids[None, a : a + 128], ids[None, a + 128 :])[0]
        for a in (0, 128, 256)
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-12)


# filling


def enumerated(saved, text, mark="_"):
    """Every filling with its log-probability, place by place with UNK where it is still open."""
    places = [k for k, c in enumerate(text) if c == mark]
    alphabet = range(2, len(saved.vocabulary))
    found = {}
    for values in itertools.product(alphabet, repeat=len(places)):
        ids = [UNK_ID if c == mark else saved.vocabulary.characters.index(c) + 2 for c in text]
        total = 0.0
        for place, value in zip(places, values, strict=True):
            logits = reference.run_both_sides(saved.config, saved.weights, ids)[place]
            scale = math.log(math.fsum(math.exp(logits[i]) for i in alphabet))
            total += logits[value] - scale
            ids[place] = value
        filled = "".join(saved.vocabulary.strings[i] for i in ids)
        found[filled] = total
    return found


@pytest.mark.parametrize("text", ["ab_a", "a__b", "_bca_", "a_b_c_a"])
@pytest.mark.parametrize("members", [1, 2])
def test_fillings_against_enumeration(text, members):
    saved = saved_model(members=members, scale=1.2)
    right = enumerated(saved, text)
    assert math.fsum(map(math.exp, right.values())) == pytest.approx(1, abs=1e-12)
    gaps = GapText(text, "_", saved, "error")
    found = filler_of(saved).best(gaps, top=len(right), beam=len(right))
    assert {one.text: one.logprob for one in found} == pytest.approx(right, abs=1e-9)
    in_order = pytest.approx(sorted(right.values(), reverse=True), abs=1e-9)
    assert [one.logprob for one in found] == in_order
    best = found[0]
    for gap, start in zip(best.gaps, best.starts, strict=True):
        assert best.text[start : start + len(gap)] == gap
    narrow = filler_of(saved).best(gaps, top=1, beam=2)[0]
    assert narrow.logprob == pytest.approx(right[narrow.text], abs=1e-9)


@pytest.mark.parametrize("places", [[0], [63, 64], [5, 130, 131, 199], [198]])
def test_what_stands_far_to_the_right_is_read_where_a_gap_is_near(places):
    saved = saved_model(hidden=6)
    engine = BidirectionalEngine(saved.config, saved.weights, np.float64)
    ids_BT = np.random.default_rng(1).integers(2, 5, (300, 200))
    whole = engine.from_right_of_long(ids_BT, ids_BT[:, :0])
    found = list(engine.from_right_at(ids_BT, places))
    np.testing.assert_allclose(np.stack(found, 1), whole[:, places], atol=1e-12)


def test_long_texts_with_few_gaps_are_read_once_and_in_little_memory(monkeypatch):
    saved = saved_model()
    text = "abc" * 1500 + "_" + "abc" * 10 + "_"
    read = []
    run = Engine.run
    monkeypatch.setattr(
        Engine, "run", lambda self, ids, state: read.append(ids) or run(self, ids, state)
    )
    found = filler_of(saved).draw(GapText(text, "_", saved, "unk"), SamplingConfig(seed=1), num=500)
    assert len(found) == 500
    assert max(ids.size for ids in read) <= 2**15
    assert sum(ids.size for ids in read) < 500 * 25 * 300


def test_gibbs_sampling_has_the_distribution_of_its_conditionals():
    saved = saved_model(scale=1.5, seed=3)
    alphabet = range(2, 5)
    states = list(itertools.product(alphabet, repeat=2))

    def conditional(values, g):
        ids = [2, values[0], 3, values[1], 4]
        logits = reference.run_both_sides(saved.config, saved.weights, ids)[1 + 2 * g]
        weights = np.exp([logits[i] for i in alphabet])
        return weights / weights.sum()

    sweep = np.eye(len(states))
    for g in range(2):
        kernel = np.zeros_like(sweep)
        for row, values in enumerate(states):
            for value, p in zip(alphabet, conditional(values, g), strict=True):
                new = (value, values[1]) if g == 0 else (values[0], value)
                kernel[row, states.index(new)] += p
        sweep = sweep @ kernel
    stationary = np.linalg.matrix_power(sweep, 200)[0]
    gaps = GapText("a_b_c", "_", saved, "error")
    drawn = filler_of(saved).draw(gaps, SamplingConfig(seed=5), num=4000)
    counts = np.zeros(len(states))
    for one in drawn:
        counts[states.index(tuple(saved.vocabulary.encode("".join(one.gaps)).tolist()))] += 1
    np.testing.assert_allclose(counts / 4000, stationary, atol=0.03)
    right = enumerated(saved, "a_b_c")
    assert drawn[0].logprob == pytest.approx(right[drawn[0].text], abs=1e-9)


def test_one_gap_is_drawn_from_the_distribution_of_the_model():
    saved = saved_model(scale=1.5, seed=3)
    right = enumerated(saved, "a_b")
    model = CharModel(saved)
    drawn = model.fill("a_b", num=4000, seed=1)
    for text, logprob in right.items():
        share = sum(one.text == text for one in drawn) / 4000
        assert share == pytest.approx(math.exp(logprob), abs=0.03)
    assert {one.text for one in model.fill("a_b", num=20, temperature=0.0)} == {
        max(right, key=right.get)
    }
    again = [one.text for one in model.fill("a_b_c", num=30, seed=2)]
    assert again == [one.text for one in model.fill("a_b_c", num=30, seed=2)]
    assert again != [one.text for one in model.fill("a_b_c", num=30, seed=3)]


def test_gaps_of_bytes_become_whole_characters():
    saved = saved_model(vocabulary=ByteVocabulary(), scale=0.3)
    model = CharModel(saved)
    for text in ("caf__ ist", "_", "é_", "_é", "a____b_c"):
        if text == "_":
            continue
        for one in [*model.fill(text, top=40), *model.fill(text, num=25, seed=1)]:
            raw = one.text.encode("utf-8")
            assert len(raw) == len(text.encode("utf-8"))
            assert "\ufffd" not in one.text
    assert any(len(one.gaps[0]) == 1 for one in model.fill("caf__", top=5000))


def test_what_may_follow_leads_to_whole_characters():
    for room in range(3):
        for written in (b"", b"a", b"\xc3", b"\xe2", b"\xe2\x82", b"\xf0\x9f", "é".encode()):
            allowed = may_follow(written, room)
            for byte in range(256):
                tails = itertools.chain.from_iterable(
                    itertools.product(b"\x80\x90\xa0\xbfa", repeat=n) for n in [room]
                )
                can = any(is_utf8(written + bytes([byte, *tail])) for tail in tails)
                assert allowed[2 + byte] == can, (written, byte, room)
    assert not may_follow(b"", 3)[[UNK_ID, EOS_ID]].any()


@pytest.mark.parametrize(
    ("text", "options", "fragment"),
    [
        ("no gap", {}, "has no gap"),
        ("___", {}, "nothing but gaps"),
        ("", {}, "has no gap"),
        ("a_b", {"gap": ""}, "gap is empty"),
        ("a_b", {"top": 0}, "top must be at least 1"),
        ("a_b", {"beam": 10**9}, "beam must be at most"),
        ("a_b", {"num": 0}, "num must be at least 1"),
        ("a_b", {"num": 2, "temperature": -1}, "temperature"),
        ("a_b", {"temperature": "warm"}, "temperature"),
        (7, {}, "text must be a text"),
    ],
)
def test_bad_input_is_told(text, options, fragment):
    with pytest.raises(ConfigError, match=fragment):
        CharModel(saved_model()).fill(text, **options)


def test_unknown_characters_around_a_gap():
    model = CharModel(saved_model())
    assert model.fill("a_☃")[0].text.endswith("☃")
    with pytest.raises(
        UnknownCharacterError, match=r"first at position 7 \(×2\), 'é'.* at position 11"
    ):
        model.fill("a__b__☃__☃é", gap="__", on_unknown="error")
    assert model.fill("☃a_", on_unknown="skip")[0].text.startswith("☃a")


# scores


def test_scores_are_sums_over_characters_given_all_others():
    saved = saved_model(members=2, hidden=6)
    model = CharModel(saved)
    text = "abcabca☃cab"
    ids = saved.vocabulary.encode(text).tolist()
    rows = reference.logprobs(reference.run_both_sides(saved.config, saved.weights, ids))
    right = math.fsum(row[i] for row, i in zip(rows, ids, strict=True))
    score = model.score(text)
    assert score.logprob == pytest.approx(right, abs=1e-4)
    assert score.n_scored == score.n_chars == len(text)
    assert model.score_many(["a", text, ""])[1].logprob == pytest.approx(right, abs=1e-4)
    events = model.char_scores(text)
    assert math.fsum(event.logprob for event in events) == pytest.approx(right, abs=1e-4)
    with_context = model.score("b", context="a")
    row = reference.logprobs(reference.run_both_sides(saved.config, saved.weights, [2, 3]))[1]
    assert with_context.logprob == pytest.approx(row[3], abs=1e-5)
    with pytest.raises(ConfigError, match="eos counts the end"):
        model.score(text, eos=True)


def test_a_long_score_does_not_depend_on_how_the_text_is_cut():
    from charrnn.scoring.scorer import score_pieces

    model = CharModel(saved_model(hidden=6))
    text = "".join(np.random.default_rng(0).choice(list("abc"), 2500))
    scorer = model.scorer()
    whole = score_pieces(scorer, [text]).logprob
    parts = score_pieces(scorer, [text[:7], text[7:1100], text[1100:]]).logprob
    assert parts == whole
    skipping = model.scorer(on_unknown="skip")
    assert score_pieces(skipping, [text + "☃" * 1500]).logprob == whole
    assert math.isfinite(score_pieces(skipping, ["☃" * 3000 + text]).logprob)


# commands


def train(charrnn, *options, steps=30, out="run"):
    result = charrnn(
        *("train", "prose.txt", "--bidirectional", "--hidden", 12, "--batch", 4, "--bptt", 16),
        *("--steps", steps, "--out", out, *options),
    )
    assert result.code == 0, result.err
    return result


def test_the_commands_of_a_bidirectional_model(charrnn, text, tmp_path):
    trained = train(charrnn)
    assert "bidirectional LSTM 1 × 12" in trained.err
    assert "charrnn fill -m run" in trained.err
    sample = [line for line in trained.err.splitlines() if line.startswith("    ")]
    assert any("_" in line for line in sample)
    assert len(sample[0]) == len(sample[1])
    filled = charrnn(
        "fill", "-m", "run", "The c_t", "an old s__lor", "--top", 2, "--format", "jsonl"
    )
    assert filled.code == 0, filled.err
    records = [json.loads(line) for line in filled.out.splitlines()]
    assert [record["number"] for record in records] == [1, 1, 2, 2]
    assert [record["filling"] for record in records] == [1, 2, 1, 2]
    for record in records:
        assert record["probability"] == pytest.approx(math.exp(record["logprob"]))
    model = load(tmp_path / "run")
    assert records[2]["text"] == model.fill("an old s__lor")[0].text
    drawn = charrnn("fill", "-m", "run", "--num", 3, "--seed", 4, "--format", "jsonl", "The c_t")
    texts_drawn = [json.loads(line)["text"] for line in drawn.out.splitlines()]
    assert texts_drawn == [one.text for one in model.fill("The c_t", num=3, seed=4)]
    table = charrnn("fill", "-m", "run", "The c_t", terminals=("stdout",), COLUMNS="60")
    assert "probability" in table.out
    assert table.out.count("The c") == 5
    shown = charrnn("score", "-m", "run", "--per-char", "The cat", terminals=("stdout",))
    assert "misspelt" in shown.out or "far more probable" in shown.out
    assert "pseudo-log-likelihood" in shown.err
    again = charrnn("train", "--resume", "--out", "run", "--steps", 5)
    assert again.code == 0, again.err


def test_the_newest_model_is_one_that_can_do_what_is_asked(charrnn, text, tmp_path):
    alone = train(charrnn, steps=2, out="runs/both")
    assert alone.code == 0
    assert "builtin" in charrnn("sample", "-n", 3).err, "no other model can write"
    filled = charrnn("fill", "a t_xt")
    assert filled.code == 0, filled.err
    assert "runs/both" in filled.err
    one_way = charrnn("train", "prose.txt", "--hidden", 8, "--steps", 2, "--out", "runs/one")
    assert one_way.code == 0, one_way.err
    assert "runs/one" in charrnn("sample", "-n", 3).err
    again = charrnn("fill", "a t_xt")
    assert again.code == 0, again.err
    assert "runs/both" in again.err
    train(charrnn, steps=2, out="runs/later")
    assert "runs/one" in charrnn("sample", "-n", 3).err
    assert charrnn("export", "-o", "page.html").code == 0
    assert "runs/later" in charrnn("score", "a text").err


def test_a_page_is_filled_line_by_line(charrnn, text, tmp_path):
    train(charrnn, steps=3)
    (tmp_path / "page.txt").write_bytes(b"The c_t\r\n\r\nhas no gap\r\nand s_t")
    filled = charrnn("fill", "-m", "run", "--file", "page.txt", "--top", 1, "--format", "jsonl")
    assert filled.code == 0, filled.err
    records = [json.loads(line) for line in filled.out.splitlines()]
    assert [record["number"] for record in records] == [1, 2, 3, 4]
    assert [record["text"] for record in records][1:3] == ["", "has no gap"]
    assert [len(record["gaps"]) for record in records] == [1, 0, 0, 1]
    assert records[2]["probability"] == 1
    shown = charrnn("fill", "-m", "run", "--file", "page.txt", terminals=("stdout",))
    assert "\nhas no gap\n" in shown.out
    other = charrnn("fill", "-m", "run", "--file", "page.txt", "--gap", "?")
    assert other.code == 2
    assert "page.txt has no gap: write ? for each" in other.err
    (tmp_path / "page.txt").write_text("___\n")
    charrnn("fill", "-m", "run", "--file", "page.txt").assert_one_error(
        2, "line 1 of page.txt: '___'"
    )
    (tmp_path / "page.txt").write_text("")
    charrnn("fill", "-m", "run", "--file", "page.txt").assert_one_error(2, "no lines to fill")
    charrnn("fill", "-m", "run", stdin=b"").assert_one_error(2, "nothing to fill")


def test_what_a_bidirectional_model_cannot_do_is_told(charrnn, text, tmp_path):
    train(charrnn, steps=3)
    cannot_write = "cannot write from left to right"
    charrnn("sample", "-m", "run").assert_one_error(2, cannot_write)
    charrnn("sample", "-m", "run", "--num", 3).assert_one_error(2, cannot_write)
    charrnn("export", "run", "-o", "page.html").assert_one_error(2, cannot_write)
    assert not (tmp_path / "page.html").exists()
    for options in (["--adapt"], ["--eos"]):
        result = charrnn("score", "-m", "run", "a text", *options)
        assert result.code == 2, result.err
        assert "write" not in result.err
    rows = charrnn("score", "-m", "run", "--file", "prose.txt", "--whole", "--rows", 4)
    assert rows.code == 2
    assert "--rows" in rows.err
    compared = charrnn("compare", "run", "builtin", "a text")
    assert compared.code == 2
    assert "pseudo-log-likelihood" in compared.err
    twice = charrnn("compare", "run", "run", "a text")
    assert twice.err.count("pseudo-log-likelihoods") == 1
    begun = ("train", "prose.txt", "--init", "builtin", "--bidirectional")
    charrnn(*begun).assert_one_error(2, "--bidirectional contradicts the model to begin from")
    one_way = charrnn("fill", "-m", "builtin", "a t_xt")
    assert one_way.code == 2
    assert "reads from left to right only" in one_way.err
    (tmp_path / "page.txt").write_text("no gap\n")
    page = charrnn("fill", "-m", "builtin", "--file", "page.txt")
    page.assert_one_error(2, "charrnn: the model reads from left to right only")
    assert not page.out
    named = charrnn("fill", "run", "a t_xt", "-m", "run")
    assert "run is filled as a text; a model is named with -m run" in named.err
    second = charrnn("fill", "-m", "run", "a t_xt", "none")
    assert "text 2" in second.err
    late = charrnn("fill", "-m", "run", "a t_xt", "--temp", 0.5)
    assert "--temp belongs to random fillings" in late.err
    both = charrnn("fill", "-m", "run", "a t_xt", "--num", 2, "--top", 3)
    assert "--top belongs to the most probable" in both.err


def test_the_file_of_an_ordinary_model_says_nothing_of_directions(tmp_path):
    saved = saved_model()
    one = dataclasses.replace(saved.config, bidirectional=False)
    assert "bidirectional" not in one.to_dict()
    assert saved.config.to_dict()["bidirectional"] is True
    weights = {
        name: saved.weights[name].astype(np.float32) for name in saved.config.weight_shapes()
    }
    save_model(tmp_path / "both.safetensors", dataclasses.replace(saved, weights=weights))
    assert load(tmp_path / "both.safetensors").saved.config == saved.config
