"""The ops over the native module: outputs allocated here, addresses and the CUDA stream handed down as integers."""

from __future__ import annotations

import functools
import importlib
import os
import platform
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch  # first: torch maps its own OpenMP runtime, which must be there before any other library's
from torch import Tensor

from privkt.kernels import grid
from privkt.kernels.threads import parallel

_ELEMENTS = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 2, torch.int64: 3}
_GRID_CHUNK = 1 << 20  # coordinates that are float64 at a time on their way from int64 to noise


class KernelsUnavailable(RuntimeError):
    """The build that a call needs is missing; the message names it and the command that makes it."""


def is_private() -> bool:
    """Whether the native kernels run; False under PRIVKT_KERNELS=reference, whose results are not private.

    Raises: ValueError for any other value of PRIVKT_KERNELS.
    """
    mode = os.environ.get("PRIVKT_KERNELS", "native")
    if mode not in ("native", "reference"):
        raise ValueError(
            f"PRIVKT_KERNELS: must be native or reference, got {mode!r}; unset it to run the native kernels"
        )
    return mode == "native"


@functools.cache
def module() -> ModuleType:
    """The native module. Raises: KernelsUnavailable where it was not built or does not load."""
    try:
        return importlib.import_module("privkt.kernels._native")
    except ModuleNotFoundError:
        raise KernelsUnavailable(_missing()) from None
    except ImportError as error:
        raise KernelsUnavailable(
            f"privkt.kernels: the native module must load, got: {error}; rebuild it with "
            "`pip install --force-reinstall --no-deps privkt`, or `pip install -e .` in the source folder"
        ) from error


def _missing() -> str:
    build = f"the native module for Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if (Path(__file__).parents[2] / "pyproject.toml").exists():
        return (
            f"privkt.kernels: {build} is missing: privkt was imported from its source folder, which holds no build; "
            "run `pip install -e .` there, or start Python somewhere else if privkt is installed"
        )
    return (
        f"privkt.kernels: {build} is missing from this installation; "
        "run `pip install --force-reinstall --no-deps privkt`, or `pip install .` in the source folder"
    )


def build_info() -> dict[str, Any]:
    """What was built and what runs, as JSON values: version, compiler, instruction sets, why not AMX, cuda, why not.

    Raises: KernelsUnavailable where there is no native module.
    """
    record = dict(module().BUILD)
    record["cpu_isas"] = record["cpu_isas"].split(",")
    record["cuda_architectures"] = [a for a in record["cuda_architectures"].split(";") if a]
    record["cuda_kernels"] = sorted(x.removesuffix("_cuda") for x in dir(module()) if x.endswith("_cuda"))
    tokens = {"token_isa": module().token_isa(""), "amx_left_out": module().amx_left_out()}
    return {"cpu_isa": module().cpu_isa(), **tokens, **record}


def runs_on(kernel: str, device: torch.device) -> bool:
    """Whether this build has `kernel` for tensors on `device`."""
    return device.type == "cpu" or hasattr(module(), f"{kernel}_{device.type}")


def in_blocks(kernel: str, device: torch.device) -> str | None:
    """Whose threads run the whole of a kernel at once, with a workspace of ours: cuda's; None for the CPU's, in pieces.

    Tests put "blocks" in its place: what a GPU's threads would do, played by the CPU (csrc/cpu/blocks.cpp).
    """
    return None if device.type == "cpu" else device.type


def _call(kernel: str, device: torch.device, *args: Any) -> Any:
    where = in_blocks(kernel, device)
    if where is None:
        return getattr(module(), kernel + "_cpu")(*args)
    function = getattr(module(), f"{kernel}_{where}", None)
    if function is not None and device.type == "cpu":
        return function(*args, 0)
    if function is None and module().BUILD["cuda"]:
        raise KernelsUnavailable(
            f"{kernel}: it must run on a CPU, since it has no CUDA kernel yet, got a tensor on {device}; move it"
        )
    if function is None:
        reason = module().BUILD["cuda_reason"]
        raise KernelsUnavailable(
            f"{kernel}: a tensor on {device} needs a build with CUDA, got one without ({reason}); run "
            "`PRIVKT_CUDA=ON pip install --force-reinstall --no-deps --no-binary privkt privkt`, "
            "or the same with `.` in the source folder"
        )
    with torch.cuda.device(device):
        return function(*args, torch.cuda.current_stream(device).cuda_stream)


