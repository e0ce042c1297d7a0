"""Embedding rows by sorted segments against rows that are written out, added step by step in float32."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privkt.kernels import clip_factors, clipped_embedding_sum, embedding_sqnorms, grid_scale, native_products

pytestmark = pytest.mark.usefixtures("implementation")
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
ELEMENTS = st.floats(-8, 8, width=32) | st.floats(width=32, allow_nan=False, allow_infinity=False)
ROWS = 11


@st.composite
def lookups(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, int | None]:
    batch, steps, width = draw(st.integers(0, 4)), draw(st.integers(0, 9)), draw(st.sampled_from([1, 3, 33]))
    ids = draw(hnp.arrays(np.int64, (batch, steps), elements=st.integers(0, draw(st.sampled_from([0, 2, ROWS - 1])))))
    grad = draw(hnp.arrays(np.float32, (batch, steps, width), elements=ELEMENTS))
    return torch.from_numpy(ids), torch.from_numpy(grad), draw(st.none() | st.integers(0, 2))


def written_out(ids: torch.Tensor, grad: torch.Tensor, padding: int | None) -> torch.Tensor:
    """[batch, ROWS, d]: what autograd's own float32 accumulation over the steps would give each sample."""
    rows = torch.zeros(len(ids), ROWS, grad.shape[2])
    for b, sample in enumerate(ids.tolist()):
        for t, v in enumerate(sample):
            if v != padding:
                rows[b, v] = rows[b, v] + grad[b, t].float()
    return rows


@settings(SHARED, max_examples=50)
@given(lookups())
def test_norms_are_those_of_the_rows(case: tuple[torch.Tensor, torch.Tensor, int | None]) -> None:
    ids, grad, padding = case
    got = embedding_sqnorms(ids, grad, padding_idx=padding)
    for value, rows in zip(got.tolist(), written_out(ids, grad, padding), strict=True):
        if rows.isfinite().all():
            assert value == pytest.approx(math.fsum((rows.double() ** 2).flatten().tolist()), rel=1e-13)
        else:
            assert not math.isfinite(value)


@settings(SHARED, max_examples=50)
@given(lookups(), st.data())
def test_sums_are_those_of_the_clipped_rows(
    case: tuple[torch.Tensor, torch.Tensor, int | None], data: st.DataObject
) -> None:
    ids, grad, padding = case
    rows = written_out(ids, grad, padding).flatten(1)
    max_norm = data.draw(st.floats(1e-3, 1e3))
    factors = clip_factors(embedding_sqnorms(ids, grad, padding_idx=padding), max_norm, width=rows.shape[1]).factors
    start = torch.from_numpy(data.draw(hnp.arrays(np.float64, rows.shape[1], elements=st.floats(-9, 9))))
    one_by_one = start.clone()
    for row, factor in zip(rows, factors, strict=True):
        if factor > 0:
            one_by_one += (row * factor).double()
    # in pieces, too
    cut = data.draw(st.integers(0, len(ids)))
    out = start.clone()
    for part in (slice(0, cut), slice(cut, None)):
        clipped_embedding_sum(ids[part], grad[part], factors[part], padding_idx=padding, out=out)
    assert torch.equal(out, one_by_one)
    single = start.float()
    assert clipped_embedding_sum(ids, grad, factors, padding_idx=padding, out=single) is single
    sum64 = torch.zeros_like(start)
    clipped_embedding_sum(ids, grad, factors, padding_idx=padding, out=sum64)
    assert torch.equal(single, (start.float().double() + sum64).float())


