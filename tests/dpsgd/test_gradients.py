"""Norms and clipped sums are those of the per-sample gradients, whether these are stored or kept as products."""

import itertools

import pytest
import torch
from torch import nn

from privkt import kernels
from privkt.dpsgd import RefusedTraining, TrainingError
from privkt.dpsgd.engine import Engine

EVERY_WAY = ("rows", "kept", None)
MODELS = ("llama-lora", "llama-rslora", "llama", "llama-tied", "gpt2", "gpt2-tied", "bert", "roberta", "albert")


def _everyone(n):
    return torch.ones(n, dtype=torch.bool)


def _gradients(dp, model, rows, force=None, mask=None, **settings):
    engine = Engine(model, **settings)
    with engine.microbatch(len(rows)):
        losses = dp.losses_of(model, dp.collate(rows))
        return engine, engine.backward(losses, _everyone(len(rows)) if mask is None else mask, force=force)


def _factors(gradients, max_norm, groups=None):
    found = [
        kernels.clip_factors(column.contiguous(), max_norm, width=gradients.width, mask=gradients.mask).factors
        for column in gradients.sqnorms(groups).t()
    ]
    return torch.stack(found, 1)


def _clipped(gradients, max_norm):
    """The float64 sum that training adds noise to, with flat clipping."""
    total = torch.zeros(gradients.width, dtype=torch.float64)
    gradients.add_clipped(total, _factors(gradients, max_norm))
    return total


def _check(gradients, expected, tolerance=1e-6):
    norms = gradients.sqnorms()[:, 0].sqrt()
    assert float((norms - expected.norm(dim=1)).abs().max()) <= 1e-5 * float(norms.max())
    rows = gradients.rows()
    assert float(((rows - expected).norm(dim=1) / expected.norm(dim=1)).max()) <= tolerance
    assert bool((gradients.sqnorms()[:, 0] >= rows.double().square().sum(1) * (1 - 1e-6)).all())
    factors, total = _factors(gradients, float(norms.median())), torch.zeros(gradients.width, dtype=torch.float64)
    gradients.add_clipped(total, factors)
    wanted = (expected * factors).sum(0)
    assert float((total - wanted).norm() / wanted.norm()) <= tolerance


@pytest.mark.parametrize("force", EVERY_WAY)
@pytest.mark.parametrize("name", MODELS)
def test_norms_and_sums_match_the_per_sample_loop(dp, name, force):
    model, rows = dp.make(name, torch.float64), dp.records(4)
    _check(_gradients(dp, model, rows, force)[1], dp.loop(model, rows))


@pytest.mark.parametrize("name", ["llama-lora", "llama-tied", "albert"])
def test_one_record_less_moves_the_sum_by_at_most_the_clipping_norm(dp, name):
    model, rows = dp.make(name), dp.records(4)
    for force in EVERY_WAY:
        whole = _clipped(_gradients(dp, model, rows, force)[1], 0.01)
        for removed in range(len(rows)):
            mask = _everyone(4)
            mask[removed] = False
            rest = _clipped(_gradients(dp, model, rows, force, mask)[1], 0.01)
            assert float((whole - rest).norm()) <= 0.01 * (1 + 1e-6)


def test_each_way_is_what_it_says(dp):
    model, rows = dp.make("llama-tied"), dp.records(4)
    modes = _gradients(dp, model, rows, "kept")[0].modes()
    assert modes["model.embed_tokens.weight"] == "tied"
    assert modes["model.layers.0.mlp.down_proj.weight"] == "gram"
    assert modes["model.norm.weight"] == "rows"
    assert set(_gradients(dp, model, rows, "rows")[0].modes().values()) == {"rows"}
    untied = _gradients(dp, dp.make("llama"), rows)[0].modes()
    assert untied["model.embed_tokens.weight"] == "segments"


@pytest.mark.parametrize("force", EVERY_WAY)
def test_groups_of_parameters_are_clipped_each_by_itself(dp, force):
    model, rows = dp.make("llama-tied", torch.float64), dp.records(3)
    _, gradients = _gradients(dp, model, rows, force)
    slots = gradients._layout.slots
    groups = [[slot.name for slot in slots[1::2]], [slot.name for slot in slots[::2]]]
    expected, factors = dp.loop(model, rows), _factors(gradients, 0.05, groups)
    total, wanted = torch.zeros(2, gradients.width, dtype=torch.float64)
    for number, first in enumerate((1, 0)):
        own = torch.zeros(gradients.width, dtype=torch.bool)
        for slot in slots[first::2]:
            own[slot.start : slot.stop] = True
        part = expected * own
        bounds = gradients.sqnorms(groups)[:, number]
        assert torch.allclose(bounds, part.square().sum(1), rtol=1e-5)
        assert torch.allclose(factors[:, number].double(), 0.05 / part.norm(dim=1), rtol=1e-5)
        wanted += (part * factors[:, number : number + 1]).sum(0)
    gradients.add_clipped(total, factors)
    assert float((total - wanted).norm() / wanted.norm()) <= 1e-6


