"""Private training through the backend: a Release with its charge and its numbers, and nothing looser."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from privkt_transformers import classifiers, private
from privkt_transformers.embedding import Pooling, features
from safetensors.torch import load

from privkt.contracts import Adapter, Example, Model, Privacy, Recipe, Sampling
from privkt.dpsgd.errors import RefusedTraining
from privkt.privacy import Budget, Guarantee, Ledger, RefusedInput, Release

EXAMPLES = [Example("Say:", f" {'ab' * (1 + i % 3)} so on") for i in range(20)]
RECIPE = Recipe(epochs=1, batch_size=10, max_length=24, learning_rate=1e-2, lora={"rank": 2})
LABELS = ("dull", "bright")
LABELLED = [Example(f"{'sun' if i % 2 else 'rain'} {i}", LABELS[i % 2]) for i in range(20)]
CLASSIFY = Recipe(task="classification", labels=LABELS, epochs=1, batch_size=10, max_length=24, learning_rate=1e-2)


def privacy(ledger=None, epsilon=8.0, size=20):
    budget = Budget(epsilon, 1e-4, ledger)
    return Privacy(budget, size, "run-1", "generator", "fingerprint", "random-id")


@pytest.fixture
def ledger():
    return Ledger.open_or_create("toy", cap_epsilon=10.0, cap_delta=1e-3, size=20)


def test_an_adapter_comes_with_its_guarantee_its_charge_and_its_numbers(llama, tmp_path, ledger):
    release = llama().train(EXAMPLES, RECIPE, folder=tmp_path, privacy=privacy(ledger))
    assert isinstance(release, Release)
    assert isinstance(release.payload, Adapter)
    assert isinstance(release.guarantee, Guarantee)
    assert 0 < release.guarantee.epsilon <= 8
    assert release.charge is not None
    assert ledger.spent().epsilon == pytest.approx(8, rel=1e-3)
    details = release.provenance.details
    assert details["sampling_rate"] == 0.5
    assert details["steps"] == 2
    assert details["noise_multiplier"] > 0
    assert release.provenance.data_set_id == "random-id"


def test_the_adapter_is_put_in_place_and_the_base_is_as_it_was(llama, tmp_path):
    backend = llama()
    greedy = Sampling(max_new_tokens=6, temperature=0)
    before = backend.generate(["Say:"], greedy)
    release = backend.train(EXAMPLES, RECIPE, folder=tmp_path, privacy=privacy())
    assert backend.generate(["Say:"], greedy) == before
    trained = backend.with_weights(release.payload).loaded.network
    assert any("lora_B" in name and p.abs().sum() > 0 for name, p in trained.named_parameters())
    assert json.loads(release.payload.files["adapter_config.json"])["base_model_name_or_path"] == "tiny-llama"


def test_adapter_weights_are_float32_over_a_bfloat16_base(llama, tmp_path):
    release = llama(dtype="bfloat16").train(EXAMPLES, RECIPE, folder=tmp_path, privacy=privacy())
    tensors = load(release.payload.files["adapter_model.safetensors"])
    assert {t.dtype for t in tensors.values()} == {torch.float32}


def test_whole_layers_make_a_model(llama, tmp_path):
    recipe = dataclasses.replace(RECIPE, lora=None, trainable="last:1")
    backend = llama()
    release = backend.train(EXAMPLES, recipe, folder=tmp_path, privacy=privacy())
    assert isinstance(release.payload, Model)
    assert len(backend.with_weights(release.payload).generate(["Say:"], Sampling(max_new_tokens=3))) == 1


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize(
    "changes", [{"trainable": "head"}, {"trainable": "last:1"}, {"lora": {"rank": 2, "targets": "all-linear"}}]
)
def test_classifiers_can_be_trained_privately(request, tmp_path, ledger, kind, changes):
    backend = request.getfixturevalue(kind)()
    recipe = dataclasses.replace(CLASSIFY, **changes)
    release = backend.train(LABELLED, recipe, folder=tmp_path, privacy=privacy(ledger))
    assert isinstance(release, Release)
    assert release.charge is not None
    found = backend.with_weights(release.payload).classify(["sun", "rain"], LABELS)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert not np.allclose(found, 0.5)


def test_a_private_heads_features_are_float32_and_untouched_by_other_records(bert, tmp_path, monkeypatch):
    """Bit for bit under a bfloat16 model: one record made long, and nothing remembered between the two trainings."""
    seen = []

    class Caught(Exception):
        pass

    def catch(model, rows, *args, **keywords):
        seen.append([x for x, _ in rows])
        raise Caught

    monkeypatch.setattr(classifiers, "train_privately", catch)
    backend = bert(dtype="bfloat16")
    longer = [dataclasses.replace(LABELLED[0], prompt="sun " * 40), *LABELLED[1:]]
    recipe = dataclasses.replace(CLASSIFY, trainable="head")
    for examples in (LABELLED, longer):
        with pytest.raises(Caught):
            backend.train(examples, recipe, folder=tmp_path, privacy=privacy())
    before, after = (torch.stack(rows) for rows in seen)
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1:], after[1:])
    assert not torch.equal(before, before.bfloat16().float())
    expected = features(
        backend.base_for(float32=True), [LABELLED[1].prompt], Pooling("mean", True, 24), batch_tokens=99
    )
    np.testing.assert_allclose(before[1].numpy(), expected[0], atol=1e-5)


def test_label_tokens_can_be_trained_privately(llama, tmp_path):
    backend = llama(classifier="label-tokens")
    recipe = dataclasses.replace(CLASSIFY, lora={"rank": 2})
    release = backend.train(LABELLED, recipe, folder=tmp_path, privacy=privacy())
    assert backend.with_weights(release.payload).classify(["sun"], LABELS).shape == (1, 2)


def test_weights_are_refused_before_anything_is_spent(llama, tmp_path, ledger):
    rows = [*EXAMPLES[:-1], dataclasses.replace(EXAMPLES[-1], weight=0.5)]
    with pytest.raises(RefusedInput, match="every record weight 1"):
        llama().train(rows, RECIPE, folder=tmp_path, privacy=privacy(ledger))
    assert ledger.spent().epsilon == 0


def test_another_declared_size_is_refused_before_anything_is_spent(llama, tmp_path, ledger):
    with pytest.raises(RefusedTraining, match="declared size"):
        llama().train(EXAMPLES, RECIPE, folder=tmp_path, privacy=privacy(ledger, size=21))
    assert ledger.spent().epsilon == 0


def test_a_run_that_was_cut_resumes_without_paying_again(llama, tmp_path, ledger, monkeypatch):
    class Cut(Exception):
        pass

    class Cutting(private.PrivateTraining):
        def _update(self, last):
            super()._update(last)
            raise Cut

    monkeypatch.setattr(private, "PrivateTraining", Cutting)
    with pytest.raises(Cut):
        llama().train(EXAMPLES, RECIPE, folder=tmp_path, privacy=privacy(ledger))
    spent = ledger.spent()
    assert spent.epsilon > 0
    monkeypatch.undo()
    release = llama().train(EXAMPLES, RECIPE, folder=tmp_path, privacy=privacy(ledger))
    assert release.charge is not None
    assert ledger.spent() == spent
