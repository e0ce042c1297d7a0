"""The command line. Every command is a thin face of a Python call; torch is imported inside commands only."""


def main() -> None:
    """Entry point of the `privkt` script."""
    from privkt.cli.app import run

    run()
