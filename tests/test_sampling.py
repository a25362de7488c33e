"""Samples: the right distribution, the right ends, the same text however it is drawn."""

import itertools
import tracemalloc
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn.config import ModelConfig, SamplingConfig
from charrnn.engine.network import State
from charrnn.errors import ConfigError, ModelFileError, UnknownCharacterError
from charrnn.model import CharModel
from charrnn.rng import stream_keys, uniforms
from charrnn.sampling.batch import sample_batch
from charrnn.sampling.picker import Picker
from charrnn.sampling.stream import Stream
from charrnn.sampling.writer import NoRepeat, Request, StopTexts, WatchfulWriter, new_writer
from charrnn.storage.model_file import SavedModel
from charrnn.vocab import EOS_ID, FIRST_CHARACTER_ID, ByteVocabulary, Vocabulary

ALPHABET = "abcdefgh\n"


def make_model(cell="lstm", layers=1, members=1, hidden=12, seed=0, eos=0.0, scale=1.0):
    """Return a model with random weights, the bias of EOS moved by `eos`."""
    vocabulary = Vocabulary(ALPHABET)
    config = ModelConfig(
        vocab_size=len(vocabulary),
        cell=cell,
        hidden_size=hidden,
        num_layers=layers,
        members=members,
    )
    rng = np.random.default_rng(seed)
    weights = {
        name: (scale * rng.standard_normal(shape)).astype(np.float32)
        for name, shape in config.weight_shapes().items()
    }
    weights["output.bias"][..., EOS_ID] += eos
    return CharModel(SavedModel(config=config, vocabulary=vocabulary, weights=weights, training={}))


@pytest.fixture(scope="module")
def model():
    return make_model()


def memoryless(p):
    """Return a model whose next character has the distribution p [V], whatever came before."""
    vocabulary = Vocabulary("abcdef"[: len(p) - 2])
    config = ModelConfig(vocab_size=len(p), hidden_size=2)
    weights = {name: np.zeros(shape, np.float32) for name, shape in config.weight_shapes().items()}
    weights["output.bias"] = np.log(np.array(p, np.float32))
    return CharModel(SavedModel(config=config, vocabulary=vocabulary, weights=weights, training={}))


