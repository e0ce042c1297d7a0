"""Command line: which cases, on what, and where the result goes.

python benchmarks/dpsgd [--cases A,B | --all | --quick] [--device cuda] [--threads N] [--rounds N] [--out FILE]

Cases that the result file already has are not measured again, so an interrupted run goes on where it stopped, and
several processes with different `--cases`, each on a core of its own, can fill one file.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import measuring

from . import plot, table
from .cases import CASES, QUICK, Case
from .contenders import CONTENDERS
from .rounds import measure

RESULTS = Path(__file__).parents[1] / "results"
PACKAGES = ("torch", "transformers", "peft", "opacus", "fastDP", "opake")


def main() -> None:
    """Measures, prints, and writes after each case."""
    options = _options()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    cases = _chosen(options)
    described = measuring.describe(options.device, options.threads, PACKAGES)
    settings = {
        "device": options.device,
        "clock": measuring.clock_of(options.device, options.threads),
        "rounds": options.rounds,
        "optimizer": "AdamW",
        "contenders": options.contenders,
    }
    out = options.out
    if out is None and not options.quick:
        out = RESULTS / f"dpsgd-{measuring.slug(described)}.json"
    result = _begin(out, options.fresh, {"machine": described, "settings": settings, "cases": {}})
    for case in cases:
        if result["cases"].get(case.name, {}).get("case") != case.to_json():
            result["cases"][case.name] = measure(
                case,
                device=options.device,
                threads=options.threads,
                rounds=options.rounds,
                only=options.contenders,
            )
            if out is not None:
                measuring.add_case(out, result, case.name, [case.name for case in QUICK + CASES])
        print("\n".join(table.lines(case.name, result["cases"][case.name])), flush=True)
    if out is not None:
        plot.draw(result, out.with_suffix(".png"))
        print(f"{out} and {out.with_suffix('.png').name}")


def _options() -> argparse.Namespace:
    parser = measuring.options(__doc__, rounds=7)
    parser.add_argument("--cases", help=f"names, separated by commas, of: {', '.join(case.name for case in CASES)}")
    parser.add_argument("--all", action="store_true", help="every case, not only the default ones")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="who takes part (all)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--fresh", action="store_true", help="measure again what the result file already has")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 2
    if options.rounds < 2:
        parser.error(f"--rounds: a spread needs at least 2, got {options.rounds}; leave it out for 7")
    options.contenders = _names(parser, "contenders", options.contenders, set(CONTENDERS))
    if options.cases:
        known = {case.name for case in (QUICK if options.quick else CASES)}
        options.cases = _names(parser, "cases", options.cases, known)
    return options


def _names(parser: argparse.ArgumentParser, option: str, given: str, known: set[str]) -> list[str]:
    names = given.split(",")
    unknown = sorted(set(names) - known)
    if unknown:
        parser.error(f"--{option}: names must be among {', '.join(sorted(known))}, got {', '.join(unknown)}")
    return names


def _chosen(options: argparse.Namespace) -> list[Case]:
    cases = QUICK if options.quick else CASES
    if options.cases:
        return [case for name in options.cases for case in cases if case.name == name]
    return [case for case in cases if case.default or options.all]


def _begin(out: Path | None, fresh: bool, empty: dict[str, Any]) -> dict[str, Any]:
    """What the file has, if it was measured in the same way.

    Raises: SystemExit, if it was measured on another machine, another privkt or with other settings.
    """
    if out is None or fresh or not out.exists():
        return empty
    before: dict[str, Any] = json.loads(out.read_text())
    for part in ("machine", "settings"):
        other = [name for name, value in empty[part].items() if before[part].get(name) != value]
        if other:
            raise SystemExit(
                f"{out.name}: results go into one file if all were measured alike, got another {', '.join(other)}; "
                "name another file with --out, or give --fresh to measure all of it again"
            )
    return before
