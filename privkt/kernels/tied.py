"""A weight that is an embedding and a head at once: the norm of both gradients together, from the ids that meet."""

from __future__ import annotations

import math

from torch import Tensor

from privkt.kernels import _schema


def tied_cross(
    ids: Tensor,
    grad: Tensor,
    left: Tensor,
    right: Tensor,
    mask: Tensor | None = None,
    *,
    padding_idx: int | None = None,
) -> Tensor:
    """<E_b, H_b> of each sample, E_b the embedding's row [V, d] and H_b = left_b^T right_b the head's.

    Both are the float32 rows that `clipped_embedding_sum` and `clipped_product_sum` scale; of H_b only what the ids
    touch is made, V x d never.
    Shapes: ids [batch, steps] int64, grad [batch, steps, d] as in `embedding_sqnorms`; left [batch, places, V], right
    [batch, places, d] as in `product_sqnorms`; mask [batch] bool; result [batch] float64.
    Guarantee:
      - |result - exact| <= V d 2^-53 (1 + 2^-20) |E_b| |H_b|;
      - instruction sets, thread counts, CUDA and other samples do not change the bits.
    Edge cases: a sample outside the mask gives 0 and is not read; rows with inf or NaN may give inf or NaN.
    Raises: TypeError, ValueError for another dtype, shape or device; IndexError for an id of a sample in the mask
    outside [0, V), on CUDA a failed device-side assertion.
    References: docs/proofs/kernels.md.
    """
    return _schema.ops.tied_cross(ids, grad, left, right, mask, padding_idx)


def tied_sqnorms(embedding: Tensor, product: Tensor, cross: Tensor, *, width: int) -> Tensor:
    """Upper bounds for the square norms of float32(f E_b) + float32(f H_b), per f^2, as `clip_factors` takes them.

    Shapes: embedding (`embedding_sqnorms`), product (`product_sqnorms`), cross (`tied_cross`), each [batch] float64;
    width is V d. The result, [batch] float64, is added to other weights' norms; the weight counts V d once.
    Guarantee: clipped by factors that follow from it, the real sum of the two stored products is at most max_norm long:
    the rounding of both, which does not shrink where E_b and H_b cancel, is in it.
    Edge cases: inf or NaN in any argument gives inf or NaN.
    References: docs/proofs/kernels.md, 5 and 6.
    """
    rounding = 1 + (width + 64) * 2.0**-51
    square = (embedding + product) * rounding + 2 * cross
    norm = square.clamp(min=0).sqrt() + 2.0**-24 * (embedding.sqrt() + product.sqrt())
    return norm.square() * rounding


def tied_grid_norm(max_norm: float, scale: float, *, coordinates: int) -> float:
    """The norm to clip to, so that cells of E_b and H_b, truncated each by itself, are at most max_norm long together.

    coordinates: of all weights that have both parts; V d for each, or min(steps, V) d where the number of ids that a
    sample looks up is public (a length that follows from the other samples of a batch is not). Units: those of
    max_norm.
    Edge cases: without such weights, max_norm.
    Raises: ValueError where the grid is too coarse to leave anything.
    References: docs/proofs/kernels.md, 7.
    """
    if not coordinates:
        return max_norm
    lost = math.sqrt(coordinates) / scale * (1 + 2.0**-50)
    left = (max_norm - lost) * (1 - 2.0**-52)
    if not left > 0:
        raise ValueError(
            f"tied_grid_norm: scale must leave more than {math.sqrt(coordinates):.0f} cells to max_norm, "
            f"got {max_norm * scale:.0f}; use grid_scale(max_norm, rows)"
        )
    return left
