"""The per-sample gradients of one microbatch, stored or not: their norms, and their clipped sum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from privkt import kernels
from privkt.dpsgd.errors import RefusedTraining, TrainingError
from privkt.dpsgd.layout import Layout
from privkt.dpsgd.modes import IN_ROWS, Arrangement
from privkt.dpsgd.slices import KERNEL_DTYPES, HeadSlices

Groups = Sequence[Sequence[str]]


class RowStore:
    """The flat float32 buffer [units, columns] that one microbatch after the other writes its rows to."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._key: tuple[int, tuple[str, ...]] | None = None
        self.buffer = torch.empty(0, 0)
        self.views: dict[str, Tensor] = {}
        self.turn = 0

    def take(self, units: int, arrangement: Arrangement, *, keep: bool) -> None:
        """Zeroed for this arrangement, or as it is with `keep`."""
        key = (units, tuple(arrangement.columns))
        if key == self._key:
            if not keep:
                self.buffer.zero_()
            return
        if keep:
            raise TrainingError(
                f"Engine.open(keep=True): every piece must have the units of the first, {self.buffer.shape[0]}, got "
                f"{units}; fill the piece up and mask what is filled"
            )
        self._key, self.views = None, {}
        self.buffer = torch.empty(0, 0)  # freed before the new one is made
        self.buffer = torch.zeros(units, arrangement.width, device=self._layout.device)
        self.views = {
            slot.name: self.buffer[:, slice(*arrangement.columns[slot.name])].view(units, *slot.parameter.shape)
            for slot in self._layout.slots
            if slot.name in arrangement.columns
        }
        self._key = key

    def forget(self) -> None:
        """Frees the buffer."""
        self._key, self.views, self.buffer = None, {}, torch.empty(0, 0)
        self.turn += 1


@dataclass
class Kept:
    """What the backward pass brought for one parameter without rows: one entry a use, with its version when it came.

    Shapes: products: left [B, T, p], right [B, T, d]; segments: ids [B, T], grad [B, T, d], padding_idx.
    head: what a trained head's products are made of, slice by slice.
    """

    products: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    segments: list[tuple[Tensor, Tensor, int | None]] = field(default_factory=list)
    head: HeadSlices | None = None
    _versions: list[tuple[Tensor, int]] = field(default_factory=list)

    def add_product(self, left: Tensor, right: Tensor) -> None:
        left, right = _kernel_input(left), _kernel_input(right)
        self.products.append((left, right))
        self._versions += [(x, x._version) for x in (left, right)]

    def add_segments(self, ids: Tensor, grad: Tensor, padding_idx: int | None) -> None:
        ids, grad = ids.contiguous(), _kernel_input(grad)
        self.segments.append((ids, grad, padding_idx))
        self._versions += [(x, x._version) for x in (ids, grad)]

    def tensors(self) -> Iterator[Tensor]:
        """Everything that is kept and read again, but for a head's own weight."""
        yield from (x for product in self.products for x in product)
        yield from (x for ids, grad, _ in self.segments for x in (ids, grad))
        yield from () if self.head is None else self.head.tensors()

    def join(self, name: str) -> None:
        """One product and one list of segments, however often the parameter was used.

        Raises: RefusedTraining, if something wrote to a kept tensor after it came.
        """
        if any(x._version != version for x, version in self._versions):
            raise RefusedTraining(
                f"PrivateTraining: what the layer of {name!r} read and its gradient must stay as they are until the "
                "step, got one written to in place; switch off in-place and fused backward operations"
            )
        self._versions = []
        if len(self.products) > 1:
            left, right = (_along_positions(parts) for parts in zip(*self.products, strict=True))
            self.products = [(left, right)]
        if len(self.segments) > 1:
            if len({padding for _, _, padding in self.segments}) > 1:  # one use pads where another does not
                self.segments = [(ids, _without(grad, ids, padding), None) for ids, grad, padding in self.segments]
            ids, grads, paddings = zip(*self.segments, strict=True)
            self.segments = [(torch.cat(ids, 1), _along_positions(grads), paddings[0])]


