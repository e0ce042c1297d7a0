"""Work is covered once, errors come out, forks and nested calls do not hang, and no kernel's bits depend on threads."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privkt.kernels import clip_and_sum, clipped_sum, gaussian_noise, noisy_sum, row_sqnorms, threads
from privkt.kernels.threads import parallel


@pytest.fixture
def use_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(total=st.integers(0, 70), grain=st.integers(1, 80), count=st.integers(1, 7))
def test_every_item_is_covered_once_in_ranges_of_the_grain(use_threads, total: int, grain: int, count: int) -> None:
    use_threads(count)
    ranges: list[tuple[int, int]] = []
    parallel(total, lambda start, stop: ranges.append((start, stop)), grain)
    assert sorted(i for start, stop in ranges for i in range(start, stop)) == list(range(total))
    assert len(ranges) <= count
    assert all(stop % grain == 0 or stop == total for _, stop in ranges)


def test_ranges_run_at_the_same_time(use_threads) -> None:
    use_threads(3)
    meeting = threading.Barrier(3, timeout=30)
    parallel(3, lambda start, stop: meeting.wait() and None, 1)


def test_threads_stay_between_calls(use_threads, monkeypatch: pytest.MonkeyPatch) -> None:
    use_threads(2)
    monkeypatch.setattr(threads, "_workers", threads._Workers())
    seen: list[set[int]] = []
    for _ in range(3):
        meeting, names = threading.Barrier(2, timeout=30), set()

        def note(start: int, stop: int, meeting=meeting, names=names) -> None:
            meeting.wait()
            names.add(threading.get_ident())

        parallel(2, note, 1)
        seen.append(names)
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("bad", [0, 1, 3])
def test_an_error_of_any_range_is_raised_after_all_have_ended(use_threads, bad: int) -> None:
    use_threads(4)
    ended: list[int] = []

    def work(start: int, stop: int) -> None:
        if start == bad:
            raise LookupError(f"range {start}")
        time.sleep(0.05)
        ended.append(start)

    with pytest.raises(LookupError, match=f"range {bad}"):
        parallel(4, work, 1)
    assert sorted(ended) == [i for i in range(4) if i != bad]
    parallel(4, lambda start, stop: None, 1)


def test_a_call_inside_a_range_runs_there(use_threads) -> None:
    use_threads(2)
    outer: dict[int, int] = {}
    inner: list[tuple[int, int, int]] = []

    def work(start: int, stop: int) -> None:
        outer[start] = threading.get_ident()
        parallel(5, lambda a, b: inner.append((threading.get_ident(), a, b)), 1)

    parallel(2, work, 1)
    assert sorted(inner) == sorted((ident, 0, 5) for ident in outer.values())


def test_calls_from_several_threads_do_not_block_one_another(use_threads) -> None:
    use_threads(3)
    done = [0] * 60

    def add(start: int, stop: int) -> None:
        for i in range(start, stop):
            done[i] += 1

    callers = [
        threading.Thread(target=lambda k=k: [parallel(10, lambda a, b: add(10 * k + a, 10 * k + b), 1) for _ in "ab"])
        for k in range(6)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert done == [2] * 60


@pytest.mark.parametrize("interrupted", [0, 1], ids=["while it works", "while it waits"])
def test_an_interrupt_waits_for_the_ranges(use_threads, interrupted: int) -> None:
    use_threads(2)
    ended: list[int] = []

    def work(start: int, stop: int) -> None:
        if start == 1:
            time.sleep(0.1)
        if start == interrupted:
            os.kill(os.getpid(), signal.SIGINT)
        if start == 1:
            time.sleep(0.2)
            ended.append(start)

    with pytest.raises(KeyboardInterrupt):
        parallel(2, work, 1)
    assert ended == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own(use_threads) -> None:
    use_threads(2)
    parallel(2, lambda start, stop: None, 1)
    with threads._workers.lock:  # held at the fork, released by nobody in the child
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            covered: list[int] = []
            parallel(4, lambda start, stop: covered.extend(range(start, stop)), 1)
            os._exit(0 if sorted(covered) == [0, 1, 2, 3] else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_kernels_give_the_same_bits_on_any_number_of_threads(use_threads) -> None:
    source = torch.Generator().manual_seed(0)
    rows = torch.randn(33, 20_011, generator=source)
    factors = torch.rand(33, generator=source)

    def results() -> list[torch.Tensor]:
        total = torch.zeros(20_011, dtype=torch.float64)
        clip_and_sum(rows, 1.0, out=total)
        noise = gaussian_noise(torch.empty(100_003), 0.7, bytes(32), 3, 5)
        return [total, row_sqnorms(rows), clipped_sum(rows, factors), noise, noisy_sum(total, 0.5, bytes(32), 1)]

    use_threads(1)
    alone = results()
    for count in (2, 5):
        use_threads(count)
        assert all(torch.equal(a, b) for a, b in zip(results(), alone, strict=True))


@pytest.mark.parametrize(("total", "grain"), [(-1, 1), (3, 0)])
def test_impossible_ranges_are_refused(total: int, grain: int) -> None:
    with pytest.raises(ValueError) as caught:
        parallel(total, lambda start, stop: None, grain)
    assert str(caught.value) == (
        f"parallel: total must not be negative and grain at least 1, got {total} and {grain}; "
        "pass the number of items and the least number worth a thread"
    )
