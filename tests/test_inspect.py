"""Looking inside: activations, features, gradients through time, embeddings, the next character.

Judged by naive transcriptions, finite differences, and a network whose answer is known.
"""

from __future__ import annotations

import base64
import json
import math
import re
import shutil

import numpy as np
import pytest
import reference
from conftest import TINY_RUN
from test_formats import documented, records_of, rows_of

from charrnn.config import TextConfig
from charrnn.display.charts import Curves, Series, show_chart, ticks
from charrnn.engine.network import Engine
from charrnn.errors import ConfigError, ModelFileError
from charrnn.inspection.activations import activations, levels, packed, read_text
from charrnn.inspection.embeddings import embeddings
from charrnn.inspection.features import area_under_curve, feature_values, find_units
from charrnn.model import CharModel
from charrnn.storage.model_file import SavedModel, save_model
from charrnn.vocab import EOS_ID, ByteVocabulary, Vocabulary

ALPHABET = '\n "()abcdefgh'
QUOTED = 'abc "de fg" h\n"a" bcd (ef) "gh\n\nab cd"ef'


def saved_model(cell="lstm", *, unit="char", documents="none", characters=ALPHABET, **shape):
    vocabulary = ByteVocabulary() if unit == "byte" else Vocabulary(characters)
    config = reference.make_config(cell, vocab_size=len(vocabulary), **shape)
    return SavedModel(
        config=config,
        vocabulary=vocabulary,
        text=TextConfig(documents=documents),
        weights=reference.random_weights(config),
        training={},
    )


@pytest.fixture
def save(tmp_path):
    """Write a model into the directory of the `charrnn` fixture and return its name."""

    def save(saved, name="own.safetensors"):
        save_model(tmp_path / name, saved)
        return name

    return save


# activations


@pytest.mark.parametrize("cell", reference.CELLS)
@pytest.mark.parametrize("embedding", [0, 3])
def test_activations_are_those_of_the_equations(cell, embedding):
    saved = saved_model(cell, layers=2, members=2, embedding=embedding)
    ids = np.random.default_rng(0).integers(2, 10, 7)
    found = activations(saved, ids, np.float64)
    assert all(array.shape == (2, 2, 7, 5) for array in found.values())
    for m, (config, weights) in enumerate(reference.members(saved.config, saved.weights)):
        for t in range(7):
            _, state = reference.run(config, weights, [EOS_ID, *ids[: t + 1]])
            for k, (h, c) in enumerate(state):
                np.testing.assert_allclose(found["h"][m, k, t], h, atol=1e-12)
                if "c" in found:
                    np.testing.assert_allclose(found["c"][m, k, t], c, atol=1e-12)


def naive_gate(weights, layer, block, x, h, unit):
    """One gate of one unit, from the blocks of the file."""
    row = block * len(h) + unit
    parts = ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
    W, b, U, d = (weights[f"layers.{layer}.{part}"] for part in parts)
    return reference.sigmoid(W[row] @ x + b[row] + U[row] @ h + d[row])


def test_gates_are_those_of_the_equations():
    ids = np.array([4, 7, 3, 9])
    lstm, gru = saved_model("lstm", layers=2), saved_model("gru", layers=2)
    found = activations(lstm, ids, np.float64)
    h, c = found["h"][0], found["c"][0]
    i, f, o, g = (found[name][0] for name in ("input", "forget", "output", "candidate"))
    np.testing.assert_allclose(c[:, 1:], f[:, 1:] * c[:, :-1] + i[:, 1:] * g[:, 1:], atol=1e-12)
    np.testing.assert_allclose(h, o * np.tanh(c), atol=1e-12)
    for t, unit in ((1, 0), (3, 4)):
        for gate, block in ((i, 0), (f, 1)):
            naive = naive_gate(lstm.weights, 1, block, h[0, t], h[1, t - 1], unit)
            assert gate[1, t, unit] == pytest.approx(naive, abs=1e-12)
    found = activations(gru, ids, np.float64)
    h, u, r, n = (found[name][0] for name in ("h", "update", "reset", "candidate"))
    np.testing.assert_allclose(
        h[:, 1:], u[:, 1:] * n[:, 1:] + (1 - u[:, 1:]) * h[:, :-1], atol=1e-12
    )
    for t, unit in ((1, 2), (3, 1)):
        for gate, block in ((r, 0), (1 - u, 1)):
            naive = naive_gate(gru.weights, 1, block, h[0, t], h[1, t - 1], unit)
            assert gate[1, t, unit] == pytest.approx(naive, abs=1e-12)


