"""The same findings and scores on a trained model: `pytest -m slow`."""

from __future__ import annotations

import numpy as np
import pytest

from privkt.contracts import Capability, ChatTurn, Sampling

pytestmark = pytest.mark.slow


def test_the_probe_tells_both_servers_apart(smollm2_servers, backend):
    model = str(smollm2_servers["folder"])
    full = backend(smollm2_servers["full"], model=model, timeout=120)
    assert full.probe() == {Capability.GENERATE, Capability.CHAT, Capability.SCORE, Capability.EMBED}
    assert {name: full.findings().facts[name] for name in ("seed", "samples", "stop", "max_tokens")} == {
        "seed": True,
        "samples": True,
        "stop": True,
        "max_tokens": True,
    }
    silent = backend(smollm2_servers["silent"], model=model, timeout=120)
    assert silent.probe() == {Capability.GENERATE, Capability.CHAT}
    assert silent.findings().facts["logprobs"] is False


def test_both_servers_give_the_same_greedy_answer(smollm2_servers, backend):
    sampling = Sampling(max_new_tokens=12, temperature=0.0)
    prompts = ["The capital of France is", (ChatTurn("user", "What is the capital of France?"),)]
    answers = [
        [one.text.strip() for one in made.generate(prompts, sampling)]
        for made in (
            backend(smollm2_servers[name], model=str(smollm2_servers["folder"]), timeout=120)
            for name in ("full", "silent")
        )
    ]
    assert all("Paris" in text for texts in answers for text in texts)


def test_scores_agree_with_the_model_in_this_process(smollm2_servers, backend):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = smollm2_servers["folder"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt, continuations = "The capital of France is", [" Paris.", " Rome.", " a small boat."]
    here = []
    for continuation in continuations:
        ids = tokenizer(prompt + continuation)["input_ids"]
        first = len(tokenizer(prompt)["input_ids"])
        with torch.inference_mode():
            table = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), dim=-1)
        here.append(sum(float(table[place - 1, ids[place]]) for place in range(first, len(ids))))
    made = backend(smollm2_servers["full"], model=str(folder), timeout=120)
    got = [one.logprob for one in made.score([prompt] * 3, continuations)]
    np.testing.assert_allclose(got, here, atol=1e-4)
    assert got[0] == max(got)
