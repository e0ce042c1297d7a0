"""How each parameter's per-sample gradient is held until its clip factor is known: chosen from shapes alone.

A *row* is the gradient itself, stored for each sample. A *product* (left, right) or *segments* (ids, grad) are the two
tensors it is made of; norms and clipped sums are taken from them without ever storing it. The result is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from privkt.dpsgd.layout import Layout
from privkt.dpsgd.rules import Rule

Mode = Literal["rows", "gram", "tiles", "segments", "tied", "head", "fallback", "unused"]
Force = Literal["rows", "kept"]
IN_ROWS = ("rows", "fallback")
IN_PRODUCTS = ("gram", "tiles", "tied")
IN_SEGMENTS = ("segments", "tied")
IN_SLICES = ("head", "tied")


class Use(NamedTuple):
    """One use of a parameter in the forward pass.

    Units: positions: T, how many outer products (or looked-up vectors) a sample has; size: bytes a sample to keep.
    """

    slot: str
    form: Literal["rows", "product", "segments", "head", "fallback"]
    positions: int = 0
    size: int = 0


@dataclass(frozen=True)
class Arrangement:
    """The mode of every slot; `columns` says where the rows of row slots lie in a buffer of `width` columns."""

    modes: dict[str, Mode]
    columns: dict[str, tuple[int, int]]
    width: int


def mode_of(shape: Sequence[int], uses: Sequence[Use], force: Force | None = None) -> Mode:
    """The mode of a parameter [p, d] with these uses.

    Rows iff storing them costs less than keeping and reading again what they are made of: each is written once and read
    once for norm and sum, but X and G were there to begin with, so 4 p d bytes stand against half of theirs. In float32
    that is d p <= T (d + p) / 2, which for LoRA of rank r is T >= 2 r (in bfloat16, 4 r). Norms of products by half
    Gram matrices (T^2 (p + d) operations) iff T < 2 d p / (d + p), otherwise tile by tile of the row (2 T p d).
    A trained head whose losses come from hidden states has the mode "head": products whose left side is made again in
    slices (privkt.dpsgd.slices).
    Edge cases: a parameter with a use that is neither product nor segments has rows, and so has a head that is used in
    another way, too; several uses add their positions.
    """
    forms = {use.form for use in uses}
    if "head" in forms:  # the model ran it on no positions, its losses on all
        forms -= {"product"} if all(use.positions == 0 for use in uses if use.form == "product") else set()
    if not forms:
        return "rows" if force == "rows" else "unused"
    if "fallback" in forms:
        return "fallback"
    if force == "rows" or "rows" in forms or len(shape) != 2:
        return "rows"
    p, d = shape
    if force is None and 2 * 4 * p * d <= sum(use.size for use in uses):
        return "rows"
    if "head" in forms and "product" in forms:
        return "rows"
    if forms in ({"segments"}, {"head"}):
        return "segments" if "segments" in forms else "head"
    if "segments" in forms:
        return "tied"
    return "gram" if sum(use.positions for use in uses) * (d + p) < 2 * d * p else "tiles"


def arrange(layout: Layout, uses: Iterable[Use], force: Force | None = None) -> Arrangement:
    """All modes of one microbatch."""
    of: dict[str, list[Use]] = {slot.name: [] for slot in layout.slots}
    for use in uses:
        of[use.slot].append(use)
    modes = {slot.name: mode_of(slot.parameter.shape, of[slot.name], force) for slot in layout.slots}
    columns, width = {}, 0
    for slot in layout.slots:
        if modes[slot.name] in IN_ROWS:
            columns[slot.name] = (width, width + slot.stop - slot.start)
            width += slot.stop - slot.start
    return Arrangement(modes, columns, width)


def values_in_rows(layout: Layout) -> int:
    """How many values a unit's rows have at least, whatever the shapes: parameters that no rule keeps otherwise.

    Others have rows only where these take at most half of the activations that they replace (`mode_of`).
    """
    sites: dict[str, list[bool]] = {slot.name: [] for slot in layout.slots}
    for site in layout.sites:
        kind = type(site.rule)
        keeps = kind.products is not Rule.products or kind.segments is not Rule.segments
        for slot in site.slots.values():
            sites[slot.name].append(keeps and slot.parameter.dim() == 2)
    return sum(slot.stop - slot.start for slot in layout.slots if not (sites[slot.name] and all(sites[slot.name])))


def product_use(slot: str, left: Tensor, right: Tensor) -> Use:
    """What keeping left [B, T, p] and right [B, T, d] costs a sample."""
    size = left.shape[2] * _width(left) + right.shape[2] * _width(right)
    return Use(slot, "product", left.shape[1], left.shape[1] * size)


def segments_use(slot: str, ids: Tensor, grad: Tensor) -> Use:
    """What keeping ids [B, T] and grad [B, T, d] costs a sample."""
    return Use(slot, "segments", ids.shape[1], ids.shape[1] * (8 + grad.shape[2] * _width(grad)))


def head_use(slot: str, hidden: Tensor) -> Use:
    """What keeping a head's input [B, T, d] and two float64 values a position costs a sample."""
    return Use(slot, "head", hidden.shape[1], hidden.shape[1] * (16 + hidden.shape[2] * _width(hidden)))


def _width(x: Tensor) -> int:
    return min(4, x.dtype.itemsize)  # float64 is kept as float32