@pytest.mark.parametrize("cell", reference.CELLS)
def test_activations_agree_with_the_engine(cell):
    saved = saved_model(cell, layers=2, members=3, embedding=4)
    text = "abc def (gh)\n" * 20
    model = CharModel(saved)
    h = model.activations(text)["h"]
    inputs = np.array([EOS_ID, *saved.vocabulary.encode(text)])
    engine = Engine(saved.config, saved.weights)
    wanted = engine.run(inputs, engine.initial_state())[1:]
    weight, bias = saved.weights["output.weight"], saved.weights["output.bias"]
    logits = np.einsum("mth,mvh->mtv", h[:, -1], weight) + bias[:, None]
    scale = max(1.0, np.abs(wanted).max())
    np.testing.assert_allclose(logits.mean(0) / scale, wanted / scale, atol=1e-5)


def test_in_a_model_of_lines_every_line_begins_anew():
    model = CharModel(saved_model("lstm", documents="line", characters="abcd"))
    several, alone = model.activations("ab\ncd"), model.activations("cd")
    for name in alone:
        assert several[name].shape[2] == 5
        np.testing.assert_array_equal(several[name][:, :, 3:], alone[name])
    one_text = CharModel(saved_model("lstm", characters="abcd\n"))
    assert not np.allclose(
        one_text.activations("ab\ncd")["h"][:, :, 3:], one_text.activations("cd")["h"]
    )


def test_a_character_of_a_byte_model_is_read_with_its_last_byte():
    read = read_text(saved_model(unit="byte"), "aé€b")
    assert read.ends.tolist() == [0, 2, 5, 6]
    assert len(read.ids) == 7
    assert read.unknown == ()


def test_levels_are_between_minus_one_and_one():
    values = np.array([[-5.0, 0, 2], [1, 0, 4]])  # two characters, three units
    np.testing.assert_allclose(levels(values, "c"), [[-1, 0, 0.5], [0.2, 0, 1]])
    np.testing.assert_allclose(levels(values / 10, "h"), values / 10)
    np.testing.assert_allclose(levels(values[:, 1:] / 4, "forget"), [[-1, 0], [-1, 1]])
    assert packed(np.array([[[[1.0, -1], [0, 2]]]])) == bytes([127, 0, 129, 127])


def test_what_cannot_be_looked_at():
    model = CharModel(saved_model())
    for wrong in ("", 3):
        with pytest.raises(ConfigError, match="text"):
            model.activations(wrong)
    with pytest.raises(ConfigError, match="no setting called 'txt': did you mean text"):
        model.activations(txt="a")
    big = saved_model("rnn-relu")
    weights = {name: np.full_like(a, 1e300) for name, a in big.weights.items()}
    huge = SavedModel(config=big.config, vocabulary=big.vocabulary, weights=weights, training={})
    with pytest.raises(ModelFileError, match="overflow"):
        CharModel(huge).activations("abc")


# features


@pytest.mark.parametrize(
    ("feature", "text", "expected"),
    [
        ("quote", 'a"b"c“d”e', "011001100"),
        ("quote", 'a"b\n\nc', "011100"),
        ("bracket", "a(b[c])d)e(", "01111100001"),
        ("line-position", "ab\nc\n\nd", "1201001"),
        ("indent", "  a\n\tb \nc", "122044400"),
        ("capital", "aBC d", "01100"),
        ("digit", "a1 2", "0101"),
        ("word-start", "it's so, 3rd", "100001000100"),
    ],
)
def test_features_of_a_text(feature, text, expected):
    assert feature_values(text, feature).tolist() == [float(c) for c in expected]


def test_the_area_under_the_curve_counts_pairs():
    rng = np.random.default_rng(1)
    values = rng.integers(0, 6, 60).astype(float)  # with ties
    positive = rng.random(60) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in values[positive] for b in values[~positive]]
    assert area_under_curve(values, positive) == pytest.approx(np.mean(pairs))


def test_correlations_are_pearsons():
    rng = np.random.default_rng(2)
    values, feature = rng.normal(size=(2, 1, 40, 3)), rng.normal(size=40)
    values[1, 0, :, 2] = 0.5  # never moves
    found = find_units(values, feature, binary=False)
    assert [abs(one.correlation) for one in found] == sorted(
        (abs(one.correlation) for one in found), reverse=True
    )
    for one in found:
        series = values[one.member, one.layer, :, one.unit]
        r = 0 if series.std() == 0 else np.corrcoef(series, feature)[0, 1]
        assert one.correlation == pytest.approx(r, abs=1e-12)
        assert one.auc is None


