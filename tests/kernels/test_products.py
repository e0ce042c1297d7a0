"""Rows that are not stored: one definition to the bit for sums and norms, and norms that are never too small."""

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from privkt.kernels import (
    clip_factors,
    clipped_product_sum,
    clipped_sum,
    native_products,
    product_norm_method,
    product_sqnorms,
    row_sqnorms,
)
from privkt.kernels.reference_products import fused, product_rows

SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
both = pytest.mark.usefixtures("implementation")
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
# The second crosses a block of columns, the third a chunk of steps, the fourth is wider than tall, the last is not.
SHAPES = [(2, 7, 13, 37), (1, 5, 200, 211), (1, 259, 25, 33), (2, 33, 3, 129), (2, 1, 97, 1)]


def sides(batch: int, steps: int, p: int, d: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Tensor]:
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, steps, width, generator=source).to(dtype) for width in (p, d)]


def total_of(left: Tensor, right: Tensor, factors: Tensor | None = None, **options) -> Tensor:
    out = torch.zeros(left.shape[2] * right.shape[2], dtype=options.pop("dtype", torch.float64))
    ones = torch.ones(left.shape[0]) if factors is None else factors
    return clipped_product_sum(left, right, ones, out=out, **options)


def squares(row: Tensor) -> float:
    """The exact square norm of what is stored, rounded once: squares of float32 are exact in float64."""
    return math.fsum(row.flatten().double().square().tolist())


@settings(SHARED, max_examples=150)
@given(FINITE | st.floats(-4, 4, width=32), FINITE | st.floats(-4, 4, width=32), FINITE | st.floats(-4, 4, width=32))
def test_the_reference_multiplies_and_adds_with_one_rounding(a: float, b: float, c: float) -> None:
    got = fused(torch.tensor(a), torch.tensor(b), torch.tensor(c)).numpy()
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if not np.isfinite(got):
        assert abs(exact) >= Fraction(2) ** 128 - Fraction(2) ** 103
        return
    with np.errstate(over="ignore"):
        near = [x for x in (np.nextafter(got, np.float32(s * np.inf)) for s in (-1, 1)) if np.isfinite(x)]
    gap = abs(Fraction(float(got)) - exact)
    for other in near:
        distance = abs(Fraction(float(other)) - exact)
        assert gap < distance or (gap == distance and got.view(np.uint32) % 2 == 0)


