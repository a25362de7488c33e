"""Sampling and scoring on a device: `Runner` against the NumPy engine, for every kind of model.

The device is the CPU here, or one that is stricter (`strict_device`); `test_gpu.py` has the same
checks on a GPU.
"""

from __future__ import annotations

import dataclasses
import math
import random
import sys

import numpy as np
import pytest
import reference
import texts
import torch
from strict_device import DEVICE, StrictDevice

from charrnn.config import ModelConfig, SamplingConfig
from charrnn.engine.network import Engine
from charrnn.errors import ConfigError, ModelFileError
from charrnn.model import CharModel
from charrnn.models import device as device_module
from charrnn.models.device import reading_device
from charrnn.models.runner import Runner
from charrnn.rng import stream_keys, uniforms
from charrnn.sampling import device as sampling
from charrnn.sampling.writer import NoRepeat
from charrnn.scoring.batch import score_many
from charrnn.scoring.rows import score_in_rows
from charrnn.scoring.scorer import Scorer, score_pieces
from charrnn.storage.model_file import SavedModel
from charrnn.vocab import EOS_ID, FIRST_CHARACTER_ID, ByteVocabulary, Vocabulary

CPU = torch.device("cpu")
TEXT = texts.english(3000)
KINDS = [
    {"cell": "lstm", "num_layers": 2, "members": 2},
    {"cell": "gru", "embedding_size": 0, "members": 3},
    {"cell": "rnn", "nonlinearity": "relu", "unit": "byte"},
    {"cell": "lstm", "unit": "byte", "members": 2},
]
DRAWING = [
    {},
    {"temperature": 0.5, "no_repeat": 3, "min_length": 30},
    {"top_k": 4, "stop": ("e", "in"), "length": 50},
    {"top_p": 0.8, "min_p": 0.05, "logprobs": True},
    {"temperature": 0.0, "no_repeat": 1, "length": 12},
    {"temperature": 1e-40, "length": 33, "top_k": 3, "top_p": 0.7},
]


def model_of(unit="char", **shape):
    """A model with random weights, not too sure of anything, that ends now and then."""
    vocabulary = ByteVocabulary() if unit == "byte" else Vocabulary(set(TEXT))
    config = ModelConfig(
        vocab_size=len(vocabulary), **{"hidden_size": 10, "embedding_size": 5, **shape}
    )
    weights = reference.random_weights(config, seed=3)
    weights["output.bias"][..., EOS_ID] += 1.5
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    return SavedModel(config=config, vocabulary=vocabulary, weights=weights, training={})


def model_on(device, saved):
    """A model of which one device is the only one."""
    model = CharModel(saved)
    model._runner = "mps", Runner(saved.config, saved.weights, device)
    return model


def check_samples(device, kind, drawing):
    """More samples than rows, from two prompts and temperatures, are those of single streams."""
    model = model_on(device, model_of(**kind))
    config = SamplingConfig(**{"length": 40, "seed": 5, **drawing})
    requests = requests_of(model, config)
    expected = [model.stream_request(request, config).sample() for request in requests]
    found = list(sampling.sample_on(model.runner("mps"), model.saved.vocabulary, requests, config,
                                    batch_size=7))  # fmt: skip
    assert [sample.text for sample in found] == [sample.text for sample in expected]
    for one, other in zip(found, expected, strict=True):
        for name in ("logprobs", "sampling_logprobs"):
            if config.logprobs:
                np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-5)
        assert dataclasses.replace(one, logprobs=None, sampling_logprobs=None) == (
            dataclasses.replace(other, logprobs=None, sampling_logprobs=None)
        )
    assert len({sample.text for sample in found}) > 1


def requests_of(model, config):
    from charrnn.sampling.writer import Request

    starts = [model.start(prompt) for prompt in ("", "The ")]
    return [
        Request(starts[k % 2], "", config.temperature * (1 + k % 3), 10**15 * (k % 5) + k)
        for k in range(17)
    ]


