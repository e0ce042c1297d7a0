"""Training rows: which tokens are trained on, and losses that depend on the row alone."""

import pytest
import torch
from privkt_transformers import examples
from privkt_transformers.examples import encode_examples, row_losses
from privkt_transformers.losses import completion_losses
from privkt_transformers.network import hidden_states
from privkt_transformers.scoring import token_losses

from privkt.contracts import Example, Recipe

EXAMPLES = [
    Example("Topic: rain\nText:", " it falls and falls"),
    Example("", "b"),
    Example("x", " something longer that has to be cut somewhere in its middle"),
]


def test_rows_are_prompt_completion_and_end(llama):
    loaded = llama().loaded
    rows = encode_examples(loaded, EXAMPLES, Recipe(max_length=64))
    end = loaded.tokenizer.eos_token_id
    assert loaded.tokenizer.decode(rows[0].ids) == "Topic: rain\nText: it falls and falls</s>"
    assert rows[0].first == len("Topic: rain\nText:")
    assert rows[1].ids == (loaded.start, *loaded.tokenizer("b")["input_ids"], end)
    assert rows[1].first == 1


def test_long_rows_are_cut_and_stay_one_row(llama):
    loaded = llama().loaded
    rows = encode_examples(loaded, EXAMPLES, Recipe(max_length=16))
    assert len(rows) == len(EXAMPLES)
    assert all(len(row.ids) <= 16 for row in rows)
    assert loaded.tokenizer.decode(rows[2].ids) == "x something long"
    # A prompt without room keeps its end, next to the completion.
    assert loaded.tokenizer.decode(rows[0].ids) == "in\nText: it fall"
    assert rows[0].first == 8


def test_the_prompt_is_trained_on_only_when_asked(llama):
    loaded = llama().loaded
    rows = encode_examples(loaded, EXAMPLES, Recipe(max_length=64, train_on_prompt=True))
    assert [row.first for row in rows] == [1, 1, 1]


@pytest.mark.parametrize("train_on_prompt", [False, True])
def test_losses_are_those_of_each_row_alone_and_unpadded(llama, train_on_prompt):
    loaded = llama().loaded
    rows = encode_examples(loaded, EXAMPLES, Recipe(max_length=64, train_on_prompt=train_on_prompt))
    together = row_losses(loaded, rows)
    for row, loss in zip(rows, together, strict=True):
        labels = torch.tensor([[-100] * row.first + list(row.ids[row.first :])])
        expected = loaded.network(torch.tensor([row.ids]), labels=labels).loss
        assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("train_on_prompt", [False, True])
def test_a_public_width_changes_no_loss(llama, train_on_prompt):
    loaded = llama().loaded
    rows = encode_examples(loaded, EXAMPLES, Recipe(max_length=64, train_on_prompt=train_on_prompt))
    torch.testing.assert_close(row_losses(loaded, rows, 64), row_losses(loaded, rows), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_at_a_public_width_no_row_depends_on_its_neighbours(llama, dtype):
    """Bit for bit: a record's length or place must not change how another's numbers round."""
    loaded = llama(dtype=dtype).loaded
    rows = encode_examples(loaded, EXAMPLES, Recipe(max_length=64))
    alone = [row_losses(loaded, [row, rows[0], rows[0]], 64)[0] for row in rows]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        together = row_losses(loaded, [rows[i] for i in order], 64)
        assert all(together[at] == alone[i] for at, i in enumerate(order))


def test_at_a_public_width_some_padding_is_always_there(llama, monkeypatch):
    loaded, seen = llama().loaded, []
    rows = encode_examples(loaded, [Example("x" * 40, "y" * 40)], Recipe(max_length=16))
    monkeypatch.setattr(examples, "hidden_states", lambda *a: seen.append(a[1].mask) or hidden_states(*a))
    row_losses(loaded, rows * 2, 16)
    assert len(rows[0].ids) == 16
    assert not seen[0].all()


def test_the_fused_head_has_the_gradient_of_the_ordinary_one(llama):
    network = llama().loaded.network
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(1100, 32, generator=draw)
    targets = torch.randint(0, 200, (1100,), generator=draw)
    weights = torch.rand(1100, generator=draw)
    found, wanted = (hidden.clone().requires_grad_() for _ in range(2))
    fused = completion_losses(network, found, targets)
    plain = token_losses(network, wanted, targets)
    (fused * weights).sum().backward()
    (plain * weights).sum().backward()
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.grad, wanted.grad, atol=1e-6, rtol=1e-4)
