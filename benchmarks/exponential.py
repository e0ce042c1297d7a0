"""One word a token by the exponential mechanism: naive torch, chunked Gumbel noise, and privkt's exact draws.

python benchmarks/exponential.py [--quick] [--threads N] [--out FILE]

Contenders take turns within each round; with one thread the clock is that thread's processor time, which waiting for
the processor does not count into. Memory is the highest resident size above that before the call, each in a process of
its own (Linux). The torch contenders draw in floating point: nothing certifies them. A contender with a batch of its
own is compared by the token. The public table's set-up (list of neighbours, certificate) is timed once.
"""

from __future__ import annotations

import functools
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any

import measuring
import torch
from torch import Tensor

from privkt import kernels
from privkt.privacy.weights import WeightTable, exact_epsilon, floor_logs

CASES = {
    "V 50k, width 768": {"words": 50_000, "width": 768, "batch": 1024, "epsilon": 10.0, "certify": True},
    "V 34k, width 300": {"words": 34_000, "width": 300, "batch": 1024, "epsilon": 10.0, "certify": False},
}
QUICK = {"tiny": {"words": 700, "width": 24, "batch": 64, "epsilon": 10.0, "certify": True}}
BASE = "torch: cdist, softmax, multinomial"
IDS = 64  # times the batch, for the contender that takes microseconds a token
CHUNK = 64
RESOLUTION = 1 << 12


class Setting:
    """A table in clusters, as words have, its weights, and tokens as ids and as vectors."""

    def __init__(self, words: int, width: int, batch: int, epsilon: float, certify: bool, listed: bool = True) -> None:
        source = torch.Generator().manual_seed(0)
        centres = torch.randn(max(words // 20, 1), width, generator=source)
        spread = torch.randn(words, width, generator=source)
        self.vectors = centres[torch.randint(len(centres), (words,), generator=source)] + 0.7 * spread
        self.ids = torch.randint(words, (batch,), generator=source)
        self.many = torch.randint(words, (batch * IDS,), generator=source)
        self.table = kernels.byte_table(self.vectors)
        far = torch.cdist(self.vectors[self.ids[:4]], self.vectors).max() * self.table.scale
        self.levels = kernels.Levels(min(int(far), RESOLUTION))
        self.plan = WeightTable.exponential(epsilon, self.levels.last, words)
        self.weights = torch.from_numpy(self.plan.array())
        self.rate = epsilon / 2 / self.levels.last * self.table.scale
        self.near = kernels.neighbours(self.table) if listed else None
        self.queries = kernels.quantised(self.table, self.vectors[self.ids])


def naive(x: Setting) -> Tensor:
    scores = torch.cdist(x.vectors[x.ids], x.vectors) * -x.rate
    return torch.multinomial(scores.softmax(1), 1)[:, 0]


def gumbel(x: Setting) -> Tensor:
    drawn = []
    for part in x.ids.split(CHUNK):
        scores = torch.cdist(x.vectors[part], x.vectors) * -x.rate
        drawn.append((scores - torch.empty_like(scores).exponential_().log_()).argmax(1))
    return torch.cat(drawn)


def streaming(x: Setting) -> Tensor:
    return kernels.draw_words(x.table, x.levels, x.weights, bytes(32), 0, queries=x.queries)


def rejection(x: Setting) -> Tensor:
    assert x.near is not None
    return kernels.draw_words_near(x.table, x.near, x.levels, x.weights, x.many, bytes(32), 0)


def product_alone(x: Setting) -> tuple[Tensor, Tensor]:
    return kernels.nearest_words(x.table, 1, queries=x.queries)


CONTENDERS: dict[str, tuple[Callable[[Setting], Any], int]] = {
    BASE: (naive, 1),
    "torch: Gumbel in chunks": (gumbel, 1),
    "privkt: vectors, streaming": (streaming, 1),
    "privkt: ids, list of neighbours": (rejection, IDS),
    "privkt: nearest word only (no draw)": (product_alone, 1),
}


def peak_memory(name: str, setting: dict[str, Any], threads: int) -> float | None:
    """MiB that a call needs beyond its inputs; run in a fresh process."""
    torch.set_num_threads(threads)
    run = CONTENDERS[name][0]
    run(Setting(200, 8, 4, 10.0, False))  # code and pools that come with the first call
    x = Setting(**setting, listed=run is rejection)
    peak = measuring.Peak("cpu")
    run(x)
    return peak.mib()


def measure(setting: dict[str, Any], rounds: int, threads: int) -> dict[str, dict[str, Any]]:
    """Microseconds a token, how many times faster than the first contender in the same round, and peak memory."""
    x, clock = Setting(**setting), measuring.clock_of("cpu", threads)
    steps = {name: measuring.timed(functools.partial(run, x), clock) for name, (run, _) in CONTENDERS.items()}
    times = measuring.take_turns(steps, rounds)
    result = {}
    for name, (_, batches) in CONTENDERS.items():
        each = [seconds * 1e6 / (setting["batch"] * batches) for seconds in times[name]]
        base = [seconds * 1e6 / setting["batch"] for seconds in times[BASE]]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            memory = pool.apply(peak_memory, (name, setting, threads))
        result[name] = {
            "microseconds_a_token": round(statistics.median(each), 3),
            "range": [round(min(each), 3), round(max(each), 3)],
            "times_faster": round(statistics.median(b / a for a, b in zip(each, base, strict=True)), 2),
            "peak_mib": None if memory is None else round(memory, 2),
        }
    return result


def certificates(x: Setting) -> dict[str, float]:
    """The range bound, the exact epsilon of the table's own words, and the seconds that two passes take."""
    start = time.perf_counter()
    totals = kernels.weight_totals(x.table, x.levels, x.weights, ids=torch.arange(len(x.table.rows)))
    logs = floor_logs(x.plan.weights).tolist(), floor_logs(totals.numpy()).tolist()
    most, least = kernels.log_extremes(x.table, x.levels, *logs)
    exact = exact_epsilon(most.tolist(), least.tolist())
    return {"eps_range": x.plan.eps_range, "eps_exact": exact, "seconds": round(time.perf_counter() - start, 2)}


def main() -> None:
    assert __doc__ is not None
    options = measuring.options(__doc__, 3).parse_args()
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {"machine": measuring.describe("cpu", options.threads), "base": BASE, "cases": {}}
    result["clock"] = measuring.clock_of("cpu", options.threads)
    for case, setting in (QUICK if options.quick else CASES).items():
        measured = measure(setting, 2 if options.quick else options.rounds, options.threads)
        result["cases"][case] = {**setting, "contenders": measured, "load": measuring.load()}
        print(case, setting)
        for name, m in measured.items():
            speed = f"{m['microseconds_a_token']:10.2f} us a token, {m['times_faster']:8.1f} times the first"
            print(f"  {name:36} {speed}; {m['peak_mib']} MiB")
        if setting["certify"]:
            result["cases"][case]["certificates"] = found = certificates(Setting(**setting, listed=False))
            print(f"  range {found['eps_range']:.4f}, exact {found['eps_exact']:.4f}, {found['seconds']} s")
    if options.out:
        measuring.write(options.out, result)


if __name__ == "__main__":
    main()