def check_scores(device, kind):
    """One text, many, and rows have the scores of the NumPy engine, to 1e-5 a character."""
    saved = model_of(**kind)
    lines = [*TEXT[:700].splitlines(), "", "☃ " * 9, "x" * 300]
    for rules in ({"eos": True}, {"context": "The cat", "on_unknown": "skip"}):
        there, here = (
            Scorer(engine, saved.vocabulary, **rules)
            for engine in (
                Runner(saved.config, saved.weights, device),
                Engine(saved.config, saved.weights),
            )
        )
        near = 1e-5 * max(map(len, lines))
        found, expected = (list(score_many(one, lines, batch_size=5)) for one in (there, here))
        assert [s.logprob for s in found] == pytest.approx([s.logprob for s in expected], abs=near)
        assert [s.n_scored for s in found] == [s.n_scored for s in expected]
        whole, right = (score_pieces(one, [TEXT[:1500]]) for one in (there, here))
        assert whole.logprob == pytest.approx(right.logprob, abs=1e-5 * 1500)
        if "context" not in rules:
            found, expected = (
                score_in_rows(one, [TEXT], rows=20, warmup=10).score for one in (there, here)
            )
            assert found.logprob == pytest.approx(expected.logprob, abs=1e-5 * len(TEXT))
            assert found.unknown_logprob == pytest.approx(expected.unknown_logprob, abs=1e-4)


@pytest.mark.parametrize("drawing", DRAWING, ids=lambda drawing: "-".join(drawing) or "plain")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_samples_are_those_of_single_streams(kind, drawing):
    check_samples(CPU, kind, drawing)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_scores_are_those_of_the_numpy_engine(kind):
    check_scores(CPU, kind)


@pytest.mark.parametrize("kind", KINDS[::3])
def test_a_strict_device_lacks_nothing_and_is_asked_once_a_block(kind, monkeypatch):
    monkeypatch.setattr(sampling, "BLOCK", 8)
    saved = model_of(**kind)
    model = CharModel(saved)
    options = {"no_repeat": 4, "top_k": 9, "top_p": 0.9, "min_p": 0.01, "min_length": 20}
    config = SamplingConfig(length=20, seed=1, **options)
    requests = requests_of(model, config)[:3]
    expected = [model.stream_request(request, config).sample().text for request in requests]
    with StrictDevice() as strict:
        runner = Runner(saved.config, saved.weights, DEVICE)
        strict.waits.clear()
        found = sampling.sample_on(runner, saved.vocabulary, requests, config)
        assert [sample.text for sample in found] == expected
        n_bytes = max(len(saved.vocabulary.encode(text)) for text in expected)
        least, most = math.ceil(20 / 8), math.ceil(n_bytes / 8) + 2
        assert least <= len(strict.waits) <= most, strict.waits
        scorer = Scorer(runner, saved.vocabulary)
        strict.waits.clear()
        list(score_many(scorer, ["abc" * 60] * 5))
        assert len(strict.waits) == math.ceil(180 / runner.window(5)), strict.waits


@pytest.mark.parametrize("number", [1, 2])
def test_few_samples_need_no_neighbours(number):
    model = model_on(CPU, model_of(**KINDS[0]))
    found = model.sample(num=number, seed=2, length=20, device="mps")
    assert found == model.sample(num=number, seed=2, length=20, device="cpu")
    assert model.sample(seed=2, length=20, device="mps") == found[0]
    assert list(model.sample_requests([], SamplingConfig(), device="mps")) == []


def test_random_numbers_are_the_first_bits_of_those_of_the_engine():
    keys = stream_keys(7, range(1000))
    found = sampling.uniforms(torch.from_numpy(keys.view(np.int64)), torch.arange(1000) * 10**6)
    expected = uniforms(keys, np.arange(1000) * 10**6)
    np.testing.assert_array_equal(found.numpy(), np.floor(expected * 2**24) / 2**24)


