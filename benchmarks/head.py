"""Forward and backward of a language model's head: whole logits and cross-entropy, and privkt's chunked losses.

python benchmarks/head.py [--quick] [--threads N] [--out FILE]

The head is frozen, as in LoRA and prompt tuning: what is timed gives one loss a sample and the gradient of the hidden
states. Contenders take turns within each round; with one thread the clock is that thread's processor time, which
waiting for the processor does not count into. Memory is the highest resident size above that before the call, each in
a process of its own (Linux). "whole, one sample at a time" is what causal_lm_losses does with the model's logits.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from privkt import kernels
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


def _resident(field: str) -> int:
    """VmHWM (highest since the last reset) or VmRSS (now) of this process, in bytes. Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def peak_memory(name: str, setting: dict[str, Any], threads: int) -> int:
    """Bytes that a step needs beyond its inputs; run in a fresh process."""
    torch.set_num_threads(threads)
    step(CONTENDERS[name], *data(2, 8, 16, 100, 1.0))  # code and pools that come with the first call
    inputs = data(**setting)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
    before = _resident("VmRSS")
    step(CONTENDERS[name], *inputs)
    return _resident("VmHWM") - before


def measure(setting: dict[str, Any], rounds: int, threads: int) -> dict[str, dict[str, Any]]:
    """Median and quartiles in milliseconds, and peak memory."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    inputs = data(**setting)
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds + 1):
        for name, losses in CONTENDERS.items():
            start = clock()
            step(losses, *inputs)
            times[name].append((clock() - start) * 1e3)
    result = {}
    for name, all_times in times.items():
        kept = all_times[1:]  # the first round warms up
        low, median, high = statistics.quantiles(kept, n=4)
        ratios = [a / b for a, b in zip(kept, times[BASE][1:], strict=True)]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            memory = pool.apply(peak_memory, (name, setting, threads))
        result[name] = {
            "median_ms": round(median, 3),
            "quartiles_ms": [round(low, 3), round(high, 3)],
            "ratio": round(statistics.median(ratios), 4),
            "peak_mib": round(memory / 2**20, 1),
        }
    for entry in result.values():
        entry["memory_ratio"] = round(entry["peak_mib"] / max(result[BASE]["peak_mib"], 1e-9), 4)
    return result


def machine(threads: int) -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x.split(":", 1)[1].strip() for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0] if names else model
    build = kernels.build_info()
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": threads,
        "torch": torch.__version__,
        "privkt": build["version"],
        "cpu_isa": build["cpu_isa"],
        "compiler": build["compiler"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny case and few rounds: that it runs, not how fast")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="torch's threads, and the kernels'")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rounds = 2 if options.quick else options.rounds
    result: dict[str, Any] = {"machine": machine(options.threads), "rounds": rounds, "base": BASE, "cases": {}}
    result["clock"] = "thread_time" if options.threads == 1 else "perf_counter"
    for case, setting in (QUICK if options.quick else CASES).items():
        measured = measure(setting, rounds, options.threads)
        result["cases"][case] = {**setting, "contenders": measured}
        print(case, setting)
        for name, m in measured.items():
            low, high = m["quartiles_ms"]
            spread = f"{m['median_ms']:9.1f} ms [{low:.1f}, {high:.1f}], {m['ratio']:.2f} of the first"
            print(f"  {name:28} {spread}; {m['peak_mib']:8.1f} MiB, {m['memory_ratio']:.2f} of the first")
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
