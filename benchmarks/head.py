"""Forward and backward of a language model's head: whole logits and cross-entropy, and privkt's chunked losses.

python benchmarks/head.py [--quick] [--rounds N] [--threads N] [--out FILE]

The head is frozen, as in LoRA and prompt tuning: what is timed gives one loss a sample and the gradient of the hidden
states. Contenders take turns within each round; with one thread the clock is the processor's own time, into which
waiting does not count. Memory is the highest resident size above that before the call, each in a process of its own
(Linux). "whole, one sample at a time" is what causal_lm_losses does with the model's logits.
"""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable
from typing import Any

import measuring
import torch
import torch.nn.functional as F
from torch import Tensor

from privkt.kernels import linear_cross_entropy

CASES = {
    "V 32k, all tokens": {"batch": 16, "length": 128, "width": 576, "words": 32768, "counted": 1.0},
    "V 32k, half padding": {"batch": 16, "length": 128, "width": 576, "words": 32768, "counted": 0.5},
    "V 152k, all tokens": {"batch": 4, "length": 128, "width": 896, "words": 151936, "counted": 1.0},
}
QUICK = {"tiny": {"batch": 3, "length": 16, "width": 32, "words": 500, "counted": 0.5}}
BASE = "whole, one sample at a time"


def data(batch: int, length: int, width: int, words: int, counted: float) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states of the size that a norm leaves, a weight, and labels of which the first part counts."""
    source = torch.Generator().manual_seed(0)
    hidden = torch.randn(batch, length, width, generator=source)
    weight = torch.randn(words, width, generator=source) / width**0.5
    labels = torch.randint(0, words, (batch, length), generator=source)
    labels[:, round(length * counted) :] = -100
    return hidden.requires_grad_(), weight, labels


def whole(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    logits = F.linear(hidden, weight)
    each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    return each.sum(1) / (labels != -100).sum(1).clamp(min=1)


def whole_by_sample(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([F.cross_entropy(x, y) for x, y in zip(F.linear(hidden, weight), labels, strict=True)])


CONTENDERS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    BASE: whole_by_sample,
    "whole": whole,
    "privkt": linear_cross_entropy,
}


def step(losses: Callable[[Tensor, Tensor, Tensor], Tensor], hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """One forward and backward; the gradient of the hidden states."""
    hidden.grad = None
    losses(hidden, weight, labels).sum().backward()
    assert hidden.grad is not None
    return hidden.grad


def peak_memory(name: str, setting: dict[str, Any], threads: int) -> float | None:
    """MiB that a step needs beyond its inputs; run in a fresh process."""
    torch.set_num_threads(threads)
    step(CONTENDERS[name], *data(2, 8, 16, 100, 1.0))  # code and pools that come with the first call
    inputs = data(**setting)
    peak = measuring.Peak("cpu")
    step(CONTENDERS[name], *inputs)
    return peak.mib()


def measure(setting: dict[str, Any], rounds: int, threads: int) -> dict[str, dict[str, Any]]:
    """Median, quartiles, peak memory, and both as shares of the first contender's."""
    inputs, clock = data(**setting), measuring.clock_of("cpu", threads)
    steps = {
        name: measuring.timed(functools.partial(step, losses, *inputs), clock) for name, losses in CONTENDERS.items()
    }
    times = measuring.take_turns(steps, rounds)
    result: dict[str, dict[str, Any]] = {}
    for name, seconds in times.items():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            memory = pool.apply(peak_memory, (name, setting, threads))
        result[name] = {
            **measuring.spread(seconds),
            "ratio": measuring.median_ratio(seconds, times[BASE]),
            "peak_mib": None if memory is None else round(memory, 1),
        }
    base = result[BASE]["peak_mib"]
    for entry in result.values():
        entry["memory_ratio"] = round(entry["peak_mib"] / base, 4) if base else None
    return result


def main() -> None:
    options = measuring.options(__doc__, rounds=7).parse_args()
    torch.set_num_threads(options.threads)
    rounds = 2 if options.quick else options.rounds
    machine = measuring.describe("cpu", options.threads)
    result: dict[str, Any] = {"machine": machine, "load": measuring.load(), "base": BASE, "cases": {}}
    result["clock"] = measuring.clock_of("cpu", options.threads)
    for case, setting in (QUICK if options.quick else CASES).items():
        measured = measure(setting, rounds, options.threads)
        result["cases"][case] = {**setting, "contenders": measured}
        print(case, setting)
        for name, m in measured.items():
            low, high = m["quartiles_ms"]
            print(
                f"  {name:28} {m['median_ms']:9.1f} ms [{low:.1f}, {high:.1f}], {m['ratio']:.2f} of the first; ", end=""
            )
            print("memory unknown" if m["peak_mib"] is None else f"{m['peak_mib']:8.1f} MiB")
    if options.out:
        measuring.write(options.out, result)


if __name__ == "__main__":
    main()
