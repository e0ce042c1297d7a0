"""The example distribution, really installed: listed, run through the suites, and broken on purpose in copies.

One virtual environment serves the whole module. It sees the packages of the environment that runs the tests through a
.pth file that adds their folders as site folders, so that an editable privkt and its entry points are found too.
"""

import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "plugins" / "privkt-example"

LISTING = """
import json, sys
from privkt.plugins import get_manager
manager = get_manager()
print(json.dumps({
    "plugins": {p.identity: [p.status, p.reason, [v.shown_name for v in p.provides]] for p in manager.plugins()},
    "warnings": manager.warnings,
    "torch": "torch" in sys.modules,
}))
"""


class Environment:
    """A virtual environment above the running one."""

    def __init__(self, folder):
        venv.create(folder, with_pip=False, symlinks=os.name != "nt")
        scripts = "Scripts" if os.name == "nt" else "bin"
        self.folder, self.python = folder, str(folder / scripts / "python")
        paths = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()])
        own = self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in paths)
        Path(own, "parent.pth").write_text(lines, encoding="utf-8")

    def run(self, *arguments, **environ):
        clean = {
            k: v for k, v in os.environ.items() if not k.startswith(("PRIVKT_LOAD", "PRIVKT_DISABLE", "PYTHONPATH"))
        }
        done = subprocess.run(
            [self.python, *arguments],
            cwd=self.folder,
            env={**clean, **environ},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def install(self, *folders):
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet", "--no-deps"]
        flags = ["--no-build-isolation", "--disable-pip-version-check", "--no-index"]
        done = subprocess.run([*pip, *flags, *map(str, folders)], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr

    def listing(self, **environ):
        return json.loads(self.run("-c", LISTING, **environ))


PLAIN = "from privkt.plugins import DatasetSpec, hookimpl\n\n\n@hookimpl\ndef privkt_datasets():\n    "
BREAKAGES = {
    "privkt-bad-import": "import a_module_that_nobody_has\n",
    "privkt-bad-signature": PLAIN.replace("()", "(path)") + "return []\n",
    "privkt-bad-hook": PLAIN + "raise RuntimeError('on purpose')\n",
    "privkt-newer-hook": PLAIN
    + "return [DatasetSpec('tomorrow', 'collections:Counter')]\n\n\n"
    + "@hookimpl\ndef privkt_telemetry(event):\n    pass\n",
    "privkt-same-name": PLAIN + "return [DatasetSpec(n, 'collections:Counter') for n in ('lines', 'json')]\n",
}


def broken_copy(folder, name, plugin):
    """The example under another distribution and package name, its plugin module replaced; the entry keeps its name."""
    package = name.replace("-", "_")
    copied = folder / name
    shutil.copytree(EXAMPLE, copied, ignore=shutil.ignore_patterns("build", "*.egg-info", "tests", "__pycache__"))
    (copied / "privkt_example").rename(copied / package)
    for file in [copied / "pyproject.toml", *(copied / package).glob("*.py")]:
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("privkt_example", package).replace("privkt-example", name), encoding="utf-8")
    (copied / package / "plugin.py").write_text(plugin, encoding="utf-8")
    return copied


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugins")
    good = shutil.copytree(
        EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    )
    made = Environment(folder / "venv")
    copies = [broken_copy(folder, name, plugin) for name, plugin in BREAKAGES.items()]
    made.install(good, *copies)
    return made


GOOD_ALONE = {"PRIVKT_LOAD_PLUGINS": "privkt-example:example"}


def test_the_example_is_listed_without_torch_beside_the_built_ins(environment):
    listing = environment.listing(**GOOD_ALONE)
    assert listing["plugins"]["privkt-example:example"] == [
        "ok",
        "",
        ["coin", "dice", "label-tally", "bigram", "lines"],
    ]
    assert listing["plugins"]["privkt:datasets"][0] == "ok"
    assert listing["torch"] is False


def test_the_example_passes_the_suites(environment):
    tests = environment.folder.parent / "source" / "tests"
    flags = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", f"--rootdir={tests}", "-c", os.devnull]
    out = environment.run("-m", "pytest", *flags, str(tests), **GOOD_ALONE)
    assert " passed" in out
    assert "failed" not in out


def test_the_good_one_works_beside_all_the_broken_ones(environment):
    plugins = environment.listing()["plugins"]
    assert plugins["privkt-example:example"][0] == "ok"
    assert plugins["privkt:datasets"][0] == "ok"
    assert {f"{name}:example" for name in BREAKAGES} <= set(plugins)  # equal entry names are all seen


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        (
            "privkt-bad-import",
            "broken",
            "import failed: ModuleNotFoundError: No module named 'a_module_that_nobody_has'",
        ),
        ("privkt-bad-signature", "broken", "wrong signature of privkt_datasets: it is written privkt_datasets(path)"),
        ("privkt-bad-hook", "failing", "hook 'privkt_datasets' failed: RuntimeError: on purpose"),
        ("privkt-newer-hook", "newer", "hook 'privkt_telemetry' is unknown"),
        ("privkt-same-name", "ok", ""),
    ],
)
def test_a_broken_copy_says_what_is_wrong(environment, name, status, reason):
    found = environment.listing()["plugins"][f"{name}:example"]
    assert found[0] == status
    assert reason in found[1]
    if status == "newer":
        assert found[2] == ["tomorrow"]