def planted(member=1, unit=7, hidden=12):
    """An LSTM of two members in which one unit toggles at every quotation mark."""
    saved = saved_model("lstm", layers=2, members=2, hidden=hidden)
    weights = {name: array.copy() for name, array in saved.weights.items()}
    quote = int(saved.vocabulary.encode('"')[0])
    i, f, g, o = (k * hidden + unit for k in range(4))
    w, u, b, d = (
        weights[f"layers.0.{part}"][member]
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    for row in (i, f, g, o):
        w[row], u[row], b[row], d[row] = 0, 0, 0, 0
    b[i], w[i, quote] = -20, 40  # lets something in at a quotation mark only
    b[f], w[f, quote] = 20, -40  # and forgets only there
    b[g], u[g, unit] = 3, -10  # what comes in is the contrary of what was there
    b[o] = 20
    return SavedModel(
        config=saved.config, vocabulary=saved.vocabulary, weights=weights, training={}
    )


def test_the_planted_quote_unit_is_found_first(charrnn, save):
    rng = np.random.default_rng(3)
    words = ("abc", "de", "fgh", "cab", '"bad egg"', '"a head"', "(ebb)")
    text = " ".join(words[k] for k in rng.integers(0, len(words), 120))
    given = ("inspect", save(planted()), "--text", text, "--find", "quote", "--format")
    result = charrnn(*given, "jsonl")
    assert result.code == 0, result.err
    records = records_of(result.out)
    assert [one["rank"] for one in records] == [1, 2, 3, 4, 5]
    best = records[0]
    assert (best["member"], best["layer"], best["unit"]) == (1, 0, 7)
    assert best["auc"] > 0.99
    assert best["correlation"] > max(0.99, *(abs(one["correlation"]) for one in records[1:]))
    assert (
        list(best) == list(rows_of(charrnn(*given, "tsv").out)[0]) == documented("inspect --find")
    )
    shown = charrnn(*given, "table", terminals=("stdout",))
    assert "1  memory cell c of unit 7 in layer 0 of member 1" in shown.out
    other = records_of(charrnn(*given, "jsonl", "--member", 0).out)
    assert {one["member"] for one in other} == {0}


# gradients


def naive_logprob(saved, inputs, target, distance, where=None, nudge=0.0):
    """log P of the next character, with one h nudged `distance` characters before it."""
    logits = 0
    for m, (config, weights) in enumerate(reference.members(saved.config, saved.weights)):
        step, state = reference.cell_step(config), list(reference.zero_state(config))
        for t, i in enumerate(inputs):
            x = np.eye(config.vocab_size)[i]
            if config.embedding_size:
                x = weights["embedding.weight"][i]
            for k in range(config.num_layers):
                parts = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
                parts += ["peephole"] * (config.cell == "peephole-lstm")
                h, c = step(x, *state[k], *(weights[f"layers.{k}.{p}"] for p in parts))
                if where is not None and t == len(inputs) - distance and where[:2] == (m, k):
                    h = h.copy()
                    h[where[2]] += nudge
                state[k] = (h, c)
                x = h
        logits = logits + (weights["output.weight"] @ x + weights["output.bias"])
    return reference.logprobs([logits / saved.config.members])[0][target]


@pytest.mark.parametrize("cell", reference.CELLS)
def test_gradient_flow_agrees_with_finite_differences(cell):
    torch = pytest.importorskip("torch")
    from charrnn.inspection.gradients import gradient_flow, network_of

    saved = saved_model(cell, layers=2, members=2, hidden=3, embedding=0 if cell == "gru" else 2)
    network = network_of(saved)
    with torch.no_grad():  # its weights are float64: nothing was rounded on the way
        for one, array in zip(network.members, saved.weights["output.bias"], strict=True):
            one.output.bias.copy_(torch.from_numpy(array))
    ids = np.random.default_rng(5).integers(2, 12, 5)
    flow = gradient_flow(network, ids, distance=4, positions=9)
    assert (len(flow.norms), flow.n_positions) == (4, 1)
    eps = 1e-5
    squares = np.zeros((4, 2, 2))
    for k in range(1, 5):
        for m in range(2):
            for layer in range(2):
                for unit in range(3):
                    up, down = (
                        naive_logprob(
                            saved, [EOS_ID, *ids[:4]], ids[4], k, (m, layer, unit), sign * eps
                        )
                        for sign in (1, -1)
                    )
                    squares[k - 1, m, layer] += ((up - down) / (2 * eps)) ** 2
    np.testing.assert_allclose(flow.norms, np.sqrt(squares.sum((1, 2))), rtol=1e-5)
    part = gradient_flow(network, ids, distance=4, positions=1, layers=[0], members=[1])
    np.testing.assert_allclose(part.norms, np.sqrt(squares[:, 1, 0]), rtol=1e-5)


def test_gradient_flow_is_the_mean_over_places():
    pytest.importorskip("torch")
    from charrnn.inspection.gradients import gradient_flow, network_of

    network = network_of(saved_model("gru", embedding=2))
    ids = np.random.default_rng(6).integers(2, 12, 9)
    whole = gradient_flow(network, ids, distance=3, positions=100)
    assert whole.n_positions == 6
    parts = [
        gradient_flow(network, ids[: t + 1], distance=3, positions=1).norms for t in range(3, 4)
    ]
    each = []
    for t in range(3, 9):  # the last place of each beginning of the text
        last = gradient_flow(network, ids[: t + 1], distance=3, positions=100)
        each.append(np.array(last.norms) * last.n_positions)
    np.testing.assert_allclose(each[-1] / 6, whole.norms, rtol=1e-9)
    np.testing.assert_allclose(np.diff(each, axis=0).sum(0) + parts[0], each[-1], rtol=1e-9)


def test_gradients_do_not_leave_a_line():
    pytest.importorskip("torch")
    from charrnn.inspection.gradients import gradient_flow, network_of

    saved = saved_model("lstm", documents="line", characters="abcd")
    network = network_of(saved)
    lines = read_text(saved, "abc\nabcd\nab").ids
    flow = gradient_flow(network, lines, distance=3, positions=10)
    alone = gradient_flow(network, read_text(saved, "abcd").ids, distance=3, positions=10)
    # the end of the first line and the last character of the second have three before them
    assert flow.n_positions == 3
    ended = gradient_flow(network, read_text(saved, "abc\n").ids, distance=3, positions=10)
    second = gradient_flow(network, read_text(saved, "abcd\n").ids, distance=3, positions=10)
    np.testing.assert_allclose(
        np.array(flow.norms) * 3, np.array(ended.norms) + 2 * np.array(second.norms), rtol=1e-6
    )
    assert alone.n_positions == 1
    with pytest.raises(ConfigError, match="must be shorter than the text"):
        gradient_flow(network, lines, distance=5, positions=10)


# the other views


def test_embeddings_are_the_principal_components():
    saved = saved_model("gru", embedding=4, members=2)
    found = embeddings(saved, 1, 3)
    vectors = saved.weights["embedding.weight"][1][2:]
    centred = vectors - vectors.mean(0)
    values, axes = np.linalg.eigh(centred.T @ centred)
    xy = np.array([(one.x, one.y) for one in found.places])
    np.testing.assert_allclose(np.abs(xy), np.abs(centred @ axes[:, [-1, -2]]), atol=1e-9)
    assert found.shares == pytest.approx(values[[-1, -2]] / values.sum())
    assert found.is_learned
    for k, place in enumerate(found.places):
        cosines = centred @ centred[k] / np.linalg.norm(centred, axis=1)
        cosines /= np.linalg.norm(centred[k])
        order = [i for i in np.argsort(-cosines) if i != k][:3]
        assert [n.character for n in place.neighbours] == [found.places[i].character for i in order]
        assert [n.similarity for n in place.neighbours] == pytest.approx(cosines[order])


def test_embeddings_of_a_one_hot_model_are_its_input_weights():
    saved = saved_model("lstm")
    columns = saved.weights["layers.0.weight_ih"].T[2:]
    found = embeddings(saved, 0, 1)
    assert not found.is_learned
    spread = np.square(columns - columns.mean(0)).sum()
    xy = np.array([(one.x, one.y) for one in found.places])
    assert np.square(xy).sum() == pytest.approx(spread * sum(found.shares))


@pytest.mark.parametrize("unit", ["char", "byte"])
@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.6, "top_k": 4}, {"top_p": 0.7, "min_p": 0.02}]
)
def test_what_may_come_next_is_what_is_drawn(charrnn, save, unit, options):
    saved = saved_model("gru", unit=unit, members=2)
    names = {"temperature": "--temp", "top_k": "--top-k", "top_p": "--top-p", "min_p": "--min-p"}
    words = [word for name, value in options.items() for word in (names[name], value)]
    given = ("inspect", save(saved), "--next", "ab", *words, "--format", "jsonl")
    records = {one["character"]: one for one in records_of(charrnn(*given).out)}
    assert len(records) == len(saved.vocabulary)
    assert sum(one["probability"] for one in records.values()) == pytest.approx(1)
    assert sum(one["sampling_probability"] for one in records.values()) == pytest.approx(1)
    assert records["<unk>"]["sampling_probability"] == 0
    drawn = CharModel(saved).sample("ab", num=40, seed=1, length=1, logprobs=True, **options)
    seen = [one for one in drawn if one.text.isascii()]
    assert seen
    for one in seen:
        record = records["<end>" if one.stop_reason == "eos" else one.text]
        assert record["logprob"] == pytest.approx(one.logprobs[0], abs=1e-4)
        assert math.log(record["sampling_probability"]) == pytest.approx(
            one.sampling_logprobs[0], abs=1e-4
        )