def test_the_table_of_bytes_is_the_decoder():
    vocabulary = ByteVocabulary()
    utf8 = sampling.Utf8(Runner(*shape_of(vocabulary), CPU), vocabulary, 1)
    choose = random.Random(0)
    decoder, n_whole = vocabulary.decoder(), 0
    for _ in range(3000):
        banned = set(torch.nonzero(utf8.banned()[0])[:, 0].tolist())
        assert banned == set(decoder.banned())
        assert bool(utf8.is_inside()) == decoder.pending
        leads = [byte + FIRST_CHARACTER_ID for byte in (0x41, *range(0xC2, 0xF5))]
        chosen = choose.choice([one for one in leads if one not in banned] or
                               [one for one in range(2, 258) if one not in banned])  # fmt: skip
        text = decoder.feed(chosen)
        whole = int(utf8.add(torch.tensor([chosen])))
        assert whole == bool(text)
        n_whole += whole
    assert n_whole > 500


def shape_of(vocabulary):
    config = ModelConfig(vocab_size=len(vocabulary), hidden_size=4)
    return config, reference.random_weights(config, seed=0)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_repeats_are_those_of_the_writer(n):
    """In rows that begin at different moments, and write more than there is room for at first."""
    vocabulary = Vocabulary("abcd")
    repeats = sampling.Repeats(Runner(*shape_of(vocabulary), CPU), n, 2)
    choose = random.Random(n)
    drawn, plain = torch.tensor([0, 0]), [NoRepeat(n), NoRepeat(n)]
    for step in range(100):
        repeats.reserve(int(drawn.max()) + 1)
        left = repeats.removed(torch.zeros(2, 6), drawn, None)
        banned = [set(torch.nonzero(row == -math.inf)[:, 0].tolist()) for row in left]
        assert banned == [set(one.banned()) for one in plain]
        chosen = [choose.randrange(2, 5), choose.randrange(2, 4)]
        repeats.add(torch.tensor(chosen), drawn)
        for one, its in zip(plain, chosen, strict=True):
            one.add(its)
        drawn = drawn + 1
        if step == 40:
            drawn, plain[1] = torch.tensor([41, 0]), NoRepeat(n)


