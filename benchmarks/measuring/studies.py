"""What benchmarks of whole methods share: runs that go on where they stopped, progress as lines, tables of arms."""

from __future__ import annotations

import json
import os
import platform
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from privkt.config import RunConfig
from privkt.runtime.local import LocalRuntime
from privkt.runtime.run_directory import RunDirectory


class _Done(Exception):
    """The wanted seeds are finished; the others wait for another call."""


class Log:
    """Progress as lines, a task at most every `every` seconds; calls `after` with its name when a step has ended."""

    def __init__(self, after: Callable[[str], None] = lambda step: None, every: float = 30.0) -> None:
        self.after, self.every, self.begun = after, every, time.monotonic()

    def task(self, title: str, total: float | None, unit: str = "") -> Log.Task:
        return Log.Task(self, title, total, unit)

    class Task:
        """One line's facts."""

        def __init__(self, log: Log, title: str, total: float | None, unit: str) -> None:
            self.log, self.title, self.total, self.unit, self.done = log, title, total, unit, 0.0
            self.said = time.monotonic()

        def advance(self, amount: float = 1, note: str = "") -> None:
            self.done += amount
            now, steps = time.monotonic(), self.unit == "steps" and self.title.endswith(": steps")
            if steps or now - self.said >= self.log.every:
                self.said = now
                of = f"/{self.total:.0f}" if self.total else ""
                print(
                    f"[{now - self.log.begun:6.0f} s] {self.title} {self.done:.0f}{of} {self.unit} {note}", flush=True
                )
            if steps:
                self.log.after(note)


def go_on(config: RunConfig, folder: Path, seeds: Sequence[int], last_step: str) -> None:
    """Runs until `last_step` of the first client is done for all of `seeds`, from where an earlier call stopped.

    What each step needed of memory is noted beside the run (see `peaks`).
    """
    client, place = config.clients[0].name, _peaks_file(folder)
    most = peaks(folder)
    peak_mib(afresh=True)

    def finished() -> bool:
        if not RunDirectory.is_run(folder):
            return False
        run = RunDirectory.open(folder)
        return all(run.is_done(client, last_step, seed) for seed in seeds)

    def after(step: str) -> None:
        most[step] = max(most.get(step, 0), peak_mib(afresh=True))
        place.write_text(json.dumps(most, indent=1) + "\n", encoding="utf-8")
        if tuple(seeds) != tuple(config.seeds) and finished():
            raise _Done

    if finished():
        return
    try:
        LocalRuntime(config, folder, progress=Log(after)).run()
    except _Done:
        return


def peaks(folder: Path) -> dict[str, int]:
    """The most memory that this process held in each step of a run, whatever was there before it, in MiB."""
    place = _peaks_file(folder)
    return dict(json.loads(place.read_text(encoding="utf-8"))) if place.exists() else {}


def _peaks_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-peaks.json")


def peak_mib(*, afresh: bool = False) -> int:
    """The most memory that this process has held, in MiB; `afresh` begins again from what it holds now, on Linux."""
    status, forget = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not status.exists():
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    if afresh:
        forget.write_text("5")
    return round(int(line.split()[1]) / 1024)


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """`second` over `first`, blocks within blocks."""
    both = {**first, **second}
    nested = {k for k in first.keys() & second.keys() if isinstance(first[k], dict)}
    return both | {k: merged(first[k], second[k]) for k in nested}


def cell(value: Mapping[str, Any] | None) -> str:
    """A mean with its deviation, where there is one, and the number of seeds; a dash for nothing."""
    if value is None:
        return "-"
    deviation = f" ± {value['deviation']:.3f}" if value["seeds"] > 1 else ""
    return f"{value['mean']:.3f}{deviation} ({value['seeds']})"


def names_table(names: Mapping[str, Mapping[str, Any]]) -> str:
    """How many names came back after each training, with the untrained model's, as Markdown; guarantees without what
    they are conditional on."""
    lines = ["| trained | guarantee | names back | with the control taken off | untrained | chance |"]
    lines.append("| --- |" + " --- |" * 5)
    for name, found in names.items():
        count, chance = found["records"], found["chance"]

        def share(hits: int, low: float, high: float, of: int = count) -> str:
            return f"{hits / of:.0%} ({low:.0%} to {high:.0%})"

        lines.append(
            f"| {name}, {found['training']['steps']} steps | {found['guarantee'].partition(';')[0]} | "
            f"{share(found['hits'], found['low'], found['high'])} | "
            f"{share(found['relative'], found['relative_low'], found['relative_high'])} | "
            f"{share(found['control_hits'], found['control_low'], found['control_high'])} | {chance:.0%} |"
        )
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Processor, its instructions, cores and versions; no name and no path of the machine."""
    import torch
    import transformers

    import privkt
    from privkt import kernels

    model, cpuinfo = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x.split(":", 1)[1].strip() for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "cpu_isa": kernels.build_info()["cpu_isa"],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "privkt": privkt.__version__,
    }
