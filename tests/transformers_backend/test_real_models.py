"""The real small models: SmolLM2 answers, MiniLM embeds, and one private step passes its probe."""

import numpy as np
import pytest
import torch
from privkt_transformers.backend import TransformersBackend
from safetensors.torch import load

from privkt.contracts import BackendContext, ChatTurn, Example, Privacy, Recipe, Sampling
from privkt.privacy import Budget, Ledger

TOPICS = {
    "sport": ["The striker scored twice in the final.", "Our team lost the match after extra time."],
    "science": ["The telescope saw a distant galaxy.", "Researchers sequenced the genome of a fern."],
}
TEXTS = [text for texts in TOPICS.values() for text in texts]


def backend(folder, **options):
    return TransformersBackend({"model": str(folder), **options}, BackendContext())


def test_minilm_embeds_as_sentence_transformers_does(minilm):
    library = pytest.importorskip("sentence_transformers")
    expected = library.SentenceTransformer(str(minilm), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(backend(minilm, dtype="float32").embed(TEXTS), expected, atol=1e-5)
    closeness = (backend(minilm, dtype="bfloat16").embed(TEXTS) * expected).sum(1)
    assert closeness.min() > 0.999


def test_a_head_over_minilm_tells_topics_apart(minilm, tmp_path):
    embedder = backend(minilm)
    rows = [Example(text, label) for label, texts in TOPICS.items() for text in texts]
    recipe = Recipe(task="classification", trainable="head", labels=tuple(TOPICS))
    classifier = embedder.with_weights(embedder.train(rows, recipe, folder=tmp_path))
    found = classifier.classify(["She won the race.", "Atoms are made of particles."], tuple(TOPICS))
    assert found.argmax(1).tolist() == [0, 1]


def test_smollm2_answers_and_scores(smollm2):
    model = backend(smollm2)
    question = (ChatTurn("user", "What is the capital of France?"),)
    answer = model.generate([question], Sampling(max_new_tokens=12, temperature=0))[0]
    assert "Paris" in answer.text
    assert answer.finish == "stop"
    paris, london = model.score(["The capital of France is"] * 2, [" Paris", " London"])
    assert paris.logprob > london.logprob


def test_one_private_step_of_smollm2(smollm2, tmp_path):
    """LoRA over the real model: the rehearsal's probe passes, the ledger is charged, float32 weights moved."""
    model = backend(smollm2)
    ledger = Ledger.open_or_create("real", cap_epsilon=8, cap_delta=1e-3, size=8)
    rows = [Example("Topic:", f" {TEXTS[i % 4]} ({i})") for i in range(8)]
    recipe = Recipe(epochs=0.5, batch_size=4, max_length=16, learning_rate=1e-3, lora={"rank": 8})
    privacy = Privacy(Budget(8.0, 1e-3, ledger), 8, "run", "generator", "fingerprint", "random-id")
    release = model.train(rows, recipe, folder=tmp_path, privacy=privacy)
    assert release.provenance.details["steps"] == 1
    assert release.charge is not None
    assert 0 < ledger.spent().epsilon <= 8
    tensors = load(release.payload.files["adapter_model.safetensors"])
    assert all(t.dtype == torch.float32 and torch.isfinite(t).all() for t in tensors.values())
    assert all(t.abs().sum() > 0 for name, t in tensors.items() if "lora_B" in name)
    adapted = model.with_weights(release.payload)
    assert adapted.generate(["Topic:"], Sampling(max_new_tokens=4, seed=0))[0].tokens > 0
