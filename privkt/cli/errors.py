"""Exceptions to exit codes and one clear line. Tracebacks only with PRIVKT_DEBUG=1."""

from __future__ import annotations

import errno
import os
import traceback

from rich.markup import escape

from privkt.cli.output import err

REFUSED, FAILED, INTERRUPTED = 2, 1, 130


class Interrupted(Exception):
    """Ctrl-C during a run; says how to go on."""


def exit_code_of(error: BaseException) -> int:
    """Prints what went wrong and returns the exit code: 2 refused input, 1 failed while running, 130 stopped."""
    from privkt.contracts import BackendError
    from privkt.privacy import PrivacyError, RefusedInput
    from privkt.runtime.errors import RunError

    if os.environ.get("PRIVKT_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, Interrupted):
        err.print(f"\n[yellow]stopped:[/yellow] {escape(str(error))}")
        return INTERRUPTED
    if isinstance(error, RefusedInput):
        err.print(f"[red]refused:[/red] {escape(str(error))}")
        return REFUSED
    if isinstance(error, (BackendError, PrivacyError, RunError)):
        err.print(f"[red]failed:[/red] {escape(str(error))}")
        return FAILED
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        err.print(
            "[red]failed:[/red] the disk is full; make room, then say it again (a run: `privkt run --resume DIR`)"
        )
        return FAILED
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        err.print(
            "[red]failed:[/red] out of memory; a smaller microbatch_size needs less, then `privkt run --resume DIR`"
        )
        return FAILED
    # The text of an unknown exception may quote a record: only its kind and place are shown.
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" at {os.path.basename(place[0].filename)}:{place[0].lineno}" if place else ""
    err.print(
        f"[red]failed:[/red] an unexpected {type(error).__name__}{where}; its text may hold private data and is not "
        "shown. PRIVKT_DEBUG=1 shows it; please report it. `privkt run --resume DIR` goes on where it stopped"
    )
    return FAILED
