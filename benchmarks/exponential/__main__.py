"""`python benchmarks/exponential`: makes this folder a package, whatever else has its name, and runs the command."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from exponential.command import main  # noqa: E402

if __name__ == "__main__":
    main()
