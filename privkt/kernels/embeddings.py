"""Embeddings: a sample's gradient is a few rows of [V, d], found by sorting its ids, never [V, d] a sample."""

from __future__ import annotations

from torch import Tensor

from privkt.kernels import _schema


def embedding_sqnorms(
    ids: Tensor,
    grad: Tensor,
    mask: Tensor | None = None,
    *,
    padding_idx: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Square norms of each sample's embedding gradient, summed in float64.

    Row v of sample b is the float32 sum, over the steps t in their order, of grad[b, t] where ids[b, t] is v; steps
    that look up padding_idx are left out.
    Shapes: ids [batch, steps] int64; grad [batch, steps, d] float32 | bfloat16, the last dimension contiguous, the
    others with any stride; mask [batch] bool; result [batch] float64. With `out` the norms are added to it.
    Guarantee:
      - the squares are those of the stored float32 rows that `clipped_embedding_sum` scales;
      - at most min(steps, V) d squares are added, so clip factors with the weight's V d as width bound the norm;
      - instruction sets, thread counts and other samples do not change the bits; CUDA adds in an order of its own.
    Edge cases: rows with inf or NaN give inf or NaN; a sample outside the mask gives 0 and is not read.
    Raises: TypeError, ValueError for another dtype, shape or device.
    """
    if out is None:
        return _schema.ops.embedding_sqnorms(ids, grad, mask, padding_idx)
    _schema.ops.add_embedding_sqnorms_(out, ids, grad, mask, padding_idx)
    return out


def clipped_embedding_sum(
    ids: Tensor,
    grad: Tensor,
    factors: Tensor,
    mask: Tensor | None = None,
    *,
    padding_idx: int | None = None,
    out: Tensor,
    scale: float | None = None,
) -> Tensor:
    """Add float32(factors[b] * row) of every sample and row to `out`, and return it.

    Shapes: ids, grad, mask as in `embedding_sqnorms`; factors [batch] float32; out [V * d] float64 | float32 | int64.
    scale: cells of an int64 out, from `grid_scale`.
    Guarantee:
      - float64: the samples' rows are added one by one in the order of the batch, so a batch in pieces gives the same
        bits; float32: they are summed in float64 and the sum is added once;
      - int64: each coordinate's whole cells are added exactly; any split and order gives the same integers;
      - a sample with factor 0, or outside the mask, is not read: NaN in it changes nothing;
      - rows that no counting sample looks up are not touched;
      - instruction sets, thread counts and CUDA do not change the bits.
    Edge cases: a factor that is negative, inf or NaN counts as 0; batch or steps 0 leave `out` as it is.
    Raises: TypeError, ValueError for another dtype, shape or device; IndexError for an id of a counting sample outside
    [0, V), on CUDA a failed device-side assertion; OverflowError as in `clipped_sum`.
    """
    _schema.ops.add_clipped_embedding_sum_(out, ids, grad, factors, mask, padding_idx, scale)
    return out
