"""What the ops demand of their arguments, one function for each op, before any pointer leaves Python."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from privkt.kernels.grid import LEAST_CELLS, SCALE_RANGE

ROW_DTYPES = (torch.float32, torch.bfloat16)
SUM_DTYPES = (torch.float32, torch.float64, torch.int64)
SIGMA_RANGE = (2.0**-100, 2.0**100)


def _names(dtypes: tuple[torch.dtype, ...]) -> str:
    return " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def _vector(op: str, name: str, x: Tensor, length: int | None, dtypes: tuple[torch.dtype, ...]) -> None:
    if x.dtype not in dtypes:
        got = str(x.dtype).removeprefix("torch.")
        raise TypeError(f"{op}: {name} must be {_names(dtypes)}, got {got}; convert it before the call")
    if x.dim() != 1 or (length is not None and x.shape[0] != length):
        wanted = "[n]" if length is None else f"[{length}]"
        raise ValueError(f"{op}: {name} must have shape {wanted}, got {list(x.shape)}; reshape it before the call")
    if x.shape[0] > 1 and x.stride(0) != 1:
        raise ValueError(f"{op}: {name} must be contiguous, got stride {x.stride(0)}; call .contiguous() on it")


def _same_device(op: str, name: str, x: Tensor, like: Tensor, like_name: str) -> None:
    if x.device != like.device:
        raise ValueError(
            f"{op}: {name} must be on the device of {like_name}, {like.device}, got {x.device}; move it there"
        )


def _rows(op: str, rows: Tensor, mask: Tensor | None) -> None:
    if rows.dtype not in ROW_DTYPES:
        got = str(rows.dtype).removeprefix("torch.")
        raise TypeError(f"{op}: rows must be {_names(ROW_DTYPES)}, got {got}; convert them before the call")
    if rows.dim() != 2:
        raise ValueError(
            f"{op}: rows must have shape [batch, width], got {list(rows.shape)}; flatten each sample's gradient"
        )
    if rows.numel() > 0 and rows.shape[1] > 1 and rows.stride(1) != 1:  # empty tensors have any stride
        raise ValueError(
            f"{op}: rows must be contiguous along the width, got stride {rows.stride(1)}; call .contiguous() on them"
        )
    if mask is not None:
        _vector(op, "mask", mask, rows.shape[0], (torch.bool,))
        _same_device(op, "mask", mask, rows, "rows")


def _max_norm(op: str, max_norm: float) -> None:
    if not (math.isfinite(max_norm) and max_norm > 0):
        raise ValueError(f"{op}: max_norm must be positive and finite, got {max_norm}; choose the clipping norm C")


def _grid(op: str, name: str, total: Tensor, scale: float | None) -> None:
    """An int64 sum has a scale, a power of two; any other sum has none."""
    if (total.dtype == torch.int64) != (scale is not None):
        got = "int64 and no scale" if scale is None else f"{str(total.dtype).removeprefix('torch.')} and {scale}"
        raise TypeError(
            f"{op}: scale must come with an int64 {name}, and only with it, got {got}; use grid_scale(max_norm, rows)"
        )
    if scale is not None and not (SCALE_RANGE[0] <= scale <= SCALE_RANGE[1] and math.frexp(scale)[0] == 0.5):
        raise ValueError(
            f"{op}: scale must be a power of two between 2^-512 and 2^512, got {scale}; use grid_scale(max_norm, rows)"
        )


def row_sqnorms(rows: Tensor, mask: Tensor | None) -> None:
    _rows("row_sqnorms", rows, mask)


def add_row_sqnorms_(sqnorms: Tensor, rows: Tensor, mask: Tensor | None) -> None:
    _rows("row_sqnorms", rows, mask)
    _vector("row_sqnorms", "out", sqnorms, rows.shape[0], (torch.float64,))
    _same_device("row_sqnorms", "out", sqnorms, rows, "rows")


def clip_factors(sqnorms: Tensor, max_norm: float, width: int, slack: float, mask: Tensor | None) -> None:
    op = "clip_factors"
    _vector(op, "sqnorms", sqnorms, None, (torch.float64,))
    _max_norm(op, max_norm)
    if width < 0:
        raise ValueError(f"{op}: width must be the number of elements of a whole row, got {width}; pass rows.shape[1]")
    if not (math.isfinite(slack) and slack >= 0):
        raise ValueError(f"{op}: slack must be finite and not negative, got {slack}; pass the norm rule's proven error")
    if mask is not None:
        _vector(op, "mask", mask, sqnorms.shape[0], (torch.bool,))
        _same_device(op, "mask", mask, sqnorms, "sqnorms")


def clipped_sum(rows: Tensor, factors: Tensor, mask: Tensor | None) -> None:
    _rows("clipped_sum", rows, mask)
    _vector("clipped_sum", "factors", factors, rows.shape[0], (torch.float32,))
    _same_device("clipped_sum", "factors", factors, rows, "rows")


def add_clipped_sum_(
    out: Tensor, rows: Tensor, factors: Tensor, mask: Tensor | None, scale: float | None = None
) -> None:
    clipped_sum(rows, factors, mask)
    _vector("clipped_sum", "out", out, rows.shape[1], SUM_DTYPES)
    _same_device("clipped_sum", "out", out, rows, "rows")
    _grid("clipped_sum", "out", out, scale)


def clip_and_sum_(out: Tensor, rows: Tensor, max_norm: float, mask: Tensor | None, scale: float | None = None) -> None:
    op = "clip_and_sum"
    _rows(op, rows, mask)
    _max_norm(op, max_norm)
    _vector(op, "out", out, rows.shape[1], SUM_DTYPES)
    _same_device(op, "out", out, rows, "rows")
    _grid(op, "out", out, scale)
    if scale is not None and max_norm * scale < LEAST_CELLS:
        raise ValueError(
            f"{op}: scale must give max_norm at least 2^20 cells, got {max_norm * scale:g}; "
            "use grid_scale(max_norm, rows)"
        )


def _lookups(op: str, ids: Tensor, grad: Tensor, mask: Tensor | None, padding_idx: int | None) -> None:
    if ids.dtype != torch.int64:
        got = str(ids.dtype).removeprefix("torch.")
        raise TypeError(f"{op}: ids must be int64, got {got}; convert them before the call")
    if grad.dtype not in ROW_DTYPES:
        got = str(grad.dtype).removeprefix("torch.")
        raise TypeError(f"{op}: grad must be {_names(ROW_DTYPES)}, got {got}; convert it before the call")
    if ids.dim() != 2 or grad.dim() != 3 or grad.shape[:2] != ids.shape or grad.shape[2] == 0:
        raise ValueError(
            f"{op}: ids must have shape [batch, steps] and grad [batch, steps, width], width 1 or more, "
            f"got {list(ids.shape)} and {list(grad.shape)}; reshape them before the call"
        )
    if grad.numel() > 0 and grad.shape[2] > 1 and grad.stride(2) != 1:
        raise ValueError(
            f"{op}: grad must be contiguous along the width, got stride {grad.stride(2)}; call .contiguous() on it"
        )
    _same_device(op, "ids", ids, grad, "grad")
    if mask is not None:
        _vector(op, "mask", mask, ids.shape[0], (torch.bool,))
        _same_device(op, "mask", mask, grad, "grad")
    if padding_idx is not None and padding_idx < 0:
        raise ValueError(
            f"{op}: padding_idx must be an id or None, got {padding_idx}; count it from the start, as nn.Embedding does"
        )


def _ids_below(op: str, ids: Tensor, counts: Tensor | None, rows: int) -> None:
    """On a device its own assertion fails, later: looking would wait for it. The text names no id: they are private."""
    outside = (ids < 0) | (ids >= rows)
    if counts is not None:
        outside &= counts[:, None]
    message = f"{op}: ids must lie in [0, {rows}), got one outside; pass ids and rows of one embedding"
    if ids.device.type != "cpu":
        torch._assert_async(outside.any().logical_not(), message)
    elif bool(outside.any()):
        raise IndexError(message)


def embedding_sqnorms(ids: Tensor, grad: Tensor, mask: Tensor | None, padding_idx: int | None) -> None:
    _lookups("embedding_sqnorms", ids, grad, mask, padding_idx)


def add_embedding_sqnorms_(
    sqnorms: Tensor, ids: Tensor, grad: Tensor, mask: Tensor | None, padding_idx: int | None
) -> None:
    embedding_sqnorms(ids, grad, mask, padding_idx)
    _vector("embedding_sqnorms", "out", sqnorms, ids.shape[0], (torch.float64,))
    _same_device("embedding_sqnorms", "out", sqnorms, grad, "grad")


def add_clipped_embedding_sum_(
    out: Tensor,
    ids: Tensor,
    grad: Tensor,
    factors: Tensor,
    mask: Tensor | None,
    padding_idx: int | None,
    scale: float | None,
) -> None:
    op = "clipped_embedding_sum"
    _lookups(op, ids, grad, mask, padding_idx)
    _vector(op, "factors", factors, ids.shape[0], (torch.float32,))
    _same_device(op, "factors", factors, grad, "grad")
    _vector(op, "out", out, None, SUM_DTYPES)
    _same_device(op, "out", out, grad, "grad")
    _grid(op, "out", out, scale)
    if out.shape[0] % grad.shape[2]:
        raise ValueError(
            f"{op}: out must have whole rows of {grad.shape[2]}, the width of grad, got {out.shape[0]} elements; "
            "pass the sum of the embedding's weight, flattened"
        )
    counts = (factors > 0) & factors.isfinite()
    _ids_below(op, ids, counts if mask is None else counts & mask, out.shape[0] // grad.shape[2])


def _products(op: str, left: Tensor, right: Tensor, mask: Tensor | None) -> None:
    for name, x in (("left", left), ("right", right)):
        if x.dtype not in ROW_DTYPES:
            got = str(x.dtype).removeprefix("torch.")
            raise TypeError(f"{op}: {name} must be {_names(ROW_DTYPES)}, got {got}; convert it before the call")
        if x.dim() != 3:
            raise ValueError(
                f"{op}: {name} must have shape [batch, steps, width], got {list(x.shape)}; reshape it before the call"
            )
        if x.numel() > 0 and x.shape[2] > 1 and x.stride(2) != 1:
            raise ValueError(
                f"{op}: {name} must be contiguous along the width, got stride {x.stride(2)}; call .contiguous() on it"
            )
    if right.shape[:2] != left.shape[:2]:
        raise ValueError(
            f"{op}: right must have the batch and steps of left, {list(left.shape[:2])}, got {list(right.shape[:2])}; "
            "pass two sides of one layer"
        )
    _same_device(op, "right", right, left, "left")
    if mask is not None:
        _vector(op, "mask", mask, left.shape[0], (torch.bool,))
        _same_device(op, "mask", mask, left, "left")


def product_sqnorms(left: Tensor, right: Tensor, mask: Tensor | None, gram: bool) -> None:
    _products("product_sqnorms", left, right, mask)


def add_product_sqnorms_(sqnorms: Tensor, left: Tensor, right: Tensor, mask: Tensor | None, gram: bool) -> None:
    _products("product_sqnorms", left, right, mask)
    _vector("product_sqnorms", "out", sqnorms, left.shape[0], (torch.float64,))
    _same_device("product_sqnorms", "out", sqnorms, left, "left")


def add_clipped_product_sum_(
    out: Tensor, left: Tensor, right: Tensor, factors: Tensor, mask: Tensor | None, scale: float | None = None
) -> None:
    op = "clipped_product_sum"
    _products(op, left, right, mask)
    _vector(op, "factors", factors, left.shape[0], (torch.float32,))
    _same_device(op, "factors", factors, left, "left")
    _vector(op, "out", out, left.shape[2] * right.shape[2], (*SUM_DTYPES, torch.int64))
    _same_device(op, "out", out, left, "left")
    _grid(op, "out", out, scale)


def tied_cross(
    ids: Tensor, grad: Tensor, left: Tensor, right: Tensor, mask: Tensor | None, padding_idx: int | None
) -> None:
    op = "tied_cross"
    _lookups(op, ids, grad, mask, padding_idx)
    _products(op, left, right, mask if left.dim() == 3 and left.shape[0] == ids.shape[0] else None)
    for name, what, wanted, got in (
        ("left", "the batch of ids", ids.shape[0], left.shape[0]),
        ("right", "the width of grad", grad.shape[2], right.shape[2]),
    ):
        if got != wanted:
            raise ValueError(f"{op}: {name} must have {what}, {wanted}, got {got}; pass two uses of one weight")
    _same_device(op, "left", left, grad, "grad")
    _ids_below(op, ids, mask, left.shape[2])


def _noise(op: str, sigma: float, key: Tensor) -> None:
    if not (sigma == 0 or SIGMA_RANGE[0] <= sigma <= SIGMA_RANGE[1]):
        raise ValueError(f"{op}: sigma must be 0 or between 2^-100 and 2^100, got {sigma}; rescale the gradients")
    _key(op, key)


def _key(op: str, key: Tensor) -> None:
    if key.dtype != torch.uint8 or list(key.shape) != [32] or key.device.type != "cpu":
        raise ValueError(
            f"{op}: key must be 32 bytes (a CPU tensor uint8 [32] for the op), "
            f"got {key.dtype} {list(key.shape)} on {key.device}; make one with new_key()"
        )


def gaussian_noise_(out: Tensor, sigma: float, key: Tensor, step: int, offset: int) -> None:
    _noise("gaussian_noise", sigma, key)
    _vector("gaussian_noise", "out", out, None, (torch.float32,))


def add_gaussian_noise_(x: Tensor, sigma: float, key: Tensor, step: int, offset: int) -> None:
    _noise("add_gaussian_noise_", sigma, key)
    _vector("add_gaussian_noise_", "x", x, None, (torch.float32,))


def noisy_sum(total: Tensor, sigma: float, key: Tensor, step: int, offset: int, scale: float | None = None) -> None:
    _noise("noisy_sum", sigma, key)
    _vector("noisy_sum", "total", total, None, SUM_DTYPES)
    _grid("noisy_sum", "total", total, scale)


def _logits(op: str, logits: Tensor, labels: Tensor, scale: float, softcap: float) -> None:
    if logits.dtype != torch.float32 or logits.dim() != 2:
        raise TypeError(
            f"{op}: logits must be float32 [tokens, vocabulary], got {logits.dtype} {list(logits.shape)}; "
            "compute them in float32"
        )
    if logits.numel() > 0 and logits.shape[1] > 1 and logits.stride(1) != 1:
        raise ValueError(
            f"{op}: logits must be contiguous along the vocabulary, got stride {logits.stride(1)}; call .contiguous()"
        )
    _vector(op, "labels", labels, logits.shape[0], (torch.int64,))
    _same_device(op, "labels", labels, logits, "logits")
    if not (math.isfinite(scale) and scale != 0):
        raise ValueError(f"{op}: scale must be finite and not 0, got {scale}; leave it out for 1")
    if not (math.isfinite(softcap) and softcap >= 0):
        raise ValueError(f"{op}: softcap must be positive and finite, or 0 for none, got {softcap}; see the model")


def head_losses_(logits: Tensor, labels: Tensor, scale: float, softcap: float, want_gradient: bool) -> None:
    _logits("head_losses", logits, labels, scale, softcap)


def head_gradient_(logits: Tensor, labels: Tensor, stats: Tensor, start: int, scale: float, softcap: float) -> None:
    op = "head_gradient"
    _logits(op, logits, labels, scale, softcap)
    wanted = [logits.shape[0], 2]
    if stats.dtype != torch.float64 or list(stats.shape) != wanted or not stats.is_contiguous():
        raise ValueError(
            f"{op}: stats must be contiguous float64 {wanted}, got {stats.dtype} {list(stats.shape)}; "
            "pass what the losses' pass has left"
        )
    _same_device(op, "stats", stats, logits, "logits")
    if start < 0:
        raise ValueError(f"{op}: start must be a place in the vocabulary, got {start}; pass the first column's")