# 16.27 is the 99.9th percentile of chi-square with 3 degrees of freedom
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("batched", [False, True])
def test_frequencies_agree_with_the_exact_probabilities(temperature, batched):
    p = np.array([0.2, 1e-30, 0.4, 0.2, 0.15, 0.05])  # UNK has a fifth, and is never written
    model = memoryless(p)
    exact = p[2:] ** (1 / temperature)
    exact /= exact.sum()
    n = 20_000
    if batched:
        samples = model.sample(num=100, length=n // 100, temperature=temperature, seed=1)
        text = "".join(map(str, samples))
    else:
        text = str(model.sample(length=n, temperature=temperature, seed=1))
    counts = np.array([text.count(c) for c in "abcd"])
    assert counts.sum() == n
    chi_square = ((counts - n * exact) ** 2 / (n * exact)).sum()
    assert chi_square < 16.27


@pytest.mark.parametrize(
    ("options", "kept"),
    [({"top_k": 2}, "ab"), ({"top_p": 0.7}, "ab"), ({"min_p": 0.3}, "abc"), ({"top_k": 1}, "a")],
)
def test_frequencies_under_each_filter(options, kept):
    p = np.array([0.2, 1e-30, 0.4, 0.2, 0.15, 0.05])
    n = 10_000
    text = str(memoryless(p).sample(length=n, seed=2, **options))
    assert set(text) == set(kept)
    exact = p[2 : 2 + len(kept)] / p[2 : 2 + len(kept)].sum()
    counts = np.array([text.count(c) for c in kept])
    assert ((counts - n * exact) ** 2 / (n * exact)).sum() < 16.27


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize(("layers", "members"), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_a_sample_is_the_same_alone_in_any_batch_and_streamed(cell, layers, members):
    # several members with large weights amplify the last bits, which differ, to other texts
    scale, eos = (1.0, -2.0) if members == 1 else (0.5, -3.0)
    model = make_model(cell, layers, members, eos=eos, scale=scale)
    options = {"seed": 5, "length": 60, "temperature": 0.9}
    alone = [str(model.sample(num=k + 1, **options)[k]) for k in range(3)]
    streamed = ["".join(model.stream(index=k, **options)) for k in range(40)]
    start = model.start()
    config = SamplingConfig(**options)
    for batch_size in (2, 7, 64):
        requests = [Request(start, "", 0.9, k) for k in range(40)]
        samples = list(
            sample_batch(
                model.engine, model.saved.vocabulary, requests, config, batch_size=batch_size
            )
        )
        assert [s.text for s in samples] == streamed
        assert [s.index for s in samples] == list(range(40))
        assert {s.stop_reason for s in samples} == {"eos", "length"}
    assert alone == streamed[:3]
    assert len(set(streamed)) > 35


@pytest.mark.parametrize("members", [1, 2, 4])
@pytest.mark.parametrize("options", [{}, {"stop": ("zz",)}, {"logprobs": True}])
def test_all_rows_of_a_batch_may_end_at_once(members, options):
    samples = make_model(members=members, eos=99.0).sample(num=9, seed=1, length=5, **options)
    assert [(s.text, s.stop_reason) for s in samples] == [("", "eos")] * 9
    samples = make_model(members=members, eos=-99.0).sample(num=9, seed=1, length=5, **options)
    assert [(len(s.text), s.stop_reason) for s in samples] == [(5, "length")] * 9


def make_byte_model(seed=1):
    """Return a byte model with random weights that writes many characters of several bytes."""
    vocabulary = ByteVocabulary()
    config = ModelConfig(vocab_size=len(vocabulary), hidden_size=8, cell="gru")
    rng = np.random.default_rng(seed)
    weights = {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in config.weight_shapes().items()
    }
    weights["output.bias"][0xC2 + FIRST_CHARACTER_ID :] += 2.0  # bytes that begin a character
    return CharModel(SavedModel(config=config, vocabulary=vocabulary, weights=weights, training={}))


def assert_batches_draw_what_streams_draw(model, options, batch_sizes=(2, 7, 64), num=23):
    """Draw `num` samples of several prompts and temperatures both ways; return the streams'."""
    config = SamplingConfig(seed=8, **options)
    starts = [(prompt, model.start(prompt)) for prompt in ("", "ab", "a")]
    requests = [
        Request(start, prompt, temperature, 3 * number)
        for number, ((prompt, start), temperature) in enumerate(
            itertools.islice(itertools.cycle(itertools.product(starts, (0.9, 0.0, 1.4))), num)
        )
    ]
    streams = [Stream(model.engine, model.saved.vocabulary, r, config).sample() for r in requests]
    for batch_size in batch_sizes:
        samples = list(
            sample_batch(
                model.engine, model.saved.vocabulary, requests, config, batch_size=batch_size
            )
        )
        for sample, stream in zip(samples, streams, strict=True):
            for name in ("logprobs", "sampling_logprobs"):
                numbers, expected = getattr(sample, name), getattr(stream, name)
                assert (numbers is None) == (expected is None) == ("logprobs" not in options)
                if expected is not None:
                    np.testing.assert_allclose(numbers, expected, rtol=0, atol=1e-4)
            bare = {"logprobs": None, "sampling_logprobs": None}
            assert replace(sample, **bare) == replace(stream, **bare)
    return streams


EACH_FEATURE = {
    "plain": {},
    "one stop": {"stop": ("c",)},
    "several stops": {"stop": ("cd", "dde", "a\n", "zz")},
    "no repeat": {"no_repeat": 2},
    "no repeat, nothing left": {"no_repeat": 1},
    "logprobs": {"logprobs": True},
    "min length": {"min_length": 25},
    "filters": {"top_k": 5, "top_p": 0.9, "min_p": 0.01},
    "all together": {"stop": ("cc", "ef"), "no_repeat": 3, "logprobs": True, "min_length": 20,
                     "top_k": 7},
}  # fmt: skip
each_feature = pytest.mark.parametrize(
    "options", [pytest.param(o, id=name) for name, o in EACH_FEATURE.items()]
)


@each_feature
def test_every_feature_works_in_a_batch_as_alone(options):
    streams = assert_batches_draw_what_streams_draw(make_model(eos=-1.0), {"length": 50, **options})
    reasons = {sample.stop_reason for sample in streams}
    assert len({sample.text for sample in streams}) > 10
    assert "eos" in reasons
    assert ("stop" in reasons) == ("stop" in options)


@each_feature
def test_every_feature_works_in_a_batch_of_a_byte_model(options):
    options = {"length": 40, **options, "stop": tuple("é" + s for s in options.get("stop", ()))}
    streams = assert_batches_draw_what_streams_draw(make_byte_model(), options)
    text = "".join(sample.text for sample in streams)
    assert {1, 2, 3, 4} == {len(character.encode()) for character in text}
    assert "\ufffd" not in text


def test_a_byte_model_in_a_batch_stops_at_a_text_of_several_bytes():
    model = make_byte_model()
    text = "".join(model.stream(seed=8, length=40))
    stop = next(text[k : k + 2] for k in range(10, 30) if len(text[k : k + 2].encode()) > 3)
    samples = model.sample(num=9, seed=8, length=40, stop=(stop,))
    assert (samples[0].text, samples[0].stop_reason) == (text[: text.index(stop)], "stop")


def test_an_ngram_ban_never_breaks_a_character_off():
    """With every character forbidden, the ban is dropped, but UTF-8 is not."""
    samples = make_byte_model().sample(
        num=3, seed=1, length=600, min_length=600, no_repeat=1, temperature=3.0
    )
    for sample in samples:
        assert len(sample.text) == 600
        assert "\ufffd" not in sample.text


@pytest.mark.parametrize("extra", [{}, {"stop": ("\n\n\n",)}])
def test_a_long_text_in_a_batch_with_short_ones(extra):
    """Rows begin and end at any place of the blocks that random numbers are made in."""
    model = make_model(eos=-2.5)
    streams = assert_batches_draw_what_streams_draw(model, {"length": 150, **extra}, (3,), num=60)
    lengths = {len(sample.text) for sample in streams}
    assert len(lengths) > 20
    assert min(lengths) < 32 < 128 < max(lengths)


def test_a_feature_does_not_cost_the_batch():
    """What needs a look at every character is drawn in the batch, not stream by stream."""
    model = make_model(eos=-50.0)
    for options in ({"stop": ("zz",)}, {"no_repeat": 4}, {"logprobs": True}):
        with patch.object(State, "__init__", autospec=True, side_effect=State.__init__) as made:
            model.sample(num=40, length=20, seed=1, **options)
        assert made.call_count < 5, "a state for every sample"


@pytest.mark.parametrize(("last", "reason"), [(EOS_ID, "eos"), (None, "length")])
def test_what_was_held_back_is_written_at_the_end(last, reason):
    vocabulary = Vocabulary("abc")
    config = SamplingConfig(length=3 if last is None else 9, stop=("bcb",))
    writer = new_writer(vocabulary, Request(None, "", 1.0, 0), config)
    texts = [writer.add(chosen) for chosen in vocabulary.encode("abc").tolist()]
    if last is not None:
        assert writer.stop_reason is None
        texts.append(writer.add(last))
    assert (texts[:2], "".join(texts), writer.stop_reason) == (["a", ""], "abc", reason)


def test_an_ngram_ban_waits_for_the_character_that_is_begun():
    vocabulary = ByteVocabulary()
    request = Request(None, "", 1.0, 0)
    writer = WatchfulWriter(vocabulary, request, SamplingConfig(no_repeat=1))
    first, second = vocabulary.encode("é").tolist()
    for chosen in (first, second, first):
        writer.add(chosen)
    assert list(writer.repeated()) == []
    assert second not in writer.impossible()
    writer.add(second)
    assert second in writer.repeated()


def test_seeds_and_indices_give_unrelated_numbers():
    keys = np.concatenate([stream_keys(seed, range(50)) for seed in (*range(50), 1 << 64, 1 << 70)])
    assert len(np.unique(keys)) == len(keys)
    numbers = uniforms(stream_keys(3, [4]), np.arange(4096))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    np.testing.assert_allclose(np.histogram(numbers, 16, (0, 1))[0] / 4096, 1 / 16, atol=0.02)
    across = uniforms(stream_keys(3, range(4096)), 0)
    np.testing.assert_allclose(np.histogram(across, 16, (0, 1))[0] / 4096, 1 / 16, atol=0.02)
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.05
    assert len(np.unique(stream_keys(3, [0, 1, 10**30, (1 << 64) + 5, (1 << 63) + 5]))) == 5
    assert len(np.unique([stream_keys(seed, [0])[0] for seed in (-(1 << 70), -2, 0, 2)])) == 4
    for position in (0, 7, 4000):
        assert uniforms(stream_keys(3, [4]), position)[0] == numbers[position]


def test_the_state_after_a_stream_can_be_continued(model):
    options = {"seed": 1, "temperature": 0.0}
    whole = str(model.sample("abc", length=40, min_length=40, **options))
    first = model.stream("abc", length=15, min_length=15, **options)
    beginning = "".join(first)
    rest = str(model.sample(after=first.end, length=25, min_length=25, **options))
    assert beginning + rest == whole
    assert str(model.sample("abc" + beginning, length=25, min_length=25, **options)) == rest


def test_temperature_zero_follows_the_most_probable(model):
    text = str(model.sample(temperature=0, length=20, min_length=20))
    state = model.engine.initial_state()
    chosen, expected = EOS_ID, ""
    for _ in range(20):
        logits = model.engine.step(chosen, state).copy()
        logits[:2] = -np.inf  # UNK, and EOS before min_length
        chosen = int(logits.argmax())
        expected += model.saved.vocabulary.strings[chosen]
    assert text == expected
    batch = model.sample(num=3, temperature=0, length=20, min_length=20)
    assert [str(s) for s in batch] == [expected] * 3


@pytest.mark.parametrize("temperature", [1e-4, 100.0])
def test_extreme_temperatures(model, temperature):
    text = str(model.sample(temperature=temperature, length=200, min_length=200, seed=1))
    assert len(text) == 200
    assert set(text) <= set(ALPHABET)
    if temperature < 1:
        assert text == str(model.sample(temperature=0, length=200, min_length=200))
    else:
        assert set(text) == set(ALPHABET)


def test_stop_texts_end_the_text_and_are_not_written(model):
    free = str(model.sample(seed=3, length=400, min_length=400))
    stop = free[100:103]
    at = free.index(stop)
    sample = model.sample(seed=3, length=400, min_length=400, stop=("zzz", stop))
    assert (sample.text, sample.stop_reason) == (free[:at], "stop")
    unstopped = model.sample(seed=3, length=400, min_length=400, stop=("zzz",))
    assert (unstopped.text, unstopped.stop_reason) == (free, "length")


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_stop_texts_hold_back_no_more_than_they_must(text, stops):
    watch, written, ended = StopTexts(stops), "", False
    for character in text:
        ready, ended = watch.feed(character)
        written += ready
        if ended:
            break
    if not ended:
        written += watch.rest()
    places = [text.index(stop) + len(stop) for stop in stops if stop in text]
    if not places:
        assert (written, ended) == (text, False)
    else:
        first = min(places)
        begins = [first - len(s) for s in stops if text[:first].endswith(s)]
        assert (written, ended) == (text[: min(begins)], True)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_no_repeat_forbids_every_ngram_of_the_output(model, n):
    limit = {1: 9, 2: 25}.get(n, 60)
    text = str(model.sample(seed=1, length=limit, min_length=limit, no_repeat=n, temperature=0.3))
    grams = [text[i : i + n] for i in range(len(text) - n + 1)]
    assert len(grams) == len(set(grams))
    plain = str(model.sample(seed=1, length=limit, min_length=limit, temperature=0.3))
    assert len({plain[i : i + n] for i in range(len(plain) - n + 1)}) < len(grams)


def test_no_repeat_goes_on_when_nothing_new_is_left(model):
    assert len(model.sample(length=30, min_length=30, no_repeat=1, seed=1).text) == 30


def test_no_repeat_bans_what_followed_the_same_characters():
    memory = NoRepeat(3)
    for chosen in (5, 6, 7, 5, 6):
        memory.add(chosen)
    assert list(memory.banned()) == [7]


@given(st.integers(1, 6), st.lists(st.integers(0, 2), max_size=60))
def test_no_repeat_remembers_what_a_search_finds(n, ids):
    memory = NoRepeat(n)
    for end, chosen in enumerate(ids):
        context = ids[end - n + 1 : end] if end >= n - 1 else None
        expected = {
            ids[k + n - 1]
            for k in range(end - n + 1)
            if context is not None and ids[k : k + n - 1] == context
        }
        assert set(memory.banned()) == expected
        assert len(memory.banned()) == len(expected)
        memory.add(chosen)


def test_the_memory_of_no_repeat_does_not_grow_with_its_length():
    memory, ids = NoRepeat(8000), np.random.default_rng(0).integers(99, size=20_000).tolist()
    tracemalloc.start()
    for chosen in ids + ids:
        memory.add(chosen)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    assert list(memory.banned()) == [ids[0]]
    memory.add(ids[0])
    assert list(memory.banned()) == [ids[1]]


def test_a_long_stop_text_costs_no_more_than_a_short_one():
    stops = StopTexts(["a" * 50_000 + "b", "a" * 30_000 + "c"])
    written = [stops.feed("a") for _ in range(60_000)]
    assert "".join(text for text, _ in written) == "a" * 10_000
    assert stops.feed("c") == ("a" * 20_000, True)


@pytest.mark.parametrize("bias", [np.inf, -np.inf, np.nan, 3e38])
@pytest.mark.parametrize("options", [
    {}, {"temperature": 0}, {"temperature": 1e-300}, {"top_p": 0.5}, {"logprobs": True},
])  # fmt: skip
@pytest.mark.parametrize("num", [1, 3])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_logits_that_are_not_finite_are_refused(bias, options, num):
    model = make_model()
    model.saved.weights["output.bias"][2:] = bias
    if bias == 3e38:
        sample = model.sample(num=num, seed=1, length=5, **options)[-1]
        assert len(sample.text) == 5
        assert np.isfinite(sample.logprobs or 0).all()
        return
    with pytest.raises(ModelFileError, match="its logits overflow"):
        model.sample(num=num, seed=1, length=5, min_length=5, **options)


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-200])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_the_lowest_temperatures_take_the_best(model, temperature):
    best = model.sample(num=2, temperature=0, length=30, min_length=30)
    for options in ({}, {"top_k": 3}):
        found = model.sample(num=2, temperature=temperature, length=30, min_length=30, **options)
        assert [one.text for one in found] == [one.text for one in best]


