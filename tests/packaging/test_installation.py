"""sdist -> wheel -> installation outside the tree: it runs there, needs only the C++ runtime, and finds its plugins."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from privkt.kernels import build_info, gaussian_noise, native

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(python: Path, code: str, folder: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PRIVKT_", "PYTHON"))}
    done = subprocess.run(
        [str(python), "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installation_runs_its_kernels_outside_the_tree(installed: Path, tmp_path: Path) -> None:
    code = """
import privkt, torch, privkt.kernels as kernels
x = kernels.gaussian_noise(torch.empty(1000), 1.0, bytes(32), 0)
print(privkt.__file__, privkt.__version__, kernels.build_info()["cuda_reason"], x.double().sum().item(), sep="\\n")
"""
    file, version, why_not_cuda, total = run(installed, code, tmp_path).splitlines()
    assert Path(file).is_relative_to(installed.parents[1])
    assert version == PROJECT["version"]
    assert why_not_cuda == "switched off by PRIVKT_CUDA=OFF"
    assert float(total) == gaussian_noise(torch.empty(1000), 1.0, bytes(32), 0).double().sum().item()


def test_an_installation_finds_each_built_in_plugin_once(installed: Path, tmp_path: Path) -> None:
    code = """
from importlib import metadata
for entry in metadata.distribution("privkt").entry_points.select(group="privkt"):
    print(entry.name, entry.value, entry.load().__file__)
"""
    found = [line.split(" ", 2) for line in run(installed, code, tmp_path).splitlines()]
    assert {name: value for name, value, _ in found} == PROJECT["entry-points"]["privkt"]
    assert len(found) == len(PROJECT["entry-points"]["privkt"])
    for *_, file in found:
        assert Path(file).is_relative_to(installed.parents[1])


def test_the_package_imports_without_torch(installed: Path, tmp_path: Path) -> None:
    code = "import sys, privkt, privkt.privacy, privkt.plugins; print('torch' in sys.modules)"
    assert run(installed, code, tmp_path).strip() == "False"


def test_the_native_module_needs_only_the_c_and_cpp_runtimes() -> None:
    ldd = shutil.which("ldd")
    if ldd is None:
        pytest.skip("needs ldd")
    path = native.module().__file__
    assert path is not None
    listed = subprocess.run([ldd, path], capture_output=True, text=True, check=True).stdout
    libraries = set(re.findall(r"^\s*(?:\S*/)?([\w+-]+)\.so", listed, re.MULTILINE))
    assert "libstdc++" in libraries
    runtime = {"libstdc++", "libm", "libgcc_s", "libc", "libpthread", "libdl", "librt", "linux-vdso"}
    assert libraries <= runtime | {"ld-linux-x86-64", "ld-linux-aarch64"}


def test_cuda_compiles_and_imports_without_a_gpu(nvcc: str, source: Path, build_tools: str, tmp_path: Path) -> None:
    """The installed build where it has CUDA; a build of its own for one architecture otherwise."""
    if build_info()["cuda"]:
        assert build_info()["cuda_architectures"]
        assert hasattr(native.module(), "noise_cuda")
        return
    if os.environ.get("PRIVKT_TEST_CUDA_BUILD") == "done":
        pytest.fail(f"this run was to be built with CUDA, but was not: {build_info()['cuda_reason']}")
    tools = f"{build_tools}/bin{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": build_tools, "CUDACXX": nvcc, "PATH": tools}

    def shell(*command: str) -> str:
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    options = {
        "PRIVKT_CUDA": "ON",
        "PRIVKT_CUDA_ARCHITECTURES": "80-real",
        "CMAKE_BUILD_TYPE": "Release",
        "pybind11_DIR": shell(sys.executable, "-m", "pybind11", "--cmakedir").strip(),
        "Python_EXECUTABLE": sys.executable,
    }
    shell("cmake", "-G", "Ninja", "-S", str(source), "-B", str(tmp_path), *(f"-D{k}={v}" for k, v in options.items()))
    shell("cmake", "--build", str(tmp_path))
    code = "import _native as n; print(n.BUILD['cuda'], n.BUILD['cuda_architectures'], hasattr(n, 'noise_cuda'))"
    assert shell(sys.executable, "-c", code).split() == ["True", "80-real", "True"]
