import asyncio
import contextlib
import contextvars
import copy
import math
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from privkt.privacy import (
    Guarantee,
    Kind,
    PrivateAccessLocked,
    Provenance,
    RefusedInput,
    Release,
    assert_private_access,
    private_access_locked,
    pure_event,
)


def release(payload):
    provenance = Provenance("mechanism:example", "1", "4f1d", {"k": [1, 2]})
    return Release(payload, Guarantee(Kind.PURE, 1.0), pure_event(1.0), provenance, "charge-1")


def test_map_changes_the_payload_and_nothing_else():
    first = release([3, 1, 2])
    second = first.map(lambda rows, by: sorted(rows, key=lambda row: row * by), public={"by": -1})
    assert second.payload == [3, 2, 1]
    assert first.payload == [3, 1, 2]
    for name in ("guarantee", "event", "provenance", "charge"):
        assert getattr(second, name) is getattr(first, name)


def test_private_data_cannot_be_read_while_mapping():
    def peek(rows):
        assert_private_access("dataset reviews")
        return rows

    with pytest.raises(PrivateAccessLocked, match="dataset reviews: post-processing of a release must not read"):
        release([1]).map(peek)
    assert peek([1]) == [1]  # and it is open again afterwards, also after an error


def test_the_lock_nests_and_reaches_tasks_and_copied_contexts():
    async def task():
        with pytest.raises(PrivateAccessLocked):
            assert_private_access("handle")

    async def main():
        with private_access_locked():
            await asyncio.create_task(task())

    asyncio.run(main())
    caught = []

    def in_thread():
        try:
            assert_private_access("handle")
        except PrivateAccessLocked:
            caught.append(True)

    with private_access_locked(), private_access_locked():
        thread = threading.Thread(target=contextvars.copy_context().run, args=(in_thread,))
        thread.start()
        thread.join()
    assert caught == [True]
    assert_private_access("handle")


def test_a_thread_that_fn_starts_is_locked_out_too():
    caught = []

    def peek():
        try:
            assert_private_access("handle")
        except PrivateAccessLocked:
            caught.append(True)

    def fn(rows):
        for _ in range(2):
            thread = threading.Thread(target=peek)
            thread.start()
            thread.join()
        with contextlib.suppress(ZeroDivisionError):
            release([1]).map(lambda rows: 1 / 0)
        with ThreadPoolExecutor(1) as pool:  # still locked after an inner block ended, with an error
            pool.submit(peek).result()
        return rows

    assert release([1]).map(fn).payload == [1]
    assert caught == [True] * 3
    peek()
    assert caught == [True] * 3


@pytest.mark.parametrize("lazy", [iter, lambda rows: (row for row in rows), lambda rows: map(str, rows)])
def test_a_payload_that_is_still_to_be_computed_is_refused(lazy):
    with pytest.raises(RefusedInput, match=r"fn must return a finished payload, .* return a list"):
        release([1]).map(lazy)


def test_an_awaitable_is_no_payload():
    async def later(rows):
        yield rows

    with pytest.raises(RefusedInput, match="got async_generator"):
        release([1]).map(later)


def test_provenance_keeps_plain_public_values():
    details = {"k": [1, 2]}
    provenance = Provenance("m", "1", "id", details)
    details["k"].append(3)
    assert provenance.to_json() == {"mechanism": "m", "version": "1", "data_set_id": "id", "details": {"k": [1, 2]}}
    with pytest.raises(TypeError):
        provenance.details["k"] = 1
    for bad in ({"x": object()}, {"x": math.nan}):
        with pytest.raises(RefusedInput, match="details must be plain JSON values"):
            Provenance("m", "1", "id", bad)


def test_a_release_survives_copy_and_pickle():
    first = release([1])
    for second in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert second == first
