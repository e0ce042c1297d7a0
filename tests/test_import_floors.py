"""What must be importable without torch is, in a fresh interpreter; and imports go down the floors only."""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIGHT = [
    "import privkt",
    "import privkt.privacy",
    "import privkt.contracts",
    "import privkt.config",
    "import privkt.plugins",
    "import privkt.cli",
    "import privkt.runtime",
    "from privkt.plugins import get_manager; get_manager().plugins()",
]
HEAVY = ("torch", "transformers", "datasets", "peft", "sklearn", "matplotlib", "sentence_transformers")


@pytest.mark.parametrize("statement", LIGHT)
def test_nothing_heavy_is_imported(statement, tmp_path):
    code = f"import json, sys; {statement}; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_every_built_in_plugin_is_listed_as_well(tmp_path):
    listing = "[print(p.identity, p.status, p.reason) for p in get_manager().plugins()]"
    code = f"from privkt.plugins import get_manager; {listing}"
    environ = {"PRIVKT_LOAD_PLUGINS": "", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    troubled = [line for line in done.stdout.splitlines() if line.startswith("privkt:") and " ok" not in line]
    assert troubled == []
    assert done.stdout.count("privkt:") >= 2


def test_imports_go_down_the_floors_only():
    linter = shutil.which("lint-imports", path=sysconfig.get_path("scripts"))
    if linter is None:
        pytest.skip("import-linter is not installed; it is part of the extra `dev`")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
