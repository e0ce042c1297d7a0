"""A Linear layer's clipped gradient sum and its norms, beside the GEMM of ordinary training, in one run.

python benchmarks/products.py [--quick] [--device cuda] [--rounds N] [--threads N] [--out FILE]

Ordinary training multiplies all positions of a batch at once: `left.T @ right` over [batch * steps]. The clipped sum
makes each sample's product on its own, scales it and adds it in float64: as many multiplications, so the rates compare.
Contenders take turns within each round; with one thread the clock is the processor's own time.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import measuring
import torch

from privkt import kernels

CASES = [(16, 32, 384, 384), (16, 128, 384, 384), (8, 32, 768, 768), (8, 128, 768, 768), (4, 128, 1536, 1536)]
CASES += [(4, 128, 576, 1536), (2, 1024, 768, 768)]
QUICK = [(2, 5, 40, 33)]


def contenders(batch: int, steps: int, p: int, d: int, device: str) -> dict[str, tuple[Callable[[], Any], int]]:
    """Each with the multiplications and additions that it is credited with."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(batch, steps, width, generator=generator).to(device) for width in (p, d))
    half = left.bfloat16(), right.bfloat16()
    factors = torch.rand(batch, generator=generator).to(device)
    totals = {
        dtype: torch.zeros(p * d, dtype=dtype, device=device) for dtype in (torch.float64, torch.float32, torch.int64)
    }
    product, gram = 2 * batch * steps * p * d, batch * steps * steps * (p + d)

    def clipped(dtype: torch.dtype, sides: tuple[torch.Tensor, torch.Tensor], scale: float | None = None) -> Any:
        return kernels.clipped_product_sum(*sides, factors, out=totals[dtype].zero_(), scale=scale)

    every = (left.reshape(-1, p), right.reshape(-1, d))
    return {
        "ordinary GEMM": (lambda: every[0].T @ every[1], product),
        "clipped sum": (lambda: clipped(torch.float64, (left, right)), product),
        "clipped sum, float32": (lambda: clipped(torch.float32, (left, right)), product),
        "clipped sum, grid": (lambda: clipped(torch.int64, (left, right), 2.0**30), product),
        "clipped sum of bfloat16": (lambda: clipped(torch.float64, half), product),
        "norms, tiles": (lambda: kernels.product_sqnorms(left, right, method="tiles"), product),
        "norms, gram": (lambda: kernels.product_sqnorms(left, right, method="gram"), gram),
    }


def measure(case: tuple[int, ...], rounds: int, clock: str, device: str) -> dict[str, dict[str, Any]]:
    table = contenders(*case, device)
    times = measuring.take_turns({name: measuring.timed(call, clock) for name, (call, _) in table.items()}, rounds)
    return {
        name: {
            **measuring.spread(times[name]),
            "gflops": round(operations / statistics.median(times[name]) / 1e9, 1),
            "time_to_gemm": measuring.median_ratio(times[name], times["ordinary GEMM"]),
        }
        for name, (_, operations) in table.items()
    }


def main() -> None:
    parser = measuring.options(__doc__, rounds=15)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = measuring.clock_of(options.device, options.threads)
    rounds = 2 if options.quick else options.rounds
    machine = measuring.describe(options.device, options.threads)
    result: dict[str, Any] = {"machine": machine, "clock": clock, "load": measuring.load(), "cases": {}}
    for case in QUICK if options.quick else CASES:
        batch, steps, p, d = case
        measured = measure(case, rounds, clock, options.device)
        result["cases"][f"batch {batch}, {steps} steps, {p} x {d}"] = measured
        print(f"batch {batch}, {steps} steps, {p} x {d}: auto takes {kernels.product_norm_method(steps, p, d)}")
        for name, m in measured.items():
            print(
                f"  {name:24} {m['median_ms']:9.3f} ms {m['gflops']:8.1f} GFLOP/s {m['time_to_gemm']:6.2f} of the GEMM"
            )
    if options.out:
        measuring.write(options.out, result)


if __name__ == "__main__":
    main()
