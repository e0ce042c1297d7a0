"""Committed results are readable and complete, and the documentation quotes them as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
BASELINES = ("plain", "same head")
OURS = ("privkt", "privkt checkpointed")


@pytest.fixture(autouse=True)
def _package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def steps() -> list[Path]:
    return sorted(RESULTS.glob("dpsgd-*.json"))


def spreads(found: Any) -> list[dict[str, Any]]:
    """Everything that has a median, wherever it stands."""
    if not isinstance(found, dict):
        return []
    return [found] if "median_ms" in found else [spread for part in found.values() for spread in spreads(part)]


@pytest.mark.parametrize("stem", ["dpsgd", "clip_noise", "exponential", "head", "products"])
def test_the_machine_is_described_without_its_name_and_rounds_are_enough(stem: str) -> None:
    files = sorted(RESULTS.glob(f"{stem}-*.json"))
    assert files
    for file in files:
        result = read(file)
        machine = result["machine"]
        assert {"cpu", "cores", "torch", "privkt", "cpu_isa", "compiler"} <= set(machine)
        assert "/" not in "".join(map(str, machine.values()))
        measured = spreads(result["cases"])
        assert measured
        for spread in measured:
            low, high = spread["quartiles_ms"]
            assert 0 < low <= spread["median_ms"] <= high
            assert spread.get("rounds", result.get("rounds", 0)) >= 7


@pytest.mark.parametrize("file", steps(), ids=lambda file: file.stem)
def test_every_case_has_every_contender_or_says_why_not(file: Path) -> None:
    from dpsgd.cases import CASES
    from dpsgd.contenders import CONTENDERS

    cases = read(file)["cases"]
    for case in (case for case in CASES if case.default):
        found = cases[case.name]
        assert found["case"] == case.to_json()
        assert list(found["contenders"]) == list(CONTENDERS)
        assert len(found["load"]) == 2
        for name, numbers in found["contenders"].items():
            if not case.timed and name in BASELINES:
                continue
            assert "absent" not in numbers, f"{case.name}: {name} was not installed"
            if "failed" in numbers:
                assert numbers["failed"].split(":")[0].isidentifier() or numbers["failed"].startswith("no answer")
                continue
            assert not case.timed or {"median_ms", "ratio_to_plain", "ratio_to_same_head", "peak_mib"} <= set(numbers)
            assert not case.probed or name in BASELINES or numbers["probe"]


@pytest.mark.parametrize("file", steps(), ids=lambda file: file.stem)
def test_privkt_neither_fails_nor_moves_more_than_its_clipping_norm(file: Path) -> None:
    probed = 0
    for name, case in read(file)["cases"].items():
        for contender in OURS:
            found = case["contenders"][contender]
            assert "failed" not in found, name
            if "probe" in found:
                probed += 1
                assert found["probe"]["moved"] < 1.001, name
                assert found["probe"]["error"] < 1e-3, name
                assert found["probe"]["untrained"] == 0, name
    assert probed >= 2


@pytest.mark.parametrize("file", steps(), ids=lambda file: file.stem)
def test_the_probes_see_the_failures_that_are_known_of_other_libraries(file: Path) -> None:
    cases = read(file)["cases"]
    assert cases["probe-prompt"]["contenders"]["opacus ghost"]["probe"]["moved"] > 6
    assert cases["probe-full-tied"]["contenders"]["fastdp"]["probe"]["moved"] > 1.2


@pytest.mark.parametrize("file", steps(), ids=lambda file: file.stem)
def test_the_picture_is_there(file: Path) -> None:
    picture = file.with_suffix(".png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000


def words() -> list[Path]:
    return sorted(RESULTS.glob("exponential-*.json"))


@pytest.mark.parametrize("file", words(), ids=lambda file: file.stem)
def test_every_table_has_every_contender_or_says_why_not(file: Path) -> None:
    from exponential.cases import CASES
    from exponential.contenders import BASE, CONTENDERS

    cases = read(file)["cases"]
    known = {case.name: case for case in CASES}
    assert "V 50k, width 768" in cases
    for name, found in cases.items():
        assert found["case"] == known[name].to_json()
        assert list(found["contenders"]) == list(CONTENDERS)
        assert found["contenders"][BASE]["times_faster"] == 1
        for contender, numbers in found["contenders"].items():
            assert numbers["guarantee"]
            assert "not installed" not in numbers.get("absent", ""), f"{name}: {contender} was not installed"
            measured = {"microseconds_a_token", "times_faster", "tokens", "peak_mib", "setup_seconds"} <= set(numbers)
            assert measured or "absent" in numbers or "failed" in numbers
            assert measured or not contender.startswith(("torch", "privkt")), f"{name}: {contender}"


@pytest.mark.parametrize("file", words(), ids=lambda file: file.stem)
def test_our_laws_hold_and_the_probes_see_what_is_known_of_others(file: Path) -> None:
    probes = read(file)["probes"]
    for name, found in probes.items():
        if name.startswith("privkt") and "absent" not in found["law"]:
            assert found["law"]["holds"], name
            assert "absent" in found["tail"] or found["tail"]["holds"], name
    assert not probes["pypantera: TEM"]["law"]["holds"]
    assert not probes["mldp-text: TEM"]["law"]["holds"]


def test_the_head_meets_its_target() -> None:
    for file in RESULTS.glob("head-*.json"):
        ours = read(file)["cases"]["V 32k, all tokens"]["contenders"]["privkt"]
        assert ours["ratio"] < 0.8
        assert ours["memory_ratio"] <= 0.3


def pages() -> tuple[str, ...]:
    methods = tuple(f"docs/methods/{name}.md" for name in ("fdkt", "fedcot", "post", "knowledgesg"))
    return "README.md", "docs/costs.md", *methods


@pytest.mark.parametrize("page", pages())
def test_pages_quote_the_results_as_they_are(page: str) -> None:
    """`python benchmarks/figures.py` writes them anew."""
    import figures

    text = (ROOT / page).read_text(encoding="utf-8")
    assert figures.fresh(text) == text
    # A figure typed by hand would be found.
    for block in figures._BLOCK.finditer(text):
        digit = next(place for place in range(block.start(3), block.end(3)) if text[place].isdigit())
        other = "7" if text[digit] != "7" else "8"
        assert figures.fresh(text[:digit] + other + text[digit + 1 :]) == text


def test_every_block_is_quoted_somewhere() -> None:
    import figures

    assert pages() == figures.PAGES
    quoted = [
        name for page in pages() for _, name, *_ in figures._BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    ]
    assert sorted(quoted) == sorted(figures.BLOCKS)