def test_at_temperature_zero_one_character_is_left(charrnn, save):
    given = ("inspect", save(saved_model()), "--next", "", "--temp", "0", "--format", "jsonl")
    records = records_of(charrnn(*given).out)
    assert sorted(one["sampling_probability"] for one in records)[-2:] == [0, 1]


REPORTS = {
    "inspect --unit": ("--text", 'a"b\n', "--unit", 3, "--layer", 1, "--member", 1),
    "inspect --gradient-flow": ("--text", "abcd" * 5, "--gradient-flow", "--distance", 7),
    "inspect --embeddings": ("--embeddings",),
    "inspect --next": ("--next", "ab", "--top-k", 3),
}


@pytest.mark.parametrize("title", REPORTS)
def test_the_fields_of_a_view(charrnn, save, title):
    given = ("inspect", save(saved_model(layers=2, members=2, embedding=2)), *REPORTS[title])
    tsv, jsonl = (charrnn(*given, "--format", form) for form in ("tsv", "jsonl"))
    assert (tsv.code, jsonl.code) == (0, 0), tsv.err
    records, rows = records_of(jsonl.out), rows_of(tsv.out)
    assert len(records) == len(rows) > 3
    for record, row in zip(records, rows, strict=True):
        assert list(record) == documented(title)
        for k, one in enumerate(record.pop("neighbours", []), 1):
            record[f"neighbour_{k}"] = one["character"]
            record[f"neighbour_{k}_similarity"] = one["similarity"]
        assert list(record) == list(row)
        for field, value in record.items():
            assert row[field] == value if isinstance(value, str) else float(row[field]) == value


