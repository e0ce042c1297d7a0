"""Factors keep every stored product inside its ball; the adaptive norm follows a noisy count."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privkt.dpsgd import clipping
from privkt.dpsgd.clipping import AdaptiveQuantile, Automatic, Flat, PerLayer, clipping_from_json
from privkt.dpsgd.errors import RefusedTraining

KINDS = [
    Flat(0.7),
    PerLayer(0.7),
    PerLayer(0.7, by="width"),
    Automatic(0.7),
    Automatic(0.7, 1e-6),
    AdaptiveQuantile(0.7),
]
IDS = [f"{kind.kind}-{number}" for number, kind in enumerate(KINDS)]
NAMES, WIDTHS = ("a", "b", "c"), (40, 1, 9)


def factors_and_norms(kind, rows, mask=None):
    """Factors [B, L], and the norm of each sample's stored products in exact arithmetic (float64 of float32)."""
    parts = dict(zip(NAMES, rows.split(WIDTHS, dim=1), strict=True))
    groups = kind.groups(NAMES)
    sqnorms = torch.stack([sum(parts[name].double().square().sum(1) for name in group) for group in groups], 1)
    widths = [sum(WIDTHS[NAMES.index(name)] for name in group) for group in groups]
    mask = torch.ones(len(rows), dtype=torch.bool) if mask is None else mask
    factors = kind.factors(sqnorms, 0.7, widths=widths, mask=mask)
    square = torch.zeros(len(rows), dtype=torch.float64)
    for group, factor in zip(groups, factors.unbind(1), strict=True):
        for name in group:
            square += torch.where(factor[:, None] > 0, parts[name] * factor[:, None], 0.0).double().square().sum(1)
    return factors, square.sqrt()


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), scale=st.sampled_from([1e-30, 1e-6, 0.1, 1.0, 30.0, 1e18]))
def test_no_stored_product_is_longer_than_the_norm(kind, seed, scale):
    rows = torch.randn(6, sum(WIDTHS), generator=torch.Generator().manual_seed(seed)) * scale
    rows[0] = 0
    _, norms = factors_and_norms(kind, rows)
    assert bool((norms <= 0.7).all())


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_samples_that_do_not_count_have_factor_zero_in_every_group(kind):
    rows = torch.randn(4, sum(WIDTHS), generator=torch.Generator().manual_seed(1))
    rows[1, 45] = math.nan  # in the last group alone
    rows[2, 0] = math.inf
    factors, _ = factors_and_norms(kind, rows, torch.tensor([True, True, True, False]))
    assert bool((factors[0] > 0).all())
    assert not factors[1:].any()


def test_automatic_uses_most_of_the_ball_and_knows_no_threshold():
    rows = torch.eye(3, sum(WIDTHS)) * torch.tensor([[0.001], [1.0], [1000.0]])
    _, norms = factors_and_norms(Automatic(0.7, 0.01), rows)
    assert norms.tolist() == pytest.approx([0.7 * x / (x + 0.01) for x in (0.001, 1.0, 1000.0)], rel=1e-5)


def test_per_layer_shares_add_up_in_squares():
    rows = torch.full((1, sum(WIDTHS)), 1e6)
    for by in ("equal", "width"):
        _, norms = factors_and_norms(PerLayer(0.7, by=by), rows)
        assert norms.item() == pytest.approx(0.7, rel=1e-5)


def test_the_count_is_half_a_sample_each_and_leaves_out_what_does_not_count():
    kind = AdaptiveQuantile(1.0)
    sqnorms = torch.tensor([[0.5], [2.0], [1.0], [math.nan], [0.1]], dtype=torch.float64)
    mask = torch.tensor([True, True, True, True, False])
    assert kind.count(sqnorms, 1.0, mask).item() == 0.5 * (1 - 1 + 1)


def test_adaptive_noise_costs_what_one_gaussian_costs():
    on_sum, on_count = AdaptiveQuantile(1.0, count_noise=3.0).noise_split(1.5)
    assert on_sum**-2 + (2 * on_count) ** -2 == pytest.approx(1.5**-2, rel=1e-9)
    assert on_sum**-2 + (2 * on_count) ** -2 <= 1.5**-2
    with pytest.raises(RefusedTraining, match="count_noise must be above half the noise multiplier 8"):
        AdaptiveQuantile(1.0, count_noise=4.0).noise_split(8.0)
    assert Flat(1.0).noise_split(1.5) == (1.5, 0.0)


def test_the_norm_moves_towards_the_quantile():
    kind, norms = AdaptiveQuantile(10.0, quantile=0.5), torch.linspace(0.02, 2.0, 100)
    norm = kind.max_grad_norm
    for _ in range(200):
        count = kind.count(norms.double().square()[:, None], norm, torch.ones(100, dtype=torch.bool)).item()
        norm = kind.moved(norm, count, 100)
    assert norm == pytest.approx(1.0, abs=0.05)
    assert kind.moved(1.0, math.inf, 100) == pytest.approx(math.exp(-0.2 * 0.5))


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_settings_survive_json(kind):
    assert clipping_from_json(json.loads(json.dumps(kind.to_json()))) == kind


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "flatt", "max_grad_norm": 1.0}, "kind must be one of flat"),
        ({"kind": "flat", "max_grad_norm": 1.0, "gamma": 2}, "flat takes max_grad_norm, got 'gamma'"),
        ({"kind": "flat", "max_grad_norm": 0.0}, "must be finite and > 0"),
        ({"kind": "automatic", "max_grad_norm": 1.0, "stability": 0.0}, "stability must be"),
        ({"kind": "per-layer", "max_grad_norm": 1.0, "by": "depth"}, "by must be"),
        ({"kind": "adaptive", "max_grad_norm": 1.0, "quantile": 1.0}, "quantile must lie"),
    ],
)
def test_wrong_settings_are_refused_by_name(values, said):
    with pytest.raises(RefusedTraining, match=said):
        clipping_from_json(values)


def test_a_factor_rounded_up_would_be_found(monkeypatch):
    """The bound test must be able to fail: without the room, automatic factors exceed the ball for large norms."""
    monkeypatch.setattr(clipping, "_DOWN", 1 + 2.0**-20)
    rows = torch.randn(6, sum(WIDTHS), generator=torch.Generator().manual_seed(0)) * 1e6
    assert bool((factors_and_norms(Automatic(0.7, 1e-6), rows)[1] > 0.7).any())
