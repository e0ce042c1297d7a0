"""What is shipped: every package once with its types, one native module, and nothing else."""

import tarfile
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = [Path(p).name for p in PROJECT["tool"]["scikit-build"]["wheel"]["packages"]]


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_holds_every_package_once_with_its_types(names: list[str]) -> None:
    assert max(Counter(names).values()) == 1
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == set(PACKAGES)
    for package in PACKAGES:
        assert f"{package}/__init__.py" in names
        assert f"{package}/py.typed" in names


def test_the_wheel_holds_every_source_file_of_its_packages(names: list[str]) -> None:
    for package in PACKAGES:
        folder = ROOT / package if package == "privkt" else ROOT / "plugins" / package
        for file in folder.rglob("*.py"):
            assert f"{package}/{file.relative_to(folder).as_posix()}" in names


def test_the_wheel_holds_one_native_module_and_no_sources_or_tests(names: list[str]) -> None:
    native = [name for name in names if name.endswith((".so", ".pyd", ".dylib"))]
    assert len(native) == 1
    assert native[0].startswith("privkt/kernels/_native.")
    assert "privkt/kernels/_native.pyi" in names
    stray = ("test_", "conftest", "privkt_example", "csrc", ".cpp", ".cu", ".o", ".a", "CMake", "benchmarks")
    assert not [name for name in names for part in name.split("/") if part.startswith(stray) or part.endswith(stray)]


def test_the_sdist_builds_from_what_it_holds_and_leaves_the_workplace_out(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        files = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"CMakeLists.txt", "cmake/cpu.cmake", "csrc/cpu/noise.cpp", "csrc/cuda/noise.cu", "pyproject.toml"} <= files
    assert not [name for name in files if name.startswith((".ci", "shared", "build", "dist")) or name.endswith(".so")]


def test_the_constraints_pin_what_the_project_asks_for() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pins = {}
    for line in lines:
        requirement = Requirement(line)
        assert requirement.url is None
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        assert "+" not in pin.version
        pins[canonicalize_name(requirement.name)] = pin.version
    project = PROJECT["project"]
    asked = [*project["dependencies"], *(x for extra in project["optional-dependencies"].values() for x in extra)]
    for requirement in map(Requirement, asked):
        if requirement.name != "privkt":
            assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement
