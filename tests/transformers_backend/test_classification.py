"""Classifiers: they learn, are written and read again unchanged, and heed weights."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from privkt_transformers.heads import ClassifierInfo, fit_head
from transformers import AutoModel

from privkt.contracts import BackendError, Example, Model, Recipe
from privkt.privacy import RefusedInput

LABELS = ("dull", "bright")
TEXTS = [f"{'the sun shone on it' if i % 2 else 'grey rain and mud'} number {i}" for i in range(24)]
EXAMPLES = [Example(text, LABELS[i % 2]) for i, text in enumerate(TEXTS)]
GOAL = np.array([i % 2 for i in range(24)])
HEAD = Recipe(task="classification", trainable="head", labels=LABELS, max_length=64)
TUNED = dataclasses.replace(HEAD, epochs=2, batch_size=8, learning_rate=1e-3)


def accuracy(backend, model, labels=LABELS):
    found = backend.with_weights(model).classify(TEXTS, labels)
    assert found.shape == (len(TEXTS), len(labels))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.sum(axis=1), 1)
    return (found.argmax(axis=1) == GOAL).mean()


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize(
    "recipe",
    [
        HEAD,
        dataclasses.replace(TUNED, trainable="last:1"),
        dataclasses.replace(TUNED, trainable="all"),
        dataclasses.replace(TUNED, trainable="all", lora={"rank": 2, "targets": "all-linear"}),
    ],
    ids=["head", "last:1", "all", "lora"],
)
def test_classifiers_learn_and_leave_the_base_alone(request, tmp_path, kind, recipe):
    backend = request.getfixturevalue(kind)()
    before = backend.embed(TEXTS[:2])
    model = backend.train(EXAMPLES, recipe, folder=tmp_path)
    assert isinstance(model, Model)
    assert accuracy(backend, model) == 1
    np.testing.assert_array_equal(backend.embed(TEXTS[:2]), before)


@pytest.mark.parametrize("recipe", [HEAD, dataclasses.replace(TUNED, trainable="last:1")], ids=["head", "last:1"])
def test_a_classifier_read_again_gives_the_same_probabilities(bert, tmp_path, recipe):
    first = bert()
    model = first.train(EXAMPLES, recipe, folder=tmp_path)
    found = first.with_weights(model).classify(TEXTS, LABELS)
    first.release_memory()
    np.testing.assert_array_equal(bert().with_weights(Model(model.folder)).classify(TEXTS, LABELS), found)
    np.testing.assert_array_equal(bert(model=str(model.folder)).classify(TEXTS, LABELS), found)


def test_the_folder_is_a_transformers_model_with_the_labels(bert, tiny_bert, tmp_path):
    model = bert().train(EXAMPLES, HEAD, folder=tmp_path)
    config = json.loads((model.folder / "config.json").read_text())
    assert config["id2label"] == {"0": "dull", "1": "bright"}
    assert config["label2id"] == {"dull": 0, "bright": 1}
    assert AutoModel.from_pretrained(model.folder).config.id2label == {0: "dull", 1: "bright"}
    # Frozen weights are linked, and the source's config is as it was.
    source = tiny_bert / "model.safetensors"
    assert (model.folder / "model.safetensors").samefile(source)
    assert "id2label" not in json.loads((tiny_bert / "config.json").read_text())


def test_labels_may_come_in_another_order_or_fewer(bert, tmp_path):
    backend = bert()
    model = backend.train(EXAMPLES, HEAD, folder=tmp_path)
    ours = backend.with_weights(model)
    found = ours.classify(TEXTS, LABELS)
    np.testing.assert_array_equal(ours.classify(TEXTS, LABELS[::-1]), found[:, ::-1])
    np.testing.assert_array_equal(ours.classify(TEXTS, LABELS[:1]), np.ones((len(TEXTS), 1)))
    assert ours.classify([], LABELS).shape == (0, 2)


def test_unknown_labels_are_refused(bert, tmp_path):
    backend = bert()
    model = backend.train(EXAMPLES, HEAD, folder=tmp_path)
    with pytest.raises(RefusedInput, match="trained on \\(dull, bright\\), got 1 others"):
        backend.with_weights(model).classify(TEXTS, ("dull", "shiny"))


def test_without_a_classifier_there_are_no_labels(bert):
    with pytest.raises(BackendError, match="has no classifier"):
        bert().classify(TEXTS, LABELS)


def test_weights_decide_between_contradicting_examples(bert, tmp_path):
    backend = bert()
    for heavy in LABELS:
        rows = [Example("the same text", label, weight=1.0 if label == heavy else 0.1) for label in LABELS]
        model = backend.train(rows + EXAMPLES, HEAD, folder=tmp_path / heavy)
        found = backend.with_weights(model).classify(["the same text"], LABELS)[0]
        assert found[LABELS.index(heavy)] > 0.5


def test_a_head_is_the_minimiser():
    """At the minimum the gradient of mean(w x CE) + ridge/2 |W|^2 over standardised features vanishes."""
    draw = np.random.default_rng(0)
    x = draw.normal(3, [1, 5, 0.2, 2], (60, 4)).astype(np.float32)
    y, w = draw.integers(0, 3, 60), draw.uniform(0.1, 1, 60)
    head = fit_head(x, y, w, 3, ridge=0.05)
    spread = x.astype(np.float64).std(0)
    slope = (head.probabilities(x) - np.eye(3)[y]) * w[:, None] / 60
    unit = (x - x.astype(np.float64).mean(0)) / spread
    np.testing.assert_allclose(slope.T @ unit + 0.05 * head.weight * spread, 0, atol=1e-5)


def test_a_head_bears_constant_features_and_missing_classes():
    x = np.array([[1.0, 2.0], [1.0, 3.0], [1.0, 8.0]], dtype=np.float32)
    head = fit_head(x, np.array([0, 0, 2]), np.ones(3), 4)
    found = head.probabilities(x)
    assert np.isfinite(found).all()
    assert (found[:, [1, 3]] < 0.05).all()
    assert found.argmax(1).tolist() == [0, 0, 2]


def test_no_positive_weight_is_refused():
    with pytest.raises(RefusedInput, match="weight above 0"):
        fit_head(np.ones((2, 2)), np.array([0, 1]), np.zeros(2), 2)


def test_features_are_computed_once_for_all_arms(bert, tmp_path, monkeypatch):
    from privkt_transformers import feature_memory

    feature_memory.forget_features()
    asked = []
    compute = feature_memory.features
    monkeypatch.setattr(
        feature_memory,
        "features",
        lambda loaded, texts, *rest, **more: asked.extend(texts) or compute(loaded, texts, *rest, **more),
    )
    backend = bert()
    model = backend.train(EXAMPLES, HEAD, folder=tmp_path / "a")
    backend.train(EXAMPLES[:8] + EXAMPLES[:2], HEAD, folder=tmp_path / "b")
    backend.with_weights(model).classify([*TEXTS, "another"], LABELS)
    assert sorted(asked) == sorted([*TEXTS, "another"])
    assert not any(b"rain" in key for key in feature_memory._rows)


class TestLabelTokens:
    """A causal model that writes the label's name."""

    RECIPE = Recipe(task="classification", labels=LABELS, epochs=6, batch_size=8, learning_rate=1e-2, max_length=64)

    def test_an_untrained_model_ranks_by_likelihood(self, llama):
        backend = llama(classifier="label-tokens", cue=" =")
        found = backend.classify(TEXTS[:3], LABELS)
        scores = backend.score([t + " =" for t in TEXTS[:3] for _ in LABELS], [f" {x}" for x in LABELS] * 3)
        logs = torch.tensor([s.logprob for s in scores]).reshape(3, 2)
        np.testing.assert_allclose(found, logs.softmax(1).numpy(), atol=1e-6)

    @pytest.mark.parametrize("lora", [None, {"rank": 4, "targets": "all-linear"}], ids=["all", "lora"])
    def test_it_learns_and_is_read_again(self, llama, tmp_path, lora):
        backend = llama(classifier="label-tokens")
        model = backend.train(EXAMPLES, dataclasses.replace(self.RECIPE, lora=lora), folder=tmp_path)
        assert accuracy(backend, model) == 1
        found = backend.with_weights(model).classify(TEXTS, LABELS)
        np.testing.assert_array_equal(llama(model=str(model.folder)).classify(TEXTS, LABELS), found)

    def test_a_long_text_is_cut_before_the_cue(self, llama):
        from privkt_transformers.classification import cued

        loaded = llama().loaded
        assert cued(loaded, ["x" * 100, "short"], "\nLabel:", 40) == ["x" * 25 + "\nLabel:", "short\nLabel:"]

    def test_there_is_no_head_to_train(self, llama, tmp_path):
        recipe = dataclasses.replace(self.RECIPE, trainable="head")
        with pytest.raises(RefusedInput, match="has no head"):
            llama(classifier="label-tokens").train(EXAMPLES, recipe, folder=tmp_path)


def test_what_a_config_says_is_read_back(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    info = ClassifierInfo("head", ("ä", "b"), 40, "cls", True, "")
    info.write(tmp_path)
    assert ClassifierInfo.of(json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))) == info
    assert ClassifierInfo.of({"model_type": "bert"}) is None
