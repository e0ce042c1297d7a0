"""Clip, sum and noise of one private step, side by side in one run: naive torch, Opacus, privkt's kernels.

python benchmarks/clip_noise.py [--quick] [--rounds N] [--threads N] [--out FILE]

Contenders take turns within each round, so that a busy machine slows all of them; with one thread the clock is the
processor's own time, into which waiting does not count. Where opacus can be imported its own
DPOptimizer runs; otherwise the same arithmetic, written out below, and the result says so. Opacus' secure noise
wants the generator of torchcsprng, which no longer installs; torch's generator stands in, which is faster.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import measuring
import torch
from torch import Tensor

from privkt import kernels

MAX_NORM, SIGMA, DIVISOR = 1.0, 0.8, 32.0
KEY = kernels.new_key()
Contenders = dict[str, Callable[[], Any]]


def lora_shapes(layers: int, width: int, rank: int) -> list[tuple[int, ...]]:
    """A pair on the query and on the value (a third as wide, as in grouped attention) of each layer."""
    pair = [(rank, width), (width, rank), (rank, width), (width // 3, rank)]
    return pair * layers


CASES = {
    "lora": {"batch": 32, "shapes": lora_shapes(30, 576, 8)},
    "one tensor": {"batch": 64, "shapes": [(1024, 1024)]},
}
QUICK = {
    "lora": {"batch": 8, "shapes": lora_shapes(4, 96, 8)},
    "one tensor": {"batch": 8, "shapes": [(64, 64)]},
}


class OpacusForm:
    """Opacus' arithmetic: a norm a parameter, one einsum a parameter, noise a parameter."""

    name = "opacus' arithmetic"

    def __init__(self, samples: list[Tensor], secure: bool) -> None:
        self.samples, self.secure = samples, secure

    def clip_and_sum(self) -> list[Tensor]:
        norms = torch.stack([g.reshape(len(g), -1).norm(2, dim=-1) for g in self.samples], dim=1).norm(2, dim=1)
        factors = (MAX_NORM / (norms + 1e-6)).clamp(max=1.0)
        return [torch.einsum("i,i...", factors, g) for g in self.samples]

    def noise(self, like: Tensor) -> Tensor:
        if not self.secure:
            return torch.normal(0.0, SIGMA, like.shape)
        total = torch.zeros_like(like)
        for _ in range(4):
            total += torch.normal(0.0, SIGMA, like.shape)
        return total / 2

    def step(self) -> list[Tensor]:
        return [g + self.noise(g) for g in self.clip_and_sum()]


class OpacusItself(OpacusForm):
    """opacus.optimizers.DPOptimizer on parameters that already have their grad_sample."""

    def __init__(self, samples: list[Tensor], secure: bool) -> None:
        import opacus
        from opacus.optimizers import DPOptimizer

        super().__init__(samples, secure)
        self.name = f"opacus {opacus.__version__}"
        self.parameters = [torch.nn.Parameter(torch.zeros(g.shape[1:])) for g in samples]
        self.optimizer = DPOptimizer(
            torch.optim.SGD(self.parameters, lr=0.1),
            noise_multiplier=SIGMA,
            max_grad_norm=MAX_NORM,
            expected_batch_size=None,
            loss_reduction="sum",
            secure_mode=secure,
        )

    def clip_and_sum(self) -> list[Tensor]:
        for parameter, sample in zip(self.parameters, self.samples, strict=True):
            parameter.grad_sample, parameter.summed_grad = sample.view_as(sample), None
        self.optimizer.clip_and_accumulate()
        return [parameter.summed_grad for parameter in self.parameters]

    def step(self) -> list[Tensor]:
        self.clip_and_sum()
        self.optimizer.add_noise()
        return [parameter.grad for parameter in self.parameters]


class TorchUpdate:
    """The mean into .grad, then torch's AdamW."""

    def __init__(self, samples: list[Tensor]) -> None:
        self.parameters = [torch.nn.Parameter(torch.zeros(g.shape[1:])) for g in samples]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3)

    def step(self, noisy: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, noisy, strict=True):
            parameter.grad = value / DIVISOR
        self.optimizer.step()


class KernelUpdate(TorchUpdate):
    """The same from the sum, in one pass."""

    def step(self, total: Tensor) -> None:  # type: ignore[override]
        ends = itertools.accumulate(p.numel() for p in self.parameters)
        places = [(p, end - p.numel()) for p, end in zip(self.parameters, ends, strict=True)]
        kernels.noisy_step_(self.optimizer, places, total, SIGMA, KEY, 0, divisor=DIVISOR)