def test_a_unit_and_a_gate_in_records(charrnn, save):
    saved = saved_model("lstm", layers=2)
    given = ("inspect", save(saved), "--text", QUOTED, "--layer", 1, "--format", "jsonl")
    found = CharModel(saved).activations(QUOTED)
    unit = records_of(charrnn(*given, "--unit", 2).out)
    assert "".join(one["character"] for one in unit) == QUOTED
    np.testing.assert_allclose([r["value"] for r in unit], found["c"][0, 1, :, 2], rtol=1e-5)
    gate = records_of(charrnn(*given, "--gate", "forget").out)
    mean = found["forget"][0, 1].mean(axis=1)
    np.testing.assert_allclose([r["value"] for r in gate], mean, rtol=1e-5)
    assert gate[0]["unit"] is None
    both = records_of(charrnn(*given, "--gate", "forget", "--unit", 2).out)
    np.testing.assert_allclose([r["value"] for r in both], found["forget"][0, 1, :, 2], rtol=1e-5)


def test_a_text_in_colours(charrnn, save, tmp_path):
    (tmp_path / "text").write_text(QUOTED + "\x1b[2J€")
    name = save(saved_model())
    given = ("inspect", name, "--text", "@text", "--unit", 2, "--format", "table")
    shown = charrnn(*given, terminals=("stdout",), FORCE_COLOR="1", COLUMNS="80")
    assert shown.code == 0, shown.err
    assert "\x1b[2J" not in shown.out
    assert "read as unknown characters: a control character (U+001B)" in shown.err
    plain = re.sub("\x1b\\[[0-9;]*m", "", shown.out)
    assert plain.startswith('memory cell c of unit 2\n\nabc "de fg" h↵\n')
    bare = charrnn(*given, terminals=("stdout",), NO_COLOR="1", TERM="xterm").out
    assert not re.search("\x1b\\[[0-9;]*[34]8;", bare)  # no colours
    assert re.search("\x1b\\[[0-9;]*[147]m", bare)  # and a cue in their place


@pytest.mark.parametrize(
    ("words", "code", "fragments"),
    [
        (("--gradient-flow", "--text", "a"), 2, ["--text has 1 character, too few"]),
        ((), 2, ["nothing to look at", "--embeddings"]),
        (("--find", "quote"), 2, ["--find needs --text"]),
        (("--unit", 1), 2, ["--unit needs --text"]),
        (("--embeddings", "--next", "a"), 2, ["--embeddings and --next are different views"]),
        (("--unit", 1, "--find", "digit", "--text", "a1"), 2, ["--unit and --find"]),
        (("--unit", 5, "--text", "ab"), 2, ["--unit must be one that the model has, 0 to 4"]),
        (("--unit", -1, "--text", "ab"), 2, ["--unit must be one that the model has, 0 to 4"]),
        (("--unit", 1, "--layer", 2, "--text", "ab"), 2, ["--layer must", "0 to 1, got 2"]),
        (("--embeddings", "--member", 1), 2, ["--member must", "only 0, got 1"]),
        (("--gate", "reset", "--text", "ab"), 2, ["--gate must", "input, forget, output, got"]),
        (("--gate", "door", "--text", "ab"), 2, ["--gate", "'forget'"]),
        (("--find", "verb", "--text", "ab"), 2, ["--find", "'line-position'"]),
        (("--find", "digit", "--text", "ab"), 2, ["--find digit is the same at every"]),
        (("--unit", 1, "--text", ""), 2, ["--text is empty"]),
        (("--unit", 1, "--text", "@missing"), 1, ["missing"]),
        (("--gradient-flow", "--text", "abc"), 2, ["--text has 3", "distances up to 200"]),
        (("--gradient-flow", "--text", "abc", "--distance", 0), 2, ["--distance must be from 1"]),
        (("--gradient-flow", "--text", "ab", "--positions", 0), 2, ["--positions must be from 1"]),
        (("--embeddings", "--text", "ab"), 2, ["--text is not for --embeddings"]),
        (("--embeddings", "--top-k", 3), 2, ["--top-k is not for --embeddings"]),
        (("--next", "a", "--top-p", 0), 2, ["--top-p must be in (0, 1]"]),
        (("--embeddings", "-o", "a.gif"), 2, ["--out must end with .png, .svg or .html"]),
        (("--embeddings", "-o", "model.html"), 2, ["--out is a file that exists, model.html"]),
        (("--embeddings", "--force"), 2, ["--force needs -o"]),
        (("--unit", 1, "--text", "ab", "-o", "a.png"), 2, ["a coloured text is a page"]),
        (("--embeddings", "-m", "own.safetensors"), 2, ["--embeddings looks into one model"]),
        (
            ("--gradient-flow", "--text", "abcd", "--distance", 2, "-m", "own.safetensors"),
            2,
            ["a model is named twice"],
        ),
    ],
)
def test_bad_input(charrnn, save, tmp_path, words, code, fragments):
    (tmp_path / "model.html").write_text("mine")
    name = save(saved_model("lstm", layers=2))
    charrnn("inspect", name, *words).assert_one_error(code, *fragments)
    assert (tmp_path / "model.html").read_text() == "mine"


def test_a_cell_without_gates_says_so(charrnn, save):
    given = ("inspect", save(saved_model("rnn-tanh")), "--text", "ab", "--gate", "forget")
    charrnn(*given).assert_one_error(2, "its rnn cell has no gates")


def test_a_picture_needs_matplotlib(charrnn, save, monkeypatch):
    import importlib.util

    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else there(name)
    )
    result = charrnn("inspect", save(saved_model()), "--embeddings", "-o", "a.png")
    result.assert_one_error(1, "matplotlib is missing", "pip install matplotlib")


# pages and pictures


def test_a_picture_does_not_wait_for_a_reader_of_the_report(charrnn, save, tmp_path, monkeypatch):
    """`charrnn inspect -o page.html | head -1`."""
    from charrnn.display.records import Records
    from charrnn.errors import CharRNNError

    def leave(self, record):
        raise CharRNNError("nobody reads")

    monkeypatch.setattr(Records, "write", leave)
    model = save(saved_model())
    for number, view in enumerate(
        (["--text", "aBa", "--unit", 1], ["--text", "a a", "--find", "word-start"], ["--next", "a"])
    ):
        result = charrnn("inspect", model, *view, "-o", f"{number}.html")
        assert "nobody reads" in result.err
        assert (tmp_path / f"{number}.html").is_file()
    charrnn("plot", "builtin", "-o", "curve.svg").assert_one_error(1, "nobody reads")
    assert (tmp_path / "curve.svg").is_file()