# The least work worth a thread: a few tenths of a millisecond. Coordinates of noise are cut where its tiles of 512 are.
_ELEMENTS_A_THREAD = 1 << 18
_NOISE_A_THREAD = 1 << 16


def _split(
    kernel: str, device: torch.device, total: int, grain: int, run: Callable[[int, int], tuple[Any, ...]]
) -> bool:
    """Calls the kernel with run(start, stop), in pieces on the CPU and whole on a device, which has threads enough.

    False if any piece returned False.
    """
    if in_blocks(kernel, device):
        return _call(kernel, device, *run(0, total)) is not False
    results: list[Any] = []
    parallel(total, lambda start, stop: results.append(_call(kernel, device, *run(start, stop))), grain)
    return all(result is not False for result in results)


def _at(x: Tensor | None, index: int = 0) -> int:
    """The address of x[index], of `index` steps along the first dimension; 0 for no tensor."""
    return 0 if x is None else x.data_ptr() + index * x.stride(0) * x.element_size()


def _workspace(kernel: str, like: Tensor, doubles: Callable[[], int]) -> tuple[Tensor, ...]:
    """What kernels in blocks put between their launches, if this is one: nothing for the CPU's."""
    if in_blocks(kernel, like.device) is None:
        return ()
    return (like.new_empty(doubles(), dtype=torch.float64),)


