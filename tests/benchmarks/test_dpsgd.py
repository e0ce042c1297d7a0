"""The benchmark of whole steps runs, goes on where it stopped, and its probe finds a step that does not clip."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_the_benchmark_runs(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, str(BENCHMARKS / "dpsgd"), "--quick", "--cases", "lora", "--threads", "1"]
    command += ["--contenders", "plain,privkt", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    result = json.loads(out.read_text())
    contenders = result["cases"]["lora"]["contenders"]
    for name in ("plain", "privkt"):
        assert contenders[name]["median_ms"] > 0
        assert contenders[name]["rounds"] == 2
        assert contenders[name]["peak_mib"] >= 0
    assert contenders["plain"]["ratio_to_plain"] == 1
    assert contenders["privkt"]["probe"]["moved"] < 1.001
    assert contenders["privkt"]["probe"]["error"] < 1e-3
    assert contenders["privkt"]["probe"]["untrained"] == 0
    assert contenders["opacus hooks"] == {"absent": "not asked for"}
    assert out.with_suffix(".png").stat().st_size > 10_000


def _probe(kind: Any) -> dict[str, Any]:
    from dpsgd.cases import QUICK
    from dpsgd.probe import probe, reference

    case = QUICK[0]
    return probe(kind, case, "cpu", reference(case))


def test_the_probe_finds_a_step_that_does_not_clip() -> None:
    from dpsgd.contenders.plain import Plain

    assert _probe(Plain)["moved"] > 1.5


def test_the_probe_finds_a_step_that_clips_the_mean() -> None:
    import torch
    from dpsgd.contenders.plain import Plain
    from dpsgd.models import Batch

    class OfTheMean(Plain):
        """Planted: the batch is clipped as if it were one record (Opacus' hooks with a soft prompt of PEFT)."""

        def step(self, batch: Batch) -> None:
            self.model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, self.setting.max_grad_norm)
            self.optimizer.step()

    assert _probe(OfTheMean)["moved"] > 1.1


@pytest.mark.parametrize(("method", "tied"), [("lora", False), ("full", False), ("full", True)])
def test_both_baselines_take_the_same_step(method: str, tied: bool) -> None:
    """But for soft prompts, where PEFT also counts the first token, which the prompt's end predicts."""
    import dataclasses

    import torch
    from dpsgd import models
    from dpsgd.cases import QUICK
    from dpsgd.contenders import CONTENDERS, Setting

    case = next(dataclasses.replace(case, tied=tied) for case in QUICK if case.method == method)
    moved = []
    for name in ("plain", "same head"):
        model = models.build(case, "cpu")
        made = CONTENDERS[name](Setting(case, "cpu", 1, lambda p: torch.optim.SGD(p, lr=1.0)), model)
        before = {name: weight.detach().clone() for name, weight in made.weights.items()}
        made.step(models.batch_of(case, "cpu"))
        moved.append(torch.cat([(weight - before[name]).flatten() for name, weight in made.weights.items()]))
    assert moved[0].norm() > 0
    assert (moved[0] - moved[1]).norm() < 1e-5 * moved[0].norm()


def test_a_result_goes_on_only_where_it_was_measured_alike(tmp_path: Path) -> None:
    from dpsgd.command import _begin

    out = tmp_path / "result.json"
    before = {"machine": {"cpu": "a", "threads": 2}, "settings": {"rounds": 7}, "cases": {"lora": {}}}
    empty: dict[str, Any] = {**before, "cases": {}}
    assert _begin(out, False, empty) == empty
    out.write_text(json.dumps(before))
    assert _begin(out, False, empty) == before
    assert _begin(out, True, empty) == empty
    with pytest.raises(SystemExit, match="got another threads; name another file with --out, or give --fresh"):
        _begin(out, False, {**empty, "machine": {"cpu": "a", "threads": 1}})


def test_the_cases_are_every_method_length_and_vocabulary() -> None:
    from dpsgd.cases import CASES

    assert len({case.name for case in CASES}) == len(CASES)
    lengths, words = (32, 128, 1024), (8192, 32000)
    every = {(case.method, case.length, case.words) for case in CASES if case.timed}
    assert every == set(itertools.product(("lora", "prompt", "full"), lengths, words))
    default = [case for case in CASES if case.default]
    timed = {(case.method, case.length, case.words) for case in default if case.timed}
    for method in ("lora", "prompt", "full"):
        needed = set(itertools.product(lengths, words if method == "lora" else words[:1])) | {(128, words[1])}
        assert {(length, count) for kind, length, count in timed if kind == method} == needed
    probed = {(case.method, case.tied) for case in default if case.probed >= 12}
    assert probed >= {("lora", False), ("prompt", False), ("full", False), ("full", True)}


def test_nobody_who_cannot_take_part_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Absent ones say what is not installed, failing ones what they raised: here about a device that no torch has."""
    from dpsgd import table
    from dpsgd.cases import QUICK
    from dpsgd.contenders import CONTENDERS
    from dpsgd.rounds import measure

    monkeypatch.setattr(CONTENDERS["opacus ghost"], "package", "no_such_library")
    case = next(case for case in QUICK if not case.timed)
    only = ["plain", "opacus ghost", "privkt"]
    found = measure(case, device="nowhere", threads=1, rounds=2, only=only)
    contenders = found["contenders"]
    assert list(contenders) == list(CONTENDERS)
    assert contenders["opacus ghost"] == {"absent": "no_such_library is not installed"}
    assert contenders["plain"] == {"absent": "nothing to probe without privacy"}
    assert contenders["opake"] == {"absent": "not asked for"}
    assert contenders["privkt"]["probe"]["failed"].startswith("RuntimeError: Expected one of cpu")
    lines = "\n".join(table.lines(case.name, found))
    assert "opacus ghost        absent: no_such_library is not installed" in lines
    assert "probe failed: RuntimeError" in lines
    assert "opake" not in lines
    timed = measure(QUICK[0], device="nowhere", threads=1, rounds=2, only=["plain"])["contenders"]
    assert timed["plain"]["failed"].startswith("RuntimeError: Expected one of cpu")