def test_the_page_has_all_units(charrnn, save, tmp_path):
    saved = saved_model("gru", layers=2, members=2)
    given = ("inspect", save(saved), "--text", "ab<\nc", "--unit", 3, "-o", "page.html")
    result = charrnn(*given)
    assert result.code == 0, result.err
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=", page)
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    data = json.loads(found)
    assert (data["members"], data["layers"], data["units"]) == (2, 2, 5)
    assert data["start"] == {"signal": 0, "member": 0, "layer": 0, "unit": 3}
    assert [one["name"] for one in data["signals"]] == [
        "hidden state h", "reset gate", "update gate",
    ]  # fmt: skip
    values = CharModel(saved).activations("ab<\nc")
    for one, name in zip(data["signals"], ("h", "reset", "update"), strict=True):
        stored = np.frombuffer(base64.b64decode(one["levels"]), np.int8).reshape(2, 2, 5, 5) / 127
        wanted = values[name] if name == "h" else 2 * values[name] - 1
        np.testing.assert_allclose(stored.swapaxes(2, 3), wanted, atol=0.5 / 127 + 1e-6)
    charrnn(*given).assert_one_error(2, "that exists, page.html")
    assert charrnn(*given, "--force").code == 0


def test_the_reader_steps_through_units(charrnn, save, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if browser is None:
        pytest.skip("needs Chromium")
    saved = planted()
    text = 'ab "cd" e' * 3
    given = ("inspect", save(saved), "--text", text, "--find", "quote", "-o", "page.html")
    assert charrnn(*given).code == 0
    values = CharModel(saved).activations(text)["c"]

    with playwright.sync_playwright() as control:
        opened = control.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = opened.new_context(offline=True).new_page()
        problems = []
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("console", lambda message: problems.append(message.text))
        tab.goto((tmp_path / "page.html").as_uri())

        def colours():
            found = tab.eval_on_selector_all(".text span", "all => all.map(one => one.className)")
            return [int(re.match(r"d(\d+)", one)[1]) - 10 for one in found]

        def expected(member, layer, unit):
            mine = values[member, layer, :, unit]
            return 10 * mine / max(1, np.abs(mine).max())

        def check(member, layer, unit):
            np.testing.assert_allclose(colours(), expected(member, layer, unit), atol=0.6)
            assert f"unit {unit}, layer {layer}, member {member}" in tab.text_content("#said")

        check(1, 0, 7)
        tab.keyboard.press("ArrowRight")
        check(1, 0, 8)
        tab.click("#previous")
        tab.click("#previous")
        check(1, 0, 6)
        tab.select_option("#layer", "1")
        check(1, 1, 6)
        tab.fill("#unit", "11")
        tab.click("#next")  # beyond the last unit of the last member: the first of all
        check(0, 0, 0)
        tab.click(".found button")
        check(1, 0, 7)
        tab.focus("article")
        tab.keyboard.press("ArrowRight")
        assert tab.text_content("#said").startswith("a: ")
        check_unit = tab.input_value("#unit")
        assert check_unit == "7"
        tab.click("#mean")
        assert "mean of all units" in tab.text_content("#said")
        opened.close()
    assert problems == []


@pytest.mark.parametrize("kind", ["png", "svg", "html"])
@pytest.mark.parametrize("view", [("--embeddings",), ("--next", "a$b_")])
def test_pictures(charrnn, save, tmp_path, kind, view):
    pytest.importorskip("matplotlib")
    given = ("inspect", save(saved_model(characters="ab$_\n")), *view, "-o", f"a.{kind}")
    assert charrnn(*given).code == 0
    data = (tmp_path / f"a.{kind}").read_bytes()
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "html": b"<!DOCTYPE html>"}
    assert data.startswith(begins[kind])
    if kind == "html":
        assert b"default-src 'none'" in data
        assert b"currentColor" in data


# curves


