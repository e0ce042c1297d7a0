"""One sdist, one wheel made from it, one installation of that outside the tree: made once a test run."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD_TOOLS = {"scikit_build_core": "scikit-build-core", "pybind11": "pybind11", "ninja": "ninja", "cmake": "cmake"}


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="session")
def build_tools(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PYTHONPATH with the build's requirements, fetched only where this environment lacks them."""
    missing = [name for module, name in BUILD_TOOLS.items() if importlib.util.find_spec(module) is None]
    target = tmp_path_factory.mktemp("build_tools")
    if missing:
        run(sys.executable, "-m", "pip", "install", "-q", "--target", str(target), *missing, cwd=target)
    return str(target)


def backend(call: str, out: Path, cwd: Path, tools: str, **environment: str) -> Path:
    """One call of the build backend, as a front end makes it; gives the file made."""
    code = f"import sys; from scikit_build_core import build; print('made:' + build.{call}(sys.argv[1]))"
    done = run(sys.executable, "-c", code, str(out), cwd=cwd, PYTHONPATH=tools, **environment)
    return out / done.stdout.rsplit("made:", 1)[1].strip()


@pytest.fixture(scope="session")
def sdist(build_tools: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return backend("build_sdist", tmp_path_factory.mktemp("sdist"), ROOT, build_tools)


@pytest.fixture(scope="session")
def source(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, unpacked far from the tree."""
    folder = tmp_path_factory.mktemp("source")
    shutil.unpack_archive(sdist, folder)  # `filter` of tarfile itself came with Python 3.11.4
    return next(folder.iterdir())


@pytest.fixture(scope="session")
def wheel(source: Path, build_tools: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return backend("build_wheel", tmp_path_factory.mktemp("wheel"), source, build_tools, PRIVKT_CUDA="OFF")


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel, and the libraries of this environment behind it."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", str(folder), cwd=folder)
    python = folder / "bin" / "python"
    here = sysconfig.get_path("purelib")
    site = run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).stdout.strip()
    # A path alone: the .pth files in it, an editable privkt among them, are not read
    (Path(site) / "libraries.pth").write_text(here + "\n")
    pip = (sys.executable, "-m", "pip", "--python", str(python))
    run(*pip, "install", "-q", "--no-deps", "--no-index", "--no-compile", "--force-reinstall", str(wheel), cwd=folder)
    return python


@pytest.fixture(scope="session")
def nvcc() -> str:
    found = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if found is None:
        pytest.skip("needs nvcc")
    return found
