"""Scores: the log-likelihoods that the model itself gives, one row at a time and unpadded."""

import pytest
import torch

from privkt.contracts import BackendError

PROMPTS = ["a", "The weather is nice", "", "Why not? " * 6]
CONTINUATIONS = [" yes", " b", "no", " or so it seems"]


def reference(backend, prompt, continuation):
    loaded = backend.loaded
    start = loaded.tokenizer(prompt)["input_ids"] or [loaded.start]
    end = loaded.tokenizer(continuation, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logs = loaded.network(torch.tensor([start + end])).logits[0].log_softmax(-1)
    return sum(logs[len(start) + k - 1, token].item() for k, token in enumerate(end)), len(end)


@pytest.mark.parametrize("batch_tokens", [1, 60, 10_000])
def test_scores_match_the_model_one_by_one(llama, batch_tokens):
    backend = llama(batch_tokens=batch_tokens)
    for score, prompt, continuation in zip(backend.score(PROMPTS, CONTINUATIONS), PROMPTS, CONTINUATIONS, strict=True):
        logprob, tokens = reference(backend, prompt, continuation)
        assert score.logprob == pytest.approx(logprob, abs=1e-4)
        assert score.tokens == tokens


def test_continuations_of_one_prompt_share_passes_and_keep_their_scores(llama):
    backend = llama()
    ends = ["a", "b", "ab", "ac", "abc", ""]
    for score, end in zip(backend.score(["So "] * len(ends), ends), ends, strict=True):
        logprob, tokens = reference(backend, "So ", end)
        assert score.logprob == pytest.approx(logprob, abs=1e-4)
        assert score.tokens == tokens


def test_what_prompts_begin_with_is_read_once_for_many_of_them_with_their_continuations(llama, monkeypatch):
    """A batch is as large as what it reads, not as the copies of what it has read."""
    from privkt_transformers import scoring

    read = []
    inner = scoring.hidden_states
    monkeypatch.setattr(scoring, "hidden_states", lambda *given: read.append(given[1].ids.shape[0]) or inner(*given))
    prompts = [f"{'the same words. ' * 4}{letter}" for letter in "abcdef" for _ in range(4)]
    backend = llama()
    scores = backend.score(prompts, [" ab", " cd", " ef", " gh"] * 6)
    assert read == [6, 24]  # six rests, then every continuation
    for score, prompt, end in list(zip(scores, prompts, [" ab", " cd", " ef", " gh"] * 6, strict=True))[::5]:
        assert score.logprob == pytest.approx(reference(backend, prompt, end)[0], abs=1e-4)


def test_probabilities_of_all_next_bytes_sum_to_one(llama):
    backend = llama()
    tokens = [backend.loaded.tokenizer.decode([i]) for i in range(len(backend.loaded.tokenizer))]
    single = [t for t in tokens if len(t.encode()) == 1 and t.isascii()]
    total = sum(torch.tensor(s.logprob).exp() for s in backend.score(["x"] * len(single), single))
    assert 0 < total < 1 + 1e-5


def test_a_row_that_does_not_fit_is_named_by_its_index_alone(llama):
    with pytest.raises(BackendError, match="row 1: 304 tokens") as caught:
        llama().score(["a", "x" * 300], ["b", "cccc"])
    assert "xxx" not in str(caught.value)