def test_min_length_forbids_the_end():
    model = make_model(eos=6.0)
    assert len(model.sample(seed=1, length=50).text) < 10
    for samples in ([model.sample(seed=1, length=50, min_length=30)],
                    model.sample(seed=1, length=50, min_length=30, num=9)):  # fmt: skip
        for sample in samples:
            assert len(sample.text) >= 30
            assert sample.stop_reason == "eos"


@pytest.mark.parametrize("eos", [0.0, 2.0])
def test_logprobs_agree_with_score_and_with_the_distribution_drawn_from(eos):
    model = make_model(eos=eos)
    seen = set()
    for index, temperature in itertools.product(range(6), (0.0, 0.7)):
        stream = model.stream("ab", index=index, seed=2, length=60, logprobs=True,
                              temperature=temperature, top_k=4)  # fmt: skip
        sample = stream.sample()
        seen.add(sample.stop_reason)
        ended = sample.stop_reason == "eos"
        assert len(sample.logprobs) == len(sample.text) + ended == len(sample.sampling_logprobs)
        whole = model.score("ab" + sample.text, eos=ended).logprob
        np.testing.assert_allclose(
            sum(sample.logprobs), whole - model.score("ab").logprob, atol=1e-4
        )
        if temperature == 0:
            assert set(sample.sampling_logprobs) == {0.0}
        else:
            assert max(sample.sampling_logprobs) <= 0
            assert min(sample.sampling_logprobs) > -np.inf
    assert "eos" in seen


