"""Figures of `results/` in the documentation, so that nobody types one twice.

python benchmarks/figures.py            # writes the blocks of every page anew

A block stands between `<!-- figures: NAME -->` and `<!-- end of figures -->`; a test compares each with its file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import method_figures
import token_figures
from pages import ROOT, Result, result, table

PAGES = (
    "README.md",
    "docs/costs.md",
    "docs/methods/fdkt.md",
    "docs/methods/fedcot.md",
    "docs/methods/post.md",
    "docs/methods/knowledgesg.md",
)
_BLOCK = re.compile(r"(<!-- figures: (\S+) -->\n)(.*?)(<!-- end of figures -->)", re.S)


def fresh(page: str) -> str:
    """A page's text with every block made anew."""

    return _BLOCK.sub(lambda block: f"{block[1]}\n{BLOCKS[block[2]]()}\n\n{block[4]}", page)


def _cell(found: Result, value: float | None, form: str = "{:.2f}") -> str:
    if "failed" in found:
        return found["failed"].split(":")[0]
    if "absent" in found:
        return "not installed"
    return "-" if value is None else form.format(value)


def _timed() -> Iterator[tuple[str, Result]]:
    cases = result("dpsgd")["cases"]
    return ((name, case) for name, case in cases.items() if case["case"]["timed"])


def _shape(case: Result) -> str:
    tied = ", tied" if case["tied"] else ""
    width = f", d {case['width']}" if case["width"] != 256 else ""
    method = {"lora": "LoRA", "prompt": "soft prompt", "full": "whole model"}[case["method"]]
    return f"{method}, B {case['batch']}, T {case['length']}, V {round(case['words'] / 1000)}k{width}{tied}"


def _steps(value: Callable[[Result, Result], float | None], first: str, form: str) -> str:
    names = [name for name in next(_timed())[1]["contenders"] if name != "plain"]
    rows = []
    for _, case in _timed():
        contenders = case["contenders"]
        plain = contenders["plain"]
        row = [_shape(case["case"]), _cell(plain, plain.get(first), form)]
        rows.append(row + [_cell(contenders[name], value(contenders[name], plain)) for name in names])
    return table(["", "plain", *names], rows)


def step_time() -> str:
    """Milliseconds of the plain path, and everybody's share of it."""
    return _steps(lambda found, plain: found.get("ratio_to_plain"), "median_ms", "{:.0f} ms")


def step_memory() -> str:
    """MiB of the plain path, and everybody's share of it."""
    return _steps(
        lambda found, plain: found["peak_mib"] / plain["peak_mib"] if "peak_mib" in found else None,
        "peak_mib",
        "{:.0f} MiB",
    )


def probes() -> str:
    """How far one record moves the clipped sum, how wrong the sum is, and what is not trained."""
    cases = {name: case for name, case in result("dpsgd")["cases"].items() if not case["case"]["timed"]}
    names = [name for name, found in next(iter(cases.values()))["contenders"].items() if "probe" in found]

    def cell(found: Result) -> str:
        probe = found.get("probe", found)
        if "moved" not in probe:
            return _cell(probe, None)
        moved = "not finite" if probe["moved"] is None else f"{probe['moved']:.2f}"
        if probe["moved"] is None or probe["moved"] > 1.001:
            moved = f"**{moved}**"
        notes = [f"sum {probe['error']:.0%} off"] if probe["error"] is not None and probe["error"] > 1e-3 else []
        notes += [f"{probe['untrained']} of {probe['parameters']} stay"] if probe["untrained"] else []
        return ", ".join([moved, *notes])

    rows = [[_shape(case["case"]), *(cell(case["contenders"][name]) for name in names)] for case in cases.values()]
    return table(["", *names], rows)


def _found(case: str, contender: str, ratio: str, base: str | None = None) -> float:
    contenders = result("dpsgd")["cases"][case]["contenders"]
    if base is None:
        return float(contenders[contender][ratio])
    return float(contenders[contender][ratio] / contenders[base][ratio])


def _noise_rate() -> float:
    case = result("clip_noise")["cases"]["one tensor"]
    return float(case["coordinates"] / case["phases"]["noise"]["privkt"]["median_ms"] / 1e6)


