"""CUDA gives the CPU's bits. Skipped where no GPU can be used; that the sources compile is tests/packaging's matter."""

import pytest
import torch

from privkt.kernels import (
    ByteTable,
    Levels,
    Neighbours,
    adamw_update_,
    add_discrete_gaussian_,
    build_info,
    byte_table,
    clip_and_sum,
    clip_factors,
    clipped_embedding_sum,
    clipped_product_sum,
    clipped_sum,
    draw_flipped,
    draw_words,
    draw_words_near,
    embedding_sqnorms,
    fixed_time,
    gaussian_noise,
    linear_cross_entropy,
    nearest_words,
    neighbours,
    noisy_sum,
    product_sqnorms,
    row_sqnorms,
    sgd_update_,
    tied_cross,
    weight_totals,
)
from privkt.privacy.weights import WeightTable

KEY = bytes(range(32))
WHY_NOT = (
    "this build has no CUDA: " + build_info()["cuda_reason"]
    if not build_info()["cuda"]
    else ""
    if torch.cuda.is_available()
    else "torch sees no CUDA GPU"
)
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "runs")


def rows(batch: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    x = torch.randn(batch, width, generator=torch.Generator().manual_seed(0))
    if batch > 2:
        x[1, width // 2] = torch.nan
    return x.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("batch", "width"), [(0, 7), (1, 1), (5, 8191), (67, 3001), (300, 17)])
def test_sums_have_the_bits_of_the_cpu(batch: int, width: int, dtype: torch.dtype) -> None:
    x = rows(batch, width, dtype)
    sqnorms = row_sqnorms(x)
    torch.testing.assert_close(row_sqnorms(x.cuda()).cpu(), sqnorms, rtol=1e-12, atol=0, equal_nan=True)
    on_cpu, on_gpu = (clip_factors(s, 1.0, width=width) for s in (sqnorms, sqnorms.cuda()))
    assert torch.equal(on_gpu.factors.cpu(), on_cpu.factors)
    assert torch.equal(on_gpu.finite.cpu(), on_cpu.finite)
    assert torch.equal(clipped_sum(x.cuda(), on_gpu.factors).cpu(), clipped_sum(x, on_cpu.factors))


def test_the_stored_norm_is_never_above_the_clipping_norm() -> None:
    x = rows(257, 1009, torch.float32).cuda()
    out = torch.zeros(1009, dtype=torch.float64, device="cuda")
    factors, finite = clip_and_sum(x, 0.7, out=out)
    assert finite.logical_not().nonzero().tolist() == [[1]]
    stored = (x * factors[:, None])[finite].double()
    assert (stored.square().sum(1) <= 0.49 * (1 - 2**-40)).all()
    torch.testing.assert_close(out, stored.sum(0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("step", "offset"), [(0, 0), (2**40, 13), (2**64 - 1, 2**64 - 1_000_000)])
def test_noise_has_the_bits_of_the_cpu(step: int, offset: int) -> None:
    on_gpu = gaussian_noise(torch.empty(1_000_000, device="cuda"), 0.83, KEY, step, offset)
    assert torch.equal(on_gpu.cpu(), gaussian_noise(torch.empty(1_000_000), 0.83, KEY, step, offset))
    total = torch.linspace(-5, 5, 10_007, dtype=torch.float64)
    assert torch.equal(noisy_sum(total.cuda(), 0.3, KEY, step, offset).cpu(), noisy_sum(total, 0.3, KEY, step, offset))
    assert not noisy_sum(total.cuda(), 0.0, KEY, step, offset).sub(total.cuda().float()).any()


def test_kernels_run_on_the_current_stream() -> None:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        x = torch.ones(3, 5, device="cuda").mul_(2)
        total = clipped_sum(x, torch.ones(3, device="cuda"))
    stream.synchronize()
    assert total.tolist() == [6.0] * 5


def test_nothing_waits_for_the_device() -> None:
    left, right, grad = (torch.randn(3, 9, n, device="cuda") for n in (7, 5, 5))
    ids, mask = torch.randint(7, (3, 9), device="cuda"), torch.ones(3, dtype=torch.bool, device="cuda")
    total, cells = (
        torch.zeros(35, dtype=torch.float64, device="cuda"),
        torch.zeros(35, dtype=torch.int64, device="cuda"),
    )
    param, mean, square = (torch.zeros(35, device="cuda") for _ in range(3))
    how = {"divisor": 3.0, "lr": 0.1}

    def step() -> None:
        norms = product_sqnorms(left, right, mask, method="gram")
        product_sqnorms(left, right, mask, method="tiles", out=norms)
        embedding_sqnorms(ids, grad, mask, out=norms)
        norms += 2 * tied_cross(ids, grad, left, right, mask)
        row_sqnorms(left.flatten(1), mask, out=norms)
        factors = clip_factors(norms, 1.0, width=35, mask=mask).factors
        for out, scale in ((total, None), (cells, 2.0**20)):
            clipped_product_sum(left, right, factors, mask, out=out, scale=scale)
            clipped_embedding_sum(ids, grad, factors, mask, out=out, scale=scale)
            clipped_sum(left.flatten(1)[:, :35], factors, mask, out=out, scale=scale)
        add_discrete_gaussian_(cells, 1.5, KEY, 0)
        noisy_sum(cells, 0.5, KEY, 1, scale=2.0**20)
        sgd_update_(param, mean, total, 0.5, KEY, 2, momentum=0.9, **how)
        adamw_update_(param, mean, square, cells, 0.5, KEY, 3, count=1, scale=2.0**20, **how)

    step()  # libraries that torch loads on first use may wait
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert param.isfinite().all()


@pytest.mark.parametrize("softcap", [0.0, 2.5])
@pytest.mark.parametrize(("tokens", "words"), [(0, 7), (3, 1), (5, 31), (40, 4099)])
def test_the_heads_tiles_have_the_bits_of_the_cpu(tokens: int, words: int, softcap: float) -> None:
    logits = torch.randn(tokens, words, generator=torch.Generator().manual_seed(0)) * 5
    labels = torch.arange(tokens) * 37 % words - (torch.arange(tokens) % 4 == 3) * words
    on_cpu, on_gpu = logits.clone(), logits.cuda()
    wanted = torch.ops.privkt.head_losses_(on_cpu, labels, 0.7, softcap, True)
    got = torch.ops.privkt.head_losses_(on_gpu, labels.cuda(), 0.7, softcap, True)
    assert all(torch.equal(a.cpu(), b) for a, b in zip((*got, on_gpu), (*wanted, on_cpu), strict=True))
    again = logits[:, words // 3 :].cuda()
    torch.ops.privkt.head_gradient_(again, labels.cuda(), got[1], words // 3, 0.7, softcap)
    assert torch.equal(again.cpu(), on_cpu[:, words // 3 :])


def test_the_head_computes_every_token_on_a_gpu_and_leaves_ignored_ones_out() -> None:
    hidden, weight = torch.randn(3, 9, 16), torch.randn(101, 16)
    labels = torch.arange(27).view(3, 9).masked_fill(torch.arange(9) > 4, -100)
    hidden[:, 7] = torch.nan
    found = []
    for device in ("cpu", "cuda"):
        x = hidden.to(device).requires_grad_()
        losses = linear_cross_entropy(x, weight.to(device), labels.to(device))
        losses.sum().backward()
        found.append((losses.detach().cpu(), x.grad.cpu()))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", [64, 300, 301])  # copies of 16 bytes, of 4, of single ones
def test_words_drawn_are_those_of_the_cpu(width: int) -> None:
    """More tiles than a GPU has multiprocessors; smaller and odder sizes are in test_token_blocks.py."""
    embeddings = torch.randn(9001, width, generator=torch.Generator().manual_seed(0))
    table, levels = byte_table(embeddings), Levels(1000, 2)
    weights = torch.from_numpy(WeightTable.exponential(12, 1000, 9001).array()).int()
    near, ids = neighbours(table, 64), torch.arange(3001) * 17 % 9001
    bounds = fixed_time(table, near, levels, weights)

    def drawn(device: str) -> list[torch.Tensor]:
        there = ByteTable(table.rows.to(device), table.sqnorms.to(device), table.scale)
        own, listed = ids.to(device), Neighbours(near.ids.to(device), near.distances.to(device))
        w, queries = (
            weights.to(device),
            (there.rows[:777].flip(0).contiguous(), there.sqnorms[:777].flip(0).contiguous()),
        )
        found = [
            weight_totals(there, levels, w, queries=queries),
            draw_words(there, levels, w, KEY, 1, 5, queries=queries),
            draw_words(there, levels, w, KEY, 1, 5, ids=own),
            draw_words_near(there, listed, levels, w, own, KEY, 2, 5),
            draw_words_near(there, listed, levels, w, own[:200], KEY, 2, 5, fixed=bounds),
            draw_flipped(there, levels, w, own[:400], KEY, 3, 5),
            *nearest_words(there, 64, ids=own[:1000]),
        ]
        return [x.cpu() for x in found]

    for on_gpu, on_cpu in zip(drawn("cuda"), drawn("cpu"), strict=True):
        assert torch.equal(on_gpu, on_cpu)
