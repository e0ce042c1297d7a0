"""The command line. Every command is a thin face of a Python call; torch is imported inside commands only."""

import os


def main() -> None:
    """Entry point of the `privkt` script."""
    # Threads of torch's OpenMP that spin while they wait slow every other process on the machine, and themselves, by an
    # order of magnitude as soon as there are more of them than idle cores. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from privkt.cli.app import run

    run()