def test_sampling_logprobs_are_of_the_filtered_distribution():
    p = np.array([0.2, 1e-30, 0.4, 0.2, 0.15, 0.05])
    sample = memoryless(p).sample(length=50, seed=1, top_k=2, temperature=0.5, logprobs=True)
    exact = {"a": np.log(0.16 / 0.2), "b": np.log(0.04 / 0.2)}
    np.testing.assert_allclose(sample.sampling_logprobs, [exact[c] for c in sample.text], rtol=1e-5)
    model_p = {"a": np.log(0.4), "b": np.log(0.2)}
    np.testing.assert_allclose(sample.logprobs, [model_p[c] for c in sample.text], rtol=1e-5)


def test_unknown_characters_of_a_prompt_are_named_left_out_or_read_as_unk(model):
    with pytest.raises(UnknownCharacterError, match=r"'é' \(U\+00E9\) at position 3"):
        model.sample("abé")
    texts = {how: model.sample("aébé", on_unknown=how, seed=1).text for how in ("unk", "skip")}
    assert texts["skip"] == model.sample("ab", seed=1).text != texts["unk"]


@pytest.mark.parametrize(
    "options",
    [{"temperature": -1}, {"temperature": float("nan")}, {"length": 0}, {"top_p": 0}, {"top_p": 2},
     {"min_p": -0.1}, {"top_k": -1}, {"no_repeat": -1}, {"stop": ("",)}, {"min_length": 2000}],
)  # fmt: skip
def test_bad_options_are_refused(model, options):
    (name,) = options
    for draw in (model.stream, model.sample):
        with pytest.raises(ConfigError, match=name) as caught:
            draw(**options)
        assert caught.value.field == name


