"""The benchmark of token mechanisms runs without peers, says who is missing, and its probes find wrong laws."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BASE, STREAMING = "torch: cdist, softmax, multinomial", "privkt: vectors, streaming"


@pytest.fixture(autouse=True)
def _package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_the_benchmark_runs_without_peers_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, str(BENCHMARKS / "exponential"), "--quick", "--out", str(out)]
    command += ["--contenders", f"{BASE};{STREAMING};privkt: ids, list of neighbours"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    result = json.loads(out.read_text())
    (case,) = result["cases"].values()
    asked = {name: found for name, found in case["contenders"].items() if found.get("absent") != "not asked for"}
    assert len(asked) == 3
    for found in asked.values():
        assert found["microseconds_a_token"] > 0
        assert found["rounds"] == 2
        assert found["setup_seconds"] >= 0
        assert found["guarantee"]
    assert case["contenders"][BASE]["times_faster"] == 1
    assert 0 < case["certificates"]["eps_exact"] < case["certificates"]["eps_range"] <= 10
    for name in asked:
        probes = result["probes"][name]
        assert probes["law"]["holds"], name
        assert probes["tail"]["holds"], name
    before = out.read_bytes()
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    assert out.read_bytes() == before


def test_whoever_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from exponential.cases import CASES, QUICK
    from exponential.contenders import CONTENDERS
    from exponential.rounds import _absent
    from exponential.table import lines

    monkeypatch.setattr(CONTENDERS["opendp: noisy max"], "package", "no_such_library")
    found = _absent(QUICK[0], list(CONTENDERS))
    assert found["opendp: noisy max"] == {"absent": "no_such_library is not installed"}
    assert BASE not in found
    assert _absent(CASES[0], list(CONTENDERS))["SanText: table of V x V"] == {"absent": "its table takes 19 GiB"}
    assert _absent(QUICK[0], [])[BASE] == {"absent": "not asked for"}
    case = {"case": QUICK[0].to_json(), "seconds": 0, "contenders": found}
    assert any("no_such_library is not installed" in line for line in lines("x", case))


def test_the_exact_laws_are_those_of_all_outcomes() -> None:
    from exponential.probe import exact_law, tail_share

    weights = [1.0, 0.5, 0.2, 0.2]
    assert exact_law(weights, "exponential") == pytest.approx([w / 1.9 for w in weights])
    expected = []
    for place, weight in enumerate(weights):
        others = [w for other, w in enumerate(weights) if other != place]
        kept = (c for size in range(4) for c in combinations(range(3), size))
        share = sum(math.prod(o if i in c else 1 - o for i, o in enumerate(others)) / (1 + len(c)) for c in kept)
        expected.append(weight * share)
    assert exact_law(weights, "permute-and-flip") == pytest.approx(expected, rel=1e-12)
    assert sum(expected) == pytest.approx(1)
    for law in ("exponential", "permute-and-flip"):
        weights = [1.0, *[math.exp(-3.0)] * 6]
        assert tail_share(3.0, 6, law) == pytest.approx(1 - exact_law(weights, law)[0], rel=1e-9)


def _planted(choose: Any) -> Any:
    """A contender that chooses so."""
    from exponential.contenders.torch_gumbel import Gumbel

    return type("Planted", (Gumbel,), {"chooser": classmethod(lambda cls, u, e: choose(u, e)), "tail_choices": 3000})


def _noisy(utilities: Any, epsilon: float, uniform: Any) -> Any:
    scores = np.asarray(utilities) * epsilon / 2

    def choose(number: int) -> Any:
        return np.array([int((scores - np.log(-np.log(uniform(len(scores))))).argmax()) for _ in range(number)])

    return choose


def test_the_tail_finds_noise_of_too_few_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As 24 bits at 2^18 candidates and a gap of 18; here 12 bits at 2^10, which take a moment."""
    from exponential import probe

    source = np.random.default_rng(0)

    def coarse(n: int) -> Any:
        return (source.integers(0, 1 << 12, n) + 0.5) / (1 << 12)

    found = {}
    for name, uniform in (("coarse", coarse), ("fine", source.random)):
        kind = _planted(lambda u, e, uniform=uniform: _noisy(u, e, uniform))
        kind.tails = 1 << 10
        found[name] = probe.probe_tail(kind)
    assert not found["coarse"]["holds"]
    assert found["coarse"]["hits"] < 5
    assert found["fine"]["holds"]
    assert found["fine"]["gap"] == pytest.approx(math.log(3000 * 2**10 / 30), abs=0.02)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_utilities_find_another_epsilon(share: float) -> None:
    from exponential import probe

    source = np.random.default_rng(1)
    kind = _planted(lambda u, e: _noisy(u, e * share, source.random))
    assert probe.probe_law(kind, Path())["holds"] == (share == 1.0)


def test_a_table_finds_a_word_that_comes_out_as_it_is(tmp_path: Path) -> None:
    """Planted in the manner of a mechanism that answers with the word itself where it should draw from far ones."""
    from exponential import probe
    from exponential.contenders.santext_table import SanTextTable

    class TellsTheWord(SanTextTable):
        def draw(self, ids: torch.Tensor) -> list[int]:
            return [word if self.chances[0, word] > 0.02 else 0 for word in super().draw(ids)]

    assert probe.probe_law(SanTextTable, tmp_path)["holds"]
    assert not probe.probe_law(TellsTheWord, tmp_path)["holds"]
