"""Embeddings: what sentence-transformers makes of the same folder, and padding that counts for nothing."""

import json

import numpy as np
import pytest
import torch
from privkt_transformers import embedding
from privkt_transformers.embedding import Pooling, features, features_of_one_shape, pooling_of
from privkt_transformers.network import hidden_states

TEXTS = ["a", "The weather is nice today.", "x" * 200, "Why not?", ""]


def test_embeddings_match_sentence_transformers(bert, tiny_bert):
    library = pytest.importorskip("sentence_transformers")
    texts = TEXTS[:-1]  # over bytes an empty text has no token at all, which the library makes a row of zeros
    expected = library.SentenceTransformer(str(tiny_bert), device="cpu").encode(texts)
    np.testing.assert_allclose(bert().embed(texts), expected, atol=2e-6)


@pytest.mark.parametrize("batch_tokens", [1, 100, 10_000])
def test_padding_and_order_count_for_nothing(bert, llama, batch_tokens):
    for backend in (bert(batch_tokens=batch_tokens), llama(batch_tokens=batch_tokens)):
        alone = np.concatenate([backend.embed([text]) for text in TEXTS])
        np.testing.assert_allclose(backend.embed(TEXTS), alone, atol=1e-5)


@pytest.mark.parametrize("mode", ["mean", "cls", "last", "max"])
def test_each_pooling_is_what_its_name_says(llama, mode):
    loaded = llama().loaded
    rows = features(loaded, TEXTS[:4], Pooling(mode, max_length=40), batch_tokens=200)
    for row, text in zip(rows, TEXTS, strict=False):
        ids = torch.tensor([loaded.tokenizer(text)["input_ids"][:40]])
        with torch.no_grad():
            hidden = loaded.network.model(ids).last_hidden_state[0]
        expected = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1], "max": hidden.amax(0)}[mode]
        np.testing.assert_allclose(row, expected.numpy(), atol=1e-5)


def test_a_folders_own_pooling_is_followed(tiny_bert, tiny_llama, tmp_path):
    assert pooling_of(tiny_bert, 128) == Pooling("mean", True, 64)
    assert pooling_of(tiny_llama, 256) == Pooling("mean", False, 256)
    assert pooling_of(tiny_bert, 128, "cls") == Pooling("cls", True, 64)


@pytest.mark.parametrize(
    ("config", "kinds", "expected"),
    [
        ({"pooling_mode_cls_token": True}, ("Transformer", "Pooling"), Pooling("cls", False, 100)),
        ({"pooling_mode_lasttoken": True}, ("Transformer", "Pooling"), Pooling("last", False, 100)),
        ({"pooling_mode": "max"}, ("Transformer", "Pooling", "Normalize"), Pooling("max", True, 100)),
        ({"pooling_mode_weightedmean_tokens": True}, ("Transformer", "Pooling"), Pooling("mean", False, 100, True)),
        ({"pooling_mode_mean_tokens": True}, ("Transformer", "Pooling", "Dense"), Pooling("mean", False, 100, True)),
    ],
)
def test_pooling_files_are_read(tmp_path, config, kinds, expected):
    steps = [{"path": f"{i}_{kind}", "type": f"sentence_transformers.models.{kind}"} for i, kind in enumerate(kinds)]
    (tmp_path / "modules.json").write_text(json.dumps(steps))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(config))
    assert pooling_of(tmp_path, 100) == expected


def test_long_texts_are_cut(llama):
    found = llama().embed(["x" * 1000, "x" * 2000])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


@pytest.mark.parametrize("changed", range(5))
def test_at_one_shape_no_text_changes_anothers_features(bert, llama, changed):
    """Bit for bit, and whether or not a batch has any padding left."""
    for backend in (bert(), llama()):
        pooling = Pooling("mean", True, 32)
        before = features_of_one_shape(backend.loaded, TEXTS, pooling, batch_tokens=96)
        for text in ("y" * 300, "", "word"):
            texts = [text if i == changed else other for i, other in enumerate(TEXTS)]
            after = features_of_one_shape(backend.loaded, texts, pooling, batch_tokens=96)
            others = [i for i in range(len(TEXTS)) if i != changed]
            assert np.array_equal(after[others], before[others])
        np.testing.assert_allclose(before, features(backend.loaded, TEXTS, pooling, batch_tokens=96), atol=1e-5)


def test_at_one_shape_every_batch_has_it_and_some_padding(llama, monkeypatch):
    loaded, seen = llama().loaded, []
    monkeypatch.setattr(embedding, "hidden_states", lambda *a: seen.append(a[1].mask) or hidden_states(*a))
    features_of_one_shape(loaded, ["z" * 99] * 5, Pooling("mean", max_length=16), batch_tokens=48)
    assert {tuple(mask.shape) for mask in seen} == {(3, 16)}
    assert len(seen) == 3
    assert all(not mask.all() for mask in seen)
