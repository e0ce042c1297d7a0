"""Losses and gradients of the head against whole logits in float64, and that no sample touches another."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privkt.kernels import _schema, clipped_product_sum, gemm, head, product_sqnorms
from privkt.kernels.head import HeadGradient, head_gradient, linear_cross_entropy

pytestmark = pytest.mark.usefixtures("implementation")
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
MAPS: list[dict[str, Any]] = [{}, {"softcap": 2.5}, {"scale": 0.2}, {"softcap": 4.0, "scale": -1.5}]


def case(
    batch: int = 3, length: int = 7, width: int = 16, words: int = 101, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """hidden, weight, labels, bias in float64 that float32 holds exactly; some tokens, and all of sample 1, ignored."""
    source = torch.Generator().manual_seed(seed)
    hidden, weight, bias = (
        torch.randn(*shape, generator=source).double() for shape in ((batch, length, width), (words, width), (words,))
    )
    labels = torch.randint(0, words, (batch, length), generator=source)
    labels[torch.rand(batch, length, generator=source) < 0.3] = -100
    if batch > 1:
        labels[1] = -100
    return hidden, weight, labels, bias


def whole(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    reduction: str = "mean",
    softcap: float | None = None,
    scale: float | None = None,
) -> torch.Tensor:
    """The losses from all logits at once."""
    logits = F.linear(hidden, weight, bias) * (1.0 if scale is None else scale)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    each = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return each.sum(1) / ((labels != -100).sum(1).clamp(min=1) if reduction == "mean" else 1)


def relative(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got.detach().double() - wanted).norm() / wanted.norm().clamp(min=1e-30))


@pytest.mark.parametrize("options", MAPS, ids=str)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_and_gradients_are_those_of_the_whole_logits(dtype, limit, reduction, options) -> None:
    hidden, weight, labels, bias = case()
    weights = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
    hidden.requires_grad_()
    wanted = whole(hidden, weight, labels, bias, reduction=reduction, **options)
    (wanted_gradient,) = torch.autograd.grad(wanted @ weights, hidden)
    x = hidden.detach().to(dtype).requires_grad_()
    got = linear_cross_entropy(x, weight.to(dtype), labels, bias.to(dtype), reduction=reduction, **options)
    (gradient,) = torch.autograd.grad(got @ weights.to(dtype), x)
    assert got.dtype == gradient.dtype == dtype
    assert relative(got, wanted.detach()) <= limit
    assert relative(gradient, wanted_gradient) <= limit
    with torch.no_grad():
        again = linear_cross_entropy(x, weight.to(dtype), labels, bias.to(dtype), reduction=reduction, **options)
        assert torch.equal(again, got)


@settings(SHARED, max_examples=25)
@given(st.data())
def test_any_shape_and_any_ignored_labels(data: st.DataObject) -> None:
    batch, length, width = (data.draw(st.integers(0, 4)), data.draw(st.integers(0, 5)), data.draw(st.integers(1, 9)))
    words = data.draw(st.sampled_from([1, 2, 31, 32, 33, 97]))
    hidden, weight, labels, _ = case(batch, length, width, words, data.draw(st.integers(0, 9)))
    wanted_hidden = hidden.clone().requires_grad_()
    wanted = whole(wanted_hidden, weight, labels)
    wanted.sum().backward()
    x = hidden.float().requires_grad_()
    got = linear_cross_entropy(x, weight.float(), labels)
    got.sum().backward()
    torch.testing.assert_close(got.double(), wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x.grad.double(), wanted_hidden.grad, rtol=0, atol=2e-6)


@settings(SHARED, max_examples=15)
@given(st.integers(0, 5), st.sampled_from([1, 3, 128]))
def test_a_sample_does_not_notice_the_others(seed: int, tokens: int) -> None:
    hidden, weight, labels, _ = case(seed=seed)
    other = hidden.clone()
    other[1:] = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(seed + 1)).double()
    other_labels = labels.clone()
    other_labels[1:, ::2] = 5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "chunk_tokens", lambda *_: tokens)  # chunks that cross from one sample to the next
        alike = []
        for some, their_labels in ((hidden, labels), (other, other_labels)):
            x = some.float().requires_grad_()
            losses = linear_cross_entropy(x, weight.float(), their_labels)
            losses.sum().backward()
            alike.append((losses[0].detach(), x.grad[0]))
    torch.testing.assert_close(alike[0], alike[1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_its_sample(bad: float) -> None:
    hidden, weight, labels, _ = case(4)
    labels[2, 3], clean = 0, hidden.float().requires_grad_()
    linear_cross_entropy(clean, weight.float(), labels).sum().backward()
    hidden[2, 3, 0] = bad
    x = hidden.float().requires_grad_()
    losses = linear_cross_entropy(x, weight.float(), labels)
    assert losses.isnan().tolist() == [False, False, True, False]
    losses.sum().backward()
    rest = [0, 1, 3]
    assert torch.equal(x.grad[rest], clean.grad[rest])
    assert not x.grad[2].isfinite().all()


def test_a_sample_left_out_of_the_total_has_gradient_zero_though_it_be_nan() -> None:
    hidden, weight, labels, _ = case()
    hidden[2] = torch.nan
    x = hidden.float().requires_grad_()
    losses = linear_cross_entropy(x, weight.float(), labels)
    torch.where(torch.tensor([True, True, False]), losses, 0.0).sum().backward()
    assert x.grad[0].any()
    assert not x.grad[2].any()


def test_a_sample_without_a_counted_token_has_loss_and_gradient_zero() -> None:
    hidden, weight, labels, _ = case()
    x = hidden.float().requires_grad_()
    losses = linear_cross_entropy(x, weight.float(), labels)
    losses.sum().backward()
    assert losses[1] == 0
    assert not x.grad[1].any()
    assert not x.grad[labels == -100].any()


def test_a_token_that_the_model_is_sure_of_keeps_its_digits() -> None:
    weight = torch.tensor([[16.0], [0.0]])  # the label leads by 16: the loss is ln(1 + e^-16) = 1.1e-7
    hidden = torch.ones(1, 1, 1, requires_grad=True)
    loss = linear_cross_entropy(hidden, weight, torch.zeros(1, 1, dtype=torch.long))
    loss.sum().backward()
    little = torch.tensor(-16.0, dtype=torch.float64).exp()
    torch.testing.assert_close(loss.double(), little.log1p().reshape(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(hidden.grad.double().squeeze(), -16 * little / (1 + little), rtol=1e-6, atol=0)


def test_the_gradient_is_the_derivative() -> None:
    hidden, weight, labels, bias = case(2, 3, 4, 7)
    call = lambda x: linear_cross_entropy(x, weight, labels, bias, softcap=2.0, scale=0.7)  # noqa: E731
    assert torch.autograd.gradcheck(call, hidden.requires_grad_())


def test_half_precision_is_multiplied_and_added_in_float32() -> None:
    hidden, weight, labels, _ = case()
    hidden, weight = hidden.bfloat16(), weight.bfloat16()
    x = hidden.clone().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gemm, "_TILE", 16 * 40)  # several tiles of the weight
        got = linear_cross_entropy(x, weight, labels)
        got.sum().backward()
    exact = hidden.double().requires_grad_()
    wanted = whole(exact, weight.double(), labels)
    wanted.sum().backward()
    assert got.dtype == torch.float32
    assert relative(got, wanted.detach()) <= 1e-6
    assert x.grad.dtype == torch.bfloat16
    assert relative(x.grad, exact.grad) <= 2**-8


@pytest.mark.parametrize("autocast", [False, True])
def test_autocast_changes_nothing(autocast: bool) -> None:
    hidden, weight, labels, _ = case()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        losses = linear_cross_entropy(hidden.float(), weight.float(), labels)
    assert relative(losses, whole(hidden, weight, labels)) <= 1e-6


@pytest.mark.parametrize("options", MAPS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_trained_head_has_its_products_slice_by_slice(dtype: torch.dtype, options: dict[str, Any]) -> None:
    hidden, weight, labels, bias = case(words=53)
    trained, trained_bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    seen: list[HeadGradient] = []
    x = hidden.to(dtype).requires_grad_()
    losses = linear_cross_entropy(x, weight.to(dtype), labels, bias.to(dtype), watch=seen.append, **options)
    torch.where(torch.tensor([True, True, False]), losses, 0.0).sum().backward()
    (found,) = seen
    assert found.left(0, 53).shape == (3, 7, 53)
    slices = list(found.slices(scratch=dtype.itemsize * 21 * 10))
    assert slices == [(0, 10), (10, 20), (20, 30), (30, 40), (40, 50), (50, 53)]
    left = torch.cat([found.left(*cut) for cut in slices], 2)
    assert torch.equal(left, torch.cat([found.left(*cut) for cut in slices], 2))
    assert not left[2].any()
    rows = torch.einsum("btv,btd->bvd", left.double(), found.hidden.double())
    wanted = whole(hidden, trained, labels, trained_bias, **options)
    gradient, bias_gradient = torch.autograd.grad(wanted[0], (trained, trained_bias))
    limit = 1e-6 if dtype == torch.float32 else 1e-12
    assert relative(rows[0], gradient) <= limit
    assert relative(left[0].sum(0), bias_gradient) <= limit
    assert not rows[1].any()


def test_the_gradient_made_again_is_that_of_the_first_pass() -> None:
    hidden, weight, labels, _ = case(words=64)
    rows, targets = hidden.float().reshape(21, 16), labels.masked_fill(labels < 0, -1)
    logits = rows @ weight.float().T
    first = logits.clone()
    _, stats = _schema.ops.head_losses_(first, targets.reshape(-1), 1.0, 3.0, True)
    again = head_gradient(hidden.float(), weight.float(), targets, stats.view(3, 7, 2), 20, 50, softcap=3.0)
    torch.testing.assert_close(again, first.view(3, 7, 64)[:, :, 20:50], rtol=1e-5, atol=1e-7)


def test_exponentials_are_within_their_stated_error() -> None:
    x = torch.cat([-torch.logspace(-8, 1.941, 40_001), -torch.rand(40_000) * 87.3]).clamp(min=-87.336)
    logits = torch.stack([x, torch.zeros_like(x)], 1).T.contiguous()  # the stats make the softmax a bare exponential
    stats = torch.tensor([[0.0, 1.0]] * 2, dtype=torch.float64)
    _schema.ops.head_gradient_(logits, torch.tensor([2**40, 2**40]), stats, 0, 1.0, 0.0)
    exact = x.double().exp()
    assert ((logits[0].double() - exact).abs() / exact).max() <= 2.0**-22
    assert (logits[1] == 1).all()


def test_capped_logits_are_within_their_stated_error() -> None:
    x = torch.cat([torch.logspace(-9, 3, 40_001), -torch.logspace(-9, 3, 40_001)])
    logits = x.repeat(1, 1)
    _schema.ops.head_losses_(logits, torch.zeros(1, dtype=torch.long), 1.0, 1.0, False)
    exact = x.double().tanh()
    assert ((logits[0].double() - exact).abs() / exact.abs()).max() <= 2.0**-22


@pytest.mark.parametrize("rows", [2, 3, 17, 64])
def test_products_are_torchs_own_to_rounding(rows: int) -> None:
    x, weight = torch.randn(rows, 37), torch.randn(113, 37)
    g = torch.randn(rows, 113)
    torch.testing.assert_close(gemm.products_with(x, weight), x @ weight.T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gemm.products_back(g, weight), g @ weight, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gemm.products_with(x[:1], weight), x[:1] @ weight.T, rtol=1e-5, atol=1e-5)


def test_few_logits_are_alive_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    run = head.Head.losses_
    monkeypatch.setattr(
        head.Head, "losses_", lambda self, logits, *rest: seen.append(tuple(logits.shape)) or run(self, logits, *rest)
    )
    monkeypatch.setattr(head, "SMALLEST_CHUNK", 4)
    monkeypatch.setattr(head, "SCRATCH", {"cpu": 101 * 4 * 5})
    hidden, weight, labels, _ = case()
    linear_cross_entropy(hidden.float(), weight.float(), labels)
    counted = int((labels != -100).sum())
    assert sum(n for n, _ in seen) == counted
    assert max(n for n, _ in seen) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.full((3, 7), 101)}, r"labels must lie in \[0, 101\) or be -100, got others"),
        ({"labels": torch.zeros(3, 6, dtype=torch.long)}, r"hidden must be \[B, T, d\], labels \[B, T\]"),
        ({"labels": torch.zeros(3, 7)}, "labels must be int64, got torch.float32; call .long"),
        ({"weight": torch.zeros(101, 16, requires_grad=True)}, "weight and bias must not require a gradient"),
        ({"softcap": 0.0}, "softcap must be positive or None, got 0.0"),
        ({"scale": 0.0}, "scale must be finite and not 0, got 0.0; leave it out for 1"),
        ({"reduction": "none"}, "reduction must be mean or sum, got 'none'"),
        ({"bias": torch.zeros(5)}, r"bias \[V\], got \[101, 16\] and \[5\]"),
    ],
)
def test_wrong_arguments_say_what_came_and_what_to_do(change: dict[str, Any], message: str) -> None:
    hidden, weight, labels, bias = case()
    arguments = {"hidden": hidden.float(), "weight": weight.float(), "labels": labels, "bias": bias.float(), **change}
    with pytest.raises((ValueError, TypeError), match=message):
        linear_cross_entropy(**arguments)


def test_norms_and_clipped_sums_of_a_trained_head_come_slice_by_slice() -> None:
    hidden, weight, labels, _ = case(words=53)
    seen: list[HeadGradient] = []
    x = hidden.float().requires_grad_()
    linear_cross_entropy(x, weight.float(), labels, watch=seen.append).sum().backward()
    (found,) = seen
    factors = torch.tensor([0.5, 1.0, 0.25])
    sqnorms, total = torch.zeros(3, dtype=torch.float64), torch.zeros(53, 16, dtype=torch.float64)
    for start, stop in found.slices(scratch=4 * 21 * 20):
        product_sqnorms(found.left(start, stop), found.hidden, out=sqnorms)
    for start, stop in found.slices(scratch=4 * 21 * 20):
        clipped_product_sum(found.left(start, stop), found.hidden, factors, out=total[start:stop].view(-1))
    trained = weight.clone().requires_grad_()
    losses = whole(hidden, trained, labels)
    rows = torch.stack([torch.autograd.grad(loss, trained, retain_graph=True)[0] for loss in losses])
    torch.testing.assert_close(sqnorms, rows.flatten(1).square().sum(1), rtol=1e-5, atol=1e-12)
    torch.testing.assert_close(total, torch.einsum("b,bvd->vd", factors.double(), rows), rtol=1e-5, atol=1e-6)
