"""The ops as torch sees them: schemas, fakes, refused gradients, and the errors of a missing build."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from privkt import kernels
from privkt.kernels import _schema, native, schema_exponential

KEY = torch.arange(32, dtype=torch.uint8)
MASK = torch.tensor([True, False, True])
IDS = torch.tensor([[0, 1, 2, 2, 3], [0] * 5, [3, 1, 3, 1, 3]])
TOKEN_OPS = {
    "weight_totals",
    "exponential_draws",
    "nearest_words",
    "row_extremes",
    "rejection_draws",
    "flip_draws",
    "table_nearest",
    "table_totals",
}
NO_FLOATS = {
    "gaussian_noise_",
    "discrete_gaussian_",
    "add_discrete_gaussian_",
    *TOKEN_OPS,
}  # nothing in them could have a gradient


def arguments(op: str) -> tuple:
    rows = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    sqnorms = rows.double().square().sum(1)
    lookups = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(1))
    noise = (1.5, KEY, 3, 4)
    labels = torch.tensor([4, -1, 0])
    stats = torch.ones(3, 2, dtype=torch.float64)
    products = (rows[:, None, :2], rows[:, None, 2:])
    mean = (rows[1].double(), *noise, None, 4.0, False)
    adam = (0.1, 0.1, 0.999, 0.001, 0.001, 0.03, 1e-8, 0.0, 1.0, 0.0, 0.0)
    words = torch.tensor([[1, -2], [3, 4], [0, 5]], dtype=torch.int8)
    norms = words.int().square().sum(1, dtype=torch.int32)
    table = (words, norms, torch.tensor([2, 0, 2]), words, norms, 0, True, 9, torch.arange(20, 10, -1))
    near = torch.tensor([[0, 2], [1, 2], [2, 0]], dtype=torch.int32)
    return {
        "nearest_words": (*table[:5], 2),
        "flip_draws": (table[2], words, norms, 0, True, 9, torch.arange(16, 6, -1, dtype=torch.int32), KEY, 3, 4),
        "row_extremes": (*table[:8], torch.arange(10, dtype=torch.int32), norms),
        "rejection_draws": (table[2], words, norms, near, near, *table[5:], 0, 0, 0, KEY, 3, 4),
        "weight_totals": table,
        "table_nearest": (words, norms, 2),
        "table_totals": (words, norms, *table[5:]),
        "exponential_draws": (*table, KEY, 3, 4),
        "row_sqnorms": (rows, MASK),
        "add_row_sqnorms_": (sqnorms, rows, None),
        "clip_factors": (sqnorms, 1.0, 5, 0.0, MASK),
        "clipped_sum": (rows, torch.ones(3), None),
        "add_clipped_sum_": (torch.zeros(5, dtype=torch.float64), rows, torch.ones(3), MASK),
        "clip_and_sum_": (torch.zeros(5), rows, 1.0, MASK),
        "embedding_sqnorms": (IDS, lookups, MASK, 1),
        "add_embedding_sqnorms_": (sqnorms, IDS, lookups, MASK, None),
        "add_clipped_embedding_sum_": (torch.zeros(8, dtype=torch.float64), IDS, lookups, torch.ones(3), MASK, 1, None),
        "product_sqnorms": (*products, MASK, True),
        "add_product_sqnorms_": (sqnorms, *products, None, False),
        "add_clipped_product_sum_": (torch.zeros(6, dtype=torch.float64), *products, torch.ones(3), MASK, None),
        "tied_cross": (IDS, lookups, torch.randn(3, 4, 6), torch.randn(3, 4, 2), MASK, 1),
        "gaussian_noise_": (torch.empty(9), *noise),
        "add_gaussian_noise_": (torch.zeros(9), *noise),
        "head_losses_": (rows, labels, 1.0, 2.0, True),
        "head_gradient_": (rows, labels, stats, 1, 1.0, 0.0),
        "noisy_sum": (torch.zeros(9, dtype=torch.float64), *noise),
        "discrete_gaussian_": (torch.zeros(9, dtype=torch.int64), *noise),
        "add_discrete_gaussian_": (torch.zeros(9, dtype=torch.int64), *noise),
        "sgd_update_": (rows[0].clone(), torch.zeros(5), *mean, 0.1, 0.9, 1.0, 0.0, True, False),
        "adam_update_": (rows[0].clone(), torch.zeros(5), torch.zeros(5), *mean, *adam),
    }[op]


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("op", sorted(_schema.SCHEMAS))
def test_opcheck(op: str) -> None:
    torch.library.opcheck(getattr(torch.ops.privkt, op).default, arguments(op))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")
@pytest.mark.parametrize("op", sorted(set(_schema.SCHEMAS) - TOKEN_OPS))
def test_opcheck_on_a_gpu(op: str) -> None:
    if not kernels.build_info()["cuda"]:
        pytest.skip("this build has no CUDA")
    moved = [x.cuda() if isinstance(x, torch.Tensor) and x is not KEY else x for x in arguments(op)]
    torch.library.opcheck(getattr(torch.ops.privkt, op).default, tuple(moved))


@pytest.mark.parametrize("op", sorted(set(_schema.SCHEMAS) - NO_FLOATS))
def test_gradients_are_refused(op: str) -> None:
    args = tuple(
        x.requires_grad_() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in arguments(op)
    )
    with pytest.raises(RuntimeError) as caught:
        getattr(torch.ops.privkt, op)(*args)
    assert str(caught.value) == (
        f"privkt.{op}: cannot be differentiated, got an argument that requires grad; "
        "detach it or call under torch.no_grad()"
    )
    with torch.no_grad():
        getattr(torch.ops.privkt, op)(*args)


def test_a_graph_that_saved_the_buffer_notices_the_noise() -> None:
    weight = torch.ones(4, requires_grad=True)
    buffer = torch.ones(4)
    loss = (weight * buffer).sum()
    kernels.add_gaussian_noise_(buffer, 1.0, bytes(32), 0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_ops_compile() -> None:
    def step(rows: torch.Tensor) -> torch.Tensor:
        factors, _ = kernels.clip_factors(kernels.row_sqnorms(rows), 1.0, width=5)
        return kernels.clipped_sum(rows, factors) * 2

    rows = arguments("row_sqnorms")[0]
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(rows), step(rows))


def test_the_reference_runs_only_when_asked_and_is_not_private(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRIVKT_KERNELS", raising=False)
    assert kernels.is_private()
    monkeypatch.setenv("PRIVKT_KERNELS", "reference")
    assert not kernels.is_private()
    monkeypatch.setenv("PRIVKT_KERNELS", "fast")
    with pytest.raises(ValueError, match="PRIVKT_KERNELS: must be native or reference, got 'fast'; unset it"):
        kernels.is_private()


def test_the_build_record_says_what_was_built() -> None:
    info = kernels.build_info()
    assert info["version"] == metadata.version("privkt")
    assert info["cpu_isa"] in info["cpu_isas"]
    assert info["cpu_isas"][0] == "scalar"
    assert info["cuda"] == bool(info["cuda_architectures"])
    assert bool(info["cuda_reason"]) == (not info["cuda"])
    made = {"clipped_sum", "clipped_product_sum", "tied_cross", "discrete_gaussian", "adam_update"}
    made |= set(schema_exponential.SCHEMAS) - {"table_nearest", "table_totals"}  # there the ops by rows do it
    assert made <= set(info["cuda_kernels"]) if info["cuda"] else info["cuda_kernels"] == []


def test_a_device_that_was_not_built_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    record = {"cuda": False, "cuda_reason": "no nvcc was found; set CUDA_HOME or CUDACXX"}
    monkeypatch.setattr(native, "module", lambda: SimpleNamespace(BUILD=record))
    with pytest.raises(kernels.KernelsUnavailable) as caught:
        native._call("clipped_sum", torch.device("cuda:0"))
    assert "a tensor on cuda:0 needs a build with CUDA, got one without (no nvcc was found" in str(caught.value)
    assert "PRIVKT_CUDA=ON pip install" in str(caught.value)


def test_a_kernel_without_a_cuda_version_is_named_and_not_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "module", lambda: SimpleNamespace(BUILD={"cuda": True, "cuda_reason": ""}))
    with pytest.raises(
        kernels.KernelsUnavailable, match="tied_cross: it must run on a CPU, since it has no CUDA kernel"
    ):
        native._call("tied_cross", torch.device("cuda:0"))
    assert not kernels.runs_on("tied_cross", torch.device("cuda:0"))
    assert kernels.runs_on("tied_cross", torch.device("cpu"))


WITHOUT_BUILD = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "ScikitBuild" not in type(f).__name__]
sys.path.insert(0, sys.argv[1])
import torch, privkt.kernels as kernels
assert kernels.__file__.startswith(sys.argv[1]), kernels.__file__
assert kernels.is_private()
for call in (kernels.build_info, lambda: kernels.gaussian_noise(torch.zeros(2), 1.0, bytes(32), 0)):
    try:
        call()
    except kernels.KernelsUnavailable as error:
        print(error)
    else:
        raise SystemExit("fell back in silence")
"""


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        (True, "imported from its source folder, which holds no build; run `pip install -e .` there"),
        (False, "is missing from this installation; run `pip install --force-reinstall --no-deps privkt`"),
    ],
    ids=["source folder", "installation"],
)
def test_a_missing_build_breaks_the_first_call_and_not_the_import(tmp_path: Path, source: bool, advice: str) -> None:
    package = Path(kernels.__file__).parent
    target = tmp_path / "privkt" / "kernels"
    target.mkdir(parents=True)
    (tmp_path / "privkt" / "__init__.py").write_text("")
    for file in package.glob("*.py"):
        (target / file.name).write_bytes(file.read_bytes())
    if source:
        (tmp_path / "pyproject.toml").write_text("")
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_BUILD, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("privkt.kernels: the native module for Python")
        assert advice in line
        assert "pip install" in line
