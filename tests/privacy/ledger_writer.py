"""Processes that charge one ledger and write each charge's id to stdout once `charge` has returned.

`fill STATE CAP TIMES WRITERS` lets writers finish; `kill STATE ROUNDS` kills two at a time at random moments. Writers
are forked from this process, so that only it pays for the imports.
"""

import contextlib
import os
import random
import signal
import sys
import time
import traceback

import dp_accounting  # noqa: F401  (before the first fork)

from privkt.privacy import BudgetExceeded, Guarantee, Kind, Ledger, pure_event

AMOUNT = 0.25


def write(state: str, cap: float, times: int, name: str) -> None:
    ledger = Ledger.open_or_create("shared", cap_epsilon=cap, cap_delta=0.0, size=10, state=state)
    event, guarantee = pure_event(AMOUNT), Guarantee(Kind.PURE, AMOUNT)
    for number in range(times):
        shared = number == 0  # every process asks for the same first charge, and all must get one
        run = "shared" if shared else f"{name}-{number}"
        said = "refused"
        with contextlib.suppress(BudgetExceeded):
            said = ledger.charge(
                event, guarantee, run_id=run, purpose="p", fingerprint="f", declared={}, resume=shared
            ).id
        os.write(1, f"{name} {said}\n".encode())


def forked(state: str, cap: float, times: int, name: str) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        write(state, cap, times, name)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def main() -> int:
    if sys.argv[1] == "fill":
        _, _, state, cap, times, writers = sys.argv
        children = [forked(state, float(cap), int(times), f"w{number}") for number in range(int(writers))]
        return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    _, _, state, rounds = sys.argv
    rng = random.Random(20)
    began = time.monotonic()
    os.waitpid(forked(state, 1e6, 10, "first"), 0)
    reach = time.monotonic() - began  # a busy machine gets more time, so that writers are killed at work
    for attempt in range(int(rounds)):
        children = [forked(state, 1e6, 100_000, f"k{attempt}-{number}") for number in range(2)]
        for child in children:
            time.sleep(rng.uniform(0, reach))
            os.kill(child, signal.SIGKILL)
            if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL:
                return 1  # it ended by itself: the ledger refused or broke
    return 0


if __name__ == "__main__":
    sys.exit(main())