def test_groups_must_hold_every_parameter_once(dp):
    _, gradients = _gradients(dp, dp.make("llama-lora"), dp.records(3))
    names = list(gradients.modes)
    for wrong in ([names[1:]], [names, names[:1]], [[*names, "other"]]):
        with pytest.raises(ValueError, match="groups must hold every trainable parameter once"):
            gradients.sqnorms(wrong)
    with pytest.raises(ValueError, match=r"factors must be \[3, 1\]"):
        gradients.add_clipped(torch.zeros(gradients.width), torch.ones(3))


@pytest.mark.parametrize("force", EVERY_WAY)
def test_a_sample_that_is_not_finite_leaves_the_others_untouched(dp, force):
    model, batch = dp.make("llama-tied"), dp.collate(dp.records(4))
    found = []
    for factor in (1.0, float("nan")):
        engine = Engine(model)
        with engine.microbatch(4):
            losses = dp.losses_of(model, batch) * torch.tensor([1.0, factor, 1.0, 1.0])
            gradients = engine.backward(losses, _everyone(4), force=force)
        factors = torch.tensor([0.5, 0.5 if factor == 1 else 0.0, 0.25, 1.0]).unsqueeze(1)
        found.append((gradients.sqnorms()[:, 0], torch.zeros(gradients.width, dtype=torch.float64), gradients.rows()))
        gradients.add_clipped(found[-1][1], factors)
    (whole, sum_whole, rows), (some, sum_some, _) = found
    assert not bool(some[1].isfinite())
    assert torch.equal(some[[0, 2, 3]], whole[[0, 2, 3]])
    assert torch.allclose(sum_some, sum_whole - 0.5 * rows[1].double(), atol=1e-6 * float(sum_whole.abs().max()))


@pytest.mark.parametrize("force", EVERY_WAY)
def test_masked_samples_do_not_count_and_a_batch_may_hold_nothing_else(dp, force):
    model, rows = dp.make("llama-tied"), dp.records(3)
    _, gradients = _gradients(dp, model, rows, force, torch.tensor([True, False, True]))
    assert float(gradients.sqnorms()[1]) == 0.0
    assert not gradients.rows()[1].any()
    _, empty = _gradients(dp, model, rows, force, torch.zeros(3, dtype=torch.bool))
    total = torch.zeros(empty.width, dtype=torch.float64)
    assert not empty.sqnorms().any()
    empty.add_clipped(total, torch.ones(3, 1))
    assert not total.any()


@pytest.mark.parametrize("force", EVERY_WAY)
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["llama-tied", "llama-lora"])
def test_checkpointing_changes_nothing(dp, name, reentrant, force):
    model, rows = dp.make(name, torch.float64), dp.records(3)
    expected = dp.loop(model, rows)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.disable_input_require_grads()  # the engine sees to that itself
    _check(_gradients(dp, model, rows, force)[1], expected)
    assert not model.get_input_embeddings()._forward_hooks  # the anchor is gone


def test_bfloat16_is_summed_in_float32():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 5)).bfloat16()
    ids, factor = torch.randint(9, (3, 7)), torch.randn(3, 7, 5).bfloat16()
    for force in EVERY_WAY:
        engine = Engine(model)
        with engine.microbatch(3):
            losses = (model(ids).float() * factor).sum((1, 2))
            gradients = engine.backward(losses, _everyone(3), force=force)
        inner = model[0](ids).detach()
        weight = torch.einsum("btp,btd->bpd", factor.double(), inner.double())
        slot = engine.layout.slots[1]
        got = gradients.rows()[:, slot.start : slot.stop].view(3, 5, 6)
        assert float((got - weight).norm() / weight.norm()) <= 1e-6


@pytest.mark.parametrize("name", ["llama-lora", "llama-tied", "bert", "llama-prompt"])
@pytest.mark.parametrize("force", EVERY_WAY)
def test_the_records_of_a_unit_add_up_before_clipping(dp, name, force):
    model, rows = dp.make(name, torch.float64), dp.records(6)
    alone = dp.loop(model, rows)
    expected = torch.stack([alone[0] + alone[1], alone[2], alone[4] + alone[5]])
    mask = torch.tensor([True, True, True, False, True, True])
    _, gradients = _gradients(dp, model, rows, force, mask, records_per_unit=2)
    _check(gradients, expected)


def test_a_unit_whose_padding_is_not_finite_still_counts():
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3), torch.randn(4, 5, 4)
    x[1] = float("inf")  # padding that repeats another unit's broken record
    for force in EVERY_WAY:
        engine = Engine(model, records_per_unit=2)
        with engine.microbatch(4):
            losses = model(x).pow(2).sum((1, 2))
            gradients = engine.backward(losses, torch.tensor([True, False, True, True]), force=force)
        assert bool(gradients.sqnorms().isfinite().all())
        assert float(gradients.sqnorms()[0]) > 0


