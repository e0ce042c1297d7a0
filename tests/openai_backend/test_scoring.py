"""Scores, embeddings and greedy text of a real server against the same model in this process."""

from __future__ import annotations

import numpy as np
import pytest

from privkt.contracts import Sampling, Score

PAIRS = [
    ("The river was", " cold and a small boat went by."),
    ("The quick brown fox", " jumps"),
    ("Ein Fluß in Köln", " fließt über ☃ Steine"),
    ("The sun", " shines at noon. " * 4),
]


@pytest.fixture(scope="module")
def local(model_folder):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    return tokenizer, model


def score_here(local, prompt, continuation):
    import torch

    tokenizer, model = local
    ids = tokenizer(prompt + continuation)["input_ids"]
    first = len(tokenizer(prompt)["input_ids"])
    assert ids[:first] == tokenizer(prompt)["input_ids"]
    with torch.inference_mode():
        table = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), dim=-1)
    return Score(sum(float(table[p - 1, ids[p]]) for p in range(first, len(ids))), len(ids) - first)


def test_scores_agree_with_the_model_in_this_process(full_server, model_folder, backend, local, tmp_path):
    made = backend(full_server, cache=tmp_path, model=str(model_folder), timeout=60)
    got = made.score(*zip(*PAIRS, strict=True))
    here = [score_here(local, *pair) for pair in PAIRS]
    assert [one.tokens for one in got] == [one.tokens for one in here]
    np.testing.assert_allclose([one.logprob for one in got], [one.logprob for one in here], atol=1e-4)
    before = made.traffic.requests
    assert backend(full_server, cache=tmp_path, model=str(model_folder)).score(*zip(*PAIRS, strict=True)) == got
    assert made.traffic.requests == before


@pytest.mark.parametrize("manner", ["refuse_zero", "opaque_tokens"])
def test_scores_agree_whatever_the_servers_manners(full_server, model_folder, backend, local, manner):
    fields = {"refuse_zero": True, manner: True}
    made = backend(full_server, model=str(model_folder), timeout=60, extra_body=fields)
    got = made.score(*zip(*PAIRS, strict=True))
    assert made.findings().facts["echo"] == "1"
    here = [score_here(local, *pair) for pair in PAIRS]
    assert [one.tokens for one in got] == [one.tokens for one in here]
    np.testing.assert_allclose([one.logprob for one in got], [one.logprob for one in here], atol=1e-4)


def test_scores_are_not_asked_for_twice(full_server, model_folder, backend, tmp_path):
    made = backend(full_server, cache=tmp_path, model=str(model_folder), timeout=60)
    first = made.score(["The river", "The river"], [" was cold", " was cold"])
    assert first[0] == first[1]
    before = made.traffic.requests
    assert made.score(["The river"], [" was cold"]) == first[:1]
    assert made.traffic.requests == before


def test_greedy_text_agrees_with_the_model_in_this_process(full_server, model_folder, backend, local):
    import torch

    tokenizer, model = local
    ids = tokenizer("The river", return_tensors="pt")
    with torch.inference_mode():
        new = model.generate(**ids, do_sample=False, max_new_tokens=12, pad_token_id=0)[0, ids["input_ids"].shape[1] :]
    expected = tokenizer.decode(new, skip_special_tokens=True)
    made = backend(full_server, model=str(model_folder), endpoint="completions", timeout=60)
    (got,) = made.generate(["The river"], Sampling(max_new_tokens=12, temperature=0.0))
    assert got.text == expected
    stop = expected[len(expected) // 2 :][:2]
    (cut,) = made.generate(["The river"], Sampling(max_new_tokens=12, temperature=0.0, stop=(stop,)))
    assert cut.text == expected[: expected.find(stop)]
    assert cut.finish == "stop"


def test_equal_seeds_draw_equal_text(full_server, model_folder, backend):
    def draw(seed):
        made = backend(full_server, model=str(model_folder), timeout=60)
        return [one.text for one in made.generate(["The river", "The river"], Sampling(24, seed=seed))]

    first = draw(3)
    assert draw(3) == first
    assert draw(4) != first
    assert first[0] != first[1]


def test_embeddings_are_the_servers_in_order(full_server, model_folder, backend, local):
    import torch

    tokenizer, model = local
    texts = [f"text number {n}" for n in range(70)]
    got = backend(full_server, model=str(model_folder), timeout=60).embed(texts)
    assert got.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1.0, atol=1e-5)
    for n in (0, 1, 63, 64, 69):
        ids = torch.tensor([tokenizer(texts[n])["input_ids"]])
        with torch.inference_mode():
            mean = model(ids, output_hidden_states=True).hidden_states[-1][0].mean(dim=0).numpy()
        np.testing.assert_allclose(got[n], mean / np.linalg.norm(mean), atol=1e-4)
