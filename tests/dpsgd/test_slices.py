"""Trained heads whose losses come from hidden states: the same gradients as from logits, which are never whole."""

import gc
import weakref

import pytest
import torch
from torch import nn
from trainable_models import CASES, B, ids, losses_of, make

from privkt import kernels
from privkt.dpsgd import TrainingError, slices
from privkt.dpsgd.engine import Engine
from privkt.dpsgd.heads import head_path
from privkt.dpsgd.losses import causal_lm_losses_from_hidden

EVERYONE = torch.ones(B, dtype=torch.bool)
CAUSAL = [name for name in CASES if not any(word in name for word in ("classifier", "bert"))]
TRAINED = {"llama-lora-modules_to_save", "llama-full", "llama-full-tied", "gpt2-full", "gpt2-full-tied"}
MODELS = ("llama", "llama-tied", "gpt2-tied", "llama-lora-head")
EVERY_WAY = ("rows", "kept", None)


def from_hidden(model, rows, labels=None):
    inputs = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
    return causal_lm_losses_from_hidden(model, inputs, rows if labels is None else labels)


def gradients_of(model, rows, force=None, mask=EVERYONE, times=1, **settings):
    engine = Engine(model, **settings)
    with engine.microbatch(len(rows)):
        losses = sum(from_hidden(model, rows) for _ in range(times))
        return engine, engine.backward(losses, mask, force=force)