class SampleGradients:
    """Per-sample gradients of one microbatch, until the engine opens the next.

    Guarantee: `sqnorms` bounds, from above, the squares of the very rows that `add_clipped` adds and `rows` shows; each
        row is made from its own unit's tensors alone.
    """

    def __init__(
        self, layout: Layout, arrangement: Arrangement, store: RowStore, kept: dict[str, Kept], mask: Tensor
    ) -> None:
        self._layout, self._arrangement, self._store, self._turn = layout, arrangement, store, store.turn
        self._kept, self._mask = kept, mask
        self._slots = {slot.name: slot for slot in layout.slots}
        self._groups: Groups = (tuple(self._slots),)
        self._whole = True

    @property
    def modes(self) -> dict[str, str]:
        """How each parameter's gradient is held, by its name."""
        return dict(self._arrangement.modes)

    @property
    def width(self) -> int:
        """P, the number of trainable values."""
        return self._layout.width

    @property
    def columns(self) -> int:
        """How many values a unit has stored as rows."""
        return self._arrangement.width

    def kept_tensors(self) -> Iterator[Tensor]:
        """What gradients that are not stored are made of."""
        return (x for kept in self._kept.values() for x in kept.tensors())

    @property
    def mask(self) -> Tensor:
        """Which units count, [units] bool."""
        return self._mask

    def sqnorms(self, groups: Groups | None = None) -> Tensor:
        """Upper bounds of the rows' square norms in each group of parameters, [units, groups] float64.

        groups: names of parameters, each exactly once; None: one group of all. `add_clipped` uses the same groups.
        Edge cases: units that are masked 0, those that are not finite inf or NaN.
        """
        self._need_current(whole=True)
        self._groups = (tuple(self._slots),) if groups is None else self._partition(groups)
        found = torch.zeros(len(self._groups), len(self._mask), dtype=torch.float64, device=self._mask.device)
        for column, names in enumerate(self._groups):
            for (start, stop), _ in self._runs(names):
                kernels.row_sqnorms(self._store.buffer[:, start:stop], self._mask, out=found[column])
            for name, kept in self._kept_of(names):
                self._add_sqnorms(name, kept, found[column])
        return found.t()

    def add_clipped(self, total: Tensor, factors: Tensor, *, start: int = 0, **grid: Any) -> None:
        """Adds the sum over units of float32(factor * row) to `total`, or the stretch of it from `start` on.

        Shapes: total: [P] float64 | float32, or int64 with `scale`; less where it holds coordinates from `start` on, of
            whole parameters; factors: [units, groups] float32 of the groups that `sqnorms` was last asked for, 0 for
            units that do not count.
        """
        self._need_current()
        stop = start + len(total)
        if tuple(factors.shape) != (len(self._mask), len(self._groups)):
            raise ValueError(
                f"SampleGradients.add_clipped: factors must be [{len(self._mask)}, {len(self._groups)}], one for each "
                f"unit and group of sqnorms, got {list(factors.shape)}; ask sqnorms for the same groups first"
            )
        for own, names in zip(factors.t().contiguous(), self._groups, strict=True):
            for (column, _), (first, last) in self._runs(names):
                here, end = max(first, start), min(last, stop)
                if here >= end:
                    continue
                rows = self._store.buffer[:, column + here - first : column + end - first]
                kernels.clipped_sum(rows, own, self._mask, out=total[here - start : end - start], **grid)
            for name, kept in self._kept_of(names):
                slot = self._slots[name]
                if slot.stop <= start or slot.start >= stop:
                    continue
                if slot.start < start or slot.stop > stop:
                    raise ValueError(
                        f"SampleGradients.add_clipped: a stretch must hold whole parameters, got [{start}, {stop}) "
                        f"with a part of {name!r}; cut where a parameter begins"
                    )
                part = total[slot.start - start : slot.stop - start]
                for left, right in kept.products:
                    kernels.clipped_product_sum(left, right, own, self._mask, out=part, **grid)
                if kept.head is not None:
                    kept.head.add_clipped(part, own, self._mask, **grid)
                for ids, grad, padding in kept.segments:
                    kernels.clipped_embedding_sum(ids, grad, own, self._mask, padding_idx=padding, out=part, **grid)

    def rows(self) -> Tensor:
        """The rows themselves, [units, P] float32; they are stored if they were not."""
        self._need_current(whole=True)
        if self._arrangement.width == self._layout.width:
            return self._store.buffer.masked_fill_(~self._mask.unsqueeze(1), 0)
        groups, self._groups = self._groups, (tuple(self._slots),)
        found = torch.zeros(len(self._mask), self._layout.width, device=self._mask.device)
        for unit, row in enumerate(found):
            alone = torch.zeros(len(self._mask), 1, device=row.device)
            alone[unit] = 1
            self.add_clipped(row, alone)
        self._groups = groups
        return found

    @property
    def reads_weights(self) -> bool:
        """Whether something kept is a trained weight itself, so that all sums must be made before any weight moves."""
        weights = {slot.parameter.untyped_storage().data_ptr() for slot in self._layout.slots}
        return any(x.untyped_storage().data_ptr() in weights for x in self.kept_tensors())

    def forget(self, start: int = 0, stop: int | None = None) -> None:
        """Frees what was kept for the parameters in [start, stop); only other stretches can be added now."""
        last = self.width if stop is None else stop
        gone = {slot.name for slot in self._slots.values() if start <= slot.start and slot.stop <= last}
        self._kept = {name: kept for name, kept in self._kept.items() if name not in gone}
        self._whole = False

    # -- inside -----------------------------------------------------------------------------------------------------

    def _need_current(self, whole: bool = False) -> None:
        if whole and not self._whole:
            raise TrainingError(
                "SampleGradients: norms and rows must be taken while all is kept, got a part forgotten; take them first"
            )
        if self._store.turn != self._turn:
            raise TrainingError(
                "SampleGradients: they must be used before the next microbatch is opened, got a later use, when their "
                "rows are written over; take norms and sums of each microbatch before engine.open"
            )

    def _partition(self, groups: Groups) -> Groups:
        named = [name for names in groups for name in names]
        if sorted(named) != sorted(self._slots):
            wrong = sorted(set(named) ^ set(self._slots)) or sorted(name for name in named if named.count(name) > 1)
            raise ValueError(
                f"SampleGradients.sqnorms: groups must hold every trainable parameter once, got {wrong[0]!r} missing, "
                "unknown or twice; use the names of engine.layout.named()"
            )
        return tuple(tuple(names) for names in groups)

    def _runs(self, names: Sequence[str]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Neighbouring row slots as one: their columns in the buffer and in the flat gradient."""
        chosen = [name for name in self._slots if name in set(names)] if len(names) < len(self._slots) else names
        run: tuple[tuple[int, int], tuple[int, int]] | None = None
        for name in chosen:
            if self._arrangement.modes[name] not in IN_ROWS:
                continue
            slot, (start, stop) = self._slots[name], self._arrangement.columns[name]
            if run is not None and run[0][1] == start and run[1][1] == slot.start:
                run = ((run[0][0], stop), (run[1][0], slot.stop))
                continue
            if run is not None:
                yield run
            run = ((start, stop), (slot.start, slot.stop))
        if run is not None:
            yield run

    def _kept_of(self, names: Sequence[str]) -> Iterator[tuple[str, Kept]]:
        return ((name, self._kept[name]) for name in names if name in self._kept)

    def _add_sqnorms(self, name: str, kept: Kept, out: Tensor) -> None:
        mode, mask = self._arrangement.modes[name], self._mask
        if kept.head is not None:
            if not kept.segments:
                kept.head.add_sqnorms(mask, out)
                return
            width = self._slots[name].parameter.numel()
            ids, grad, padding = kept.segments[0]
            out += kept.head.sqnorms_tied(ids, grad, mask, padding, width=width)
            return
        if kept.products and kept.segments:
            (left, right), (ids, grad, padding) = kept.products[0], kept.segments[0]
            words = kernels.embedding_sqnorms(ids, grad, mask, padding_idx=padding)
            head = kernels.product_sqnorms(left, right, mask)
            cross = kernels.tied_cross(ids, grad, left, right, mask, padding_idx=padding)
            width = self._slots[name].parameter.numel()
            out += kernels.tied_sqnorms(words, head, cross, width=width)
            return
        for left, right in kept.products:
            kernels.product_sqnorms(left, right, mask, method=mode if mode in ("gram", "tiles") else "auto", out=out)
        for ids, grad, padding in kept.segments:
            kernels.embedding_sqnorms(ids, grad, mask, padding_idx=padding, out=out)


def _kernel_input(x: Tensor) -> Tensor:
    x = x.detach()  # or it would keep the graph alive
    x = x if x.dtype in KERNEL_DTYPES else x.float()
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _along_positions(parts: Sequence[Tensor]) -> Tensor:
    same = len({part.dtype for part in parts}) == 1
    return torch.cat(list(parts) if same else [part.float() for part in parts], 1)


def _without(grad: Tensor, ids: Tensor, padding_idx: int | None) -> Tensor:
    return grad if padding_idx is None else grad.masked_fill((ids == padding_idx).unsqueeze(-1), 0)
