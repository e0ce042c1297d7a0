"""What the tests of synthesis share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # test modules import toy_tokens by name