def opacus_way(samples: list[Tensor], secure: bool) -> OpacusForm:
    try:
        return OpacusItself(samples, secure)
    except ImportError:
        return OpacusForm(samples, secure)


def naive_clip_and_sum(rows: Tensor) -> Tensor:
    factors = (MAX_NORM / rows.norm(dim=1)).clamp(max=1.0)
    return (rows * factors[:, None]).sum(0)


def phases(batch: int, shapes: list[tuple[int, ...]]) -> tuple[dict[str, Contenders], str, int]:
    """The contenders of each phase over the same gradients, the peer's name, and the number of coordinates."""
    generator = torch.Generator().manual_seed(0)
    sizes = [torch.Size(shape).numel() for shape in shapes]
    width = sum(sizes)
    rows = torch.randn(batch, width, generator=generator) / width**0.5 * 2
    samples = [
        part.reshape(batch, *shape).contiguous() for part, shape in zip(rows.split(sizes, 1), shapes, strict=True)
    ]
    plain, secure = opacus_way(samples, False), opacus_way(samples, True)
    form = OpacusForm(samples, True)
    total, noise = torch.zeros(width, dtype=torch.float64), torch.empty(width)

    def ours() -> Tensor:
        kernels.clip_and_sum(rows, MAX_NORM, out=total.zero_())
        return total

    sums = [g.sum(0) for g in samples]
    noisy_updates = [TorchUpdate(samples), TorchUpdate(samples), KernelUpdate(samples)]

    table: dict[str, Contenders] = {
        "clip and sum": {"naive": lambda: naive_clip_and_sum(rows), "opacus": plain.clip_and_sum, "privkt": ours},
        "noise": {
            "naive": lambda: torch.normal(0.0, SIGMA, noise.shape),
            "opacus": lambda: OpacusForm(samples, False).noise(noise),
            "opacus secure": lambda: form.noise(noise),
            "privkt": lambda: kernels.gaussian_noise(noise, SIGMA, KEY, 0),
        },
        "noise and AdamW": {
            "naive": lambda: noisy_updates[0].step([g + torch.normal(0.0, SIGMA, g.shape) for g in sums]),
            "opacus": lambda: noisy_updates[1].step([g + plain.noise(g) for g in sums]),
            "privkt": lambda: noisy_updates[2].step(total),
        },
        "whole phase": {
            "naive": lambda: naive_clip_and_sum(rows) + torch.normal(0.0, SIGMA, noise.shape),
            "opacus": plain.step,
            "opacus secure": secure.step,
            "privkt": lambda: kernels.noisy_sum(ours(), SIGMA, KEY, 0),
        },
    }
    return table, plain.name, width


def measure(contenders: Contenders, rounds: int, clock: str) -> dict[str, dict[str, Any]]:
    """Median and quartiles of each contender; ratios to Opacus are taken within each round."""
    times = measuring.take_turns({name: measuring.timed(call, clock) for name, call in contenders.items()}, rounds)
    return {
        name: {
            **measuring.spread(seconds),
            "ratio_to_opacus": measuring.median_ratio(seconds, times["opacus"]),
        }
        for name, seconds in times.items()
    }


def main() -> None:
    options = measuring.options(__doc__, rounds=25).parse_args()
    rounds = 2 if options.quick else options.rounds
    torch.set_num_threads(options.threads)
    clock = measuring.clock_of("cpu", options.threads)
    machine = measuring.describe("cpu", options.threads, ("torch", "opacus"))
    result: dict[str, Any] = {"machine": machine, "clock": clock, "load": measuring.load(), "cases": {}}
    for case, setting in (QUICK if options.quick else CASES).items():
        table, peer, width = phases(**setting)
        measured = {phase: measure(contenders, rounds, clock) for phase, contenders in table.items()}
        described = {"batch": setting["batch"], "tensors": len(setting["shapes"]), "coordinates": width, "opacus": peer}
        result["cases"][case] = {**described, "phases": measured}
        print(
            f"{case}: batch {setting['batch']}, {len(setting['shapes'])} tensors, {width:,} coordinates, against {peer}"
        )
        for phase, contenders in measured.items():
            for name, m in contenders.items():
                low, high = m["quartiles_ms"]
                spread = f"{m['median_ms']:9.3f} ms  [{low:.3f}, {high:.3f}]"
                print(f"  {phase:15} {name:14} {spread:32} {m['ratio_to_opacus']:.2f} of opacus")
    if options.out:
        measuring.write(options.out, result)


if __name__ == "__main__":
    main()