def test_an_id_without_probability_is_never_picked():
    """Where a parallel sum rises at it, by rounding."""

    class Rising(torch.Tensor):
        def cumsum(self, dim):
            return torch.tensor([[0.5, 0.6, 1.0, 1.0]])

    scaled = torch.tensor([[0.0, -math.inf, -0.1, -math.inf]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "cumsum", Rising.cumsum)
        assert sampling.picked(scaled, torch.tensor([0.55]), torch.tensor([0])).tolist() == [2]
        assert sampling.picked(scaled, torch.tensor([1.0]), torch.tensor([0])).tolist() == [0]


def test_a_model_that_gives_no_probabilities_is_named():
    saved = model_of(**KINDS[0])
    saved.weights["output.bias"][..., 4] = np.inf
    model = model_on(CPU, saved)
    with pytest.raises(ModelFileError, match="no probabilities"):
        model.score_many(["abc"], device="mps")
    start = dataclasses.replace(model.start(""), logits=np.zeros(len(saved.vocabulary)))
    with pytest.raises(ModelFileError, match="no probabilities"):
        model.sample(after=start, num=3, device="mps")


def test_what_a_row_draws_beyond_its_end_does_no_harm():
    saved = model_of(**KINDS[0])
    clean, options = CharModel(saved), {"num": 9, "seed": 3, "length": 60}
    start = clean.start("The ")
    expected = clean.sample(after=start, **options)
    assert {sample.stop_reason for sample in expected} >= {"eos"}
    embedding = saved.weights["embedding.weight"].copy()
    embedding[..., EOS_ID, :] = np.nan
    weights = {**saved.weights, "embedding.weight": embedding}
    model = model_on(CPU, dataclasses.replace(saved, weights=weights))
    assert model.sample(after=start, **options, device="mps") == expected


def test_a_bidirectional_model_reads_with_numpy(monkeypatch):
    saved = model_of(**KINDS[0])
    saved = dataclasses.replace(saved, config=dataclasses.replace(saved.config, bidirectional=True))
    model = CharModel(saved)
    with pytest.raises(ConfigError, match="must be cpu for a bidirectional model"):
        model.scorer(device="cuda")
    monkeypatch.setattr("charrnn.model.reading_device", lambda *_, **__: "cuda")
    monkeypatch.setattr(CharModel, "scorer", lambda self, **options: options["device"])
    monkeypatch.setattr("charrnn.model.score_many", lambda rules, texts: [rules])
    assert model.score_many(["abc"]) == ["cpu"]


def test_auto_takes_a_gpu_for_large_work_only(monkeypatch):
    large = {"rows": 4096, "chars": 4096 * 1000}
    assert reading_device("auto", **large) == "cpu", "there is no GPU"
    assert reading_device("cuda:1", rows=1, chars=1) == "cuda:1"
    monkeypatch.setattr(device_module, "has_cuda", lambda: True)
    assert reading_device("auto", **large) == "cuda"
    assert reading_device("cpu", **large) == "cpu"
    assert reading_device("auto", rows=255, chars=10**9) == "cpu"
    assert reading_device("auto", rows=10**5, chars=10**5) == "cpu"


def test_without_a_driver_torch_is_not_asked_for(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(device_module, "DRIVERS", ())
    assert not device_module.has_cuda()
    assert "torch" not in sys.modules


def test_what_a_device_lacks_is_said():
    lacking = NotImplementedError("The operator 'aten::sort.stable' is not implemented for MPS")
    for error, message in (
        (lacking, "mps lacks aten::sort.stable, which sampling and scoring need: use cpu"),
        (torch.OutOfMemoryError("CUDA out of memory"), "mps has too little memory"),
    ):
        with (
            pytest.raises(ConfigError, match=message) as found,
            device_module.told_what_it_lacks(torch.device("mps")),
        ):
            raise error
        assert found.value.field == "device"


def test_the_commands_compute_where_they_are_told(charrnn, monkeypatch, tiny_model_path, tmp_path):
    names = []

    def choose(name):
        names.append(name)
        return CPU

    monkeypatch.setattr(device_module, "choose_device", choose)
    monkeypatch.setattr("charrnn.model.choose_device", choose)
    (tmp_path / "lines").write_text("abc\ncab\n" * 20)
    for command in (
        ("sample", "--num", 3, "--length", 20, "--seed", 1, "--logprobs", "--format", "jsonl"),
        ("sample", "--length", 20, "--seed", 1, "--unique"),
        ("score", "--file", "lines"),
        ("score", "--file", "lines", "--whole", "--rows", 4),
        ("score", "abc", "--per-char"),
    ):
        options = (*command, "-m", tiny_model_path)
        there, here = (charrnn(*options, "--device", name) for name in ("cuda", "cpu"))
        assert (there.code, here.code) == (0, 0), there.err
        assert names == ["cuda", "cuda"]
        names.clear()
        assert rounded(there.out) == rounded(here.out)
    missing = charrnn("score", "abc", "--adapt", "--device", "cuda", "-m", tiny_model_path)
    missing.assert_one_error(2, "--device is not for --adapt")
    wrong = charrnn("sample", "--device", "gpu", "-m", tiny_model_path)
    wrong.assert_one_error(2, "--device must be auto, cpu, cuda, cuda:N or mps")


def rounded(text):
    """The words of an output, numbers to three digits."""
    found = []
    for word in text.replace(",", " ").replace("[", " ").replace("]", " ").split():
        try:
            found.append(f"{float(word):.3g}")
        except ValueError:
            found.append(word)
    return found
