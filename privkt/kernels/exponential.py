"""The exponential mechanism over a public table of vectors, with integer weights and exact draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from privkt.kernels import _schema
from privkt.kernels.checks_exponential import MOST_BYTES, MOST_QUERY_BIAS
from privkt.kernels.native import runs_on
from privkt.kernels.noise import key_tensor

_LARGEST = 127


@dataclass(frozen=True)
class ByteTable:
    """A public table of int8 vectors and their square norms: what the distances are defined on.

    Shapes: rows [words, width] int8, sqnorms [words] int32. Units: `scale` steps of int8 are one of the embeddings.
    """

    rows: Tensor
    sqnorms: Tensor
    scale: float


@dataclass(frozen=True)
class Levels:
    """How a squared distance x becomes the place of its weight: min(root(x / 2^shift), last), in integers.

    `root` takes the integer square root, rounded down; `last` is at most 32767. A negative shift multiplies.
    """

    last: int
    shift: int = 0
    root: bool = True


def byte_table(embeddings: Tensor, scale: float | None = None) -> ByteTable:
    """The public table that a public matrix of embeddings becomes.

    Shapes: embeddings [words, width], floating point, width at most 16384.
    Guarantee: none is needed: the table, its scale and its clipping are public, and so is the utility that they define;
        the rounding picks that utility and costs nothing.
    Edge cases: `scale` is 127 over the largest magnitude unless given; what lies beyond 127 / scale is clipped to it.
    Raises: ValueError for embeddings that are not finite or a scale that is not positive.
    """
    if embeddings.dim() != 2 or not embeddings.numel() or embeddings.shape[1] > MOST_BYTES:
        raise ValueError(
            f"byte_table: embeddings must have shape [words, width] with width at most {MOST_BYTES}, "
            f"got {list(embeddings.shape)}; give one vector a row"
        )
    largest = float(embeddings.detach().abs().max())
    if not largest < float("inf"):
        raise ValueError("byte_table: embeddings must be finite, got one that is not; mend the public table")
    if scale is None:
        scale = _LARGEST / largest if largest > 0 else 1.0
    if not 0 < scale < float("inf"):
        raise ValueError(f"byte_table: scale must be positive and finite, got {scale}; leave it out for the full range")
    rows, sqnorms = _quantised(embeddings, scale)
    return ByteTable(rows, sqnorms, scale)


def quantised(table: ByteTable, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Any embeddings as int8 vectors on the table's scale, and their biases: what `queries` of a draw takes.

    Edge cases: a vector with NaN or infinity is at the last level from every word; huge ones are clipped.
    """
    if embeddings.dim() != 2 or embeddings.shape[1] != table.rows.shape[1]:
        raise ValueError(
            f"quantised: embeddings must have shape [n, {table.rows.shape[1]}] like the table, "
            f"got {list(embeddings.shape)}; use vectors of the same model"
        )
    return _quantised(embeddings, table.scale)


