"""The benchmarks of single kernels run, and say what they compared."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_benchmark_runs(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, str(BENCHMARKS / "clip_noise.py"), "--quick", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    result = json.loads(out.read_text())
    assert set(result["cases"]) == {"lora", "one tensor"}
    for case in result["cases"].values():
        assert {"clip and sum", "noise", "noise and AdamW", "whole phase"} == set(case["phases"])
        assert all(contender["median_ms"] > 0 for phase in case["phases"].values() for contender in phase.values())


def test_the_benchmark_of_products_runs(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, str(BENCHMARKS / "products.py"), "--quick", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    (case,) = json.loads(out.read_text())["cases"].values()
    assert {"ordinary GEMM", "clipped sum", "norms, gram", "norms, tiles"} <= set(case)
    assert all(contender["median_ms"] > 0 for contender in case.values())


def test_the_heads_benchmark_runs(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, str(BENCHMARKS / "head.py"), "--quick", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    (case,) = json.loads(out.read_text())["cases"].values()
    assert set(case["contenders"]) == {"whole, one sample at a time", "whole", "privkt"}
    assert all(contender["median_ms"] > 0 for contender in case["contenders"].values())