def test_an_unknown_keyword_is_refused(model):
    for draw in (model.stream, model.sample):
        with pytest.raises(ConfigError, match="tempo"):
            draw(tempo=1)


@settings(max_examples=60, deadline=None)
@given(
    temperature=st.sampled_from([0.0, 1e-4, 0.7, 1.0, 100.0]),
    top_k=st.integers(0, 15),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
    no_repeat=st.integers(0, 4),
    length=st.integers(1, 40),
    min_length=st.integers(0, 40),
    stop=st.lists(st.text("abc", min_size=1, max_size=3), max_size=2),
    prompt=st.text(ALPHABET, max_size=5),
    num=st.integers(1, 4),
    eos=st.sampled_from([0.0, 3.0]),
)
def test_any_options_give_a_text_within_its_limits(prompt, num, eos, **options):
    options["min_length"] = min(options["min_length"], options["length"])
    options["stop"] = tuple(options["stop"])
    model = make_model(eos=eos)
    for sample in model.sample(prompt, num=num, seed=1, **options):
        assert set(sample.text) <= set(ALPHABET)
        assert len(sample.text) <= options["length"]
        assert not any(stop in sample.text for stop in options["stop"])
        if sample.stop_reason == "eos":
            assert len(sample.text) >= options["min_length"]
        if sample.stop_reason == "length" and not options["stop"]:
            assert len(sample.text) == options["length"]


def test_a_picker_never_runs_past_the_end():
    logits = np.array([-np.inf, 0.0, 0.0, -np.inf])
    assert Picker(Vocabulary("ab"), SamplingConfig()).bind(1.0)(logits, np.nextafter(1.0, 0)) == 2
