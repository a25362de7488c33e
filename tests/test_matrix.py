"""Every dimension of a model with every other, through every command.

All pairs of values are covered by a few models; each is trained or merged, resumed, sampled,
scored, shown, compared and used from Python.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import reference
import texts
import torch

from charrnn.api import load
from charrnn.models.runner import Runner
from charrnn.storage.model_file import load_model, save_model
from charrnn.training.prepare import prepare_training

DIMENSIONS = {
    "documents": ("none", "line", "blank-line", "file"),
    "cell": reference.CELLS,
    "members": (1, 2, 4),
    "layers": (1, 2),
    "unit": ("char", "byte"),
    "embedding": (0, 3),
    "calibrated": (True, False),
    "origin": ("trained", "merged"),
    "bidirectional": (False, True),
}
SMALL = {
    "hidden_size": 6,
    "batch_size": 4,
    "bptt": 12,
    "steps": 12,
    "val_fraction": 0.25,
    "device": "cpu",
    "dtype": "float32",
}
N_CHARS = 9000


def is_possible(case):
    """A single network is merged from nothing."""
    return not (case.get("origin") == "merged" and case.get("members") == 1)


def pairs_of(case):
    return set(itertools.combinations(sorted(case.items(), key=lambda item: item[0]), 2))


def all_pairs():
    """Every pair of values of two dimensions that may stand together."""
    found = set()
    for (a, first), (b, second) in itertools.combinations(sorted(DIMENSIONS.items()), 2):
        for one, other in itertools.product(first, second):
            if is_possible({a: one, b: other}):
                found.add(((a, one), (b, other)))
    return found


def covering_cases():
    """A few cases that have every pair: greedily, always the one with most pairs not yet met."""
    names = list(DIMENSIONS)
    everything = [
        case
        for values in itertools.product(*DIMENSIONS.values())
        if is_possible(case := dict(zip(names, values, strict=True)))
    ]
    missing, cases = all_pairs(), []
    while missing:
        best = max(everything, key=lambda case: len(pairs_of(case) & missing))
        cases.append(best)
        missing -= pairs_of(best)
    return cases


CASES = covering_cases()


def test_the_cases_cover_every_pair():
    covered = set().union(*map(pairs_of, CASES))
    assert covered >= all_pairs()
    assert len(CASES) <= 26


def corpus(folder: Path, documents: str) -> list[Path]:
    """Our own sentences as one text, one sentence a line, paragraphs, or a file each."""
    sentences = texts.english(N_CHARS).replace("river", "rivér").splitlines()
    folder.mkdir(exist_ok=True)
    if documents == "file":
        for number in range(0, len(sentences), 8):
            text = "\n".join(sentences[number : number + 8])
            (folder / f"{number:04d}.txt").write_text(text, encoding="utf-8")
        return [folder]
    separator = "\n\n" if documents == "blank-line" else "\n"
    (folder / "text.txt").write_text(separator.join(sentences) + "\n", encoding="utf-8")
    return [folder / "text.txt"]


def settings_of(case, **more):
    cell, nonlinearity = reference.cell_and_nonlinearity(case["cell"])
    settings = {
        **SMALL,
        "documents": case["documents"],
        "cell": cell,
        "nonlinearity": nonlinearity,
        "members": case["members"],
        "num_layers": case["layers"],
        "unit": case["unit"],
        "embedding_size": case["embedding"],
        "calibrate": case["calibrated"],
        "bidirectional": case["bidirectional"] or None,
        **more,
    }
    return {name: value for name, value in settings.items() if value is not None}


OPTIONS = {
    "hidden_size": "--hidden",
    "batch_size": "--batch",
    "num_layers": "--layers",
    "embedding_size": "--embedding",
}


def train(charrnn, paths, out, settings):
    """Train through the command line."""
    words = []
    for name, value in settings.items():
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{name}")
        else:
            words += [OPTIONS.get(name, "--" + name.replace("_", "-")), value]
    result = charrnn("train", *paths, "--out", out, *words)
    assert result.code == 0, result.err
    assert "internal error" not in result.err


def make(charrnn, case, tmp_path):
    """Train or merge a model of the case into `run`."""
    paths = corpus(tmp_path / "corpus", case["documents"])
    if case["origin"] == "trained":
        train(charrnn, paths, "run", settings_of(case))
        return paths
    for seed in range(2):
        part = settings_of(case, members=case["members"] // 2, seed=seed)
        train(charrnn, paths, f"part-{seed}", part)
    result = charrnn("merge", "part-0", "part-1", "--out", "run")
    assert result.code == 0, result.err
    return paths


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_every_command_works_on_every_kind_of_model(case, charrnn, tmp_path):
    paths = make(charrnn, case, tmp_path)
    saved = load_model(tmp_path / "run" / "model.safetensors")
    assert saved.config.members == case["members"]
    assert saved.config.hidden_size == SMALL["hidden_size"]
    assert saved.vocabulary.unit == case["unit"]
    check_resume(charrnn, case, paths, tmp_path)
    check = check_fillings if saved.config.bidirectional else check_samples
    check(charrnn, saved, tmp_path)
    check_scores(charrnn, saved, tmp_path)
    check_the_rest(charrnn, case, saved, tmp_path)
    check_inside(charrnn, case, saved)


def check_resume(charrnn, case, paths, tmp_path):
    """A run stopped in its middle and resumed has the weights of one that was not."""
    whole = "run" if case["origin"] == "trained" else "part-0"
    members = case["members"] if case["origin"] == "trained" else case["members"] // 2
    settings = settings_of(case, members=members)
    trainer = prepare_training(paths, settings, out=tmp_path / "stopped")
    for event in trainer.run():
        if getattr(event, "step", 0) >= 5:
            trainer.stop_requested = True
    assert (tmp_path / "stopped" / "resume.safetensors").exists()
    result = charrnn("train", "--resume", "--out", "stopped")
    assert result.code == 0, result.err
    one = load_model(tmp_path / "stopped" / "model.safetensors").weights
    other = load_model(tmp_path / whole / "model.safetensors").weights
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def check_samples(charrnn, saved, tmp_path):
    """One stream, many, with stops, with log-probabilities, ending at once, ending never."""

    def records(*options):
        result = charrnn("sample", "-m", "run", "--seed", 3, *options, "--format", "jsonl")
        assert result.code == 0, result.err
        return [json.loads(line) for line in result.out.splitlines()]

    model = load(tmp_path / "run")
    plain = charrnn("sample", "-m", "run", "--seed", 3, "-n", 30)
    assert plain.code == 0, plain.err
    alone = [model.stream(seed=3, length=30, index=k).sample().text for k in range(9)]
    assert plain.out.removesuffix("\n") == alone[0].removesuffix("\n")
    many = records("--num", 9, "-n", 30)
    assert [record["text"] for record in many] == alone
    for record in many:
        assert not saved.vocabulary.unknown(record["text"])
        assert record["stop_reason"] == ("length" if len(record["text"]) == 30 else "eos")
    for record in records("--num", 4, "-n", 30, "--stop", "e", "--stop", "a"):
        assert not set("ea") & set(record["text"])
    for record in records("--num", 3, "-n", 8, "--logprobs", "--temp", "0.5,1"):
        n_events = len(saved.vocabulary.encode(record["text"])) + (record["stop_reason"] == "eos")
        assert len(record["logprobs"]) == n_events
        assert all(value <= 0 for value in record["logprobs"] + record["sampling_logprobs"])
    assert all(len(r["text"]) <= 1 for r in records("--num", 5, "-n", 1))
    assert all(len(r["text"]) == 40 for r in records("--num", 3, "-n", 40, "--min-length", 40))
    greedy = records("--num", 3, "-n", 10, "--greedy", "--prompt", "The ", "--no-repeat", 3)
    assert len({record["text"] for record in greedy}) == 1
    filtered = records("--num", 3, "-n", 10, "--top-k", 5, "--top-p", 0.9, "--min-p", 0.05)
    assert len(filtered) == 3
    check_integers(charrnn, records, saved, model)
    check_a_device(model, alone)


def check_a_device(model, alone):
    """On a device, which is the CPU here, the texts and their scores are the same."""
    model._runner = "mps", Runner(model.saved.config, model.saved.weights, torch.device("cpu"))
    found = model.sample(seed=3, length=30, num=9, device="mps")
    assert [sample.text for sample in found] == alone
    scores = [model.score_many(alone, eos=True, device=name) for name in ("mps", "cpu")]
    for one, other in zip(*scores, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-5 * one.n_scored)


def check_integers(charrnn, records, saved, model):
    """In int8, alone and in a batch, with log-probabilities of its own; relu is refused."""
    if saved.config.nonlinearity == "relu":
        refused = charrnn("sample", "-m", "run", "--precision", "int8")
        assert refused.code == 2
        assert "--precision cannot be int8 for a relu network" in refused.err
        return
    integers = records("--num", 9, "-n", 30, "--precision", "int8", "--logprobs", "--prompt", "The")
    for k, record in enumerate(integers):
        stream = model.stream("The", precision="int8", seed=3, length=30, index=k)
        assert record["text"] == stream.sample().text
    fewer, *_ = records("-n", 30, "--logprobs", "--prompt", "The")
    assert fewer["logprobs"] != integers[0]["logprobs"]


def check_fillings(charrnn, saved, tmp_path):
    """The best and random fillings of one gap, of several and of neighbours; nothing is written."""

    def records(*options):
        result = charrnn("fill", "-m", "run", *options, "--format", "jsonl")
        assert result.code == 0, result.err
        return [json.loads(line) for line in result.out.splitlines()]

    model = load(tmp_path / "run")
    ids = saved.vocabulary.encode("The cat").tolist()
    row = reference.run_both_sides(saved.config, saved.weights, ids)[5]
    allowed = range(2, 130 if saved.vocabulary.unit == "byte" else len(saved.vocabulary))
    scale = math.log(math.fsum(math.exp(row[i]) for i in allowed))
    one_gap = records("The c_t", "--top", 3)
    assert [r["logprob"] for r in one_gap] == sorted((r["logprob"] for r in one_gap), reverse=True)
    for record in one_gap:
        (value,) = saved.vocabulary.encode(record["gaps"][0]).tolist()
        assert record["logprob"] == pytest.approx(row[value] - scale, abs=1e-4)
    for option in (("--num", 4, "--seed", 1), ("--top", 4)):
        for record in records("A_ old k__ in the snow_", *option):
            text = record["text"]
            assert [len(saved.vocabulary.encode(gap)) for gap in record["gaps"]] == [1, 2, 1]
            assert re.fullmatch(r"A.* old k.* in the snow.*", text)
            assert not saved.vocabulary.unknown(text)
    drawn = [one.text for one in model.fill("A_ old k__", num=4, seed=1)]
    assert drawn == [r["text"] for r in records("A_ old k__", "--num", 4, "--seed", 1)]
    for command in (["sample"], ["sample", "--num", 3]):
        refused = charrnn(*command, "-m", "run")
        refused.assert_one_error(2, "bidirectional", "charrnn fill")


def check_scores(charrnn, saved, tmp_path):
    """One text, a batch, whole, rows side by side, adapted, per character and word."""
    lines = ["The grey cat hid the key in the snow.", "", "rivér", "An old sailor ☃ sold it!"]
    (tmp_path / "lines").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def records(*options):
        result = charrnn("score", "-m", "run", *options, "--format", "jsonl")
        assert result.code == 0, result.err
        return [json.loads(line) for line in result.out.splitlines()]

    def expected(text, *, eos):
        """Independently: naive equations in float64, each member by itself."""
        ids = [*saved.vocabulary.encode(text).tolist(), *[1] * eos]
        if not ids:
            return 0.0
        if is_two_sided:
            logits = reference.run_both_sides(saved.config, saved.weights, ids)
        else:
            logits, _ = reference.run_ensemble(saved.config, saved.weights, [1, *ids[:-1]])
        rows = reference.logprobs(logits)
        return math.fsum(float(row[i]) for row, i in zip(rows, ids, strict=True))

    is_two_sided = saved.config.bidirectional
    for eos, option in ((True, "--eos"), (False, "--no-eos")):
        if eos and is_two_sided:
            refused = charrnn("score", "-m", "run", "a text", option)
            refused.assert_one_error(2, "--eos", "bidirectional")
            continue
        batch = records("--file", "lines", option)
        assert [record["text"] for record in batch] == lines
        for record in batch:
            right = expected(record["text"], eos=eos)
            assert record["logprob"] == pytest.approx(right, abs=1e-4), record["text"]
            (one, *_) = records(record["text"], option)
            assert one["logprob"] == pytest.approx(right, abs=1e-4)
    text = (tmp_path / "lines").read_text("utf-8")
    whole = records("--file", "lines", "--whole", "--no-eos")[-1]["logprob"]
    assert whole == pytest.approx(expected(text, eos=False), abs=1e-4)
    if is_two_sided:
        for option in (["--rows", 3], ["--adapt"]):
            refused = charrnn("score", "-m", "run", "--file", "lines", "--whole", *option)
            assert refused.code == 2, refused.err
            assert "bidirectional" in refused.err.splitlines()[-1]
    else:
        rows = records("--file", "lines", "--whole", "--no-eos", "--rows", 3, "--warmup", 500)
        assert rows[-1]["logprob"] == pytest.approx(whole, abs=1e-4)
        adapted = records("--file", "lines", "--whole", "--no-eos", "--adapt")[-1]
        assert adapted["logprob"] == pytest.approx(whole, abs=1e-4)
        assert adapted["logprob_adapted"] != whole
        (tmp_path / "counted").write_text(f"{lines[0]}\n" * 9, encoding="utf-8")
        (adapted,) = records(lines[0], "--no-eos", "--adapt", "--from", "counted")
        assert adapted["logprob_adapted"] > adapted["logprob"]
    events = records(lines[0], "--no-eos", "--per-char")
    assert len(events) == len(saved.vocabulary.encode(lines[0]))
    total = math.fsum(event["logprob"] for event in events)
    assert total == pytest.approx(expected(lines[0], eos=False), abs=1e-4)
    words = records(lines[0], "--no-eos", "--per-word")
    assert "".join(word["word"] for word in words) == lines[0]
    assert math.fsum(word["logprob"] for word in words) == pytest.approx(total, abs=1e-9)
    best, *_ = records("--file", "lines", "--sort", "--by", "per-char", "--no-eos")
    assert best["text"] in lines


def check_inside(charrnn, case, saved):
    """Units, gates, features, gradients, embeddings, the next character, and the curve."""
    run = "run" if case["origin"] == "trained" else "part-0"
    curve = charrnn("plot", run, "--format", "table")
    assert curve.code == 0, curve.err
    assert f"nats/{case['unit']}" in curve.out
    if saved.config.bidirectional:
        refused = charrnn("inspect", "run", "--embeddings")
        refused.assert_one_error(2, "the model is bidirectional")
        return

    def records(*options):
        result = charrnn("inspect", "run", *options, "--format", "jsonl")
        assert result.code == 0, result.err
        return [json.loads(line) for line in result.out.splitlines()]

    text = "The grey cat hid.\nA rivér"
    last = {"--member": case["members"] - 1, "--layer": case["layers"] - 1}
    where = [word for pair in last.items() for word in pair]
    unit = records("--text", text, "--unit", 5, *where)
    assert "".join(one["character"] for one in unit) == text
    ids = [1, *saved.vocabulary.encode("The grey cat hid.").tolist()]
    _, states = reference.run_ensemble(saved.config, saved.weights, ids)
    h, c = states[-1][-1]
    value = (c if unit[0]["signal"] == "c" else h)[5]
    assert unit[16]["value"] == pytest.approx(value, abs=1e-4)
    gates = {"lstm": "forget", "peephole-lstm": "output", "gru": "reset", "gru-simple": "update"}
    if case["cell"] in gates:
        assert all(
            0 < one["value"] < 1 for one in records("--text", text, "--gate", gates[case["cell"]])
        )
    assert len(records("--text", text, "--find", "word-start")) == 5
    flow = records("--text", text, "--gradient-flow", "--distance", 4, "--positions", 5)
    assert [one["distance"] for one in flow] == [1, 2, 3, 4]
    assert all(one["norm"] >= 0 for one in flow)
    assert flow[0]["norm"] > 0
    n_characters = len(saved.vocabulary) - 2
    assert len(records("--embeddings")) == n_characters
    following = records("--next", "The ", "--temp", 0.5, "--top-k", 3)
    assert sum(one["sampling_probability"] > 0 for one in following) == 3


def check_the_rest(charrnn, case, saved, tmp_path):
    """Information, pairs, comparison, merging once more, and Python."""
    info = charrnn("info", "-m", "run")
    assert info.code == 0, info.err
    unit = "bytes" if case["unit"] == "byte" else "characters"
    assert unit in info.out
    if case["members"] > 1:
        assert f"{case['members']} ensemble members" in info.out

    (tmp_path / "pairs.tsv").write_text("The cat hid.\tThe cta hid.\nan old key\tna old key\n")
    pairs = charrnn("pairs", "pairs.tsv", "-m", "run", "--format", "jsonl")
    assert pairs.code == 0, pairs.err
    assert json.loads(pairs.out.splitlines()[-1])["n"] == 2

    other = {name: np.float32(0.9) * array for name, array in saved.weights.items()}
    save_model(tmp_path / "other.safetensors", dataclasses.replace(saved, weights=other))
    compared = charrnn(
        "compare", "run", "other.safetensors", "The key.", "A cat", "--format", "jsonl"
    )
    assert compared.code == 0, compared.err
    assert math.isfinite(json.loads(compared.out)["difference"])

    is_two_sided = saved.config.bidirectional
    exported = charrnn("export", "run", "--precision", "int8", "-o", "page.html")
    if is_two_sided:
        exported.assert_one_error(2, "bidirectional")
    else:
        assert exported.code == 0, exported.err
        (added,) = re.findall(
            r"int8 adds (\S+) bits per (?:character|byte), measured on", exported.err
        )
        assert abs(float(added)) < 0.1
    assert charrnn("export", "run", "--format", "npz", "-o", "run.npz").code == 0
    with np.load(tmp_path / "run.npz") as archive:
        for name, array in saved.weights.items():
            np.testing.assert_array_equal(archive[name], array)

    merged = charrnn("merge", "run", "other.safetensors", "--out", "both")
    assert merged.code == 0, merged.err
    assert ("--total" if case["documents"] == "line" else "--whole") in merged.err
    model = load(tmp_path / "both")
    assert model.saved.config.members == 2 * case["members"]
    if is_two_sided:
        half = reference.run_both_sides(saved.config, saved.weights, [5, 6, 7])
        rest = reference.run_both_sides(saved.config, other, [5, 6, 7])
        text = "".join(saved.vocabulary.strings[i] for i in (5, 6, 7))
        rows = reference.logprobs((half + rest) / 2)
        right = sum(float(row[i]) for row, i in zip(rows, (5, 6, 7), strict=True))
        assert model.score(text).logprob == pytest.approx(right, abs=1e-4)
        return
    assert [len(s.text) for s in model.sample(num=3, seed=1, length=5, min_length=5)] == [5] * 3
    ids = [1, *saved.vocabulary.encode("The key").tolist()]
    half, _ = reference.run_ensemble(saved.config, saved.weights, ids)
    rest, _ = reference.run_ensemble(saved.config, other, ids)
    logits = model.engine.run(np.array(ids), model.engine.initial_state())
    np.testing.assert_allclose(logits, (half + rest) / 2, rtol=1e-4, atol=1e-5)

    start = model.start("The ")
    assert model.sample(after=start, seed=1, length=5).text
    scores = model.score_many(["one", "two"], eos=True)
    assert [score.n_chars for score in scores] == [3, 3]
    assert scores[0].logprob == pytest.approx(model.score("one", eos=True).logprob, abs=1e-4)
    assert len(model.char_scores("key", alternatives=2)[0].alternatives) == 2