def test_a_curve_in_a_terminal(charrnn, capsys):
    from rich.console import Console

    falling = Series(name="one", points=[(0, 10.0), (50, 5.0), (100, 1.0)])
    chart = Curves(title="t", x_label="x", y_label="y", series=[falling])
    with (console := Console(width=60)).capture() as capture:
        show_chart(chart, console)
    lines = capture.get().splitlines()
    assert all(len(line) <= 60 for line in lines)
    drawn = [
        [k for k, c in enumerate(line) if "\u2800" < c <= "\u28ff"] for line in lines
    ]  # fmt: skip
    drawn = [columns for columns in drawn if columns]
    assert len(drawn) == 16
    assert [min(c) for c in drawn] == sorted(min(c) for c in drawn)  # it falls
    two = [falling, Series(name="two", points=[(0, math.nan), (10, 3.0)], colour=1)]
    with console.capture() as capture:
        show_chart(Curves(title="t", x_label="x", y_label="y", series=two, is_log=True), console)
    assert re.search("a one +b two", capture.get())
    assert "b" in capture.get().partition("┤")[2].partition("└")[0]
    with console.capture() as capture:
        show_chart(Curves(title="t", x_label="x", y_label="y", series=[]), console)
    assert "nothing to draw" in capture.get()


def test_a_terminal_without_braille_has_charts_in_ascii(charrnn):
    for view in (("plot", "builtin"), ("inspect", "builtin", "--next", "b")):
        result = charrnn(*view, "--format", "table", encoding="ascii", terminals=("stdout",))
        assert result.code == 0, result.err
        assert "*" in result.out or "#####" in result.out
        assert "?" not in result.out.replace("after ?b?", "")


def test_ticks_are_round():
    assert ticks(0, 10, 5) == [0, 2, 4, 6, 8, 10]
    assert ticks(1.79, 2.21, 5) == pytest.approx([1.8, 1.9, 2.0, 2.1, 2.2])
    assert ticks(3, 3, 5) == [3]
    assert ticks(50, 250, 4, (1, 60, 300)) == [60, 120, 180, 240]


def test_training_curves(charrnn, tmp_path, text):
    for name in ("one", "two"):
        made = charrnn("train", text, "--name", name, *TINY_RUN[2:], "--steps", 6)
        assert made.code == 0, made.err
    result = charrnn("plot", "runs/one", "runs/two", "--format", "jsonl")
    assert result.code == 0, result.err
    records = records_of(result.out)
    assert list(records[0]) == documented("plot")
    assert all(type(one[name]) is int for one in records for name in ("step", "characters"))
    metrics = [
        json.loads(line)
        for line in (tmp_path / "runs" / "one" / "metrics.jsonl").read_text().splitlines()
    ]
    mine = [one for one in records if one["run"] == "runs/one"]
    for record, row in zip(mine, metrics, strict=True):
        for field in ("step", "epoch", "elapsed_s", "val_loss_nats", "train_loss_nats"):
            assert record[field] == row[field]
        n_train = int(0.9 * len(text.read_text()))
        assert record["characters"] == pytest.approx(row["epoch"] * n_train, rel=1e-3)
    one = charrnn("plot", "runs/one", "--format", "table")
    assert "a validation   b training" in one.out
    both = charrnn("plot", "runs/one", "runs/two", "--x", "characters", "--format", "table")
    assert "a runs/one   b runs/two" in both.out
    assert "characters read" in both.out
    (tmp_path / "bytes.txt").write_text(text.read_text())
    made = charrnn("train", "bytes.txt", "--unit", "byte", "-o", "raw", *TINY_RUN[2:], "--steps", 6)
    assert made.code == 0, made.err
    mixed = charrnn("plot", "raw", "builtin", "--x", "epochs", "--format", "table")
    assert "a raw   b builtin" in mixed.out
    newest = charrnn("plot", "--format", "tsv")
    assert rows_of(newest.out)[0]["run"] == "runs/two"
    (tmp_path / "runs" / "one" / "metrics.jsonl").unlink()
    kept = records_of(charrnn("plot", "runs/one", "--format", "jsonl").out)
    assert [r["val_loss_nats"] for r in kept] == [r["val_loss_nats"] for r in mine]
    assert kept[0]["elapsed_s"] is None
    late = charrnn("plot", "runs/one", "--x", "time")
    late.assert_one_error(2, "--x time is not in the record of runs/one: ask for --x epochs")
    (tmp_path / "runs" / "two" / "metrics.jsonl").write_text("{")
    charrnn("plot", "runs/two").assert_one_error(1, "metrics.jsonl cannot be read")


def test_runs_that_cannot_be_plotted(charrnn, save):
    name = save(saved_model())
    charrnn("plot", name).assert_one_error(1, "has no record of its training")
    charrnn("plot", "missing").assert_one_error(1, "there is no model at missing")
    charrnn("plot", name, name).assert_one_error(2, "named twice")
    charrnn("plot", "-o", "x.bmp").assert_one_error(2, "--out must end with")
    charrnn("plot", "builtin", "--x", "miles").assert_one_error(2, "'epochs'")