def test_names_that_two_distributions_claim(environment):
    warnings = environment.listing()["warnings"]
    both = "'privkt-example:lines' and 'privkt-same-name:lines'"
    assert f"dataset 'lines' has 2 providers: the short name is refused; write {both}" in warnings
    assert any("'json' has 2 providers: the short name means the built-in" in line for line in warnings)


def test_an_entry_name_switches_all_its_plugins(environment):
    plugins = environment.listing(PRIVKT_DISABLE_PLUGINS="example")["plugins"]
    assert {value[0] for name, value in plugins.items() if name.endswith(":example")} == {"disabled"}
    only_built_in = environment.listing(PRIVKT_LOAD_PLUGINS="")["plugins"]
    assert {value[0] for name, value in only_built_in.items() if not name.startswith("privkt:")} == {"disabled"}


CONFIG = """
method: label-tally
budget: {epsilon: 2, delta: 1.0e-5, neighbouring: local}
client:
  data: {name: votes, size: 60, source: lines, path: rows.txt, label: label, labels: ["no", "yes"]}
label-tally: {decimals: 1}
seed: 0
"""


def test_the_example_runs_from_the_command_line_with_gate_and_ledger(environment, tmp_path):
    rows = "".join(f"{('no', 'yes')[i % 2]}\tcanary-{i}\n" for i in range(60))
    (tmp_path / "rows.txt").write_text(rows, encoding="utf-8")
    (tmp_path / "run.yaml").write_text(CONFIG, encoding="utf-8")
    environ = {**GOOD_ALONE, "PRIVKT_STATE": str(tmp_path / "state")}
    config, out = str(tmp_path / "run.yaml"), tmp_path / "out"
    planned = environment.run("-m", "privkt.cli", "plan", config, **environ)
    assert "60 noisy labels, each at epsilon = 2" in planned
    environment.run("-m", "privkt.cli", "run", config, "-o", str(out), **environ)
    report = json.loads((out / "private" / "report.json").read_text(encoding="utf-8"))
    assert report["clients"]["client"]["ledger"]["spent"]["epsilon"] == 2
    crossed = [path.read_bytes() for path in (out / "outbound").rglob("*") if path.is_file()]
    assert crossed
    assert not any(b"canary" in data for data in crossed)


def test_the_command_line_lists_broken_plugins_and_goes_on(environment):
    shown = environment.run("-m", "privkt.cli", "plugins", COLUMNS="250")
    assert "bigram" in shown
    assert "a_module_that_nobody_has" in shown
