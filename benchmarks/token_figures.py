"""Blocks of docs/costs.md about drawing words: goals, time, memory and set-up, probes, and what it was measured on."""

from __future__ import annotations

from collections.abc import Iterator

from pages import Result, result, table

STREAMING, AVX2 = "privkt: vectors, streaming", "privkt: vectors, streaming, AVX2 alone"
LISTED, BASE = "privkt: ids, list of neighbours", "torch: cdist, softmax, multinomial"
_WIDE = "V 50k, width 768"


def _cases() -> Iterator[tuple[str, Result]]:
    return ((name, case) for name, case in result("exponential")["cases"].items() if "absent" not in case)


def _why(found: Result) -> str:
    """Why there is no number, in a word or two."""
    reason = str(found.get("failed", found.get("absent", "")))
    return reason.split(":")[0] if "failed" in found else reason


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def word_goals() -> str:
    """What was to be reached, what was found in each case, and whether it was."""
    rows = []
    for name, case in _cases():
        found = case["contenders"]
        amx = result("exponential")["machine"].get("token_isa") == "amx"
        least = [
            (LISTED, 4000.0, "ids, list of neighbours, times faster"),
            (STREAMING, 60.0 if amx else 15.0, f"vectors, times faster{' (AMX)' if amx else ''}"),
            (AVX2, 15.0, "vectors, AVX2 alone, times faster"),
        ]
        for contender, goal, what in least:
            if "times_faster" in found[contender]:
                factor = found[contender]["times_faster"]
                met = "met" if factor >= goal else "not met"
                rows.append([name, what, f">= {_number(goal)}", _number(factor), met])
        peaks = [found[contender].get("peak_mib") for contender in (BASE, STREAMING)]
        if peaks[0] and peaks[1] is not None:
            # resident memory comes in pages: what is less than one of them is said to be one
            share = peaks[0] / max(peaks[1], 2**-8)
            met = "met" if share >= 300 else "not met"
            rows.append([name, "vectors, memory of the draws / first contender", "<= 1/300", f"1/{share:.0f}", met])
        if name == _WIDE and "index_seconds" in case.get("certificates", {}):
            seconds = sum(case["certificates"][part] for part in ("index_seconds", "certificate_seconds"))
            met = "met" if seconds < 5 else "not met"
            rows.append([name, "list of neighbours and certificate, a thread", "< 5 s", f"{seconds:.1f} s", met])
            cores, seconds = (case["certificates"][part] for part in ("all_cores", "all_cores_seconds"))
            met = "met" if seconds < 5 else "not met"
            rows.append([name, f"the same on {cores} cores, by the clock", "< 5 s", f"{seconds:.1f} s", met])
    return table(["", "what", "goal", "found", ""], rows)


def word_time() -> str:
    """Microseconds a token, and how many times faster than the first, of every contender."""
    cases = list(_cases())
    rows = []
    for name in result("exponential")["probes"]:
        row = [name]
        for _, case in cases:
            found = case["contenders"][name]
            timed = "microseconds_a_token" in found
            row.append(
                f"{_number(found['microseconds_a_token'])} ({_number(found['times_faster'])}x, {found['tokens']})"
                if timed
                else _why(found)
            )
        rows.append(row)
    return table(["us a token (times faster, tokens a step)", *(name for name, _ in cases)], rows)


def word_memory() -> str:
    """Memory of the draws, and time and memory of the set-up, in the first case that was measured."""
    name, case = next(iter(_cases()))
    rows = []
    for contender, found in case["contenders"].items():
        if "setup_seconds" in found and found.get("peak_mib") is not None:
            cells = [f"{found['peak_mib']:.1f} MiB", f"{found['setup_seconds']:.1f} s", f"{found['setup_mib']:.0f} MiB"]
            rows.append([contender, *cells])
    return table([name, "draws", "set-up", "peak of the set-up"], rows)


def word_probes() -> str:
    """What is promised, and what the probes found."""
    found = result("exponential")
    promised = {name: one["guarantee"] for _, case in _cases() for name, one in case["contenders"].items()}
    rows = []
    for name, probe in found["probes"].items():
        if "law" not in probe:
            rows.append([name, promised[name], _why(probe), ""])
            continue
        law, tail = probe["law"], probe["tail"]
        first = f"p = {law['p']:.2g}" if "p" in law else _why(law)
        second = _why(tail)
        if "hits" in tail:
            second = f"{tail['hits']} at a gap of {tail['gap']:.1f}"
        marked = [
            f"**{text}**" if part.get("holds") is False else text for text, part in ((first, law), (second, tail))
        ]
        rows.append([name, promised[name], *marked])
    return table(["", "what is promised", "law", "tail (30 expected)"], rows)


def word_machine() -> str:
    """What the draws were measured on, in a sentence."""
    found = result("exponential")
    about, rounds = found["machine"], found["settings"]["rounds"]
    loads = [load for _, case in _cases() for load in case["load"] if load is not None]
    named = {"torch": "torch", "mldp-text": "mldp-text", "pypantera": "pypantera", "opendp": "OpenDP"}
    named["diffprivlib"] = "diffprivlib"
    versions = ", ".join(f"{name} {about[package]}" for package, name in named.items() if about[package])
    bounds = {name: case["certificates"] for name, case in _cases() if "eps_exact" in case.get("certificates", {})}
    certified = "; ".join(
        f"{name}: {bound['eps_range']:.2f} for any vector, {bound['eps_exact']:.2f} for its words"
        for name, bound in bounds.items()
    )
    return (
        f"{about['cpu']}, {about['threads']} thread of {about['cores']} cores ({about['cpu_isa']}), {versions};\n"
        f"medians of {rounds} interleaved rounds, load average {min(loads):.1f} to {max(loads):.1f}.\n"
        f"Everybody claims an epsilon of 10 a token. privkt's certificates: {certified}."
    )


BLOCKS = {
    "word-goals": word_goals,
    "word-time": word_time,
    "word-memory": word_memory,
    "word-probes": word_probes,
    "word-machine": word_machine,
}
