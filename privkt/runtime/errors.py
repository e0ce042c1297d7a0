"""How a run ends when it does not end well: what the command line turns into exit codes."""

from __future__ import annotations


class RunError(RuntimeError):
    """Something the runtime raises on purpose. Its message holds public names and numbers, never a row."""

    exit_code = 1


class WireError(RunError):
    """Bytes that are not a message, or a message that has no encoding; says which rule and where."""


class ReleaseRefused(RunError):
    """Something did not cross: the reviewer said no, a hook vetoed it, or the bytes on disk are not those charged.

    What was spent stays spent.
    """


class Damaged(RunError):
    """A file of the run directory is not what was written there."""


class RunFailed(RunError):
    """The run stopped half-way and can be resumed; the message ends with the command that does it."""
