"""What the benchmarks share: who steps when, what is counted, and files that several processes fill."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import measuring

    return measuring


def test_each_round_begins_with_another_and_the_first_does_not_count(measuring: Any) -> None:
    order: list[str] = []

    def step(name: str) -> Any:
        return lambda: order.append(name) or float(len(order))

    times = measuring.take_turns({name: step(name) for name in "abc"}, 3)
    assert "".join(order) == "abc" + "bca" + "cab" + "abc"
    assert times == {"a": [6.0, 8.0, 10.0], "b": [4.0, 9.0, 11.0], "c": [5.0, 7.0, 12.0]}


def test_whoever_fails_takes_no_further_part(measuring: Any) -> None:
    answers = iter([1.0, None])
    times = measuring.take_turns({"a": lambda: 2.0, "b": lambda: next(answers)}, 4)
    assert times == {"a": [2.0] * 4}


def test_medians_quartiles_and_ratios_within_rounds(measuring: Any) -> None:
    assert measuring.spread([0.001, 0.002, 0.003, 0.004, 0.009]) == {
        "median_ms": 3.0,
        "quartiles_ms": [2.0, 4.0],
        "rounds": 5,
    }
    # The third round was five times slower for both: the ratio does not see it.
    assert measuring.median_ratio([2.0, 2.0, 10.0], [1.0, 1.0, 5.0]) == 2.0


def test_waiting_does_not_count_with_one_thread(measuring: Any) -> None:
    assert measuring.clock_of("cuda", 1) == "cuda events"
    assert measuring.clock_of("cpu", 2) == "perf_counter"
    step = measuring.timed(lambda: time.sleep(0.2), measuring.clock_of("cpu", 1))
    assert step() < 0.1


def test_a_gpus_clock_is_its_own_from_idle_to_idle(measuring: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: what is asked of torch, in which order."""
    done: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            done.append("event")

        def elapsed_time(self, end: Any) -> float:
            return 250.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("wait"))
    step = measuring.timed(lambda: done.append("step"), measuring.clock_of("cuda:0", 1))
    assert step() == 0.25
    assert done == ["wait", "event", "step", "event", "wait"]


def test_two_processes_fill_one_file(measuring: Any, tmp_path: Path) -> None:
    """Each knows only its own case; neither takes the other's away."""
    file = tmp_path / "result.json"
    order = ["one", "two"]
    measuring.add_case(file, {"machine": {}, "cases": {"two": {"n": 2}}}, "two", order)
    measuring.add_case(file, {"machine": {}, "cases": {"one": {"n": 1}}}, "one", order)
    cases = json.loads(file.read_text())["cases"]
    assert cases == {"one": {"n": 1}, "two": {"n": 2}}
    assert list(cases) == order
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_the_machine_is_described_without_its_name(measuring: Any) -> None:
    machine = measuring.describe("cpu", 3, ("torch", "no-such-package"))
    assert machine["threads"] == 3
    assert machine["no-such-package"] is None
    assert machine["cpu"]
    assert "/" not in "".join(map(str, machine.values()))
    assert measuring.slug({"gpu": None, "cpu": "AMD EPYC", "cores": 2}) == "amd-epyc-2-cores"
    assert measuring.slug({"gpu": "NVIDIA H200", "cpu": "any", "cores": 2}) == "nvidia-h200"


def test_sources_have_one_digest_in_whatever_order_they_are_found(measuring: Any, tmp_path: Path) -> None:
    from measuring.machine import _digest

    files = [tmp_path / "a" / "noise.py", tmp_path / "b" / "noise.py"]
    for number, file in enumerate(files):
        file.parent.mkdir()
        file.write_text(str(number))
    before = _digest(files)
    assert _digest(reversed(files)) == before
    files[1].write_text("other")
    assert _digest(files) != before


def test_reasons_name_no_path(measuring: Any) -> None:
    assert measuring.reason(OSError("cannot open '/home/somebody/x' now\nmore")) == "OSError: cannot open <path> now"
    assert measuring.reason(ImportError("no DOUBLE (/home/somebody/x.so)")) == "ImportError: no DOUBLE <path>"
    assert measuring.reason(ValueError()) == "ValueError"


def test_what_a_step_held_is_its_own_and_not_an_earlier_ones(measuring: Any) -> None:
    from measuring.studies import peak_mib

    held = bytearray(200 << 20)
    high = peak_mib(afresh=True)
    del held
    peak_mib(afresh=True)
    assert peak_mib() < high - 150


def test_a_log_tells_which_step_has_ended(measuring: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from measuring.studies import Log

    ended: list[str] = []
    steps = Log(ended.append).task("post: steps", 3, "steps")
    steps.advance(1, note="a: Tuning")
    Log(ended.append).task("labelling", 3, "rows").advance(1, note="one")
    assert ended == ["a: Tuning"]
    assert "post: steps 1/3 steps a: Tuning" in capsys.readouterr().out