def test_a_unit_longer_than_a_microbatch_comes_in_pieces(dp):
    model, rows = dp.make("llama-lora", torch.float64), dp.records(6)
    alone = dp.loop(model, rows)
    engine, masks = Engine(model), ([True, True], [True, False], [True, False])
    for number, mask in enumerate(masks):
        engine.open(2, in_pieces=True, keep=number > 0)
        losses = dp.losses_of(model, dp.collate(rows[2 * number : 2 * number + 2]))
        gradients = engine.backward(losses, torch.tensor(mask))
        engine.close()
    _check(gradients, torch.stack([alone[0] + alone[2] + alone[4], alone[1]]))
    with pytest.raises(TrainingError, match="every piece must have the units"):
        _go_on(dp, engine, rows)
    engine.open(2)
    with pytest.raises(TrainingError, match="the piece before"):
        engine.open(2, keep=True)


def _go_on(dp, engine, rows):
    engine.open(3, keep=True)
    engine.backward(dp.losses_of(engine.model, dp.collate(rows[:3])), _everyone(3))


def test_gradients_are_good_until_the_next_microbatch(dp):
    model, rows = dp.make("llama-lora"), dp.records(2)
    engine, gradients = _gradients(dp, model, rows)
    engine.open(2)
    with pytest.raises(TrainingError, match="before the next microbatch"):
        gradients.sqnorms()


class _Overwriting(torch.autograd.Function):
    """Its backward reuses the memory of what it gave out, as fused functions do."""

    @staticmethod
    def forward(ctx, x):
        ctx.given = x.clone()
        return ctx.given.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return ctx.given.copy_(grad)


def test_a_kept_tensor_that_is_overwritten_is_refused_by_name():
    model, x = nn.Linear(4, 4), torch.randn(3, 2, 4, requires_grad=True)
    engine = Engine(model)
    with engine.microbatch(3), pytest.raises(RefusedTraining, match="'weight' read and its gradient must stay"):
        engine.backward(model(_Overwriting.apply(x)).pow(2).sum((1, 2)), _everyone(3), force="kept")


def test_a_layer_that_runs_without_gradients_alone_is_refused_by_name():
    class Halting(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            with torch.no_grad():
                x = self.first(x)
            return self.second(x)

    model = Halting()
    with pytest.raises(RefusedTraining, match="'first' must run with gradients"):
        _run(Engine(model), model, torch.randn(3, 2, 4))


def _run(engine, model, x):
    with engine.microbatch(len(x)):
        return engine.backward(model(x).pow(2).sum((1, 2)), _everyone(len(x)))


def test_where_a_device_has_no_product_kernel_rows_are_stored(dp, monkeypatch):
    model, rows = dp.make("llama-tied"), dp.records()[:3]
    _, natural = _gradients(dp, model, rows, force="kept")
    expected = natural.rows().clone()
    assert set(natural.modes.values()) - {"rows"}
    monkeypatch.setattr(kernels, "runs_on", lambda kernel, device: False)
    for force in EVERY_WAY:
        _, found = _gradients(dp, model, rows, force=force)
        assert set(found.modes.values()) == {"rows"}
        assert float((found.rows() - expected).norm() / expected.norm()) <= 1e-6


@pytest.mark.parametrize("force", EVERY_WAY)
@pytest.mark.parametrize("name", ["llama-lora", "llama-tied", "albert"])
def test_a_stretch_of_the_sum_is_that_stretch_of_the_whole(dp, name, force):
    """From the last on, each forgotten before the next, as training does it."""
    model, rows = dp.make(name), dp.records(4)
    engine, gradients = _gradients(dp, model, rows, force)
    factors = _factors(gradients, 0.1)
    whole = torch.zeros(gradients.width, dtype=torch.float64)
    gradients.add_clipped(whole, factors)
    slots = engine.layout.slots
    cuts = [0, slots[0].stop, slots[2].stop, gradients.width]
    for start, stop in reversed(list(itertools.pairwise(cuts))):
        part = torch.zeros(stop - start, dtype=torch.float64)
        gradients.add_clipped(part, factors, start=start)
        gradients.forget(start, stop)
        assert torch.equal(part, whole[start:stop])
    assert list(gradients.kept_tensors()) == []
    with pytest.raises(TrainingError, match="norms and rows must be taken while all is kept"):
        gradients.sqnorms()


def test_a_stretch_that_cuts_a_kept_parameter_is_refused(dp):
    _, gradients = _gradients(dp, dp.make("llama"), dp.records(2), "kept")
    factors = _factors(gradients, 0.1)
    with pytest.raises(ValueError, match=r"a stretch must hold whole parameters, got \[0, 5\) with a part of 'model"):
        gradients.add_clipped(torch.zeros(5), factors)