def loop(model, rows):
    """[B, P] float64: ordinary autograd through the logits, one sample after the other."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = []
    for row in rows:
        grads = torch.autograd.grad(losses_of(model, row[None]).sum(), parameters, allow_unused=True)
        pairs = zip(grads, parameters, strict=True)
        found.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs]))
    return torch.stack(found).double()


def check(gradients, expected):
    """Rows, norms and clipped sum within 1e-6 of the exact ones, norms from above."""
    rows = gradients.rows()
    assert float(((rows - expected).norm(dim=1) / expected.norm(dim=1)).max()) <= 1e-6
    bounds, norms = gradients.sqnorms()[:, 0], rows.double().square().sum(1)
    assert bool((bounds >= norms * (1 - 1e-6)).all())
    assert torch.allclose(bounds, norms, rtol=1e-4)
    factors = torch.linspace(0.25, 1, len(rows)).unsqueeze(1)
    total = torch.zeros(gradients.width, dtype=torch.float64)
    gradients.add_clipped(total, factors)
    wanted = (expected * factors).sum(0)
    assert float((total - wanted).norm() / wanted.norm()) <= 1e-6


@pytest.mark.parametrize("words", [3, 7, 10**6], ids=["by-3", "by-7", "whole"])
@pytest.mark.parametrize("force", EVERY_WAY)
@pytest.mark.parametrize("name", MODELS)
def test_a_trained_head_has_the_gradient_of_its_logits(dp, monkeypatch, name, force, words):
    monkeypatch.setattr(slices, "SCRATCH", 4 * B * 6 * words)
    model, rows = dp.make(name, torch.float64), ids()
    engine, gradients = gradients_of(model, rows, force)
    assert head_path(model).trained
    check(gradients, loop(model, rows))
    modes = set(engine.modes().values())
    assert ("tied" in modes, "head" in modes) == (
        force != "rows" and "tied" in name,
        force != "rows" and "tied" not in name,
    )


@pytest.mark.parametrize("name", CAUSAL)
def test_losses_from_hidden_states_keep_the_whole_table_exact(name):
    model, rows = make(name), ids()
    _, gradients = gradients_of(model, rows, "kept")
    expected = loop(model, rows)
    assert head_path(model).trained == (name in TRAINED)
    assert float(((gradients.rows() - expected).norm(dim=1) / expected.norm(dim=1)).max()) <= 1e-6


def clipped(model, rows, mask):
    _, gradients = gradients_of(model, rows, "kept", mask)
    bounds, total = gradients.sqnorms()[:, 0].contiguous(), torch.zeros(gradients.width, dtype=torch.float64)
    factors = kernels.clip_factors(bounds, 1e-3, width=gradients.width, mask=mask).factors
    gradients.add_clipped(total, factors.unsqueeze(1))
    return total


@pytest.mark.parametrize("name", sorted(TRAINED))
def test_removing_a_record_moves_the_clipped_sum_by_at_most_the_norm(monkeypatch, name):
    monkeypatch.setattr(slices, "SCRATCH", 4 * B * 6 * 7)
    model, rows = make(name), ids()
    whole = clipped(model, rows, EVERYONE)
    moved = [float((whole - clipped(model, rows, torch.arange(B) != j)).norm()) / 1e-3 for j in range(B)]
    assert min(moved) > 0.99
    assert max(moved) <= 1


@pytest.mark.parametrize("force", EVERY_WAY)
@pytest.mark.parametrize("name", ["llama", "llama-tied"])
def test_the_records_of_a_unit_add_up_and_padding_may_hold_anything(dp, monkeypatch, name, force):
    monkeypatch.setattr(slices, "SCRATCH", 4 * B * 6 * 7)
    model, rows = dp.make(name, torch.float64), ids()
    alone = loop(model, rows)
    mask = torch.tensor([True, True, True, False])
    _, gradients = gradients_of(model, rows, force, mask, records_per_unit=2)
    check(gradients, torch.stack([alone[0] + alone[1], alone[2]]))


@pytest.mark.parametrize("name", ["llama", "llama-tied"])
def test_a_head_that_is_used_twice_adds_twice(dp, name):
    model, rows = dp.make(name, torch.float64), ids()
    check(gradients_of(model, rows, "kept", times=2)[1], 2 * loop(model, rows))


@pytest.mark.parametrize("force", EVERY_WAY)
def test_a_heads_bias_and_a_head_alone_are_trained_too(dp, monkeypatch, force):
    monkeypatch.setattr(slices, "SCRATCH", 4 * B * 6 * 7)
    model, rows = dp.make("llama", torch.float64).requires_grad_(False), ids()
    model.lm_head.bias = nn.Parameter(torch.randn(61, dtype=torch.float64))
    model.lm_head.requires_grad_()
    check(gradients_of(model, rows, force)[1], loop(model, rows))
    model.lm_head.weight.requires_grad_(False)
    check(gradients_of(model, rows, force)[1], loop(model, rows))


def test_a_padding_id_has_no_gradient_where_embedding_and_head_are_one(dp):
    model, rows = dp.make("llama-tied", torch.float64), ids()
    model.model.embed_tokens.padding_idx = 3
    check(gradients_of(model, rows, "kept")[1], loop(model, rows))


@pytest.mark.parametrize("name", ["llama", "llama-tied"])
def test_a_sample_that_is_not_finite_leaves_the_others_untouched(dp, name):
    model, rows, found = dp.make(name), ids(), []
    for factor in (1.0, float("nan")):
        engine = Engine(model)
        with engine.microbatch(B):
            losses = from_hidden(model, rows) * torch.tensor([1.0, factor, 1.0, 1.0])
            gradients = engine.backward(losses, EVERYONE, force="kept")
        total, factors = torch.zeros(gradients.width), torch.tensor([[1.0], [0.0], [1.0], [1.0]])
        found.append(gradients.sqnorms()[:, 0])
        gradients.add_clipped(total, factors)
        assert bool(total.isfinite().all())
    assert not bool(found[1][1].isfinite())
    assert torch.equal(found[0][[0, 2, 3]], found[1][[0, 2, 3]])


def test_no_logits_of_the_batch_are_made(dp, monkeypatch):
    monkeypatch.setattr(slices, "SCRATCH", 4 * B * 6 * 7)
    widest = []
    whole = kernels.head.Head.logits
    monkeypatch.setattr(kernels.head.Head, "logits", lambda *a: widest.append((len(a[1]), a[3] - a[2])) or whole(*a))
    monkeypatch.setattr(kernels.head, "SMALLEST_CHUNK", 5)
    monkeypatch.setattr(kernels.head, "SCRATCH", {"cpu": 0})
    model = dp.make("llama")
    _, gradients = gradients_of(model, ids(), "kept")
    gradients.sqnorms()
    assert max(tokens for tokens, words in widest if words == 61) <= 5
    assert max(words for tokens, words in widest if tokens > 5) <= 7


def test_a_head_whose_weight_moved_before_the_sum_is_refused(dp):
    model = dp.make("llama")
    _, gradients = gradients_of(model, ids(), "kept")
    with torch.no_grad():
        model.lm_head.weight += 1
    with pytest.raises(TrainingError, match="the head's weight and its input must stay"):
        gradients.sqnorms()


def test_outside_a_microbatch_a_trained_head_has_its_ordinary_gradient(dp):
    model, rows = dp.make("llama"), ids()
    wanted = torch.autograd.grad(losses_of(model, rows).sum(), model.lm_head.weight)[0]
    found = torch.autograd.grad(from_hidden(model, rows).sum(), model.lm_head.weight)[0]
    torch.testing.assert_close(found, wanted)
    with torch.no_grad():
        torch.testing.assert_close(from_hidden(model, rows), losses_of(model, rows))


def test_checkpointing_changes_nothing(dp):
    for reentrant in (False, True):
        model, rows = dp.make("llama-tied", torch.float64), ids()
        expected = loop(model, rows)
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        check(gradients_of(model, rows, "kept")[1], expected)


def test_trying_the_head_out_leaves_no_trace_in_the_microbatch(dp):
    model, rows = dp.make("llama-lora", torch.float64), ids()
    engine = Engine(model)
    found = []
    for _ in range(2):
        with engine.microbatch(B):
            engine.backward(from_hidden(model, rows), EVERYONE)
        found.append(len(engine._arrangements._known))
    assert found == [1, 1]


def test_nothing_of_a_microbatch_waits_for_a_garbage_collection(dp):
    model, rows = dp.make("llama-tied"), ids()
    gc.collect()
    gc.disable()
    try:
        engine, gradients = gradients_of(model, rows)
        gradients.sqnorms()
        hidden = weakref.ref(gradients._kept["model.embed_tokens.weight"].head)
        del gradients
        engine.forget()
        assert hidden() is None
    finally:
        gc.enable()