def goals() -> str:
    """What was to be reached, what was found, and whether it was."""
    lora, long, full, prompt = "lora-t128-v32k", "lora-t1024-v32k", "full-b32-t32-d384", "prompt-t128-v8k"
    probed = [case["contenders"] for case in result("dpsgd")["cases"].values() if case["case"]["probed"]]
    moved = max(found["privkt"]["probe"]["moved"] for found in probed)
    at_most = [
        (f"step of {lora} / same head", 1.05, _found(lora, "privkt", "ratio_to_same_head")),
        (f"step of {lora} / Opacus hooks", 0.75, _found(lora, "privkt", "ratio_to_hooks")),
        (f"step of {long} / same head", 1.05, _found(long, "privkt", "ratio_to_same_head")),
        (f"peak of {lora} / Opacus hooks", 0.2, _found(lora, "privkt", "peak_mib", "opacus hooks")),
        ("the same, checkpointed", 0.2, _found(lora, "privkt checkpointed", "peak_mib", "opacus hooks")),
        (f"step of {full} / plain", 1.25, _found(full, "privkt", "ratio_to_plain")),
        (f"step of {full} / same head", 1.25, _found(full, "privkt", "ratio_to_same_head")),
        (f"step of {full} / Opacus hooks", 0.333, _found(full, "privkt", "ratio_to_hooks")),
        (f"peak of {full} / same head", 1.0, _found(full, "privkt", "peak_mib", "same head")),
        (f"step of {prompt} / same head", 1.05, _found(prompt, "privkt", "ratio_to_same_head")),
        ("one record moves the sum, in clipping norms (known to 1e-4)", 1.0, round(moved, 3)),
    ]
    rows = [
        [what, f"<= {limit:g}", f"{found:.3f}", "met" if found <= limit else "not met"]
        for what, limit, found in at_most
    ]
    rate = _noise_rate()
    rows.append(["noise, G samples/s on a core", ">= 0.5", f"{rate:.2f}", "met" if rate >= 0.5 else "not met"])
    return table(["what", "goal", "found", ""], rows)


def phases() -> str:
    """Clipping and noise alone, as shares of Opacus' time."""
    rows = []
    for name, case in result("clip_noise")["cases"].items():
        for phase, contenders in case["phases"].items():
            ours, theirs = contenders["privkt"], contenders["opacus"]
            secure = contenders.get("opacus secure")
            times = [f"{found['median_ms']:.2f} ms" for found in (theirs, ours)]
            share = [f"{ours['ratio_to_opacus']:.2f}", f"{secure['ratio_to_opacus']:.2f}" if secure else "-"]
            rows.append([f"{name}, {case['coordinates']:,} coordinates: {phase}", *times, *share])
    return table(["", "Opacus", "privkt", "privkt / Opacus", "Opacus secure / Opacus"], rows)


def head() -> str:
    """The language model's head, as shares of the whole logits' time and memory."""
    rows = [
        [case, *(f"{found['ratio']:.2f} ({found['memory_ratio']:.2f})" for found in measured["contenders"].values())]
        for case, measured in result("head")["cases"].items()
    ]
    return table(["time (memory)", *next(iter(result("head")["cases"].values()))["contenders"]], rows)


def machine() -> str:
    """What the steps were measured on, in a sentence."""
    found = result("dpsgd")
    about, rounds = found["machine"], found["settings"]["rounds"]
    loads = [load for case in found["cases"].values() for load in case["load"] if load is not None]
    named = {"torch": "torch", "opacus": "Opacus", "fastDP": "fastDP", "opake": "Opake"}
    versions = ", ".join(f"{name} {about[package]}" for package, name in named.items() if about[package])
    return (
        f"{about['cpu']}, {about['threads']} thread of {about['cores']} cores ({about['cpu_isa']}), {versions};\n"
        f"medians of {rounds} interleaved rounds, load average {min(loads):.1f} to {max(loads):.1f}."
    )


def summary() -> str:
    """Three lines for the front page."""
    lora, full, prompt = "lora-t128-v32k", "full-b32-t32-d384", "prompt-t128-v8k"
    rows = []
    for name in (lora, prompt, full):
        case = result("dpsgd")["cases"][name]
        shares = [case["contenders"][x]["ratio_to_plain"] for x in ("privkt", "opacus hooks", "opacus ghost")]
        peaks = [_found(name, x, "peak_mib", "plain") for x in ("privkt", "opacus hooks", "opacus ghost")]
        row = [f"{share:.2f} ({peak:.2f})" for share, peak in zip(shares, peaks, strict=True)]
        rows.append([_shape(case["case"]), *row])
    return table(["time (memory) of a step / not private", "privkt", "Opacus, hooks", "Opacus, ghost"], rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "step-time": step_time,
    "step-memory": step_memory,
    "probes": probes,
    "goals": goals,
    "phases": phases,
    "head": head,
    "machine": machine,
    "summary": summary,
    **method_figures.BLOCKS,
    **token_figures.BLOCKS,
}


def main() -> None:
    for name in PAGES:
        page = ROOT / name
        before = page.read_text(encoding="utf-8")
        after = fresh(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(name)


if __name__ == "__main__":
    main()
