"""What rows begin with alike is read once, and no row can tell."""

from dataclasses import replace

import pytest
import torch
from privkt_transformers.beginnings import begin
from privkt_transformers.network import hidden_states
from transformers import MistralConfig, MistralForCausalLM

from privkt.contracts import Sampling

SHARED = "Think about the question, then answer it. "
PROMPTS = [SHARED + rest for rest in ("Why?", "What for, then?", "A", "Whose", "Who is it that asks?")]
ENDS = ["a", " yes", "no", " or so it seems", "b"]


def counted(backend, what):
    """(result, tokens that the network was given)."""
    seen = []
    hook = backend.loaded.network.model.register_forward_pre_hook(
        lambda _, args, keywords: seen.append(keywords["input_ids"].numel()), with_kwargs=True
    )
    try:
        return what(backend), sum(seen)
    finally:
        hook.remove()


def test_rows_with_a_common_beginning_write_what_they_write_alone(llama):
    greedy = Sampling(max_new_tokens=10, temperature=0)
    whole, read = counted(llama(batch_tokens=10_000), lambda b: b.generate(PROMPTS, greedy))
    alone, each = counted(llama(batch_tokens=1), lambda b: b.generate(PROMPTS, greedy))
    assert whole == alone
    assert read < each - 2 * len(SHARED)


def test_continuations_of_few_prompts_score_as_alone_and_are_read_once(llama):
    prompts, ends = [p for p in PROMPTS for _ in ENDS], ENDS * len(PROMPTS)
    whole, read = counted(llama(batch_tokens=10_000), lambda b: b.score(prompts, ends))
    alone, each = counted(llama(), lambda b: [b.score([p], [e])[0] for p, e in zip(prompts, ends, strict=True)])
    assert [s.tokens for s in whole] == [s.tokens for s in alone]
    assert [s.logprob for s in whole] == pytest.approx([s.logprob for s in alone], abs=1e-4)
    assert read < each / 3.5


@pytest.mark.parametrize("batch_tokens", [1, 200, 500])
def test_a_prompt_with_many_continuations_is_read_in_pieces_that_fit(llama, batch_tokens):
    seen = []
    backend = llama(batch_tokens=batch_tokens)
    hook = backend.loaded.network.model.register_forward_pre_hook(
        lambda _, args, keywords: seen.append(tuple(keywords["attention_mask"].shape)), with_kwargs=True
    )
    try:
        found = backend.score([PROMPTS[0]] * 40, [f" {i} of all" for i in range(40)])
    finally:
        hook.remove()
    expected = llama().score([PROMPTS[0]] * 40, [f" {i} of all" for i in range(40)])
    assert [s.logprob for s in found] == pytest.approx([s.logprob for s in expected], abs=1e-4)
    assert all(rows == 1 or rows * width <= batch_tokens for rows, width in seen)


@pytest.mark.parametrize("prefix", [None, 3])
def test_hidden_states_are_those_of_whole_rows(llama, prefix):
    backend = llama()
    loaded = backend.loaded
    if prefix is not None:
        rows = torch.randn(prefix, loaded.hidden_size, generator=torch.Generator().manual_seed(1))
        loaded = replace(loaded, prefix=rows)
    rows = [tuple(loaded.tokenizer(p)["input_ids"]) for p in PROMPTS]
    with torch.inference_mode():
        batch, cache = begin(loaded, rows)
        assert cache.get_seq_length() >= len(SHARED)
        found = hidden_states(loaded, batch, cache)[:, -1]
        for row, state in zip(rows, found, strict=True):
            single, nothing = begin(loaded, [row])
            assert nothing.get_seq_length() == 0
            torch.testing.assert_close(state, hidden_states(loaded, single)[0, -1], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("rows", "read"),
    [
        ([(1,) * 20, (1,) * 20], 19),  # a token is left to read
        ([(1,) * 20, (1,) * 12 + (2,)], 12),
        ([(1,) * 6, (1,) * 6 + (2,)], 0),  # too little to be worth a pass
        ([(2,) * 20, (1,) * 20], 0),
        ([(1,) * 20], 0),
    ],
)
def test_the_longest_common_beginning_is_found(llama, rows, read):
    with torch.inference_mode():
        batch, cache = begin(llama().loaded, rows)
    assert cache.get_seq_length() == read
    assert batch.ids.shape[1] == max(map(len, rows)) - read
    assert batch.mask.sum().item() == sum(map(len, rows))


def test_layers_that_look_at_windows_share_nothing(llama):
    """Padding between two tokens would push the older one out of the window."""
    config = MistralConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, sliding_window=12,
    )  # fmt: skip
    loaded = replace(llama().loaded, network=MistralForCausalLM(config).eval())
    with torch.inference_mode():
        batch, cache = begin(loaded, [(1,) * 20, (1,) * 12 + (2,)])
    assert cache.get_seq_length() == 0
    assert batch.ids.shape == (2, 20)