def _quantised(embeddings: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    rows = embeddings.new_empty(embeddings.shape, dtype=torch.int8)
    biases = embeddings.new_empty(len(embeddings), dtype=torch.int32)
    # float64 for a part at a time: a few queries' must be small beside what their draws take, a table's need not
    numbers = min(max(embeddings.numel() // 64, 1 << 13), 1 << 16)
    step = max(1, numbers // max(1, embeddings.shape[1]))
    for start in range(0, len(embeddings), step):
        part = embeddings.detach()[start : start + step]
        finite = torch.isfinite(part).all(dim=1)
        scaled = part.to(torch.float64, copy=True).masked_fill_(~finite[:, None], 0)
        scaled.mul_(scale).round_().clamp_(-_LARGEST, _LARGEST)
        rows[start : start + step] = scaled.to(torch.int8)
        biases[start : start + step] = scaled.square_().sum(1).to(torch.int32).where(finite, MOST_QUERY_BIAS)
    return rows, biases


def weight_totals(
    table: ByteTable,
    levels: Levels,
    weights: Tensor,
    *,
    ids: Tensor | None = None,
    queries: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The sum over all words of the weights of each query, exactly. Shapes, arguments: those of `draw_words`."""
    return _schema.ops.weight_totals(*_table("weight_totals", table, ids, queries), *_how(levels, weights))


def table_totals(table: ByteTable, levels: Levels, weights: Tensor) -> Tensor:
    """`weight_totals` of every word of the table, each pair of words computed once. Shapes: [words] int64."""
    if not runs_on("table_totals", table.rows.device):
        return weight_totals(table, levels, weights, ids=torch.arange(len(table.rows), device=table.rows.device))
    return _schema.ops.table_totals(table.rows, table.sqnorms, *_how(levels, weights))


def draw_words(
    table: ByteTable,
    levels: Levels,
    weights: Tensor,
    key: bytes,
    step: int,
    offset: int = 0,
    *,
    ids: Tensor | None = None,
    queries: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """One word for each query, drawn with probability weights[level of its distance] over their sum.

    Shapes: weights [last + 1], int32 or int64, at least 1, their largest times the words below 2^62; ids [n] int64, or
        queries (vectors [n, width] int8, biases [n] int32) from `quantised`; the result is [n] int64.
    Guarantee:
      - the probabilities are exact, for ChaCha20 as a random function: no decision is made in floating point;
      - the draw for place i depends on its query and on (key, step, offset + i) alone: neither batch, tile, thread,
        instruction set nor device shows in it, and equal queries draw independently;
      - pure epsilon 2 ln(largest weight / smallest) between any two queries (docs/proofs/exponential.md).
    Edge cases: n 0 gives an empty tensor. An id met twice in a call is looked up once; the time that it takes is not
        hidden.
    Raises: ValueError for arguments outside these bounds; TypeError for others.
    References: McSherry, Talwar 2007, "Mechanism design via differential privacy"; Lemire 2019, "Fast random integer
        generation in an interval".
    """
    arguments = _table("draw_words", table, ids, queries)
    if not 0 <= step < 2**64:
        raise ValueError(f"draw_words: step must be in [0, 2^64), got {step}; use a new key before it runs out")
    signed = step - 2**64 if step >= 2**63 else step
    return _schema.ops.exponential_draws(*arguments, *_how(levels, weights), key_tensor(key), signed, offset)


def _table(
    op: str, table: ByteTable, ids: Tensor | None, queries: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    if (ids is None) == (queries is None):
        raise ValueError(f"{op}: one of ids and queries must be given, got {'none' if ids is None else 'both'}")
    vectors, bias = (table.rows, table.sqnorms) if queries is None else queries
    return vectors, bias, ids, table.rows, table.sqnorms


def _how(levels: Levels, weights: Tensor) -> tuple[int, bool, int, Tensor]:
    return levels.shift, levels.root, levels.last, weights


def draw_flipped(
    table: ByteTable, levels: Levels, weights: Tensor, ids: Tensor, key: bytes, step: int, offset: int = 0
) -> Tensor:
    """One word for each id by permute-and-flip: words in random order, each kept with chance weight / largest weight.

    Shapes: weights [last + 1] int32, the first a power of two that none exceeds; ids [n] int64; the result [n] int64.
    Guarantee: the first word kept is drawn, with exact probabilities; pure epsilon 2 ln(largest weight / smallest)
        between any two ids, never worse than `draw_words` at the same weights; its loss is not of bounded range.
        Draws depend on (key, step, offset + i) as those of `draw_words` do.
    Edge cases: a word is at level 0 from itself, so that one is always kept.
    Raises: ValueError for other weights, or more than 172032 words.
    References: McKenna, Sheldon 2020, "Permute-and-Flip: A new mechanism for differentially private selection".
    """
    if not 0 <= step < 2**64:
        raise ValueError(f"draw_flipped: step must be in [0, 2^64), got {step}; use a new key before it runs out")
    signed = step - 2**64 if step >= 2**63 else step
    how = _how(levels, weights)
    return _schema.ops.flip_draws(ids, table.rows, table.sqnorms, *how, key_tensor(key), signed, offset)
