"""Fine-tuning: a trained model learns another text, and its characters keep their meaning."""

import numpy as np
import pytest
import reference

from charrnn import api
from charrnn.config import ModelConfig
from charrnn.errors import ConfigError
from charrnn.models.network import transfer_weights
from charrnn.storage.model_file import SavedModel, save_model
from charrnn.training.prepare import prepare_training
from charrnn.vocab import Vocabulary


def model_of(characters, embedding, seed=1, members=1):
    vocabulary = Vocabulary(characters)
    config = ModelConfig(
        vocab_size=len(vocabulary),
        hidden_size=6,
        embedding_size=embedding,
        num_layers=2,
        members=members,
    )
    weights = reference.random_weights(config, seed=seed)
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    return SavedModel(config=config, vocabulary=vocabulary, weights=weights, training={})


@pytest.mark.parametrize("embedding", [0, 4])
@pytest.mark.parametrize("members", [1, 3])
def test_known_characters_keep_their_meaning(embedding, members):
    old = model_of("bdf", embedding, members=members)
    new = model_of("abcdef", embedding, seed=2, members=members)
    weights = transfer_weights(old, new.vocabulary, new.weights)
    larger = api.CharModel(
        SavedModel(config=new.config, vocabulary=new.vocabulary, weights=weights, training={})
    )
    smaller = api.CharModel(old)
    ids = [0, 1, 3, 5, 7]  # UNK, EOS, b, d, f in the larger alphabet
    for text in ("b", "fdb", "bbbbd"):
        one = smaller.engine.run(old.vocabulary.encode(text), smaller.engine.initial_state())
        two = larger.engine.run(new.vocabulary.encode(text), larger.engine.initial_state())
        np.testing.assert_allclose(two[:, ids], one, rtol=1e-5, atol=1e-6)
    fresh = "embedding.weight" if embedding else "output.weight"
    np.testing.assert_array_equal(  # a is new
        weights[fresh][..., 2, :], new.weights[fresh][..., 2, :]
    )


def test_an_alphabet_of_the_same_size_is_not_mixed_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "old.safetensors", model_of("abc", 4))
    (tmp_path / "text").write_text("xyz" * 100)
    model = api.train("text", init="old.safetensors", steps=1, sample_every=0, learning_rate=1e-9)
    assert model.saved.vocabulary.characters == tuple("abcxyz")
    old = api.load(tmp_path / "old.safetensors")
    one = old.engine.run(old.saved.vocabulary.encode("cab"), old.engine.initial_state())
    two = model.engine.run(model.saved.vocabulary.encode("cab"), model.engine.initial_state())
    np.testing.assert_allclose(two[:, :5], one, atol=1e-4)


def test_fine_tuning_begins_where_the_model_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("the same old song. " * 60)
    first = api.train("text", steps=150, hidden_size=24, sample_every=0, out="first")
    second = api.train("text", init="first", steps=1, sample_every=0, out="second")
    assert second.saved.config == first.saved.config
    assert second.saved.training["val_loss_nats"] < first.saved.training["val_loss_nats"] + 0.1


@pytest.mark.parametrize(
    "options", [{"hidden_size": 7}, {"cell": "gru"}, {"unit": "byte"}, {"normalize": "nfc"}]
)
def test_options_that_contradict_the_model_are_refused(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "old.safetensors", model_of("abc", 4))
    (tmp_path / "text").write_text("abc")
    with pytest.raises(ConfigError, match=r"must be .*, as in the model to begin from"):
        api.train("text", init="old.safetensors", steps=1, **options)


@pytest.mark.parametrize("documents", ["none", "line"])
def test_a_held_out_file_is_the_validation_part(tmp_path, documents):
    (tmp_path / "a").write_text("aa\nab\n" * 30)
    (tmp_path / "b").write_text("bb\nax\n" * 5)
    settings = {"documents": documents, "steps": 1, "hidden_size": 4}
    trainer = prepare_training(
        [tmp_path / "a"], settings, out=tmp_path / "run", held_out=[tmp_path / "b"]
    )
    corpus = trainer.corpus
    assert (corpus.n_train, corpus.n_val) == (180, 30)
    assert "x" not in corpus.vocabulary.characters
    assert corpus.n_unknown == 5
    if documents == "line":
        val = [s for spans in corpus.documents.all_spans(validation=True) for s in spans.tolist()]
        texts = [corpus.vocabulary.decode(corpus.ids[a:b]) for a, b in val]
        assert texts == ["bb", "a�"] * 5
    list(trainer.run())
    prepare_training([tmp_path / "b"], {"steps": 1}, out=tmp_path / "other")