def _sqnorms_into(sqnorms: Tensor, rows: Tensor, mask: Tensor | None, accumulate: bool) -> None:
    batch, width = rows.shape

    def run(start: int, stop: int) -> tuple[Any, ...]:
        piece = (_at(rows, start), _ELEMENTS[rows.dtype], stop - start, width, rows.stride(0), _at(mask, start))
        return *piece, _at(sqnorms, start), accumulate

    _split("row_sqnorms", rows.device, batch, _ELEMENTS_A_THREAD // max(width, 1) + 1, run)


def row_sqnorms(rows: Tensor, mask: Tensor | None) -> Tensor:
    sqnorms = rows.new_empty(rows.shape[0], dtype=torch.float64)
    _sqnorms_into(sqnorms, rows, mask, accumulate=False)
    return sqnorms


def add_row_sqnorms_(sqnorms: Tensor, rows: Tensor, mask: Tensor | None) -> None:
    _sqnorms_into(sqnorms, rows, mask, accumulate=True)


def clip_factors(
    sqnorms: Tensor, max_norm: float, width: int, slack: float, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    batch = sqnorms.shape[0]
    factors = sqnorms.new_empty(batch, dtype=torch.float32)
    finite = sqnorms.new_empty(batch, dtype=torch.bool)
    _call(
        "clip_factors",
        sqnorms.device,
        sqnorms.data_ptr(),
        0 if mask is None else mask.data_ptr(),
        batch,
        max_norm,
        float(width),
        slack,
        factors.data_ptr(),
        finite.data_ptr(),
    )
    return factors, finite


def _sum_into(
    out: Tensor,
    rows: Tensor,
    factors: Tensor,
    mask: Tensor | None,
    accumulate: bool,
    scale: float | None = None,
) -> None:
    batch, width = rows.shape
    element, cells = _ELEMENTS[out.dtype], 1.0 if scale is None else scale

    def run(start: int, stop: int) -> tuple[Any, ...]:
        first = rows.data_ptr() + start * rows.element_size()
        piece = (first, _ELEMENTS[rows.dtype], batch, stop - start, rows.stride(0), _at(mask), _at(factors))
        return *piece, _at(out, start), element, accumulate, cells

    grain = max(_ELEMENTS_A_THREAD // max(batch, 1), 1 << 12)
    grid.need_fit("clipped_sum", _split("clipped_sum", rows.device, width, grain, run))


def clipped_sum(rows: Tensor, factors: Tensor, mask: Tensor | None) -> Tensor:
    out = rows.new_empty(rows.shape[1], dtype=torch.float32)
    _sum_into(out, rows, factors, mask, accumulate=False)
    return out


def add_clipped_sum_(
    out: Tensor, rows: Tensor, factors: Tensor, mask: Tensor | None, scale: float | None = None
) -> None:
    _sum_into(out, rows, factors, mask, True, scale)


def clip_and_sum_(
    out: Tensor, rows: Tensor, max_norm: float, mask: Tensor | None, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    factors, finite = clip_factors(row_sqnorms(rows, mask), max_norm, rows.shape[1], 0.0, mask)
    _sum_into(out, rows, factors, mask, True, scale)
    return factors, finite


def _noise(out: Tensor, base: Tensor | None, sigma: float, key: Tensor, step: int, offset: int) -> None:
    element = 0 if base is None else _ELEMENTS[base.dtype]
    words = bytes(key.tolist())

    def run(start: int, stop: int) -> tuple[Any, ...]:
        # ops take signed 64-bit integers; the counter is unsigned
        counter = (step % 2**64, (offset + start) % 2**64)
        return _at(out, start), _at(base, start), element, stop - start, sigma, words, *counter

    _split("noise", out.device, out.shape[0], _NOISE_A_THREAD, run)


def gaussian_noise_(out: Tensor, sigma: float, key: Tensor, step: int, offset: int) -> None:
    _noise(out, None, sigma, key, step, offset)


def add_gaussian_noise_(x: Tensor, sigma: float, key: Tensor, step: int, offset: int) -> None:
    _noise(x, x, sigma, key, step, offset)


def noisy_sum(total: Tensor, sigma: float, key: Tensor, step: int, offset: int, scale: float | None = None) -> Tensor:
    out = torch.empty_like(total, dtype=torch.float32)
    if scale is None:
        _noise(out, total, sigma, key, step, offset)
        return out
    for start in range(0, len(total), _GRID_CHUNK):
        part = slice(start, start + _GRID_CHUNK)
        _noise(out[part], grid.units_of(total[part], scale), sigma, key, step, offset + start)
    return out


def _on_logits(
    kernel: str,
    logits: Tensor,
    labels: Tensor,
    scale: float,
    softcap: float,
    more: Callable[[int], tuple[Any, ...]],
) -> None:
    """Calls the kernel on pieces of the rows; `more` gives its other arguments from the first row's number."""
    rows, columns = logits.shape

    def run(start: int, stop: int) -> tuple[Any, ...]:
        tile = (_at(logits, start), stop - start, columns, logits.stride(0), _at(labels, start), scale, softcap)
        return *tile, *more(start)

    _split(kernel, logits.device, rows, _ELEMENTS_A_THREAD // max(columns, 1) + 1, run)


def head_losses_(
    logits: Tensor, labels: Tensor, scale: float, softcap: float, want_gradient: bool
) -> tuple[Tensor, Tensor]:
    losses = logits.new_empty(logits.shape[0], dtype=torch.float64)
    stats = logits.new_empty(logits.shape[0], 2, dtype=torch.float64)
    _on_logits(
        "head_losses",
        logits,
        labels,
        scale,
        softcap,
        lambda start: (_at(losses, start), _at(stats, start), want_gradient),
    )
    return losses, stats


def head_gradient_(logits: Tensor, labels: Tensor, stats: Tensor, start: int, scale: float, softcap: float) -> None:
    _on_logits("head_gradient", logits, labels, scale, softcap, lambda first: (_at(stats, first), start))