@both
@settings(SHARED, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.integers(0, 4), st.integers(1, 4), st.integers(1, 4))
def test_the_sum_is_a_loop_over_samples_and_entries(seed: int, batch: int, steps: int, p: int, d: int) -> None:
    left, right = sides(batch, steps, p, d, seed=seed)
    factors = torch.rand(batch, generator=torch.Generator().manual_seed(seed))
    start = torch.arange(p * d, dtype=torch.float64) / 3
    total = start.clone()
    for b in range(batch):
        for i in range(p):
            for j in range(d):
                entry = torch.tensor(0.0)
                for t in range(steps):
                    entry = fused(left[b, t, i], right[b, t, j], entry)
                total[i * d + j] += (factors[b] * entry).double()
    assert torch.equal(clipped_product_sum(left, right, factors, out=start), total)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_tiles_blocks_and_chunks_have_the_bits_of_the_reference(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    left, right = sides(*shape, dtype=dtype)
    rows = product_rows(left, right)
    for b, row in enumerate(rows):
        assert torch.equal(total_of(left[b : b + 1], right[b : b + 1]), row.flatten().double())
        exact = squares(row)
        tiles = product_sqnorms(left, right, method="tiles")[b].item()
        assert exact <= tiles <= exact * (1 + 2.0**-40)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every piece that may go to a thread of its own does."""
    monkeypatch.setattr(native_products, "_PRODUCTS_A_THREAD", 1)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("shape", [(3, 6, 300, 50), (2, 9, 31, 420), (5, 17, 97, 97)])
@pytest.mark.parametrize("out", [torch.float64, torch.float32, torch.int64])
def test_thread_counts_do_not_change_the_bits(shape: tuple[int, ...], out: torch.dtype) -> None:
    left, right = sides(*shape)
    scale = 2.0**20 if out == torch.int64 else None
    found = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        norms = [product_sqnorms(left, right, method=method) for method in ("gram", "tiles")]
        found.append([total_of(left, right, dtype=out, scale=scale), *norms])
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@both
@settings(SHARED, max_examples=15)
@given(st.integers(0, 5), st.sampled_from([(torch.float64, None), (torch.int64, 2.0**16)]))
def test_a_batch_in_pieces_gives_the_same_bits(cut: int, kind: tuple[torch.dtype, float | None]) -> None:
    dtype, scale = kind
    left, right = sides(5, 6, 7, 11)
    factors = torch.rand(5, generator=torch.Generator().manual_seed(1))
    out = torch.zeros(77, dtype=dtype)
    for part in (slice(0, cut), slice(cut, None)):
        clipped_product_sum(left[part], right[part], factors[part], out=out, scale=scale)
    assert torch.equal(out, total_of(left, right, factors, dtype=dtype, scale=scale))
    for method in ("gram", "tiles"):
        pieces = [product_sqnorms(left[part], right[part], method=method) for part in (slice(0, cut), slice(cut, None))]
        assert torch.allclose(torch.cat(pieces), product_sqnorms(left, right, method=method), rtol=1e-12)


@both
def test_any_outer_strides_give_the_same_bits() -> None:
    left, right = sides(3, 5, 14, 9)
    wide, turned = torch.zeros(3, 5, 40), torch.zeros(5, 3, 9)
    wide[:, :, 3:17] = left
    turned.copy_(right.transpose(0, 1))
    views = wide[:, :, 3:17], turned.transpose(0, 1)
    assert torch.equal(total_of(*views), total_of(left, right))
    assert torch.equal(product_sqnorms(*views), product_sqnorms(left, right))
    one = left[:1].expand(3, 5, 14)
    assert torch.equal(total_of(one, right), total_of(one.contiguous(), right))


@both
def test_float32_sums_are_rounded_once_a_call() -> None:
    left = torch.tensor([[[2.0**30]], [[1.0]], [[-(2.0**30)]]])
    out = torch.full((1,), 2.0**-20)
    clipped_product_sum(left, torch.ones(3, 1, 1), torch.ones(3), out=out)
    assert out.item() == 1 + 2.0**-20


@both
def test_the_grid_truncates_toward_zero_in_any_order() -> None:
    left = torch.tensor([[[0.75, -0.75]], [[0.3, -0.3]], [[1.0, -1.0]]])
    right, factors = torch.ones(3, 1, 1), torch.tensor([1.0, 1.0, 0.49])
    out = torch.tensor([10, 10])
    clipped_product_sum(left, right, factors, out=out, scale=2.0)
    assert out.tolist() == [10 + 1 + 0 + 0, 10 - 1]
    left, right = sides(6, 3, 5, 7)
    turn = torch.tensor([3, 5, 0, 2, 1, 4])
    grids = [total_of(a, b, dtype=torch.int64, scale=2.0**30) for a, b in ((left, right), (left[turn], right[turn]))]
    assert torch.equal(*grids)
    rows = product_rows(left, right).flatten(1).double() * 2.0**30
    assert torch.equal(grids[0], rows.trunc().long().sum(0))


@pytest.mark.parametrize("implementation", ["native", "reference"], indirect=True)  # a GPU is not waited for
@pytest.mark.usefixtures("implementation")
def test_cells_beyond_the_grid_are_an_error() -> None:
    left = torch.tensor([[[1e30, -1e30, 2.0]]])
    with pytest.raises(OverflowError, match=r"^clipped_product_sum: a sum must stay within 2\^53 cells"):
        total_of(left, torch.ones(1, 1, 1), dtype=torch.int64, scale=2.0)


@both
def test_a_sample_that_does_not_count_is_not_read() -> None:
    left, right = sides(4, 3, 5, 6)
    factors = torch.tensor([0.5, 0.0, 1.0, 1.0])
    mask = torch.tensor([True, True, False, True])
    expected = total_of(left[[0, 3]], right[[0, 3]], factors[[0, 3]])
    left[1], right[2] = torch.nan, torch.inf
    assert torch.equal(total_of(left, right, factors, mask=mask), expected)
    for method in ("gram", "tiles"):
        sqnorms = product_sqnorms(left, right, mask, method=method)
        assert sqnorms.isfinite().tolist() == [True, False, True, True]
        assert sqnorms[2] == 0


@both
@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf")])
def test_a_factor_that_is_no_factor_removes_the_sample(factor: float) -> None:
    assert total_of(torch.ones(1, 2, 3), torch.ones(1, 2, 1), torch.tensor([factor])).tolist() == [0.0] * 3


def cancelling(seed: int, pairs: int, p: int, d: int, apart: float, size: float) -> tuple[Tensor, Tensor]:
    """Steps in pairs that almost undo each other: the row is small, the sizes that its rounding depends on are not."""
    source = np.random.default_rng(seed)
    left, right = (source.standard_normal((pairs, width)) for width in (p, d))
    other = left * (1 + apart * source.standard_normal(left.shape))
    steps = [np.stack(x, 1).reshape(1, 2 * pairs, -1) * size for x in ((left, other), (right, -right))]
    return tuple(torch.from_numpy(x).float() for x in steps)  # type: ignore[return-value]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    seed = draw(st.integers(0, 2**32 - 1))
    p, d = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    size = 2.0 ** draw(st.integers(-76, 30))  # products down to denormals
    if draw(st.booleans()):
        apart = draw(st.sampled_from([0.0, 1e-7, 1e-5, 1e-3]))
        return cancelling(seed, draw(st.integers(1, 5)), p, d, apart, size)
    left, right = sides(1, draw(st.integers(1, 9)), p, d, seed=seed)
    return left * size, right * size


@both
@settings(SHARED, max_examples=60)
@given(cases())
def test_norms_are_never_below_those_of_the_stored_row(case: tuple[Tensor, Tensor]) -> None:
    left, right = case
    stored = total_of(left, right)
    exact = squares(stored)
    for method in ("gram", "tiles"):
        assert product_sqnorms(left, right, method=method).item() >= exact


@both
def test_a_row_of_nothing_but_rounding_is_below_its_bound() -> None:
    left, right = cancelling(0, 1, 30, 20, 0.0, 1.0)
    stored = total_of(left, right)
    assert stored.any()  # exactly zero but for the rounding of the first of the two steps
    assert not (left[0].double().T @ right[0].double()).any()
    bound = product_sqnorms(left, right, method="gram").item()
    assert squares(stored) <= bound <= 1e-4 * squares(left) * squares(right)


@both
def test_what_is_clipped_by_a_bound_is_never_longer_than_the_norm() -> None:
    for seed in range(8):
        left, right = cancelling(seed, 3, 17, 23, 1e-3, 30.0) if seed % 2 else sides(1, 9, 17, 23, seed=seed)
        for method in ("gram", "tiles"):
            factors, _ = clip_factors(product_sqnorms(left, right, method=method), 0.7, width=17 * 23)
            assert squares(total_of(left, right, factors)) <= 0.7**2


@both
@pytest.mark.parametrize("shape", [(1, 1, 64, 48), (1, 32, 64, 48), (1, 64, 130, 150)])
def test_bounds_by_inner_products_are_close(shape: tuple[int, ...]) -> None:
    left, right = sides(*shape)
    exact = product_sqnorms(left, right, method="tiles").item()
    assert exact <= product_sqnorms(left, right, method="gram").item() * (1 + 1e-9)
    assert product_sqnorms(left, right, method="gram").item() <= exact * (1 + 1e-5 * shape[1])


@both
@settings(SHARED, max_examples=30)
@given(st.data(), st.sampled_from([float("nan"), float("inf"), -float("inf")]), st.sampled_from(["gram", "tiles"]))
def test_a_row_that_is_not_finite_has_no_finite_norm(data: st.DataObject, value: float, method: str) -> None:
    shape = tuple(data.draw(st.integers(1, 35)) for _ in range(3))
    left, right = sides(1, *shape)
    other = data.draw(st.sampled_from([1.0, 0.0]))
    side, rest = (left, right) if data.draw(st.booleans()) else (right, left)
    side[0, data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, side.shape[2] - 1))] = value
    rest *= other  # inf times zero is a NaN in the row
    assert not product_sqnorms(left, right, method=method).isfinite().any()  # type: ignore[arg-type]


@both
@settings(SHARED, max_examples=40)
@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=4))
def test_a_row_that_overflows_has_no_finite_norm(steps: list[tuple[float, float]]) -> None:
    left, right = (torch.tensor([[[step[side]] for step in steps]]) for side in (0, 1))
    stored = product_rows(left, right)
    for method in ("gram", "tiles"):
        bound = product_sqnorms(left, right, method=method).item()  # type: ignore[arg-type]
        if stored.isfinite().all():
            assert bound >= squares(stored)
        else:
            assert not np.isfinite(bound)


@both
def test_norms_add_up_over_layers() -> None:
    left, right = sides(3, 4, 5, 6)
    out = torch.full((3,), 2.0, dtype=torch.float64)
    mask = torch.tensor([True, False, True])
    assert product_sqnorms(left, right, mask, out=out) is out
    assert torch.allclose(out, 2 + product_sqnorms(left, right, mask))
    assert out[1] == 2


@both
@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 0, 2, 2), (2, 3, 0, 2), (2, 3, 2, 0)])
def test_nothing_gives_zero(shape: tuple[int, ...]) -> None:
    left, right = sides(*shape)
    assert not total_of(left, right).any()
    for method in ("gram", "tiles"):
        norms = product_sqnorms(left, right, method=method)  # type: ignore[arg-type]
        assert norms.shape == (shape[0],)
        assert (norms >= 0).all()
        assert (norms < 1e-30).all()


@pytest.mark.parametrize(
    ("steps", "p", "d", "method"),
    [
        (1, 1, 1, "tiles"),
        (767, 768, 768, "gram"),
        (768, 768, 768, "tiles"),
        (15, 8, 768, "gram"),
        (16, 8, 768, "tiles"),
    ],
)
def test_the_cheaper_way_to_the_norms_is_taken(steps: int, p: int, d: int, method: str) -> None:
    assert product_norm_method(steps, p, d) == method


def test_auto_is_the_method_it_names() -> None:
    for shape in ((2, 3, 9, 9), (2, 20, 9, 9)):
        left, right = sides(*shape)
        named = product_sqnorms(left, right, method=product_norm_method(*shape[1:]))
        assert torch.equal(product_sqnorms(left, right), named)


def test_a_thread_that_flushes_denormals_computes_the_same() -> None:
    left, right = (x * 2.0**-72 for x in sides(2, 3, 5, 20))
    rows = left.flatten(1) * 2.0**-70

    def results() -> list[Tensor]:
        factors = clip_factors(torch.tensor([1e80, 1.0], dtype=torch.float64), 0.7, width=15).factors
        norms = [product_sqnorms(left, right, method="gram"), row_sqnorms(rows)]
        return [total_of(left, right), clipped_sum(rows, factors), factors, *norms]

    expected = results()
    assert torch.set_flush_denormal(True)
    try:
        found = results()
        flushed = torch.tensor([2.0**-140]) * 0.5
    finally:
        torch.set_flush_denormal(False)
    assert flushed.item() == 0  # the setting is the thread's again after the kernels
    assert all(x.any() for x in expected)
    assert 0 < expected[2][0] < 2.0**-126
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: total_of(torch.ones(2, 3, 4), torch.ones(2, 4, 4)),
            "clipped_product_sum: right must have the batch and steps of left, [2, 3], got [2, 4]; "
            "pass two sides of one layer",
        ),
        (
            lambda: product_sqnorms(torch.ones(2, 4), torch.ones(2, 3, 4)),
            "product_sqnorms: left must have shape [batch, steps, width], got [2, 4]; reshape it before the call",
        ),
        (
            lambda: product_sqnorms(torch.ones(2, 3, 4).double(), torch.ones(2, 3, 4)),
            "product_sqnorms: left must be float32 or bfloat16, got float64; convert it before the call",
        ),
        (
            lambda: product_sqnorms(torch.ones(2, 3, 4), torch.ones(2, 4, 3).mT),
            "product_sqnorms: right must be contiguous along the width, got stride 3; call .contiguous() on it",
        ),
        (
            lambda: product_sqnorms(torch.ones(2, 3, 4), torch.ones(2, 3, 4), method="ghost"),  # type: ignore[arg-type]
            "product_sqnorms: method must be auto, gram or tiles, got 'ghost'; auto takes the cheaper",
        ),
        (
            lambda: clipped_product_sum(torch.ones(2, 3, 4), torch.ones(2, 3, 4), torch.ones(2), out=torch.zeros(15)),
            "clipped_product_sum: out must have shape [16], got [15]; reshape it before the call",
        ),
        (
            lambda: total_of(torch.ones(2, 3, 4), torch.ones(2, 3, 4), dtype=torch.int64),
            "clipped_product_sum: scale must come with an int64 out, and only with it, got int64 and no scale; "
            "use grid_scale(max_norm, rows)",
        ),
        (
            lambda: total_of(torch.ones(2, 3, 4), torch.ones(2, 3, 4), dtype=torch.int64, scale=3.0),
            "clipped_product_sum: scale must be a power of two between 2^-512 and 2^512, got 3.0; "
            "use grid_scale(max_norm, rows)",
        ),
    ],
)
def test_wrong_arguments_say_what_came_and_what_to_do(call, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert str(caught.value) == message