@settings(SHARED, max_examples=40)
@given(lookups(), st.data())
def test_every_split_and_order_gives_the_same_integers(
    case: tuple[torch.Tensor, torch.Tensor, int | None], data: st.DataObject
) -> None:
    ids, grad, padding = case
    width = ROWS * grad.shape[2]
    scale = grid_scale(0.5, data.draw(st.sampled_from([4, 2**32])))
    factors = clip_factors(embedding_sqnorms(ids, grad, padding_idx=padding), 0.5, width=width).factors
    whole = torch.zeros(width, dtype=torch.int64)
    clipped_embedding_sum(ids, grad, factors, padding_idx=padding, out=whole, scale=scale)
    order = data.draw(st.permutations(range(len(ids))))
    pieces = torch.zeros(width, dtype=torch.int64)
    for b in order:
        one = slice(b, b + 1)
        clipped_embedding_sum(ids[one], grad[one], factors[one], padding_idx=padding, out=pieces, scale=scale)
    assert torch.equal(whole, pieces)
    kept = torch.where(factors[:, None] > 0, written_out(ids, grad, padding).flatten(1) * factors[:, None], 0.0)
    assert torch.equal(whole, (kept.double() * scale).trunc().long().sum(0))


def random_lookups(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 97, (6, 41), generator=generator)
    return ids, torch.randn(6, 41, 1031, generator=generator)  # beyond one block of columns, and no multiple of lanes


def test_all_steps_may_look_up_one_id() -> None:
    ids, grad = torch.full((6, 41), 7), random_lookups()[1]
    row = torch.zeros(6, 1031)
    for step in range(41):
        row += grad[:, step]
    out = torch.zeros(10 * 1031, dtype=torch.float64)
    clipped_embedding_sum(ids, grad, torch.full((6,), 0.5), out=out)
    assert torch.equal(out.view(10, -1)[7], (row * 0.5).double().cumsum(0)[-1])
    assert out.count_nonzero() == out.view(10, -1)[7].count_nonzero()
    torch.testing.assert_close(embedding_sqnorms(ids, grad), row.double().square().sum(1), rtol=1e-13, atol=0)


def test_what_does_not_count_is_not_read() -> None:
    ids, grad = random_lookups()
    clean = torch.zeros(97 * 1031, dtype=torch.float64)
    mask, factors = torch.tensor([True, False, True, True, True, True]), torch.ones(6)
    factors[3] = 0
    grad[1], grad[3] = 0, 0
    clipped_embedding_sum(ids, grad, factors, mask, padding_idx=5, out=clean)
    norms = embedding_sqnorms(ids, grad, mask, padding_idx=5)
    grad[1], grad[3], ids[1] = torch.nan, torch.inf, 10**9
    grad[ids == 5] = torch.nan
    out = torch.zeros_like(clean)
    clipped_embedding_sum(ids, grad, factors, mask, padding_idx=5, out=out)
    assert torch.equal(out, clean)
    again = embedding_sqnorms(ids, grad, mask, padding_idx=5)
    assert not math.isfinite(again[3])
    assert again[1] == 0
    torch.testing.assert_close(again[[0, 2, 4, 5]], norms[[0, 2, 4, 5]], rtol=1e-13, atol=0)


def test_rows_that_nobody_looks_up_are_not_touched() -> None:
    out = torch.full((12,), torch.nan, dtype=torch.float64)
    out[3:6] = 1.0
    clipped_embedding_sum(torch.tensor([[1, 1]]), torch.ones(1, 2, 3), torch.ones(1), out=out)
    assert out[3:6].tolist() == [3.0] * 3
    assert out.isnan().sum() == 9


def test_norms_add_up_over_buffers() -> None:
    ids, grad = random_lookups()
    out = torch.ones(6, dtype=torch.float64)
    assert embedding_sqnorms(ids, grad, out=out) is out
    assert torch.equal(out, 1 + embedding_sqnorms(ids, grad))


def test_bfloat16_gradients_and_odd_strides() -> None:
    ids, grad = random_lookups()
    half = grad.bfloat16().transpose(0, 1).contiguous().transpose(0, 1)  # [batch, steps, d], steps outermost
    swapped = ids.t().contiguous().t()
    factors = torch.rand(6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(embedding_sqnorms(swapped, half), embedding_sqnorms(ids, grad.bfloat16().float()))
    outs = [torch.zeros(97 * 1031) for _ in range(2)]
    clipped_embedding_sum(swapped, half, factors, out=outs[0])
    clipped_embedding_sum(ids, grad.bfloat16().float(), factors, out=outs[1])
    assert torch.equal(*outs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_the_number_of_threads_does_not_show(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    ids, grad = random_lookups()
    factors = clip_factors(embedding_sqnorms(ids, grad), 1.0, width=97 * 1031).factors
    scale = 2.0**30 if dtype == torch.int64 else None

    def made() -> tuple[torch.Tensor, torch.Tensor]:
        out = torch.zeros(97 * 1031, dtype=dtype)
        clipped_embedding_sum(ids, grad, factors, padding_idx=3, out=out, scale=scale)
        return embedding_sqnorms(ids, grad, padding_idx=3), out

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = made()
        torch.set_num_threads(3)
        monkeypatch.setattr(native_products, "_ELEMENTS_A_THREAD", 1031)
        assert all(torch.equal(a, b) for a, b in zip(one, made(), strict=True))
    finally:
        torch.set_num_threads(before)


OUT = torch.zeros(12)
IDS = torch.tensor([[0, 2], [1, 1]])
GRAD = torch.ones(2, 2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: embedding_sqnorms(IDS.int(), GRAD),
            "embedding_sqnorms: ids must be int64, got int32; convert them before the call",
        ),
        (
            lambda: embedding_sqnorms(IDS, GRAD[:, :1]),
            "embedding_sqnorms: ids must have shape [batch, steps] and grad [batch, steps, width], width 1 or more, "
            "got [2, 2] and [2, 1, 3]; reshape them before the call",
        ),
        (
            lambda: embedding_sqnorms(IDS, GRAD.double()),
            "embedding_sqnorms: grad must be float32 or bfloat16, got float64; convert it before the call",
        ),
        (
            lambda: embedding_sqnorms(IDS, torch.ones(2, 3, 2).mT),
            "embedding_sqnorms: grad must be contiguous along the width, got stride 2; call .contiguous() on it",
        ),
        (
            lambda: embedding_sqnorms(IDS, GRAD, padding_idx=-1),
            "embedding_sqnorms: padding_idx must be an id or None, got -1; "
            "count it from the start, as nn.Embedding does",
        ),
        (
            lambda: clipped_embedding_sum(IDS, GRAD, torch.ones(2), out=OUT[:10]),
            "clipped_embedding_sum: out must have whole rows of 3, the width of grad, got 10 elements; "
            "pass the sum of the embedding's weight, flattened",
        ),
        (
            lambda: clipped_embedding_sum(IDS, GRAD, torch.ones(2), out=OUT[:6]),
            "clipped_embedding_sum: ids must lie in [0, 2), got one outside; pass ids and rows of one embedding",
        ),
        (
            lambda: clipped_embedding_sum(IDS, GRAD, torch.ones(2), out=OUT, scale=1.0),
            "clipped_embedding_sum: scale must come with an int64 out, and only with it, got float32 and 1.0; "
            "use grid_scale(max_norm, rows)",
        ),
    ],
)
def test_wrong_arguments_say_what_came_and_what_to_do(call, message: str) -> None:
    with pytest.raises((TypeError, ValueError, IndexError)) as caught:
        call()
    assert str(caught.value) == message


@pytest.mark.parametrize("implementation", ["native", "reference"], indirect=True)  # a GPU is not waited for
def test_cells_beyond_the_grid_are_an_error(implementation: str) -> None:
    with pytest.raises(OverflowError, match=r"^clipped_embedding_sum: a sum must stay within 2\^53 cells"):
        clipped_embedding_sum(IDS, GRAD * 2.0**60, torch.ones(2), out=OUT.long(), scale=1.0)
