"""One microbatch on its way: which parameters are used where, and what the backward pass brings for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from privkt.dpsgd.errors import RefusedTraining
from privkt.dpsgd.gradients import Kept, RowStore, SampleGradients
from privkt.dpsgd.layout import Layout, Site, Slot
from privkt.dpsgd.modes import (
    IN_PRODUCTS,
    IN_ROWS,
    IN_SEGMENTS,
    IN_SLICES,
    Arrangement,
    Force,
    Use,
    arrange,
    head_use,
    product_use,
    segments_use,
)
from privkt.dpsgd.rules import working
from privkt.dpsgd.slices import HeadSlices
from privkt.kernels.head import HeadGradient

_MANY = 2**16


class Arrangements:
    """What was found out about shapes, so that it is found out once: forms of a layer's parameters, and arrangements.

    Guarantee: the arrangement of a microbatch is a function of shapes and of the order in which layers ran.
    """

    def __init__(self, layout: Layout, records_per_unit: int) -> None:
        self._layout, self._records = layout, records_per_unit
        self._uses: dict[Any, tuple[Use, ...]] = {}
        self._known: dict[Any, Arrangement] = {}

    def uses(self, site: Site, kept: tuple[Tensor, ...], output: Tensor) -> tuple[Use, ...]:
        """How `site` uses its parameters in this call; its output stands for the gradient, whose shape it has."""
        key = (site.name, output.shape, output.dtype, *((x.shape, x.dtype) for x in kept))
        if (found := self._uses.get(key)) is None:
            if len(self._uses) > _MANY:
                self._uses.clear()
            found = self._uses[key] = self._uses_by_rule(site, kept, output)
        return found

    def _uses_by_rule(self, site: Site, kept: tuple[Tensor, ...], output: Tensor) -> tuple[Use, ...]:
        for x in kept if self._records > 1 else ():
            _need_samples_first(x, output.shape[0])
        with torch.no_grad():
            output = by_unit(output.detach(), self._records)
            kept = tuple(by_unit(x.detach(), self._records) for x in kept)
            products = site.rule.products(site.module, kept, output)
            segments = site.rule.segments(site.module, kept, output)
        uses = []
        for name, slot in site.slots.items():
            if name in products:
                uses.append(product_use(slot.name, *products[name]))
            elif name in segments:
                uses.append(segments_use(slot.name, *segments[name][:2]))
            else:
                uses.append(Use(slot.name, "rows"))
        return tuple(uses)

    def arrange(self, uses: tuple[Use, ...], force: Force | None) -> Arrangement:
        """The arrangement of a microbatch with these uses."""
        if (found := self._known.get((force, uses))) is None:
            if len(self._known) > _MANY:
                self._known.clear()
            found = self._known[force, uses] = arrange(self._layout, uses, force)
        return found


class Gathering:
    """Everything of one microbatch, from `Engine.open` to its SampleGradients."""

    def __init__(
        self,
        layout: Layout,
        arrangements: Arrangements,
        store: RowStore,
        samples: int,
        *,
        records_per_unit: int = 1,
        in_pieces: bool = False,
        keep: bool = False,
    ) -> None:
        self._layout, self._arrangements, self._store = layout, arrangements, store
        self.samples, self._records, self._keep = samples, records_per_unit, keep
        # A row that holds more than one record must not see what padding brings.
        self.in_pieces, self._pooled = in_pieces, records_per_unit > 1 or in_pieces
        self.force: Force | None = "rows" if in_pieces else None
        self._uses: list[Use] = []
        self._recorded: set[str] = set()
        self._unrecorded: set[str] = set()
        self._arrangement: Arrangement | None = None
        self._kept: dict[str, Kept] = {}
        self._mask: Tensor | None = None

    def note(self, site: Site, kept: tuple[Tensor, ...], output: Tensor, *, recorded: bool) -> None:
        """A layer ran. What checkpointing runs again in the backward pass was noted the first time."""
        if self._mask is None:
            self._uses += self._arrangements.uses(site, kept, output)
            (self._recorded if recorded else self._unrecorded).add(site.name)

    def note_head(self, site: Site, hidden: Tensor, *, recorded: bool) -> None:
        """A trained head's losses were made from its input [B, T, d]."""
        if self._mask is None:
            states = by_unit(hidden.detach(), self._records).flatten(1, -2)
            for name, slot in site.slots.items():
                self._uses.append(head_use(slot.name, states) if name == "weight" else Use(slot.name, "rows"))
            (self._recorded if recorded else self._unrecorded).add(site.name)

    @property
    def silent(self) -> set[str]:
        """Layers and parameters that were used, but never so that a gradient could arrive."""
        return self._unrecorded - self._recorded

    def note_form(self, slot: Slot, form: Any, *, recorded: bool) -> None:
        """A parameter was used whose gradient can be held in one way only."""
        if self._mask is None:
            self._uses.append(Use(slot.name, form))
            (self._recorded if recorded else self._unrecorded).add(slot.name)

    def begin_backward(self, mask: Tensor) -> None:
        """From here on gradients arrive."""
        self._mask = mask

    @property
    def arrangement(self) -> Arrangement:
        """Fixed when the first gradient arrives, and the rows are ready from then on."""
        if self._arrangement is None:
            self._arrangement = self._arrangements.arrange(tuple(self._uses), self.force)
            self._store.take(self.samples // self._records, self._arrangement, keep=self._keep)
        return self._arrangement

    def arrive(self, site: Site, kept: tuple[Tensor, ...], grad: Tensor) -> None:
        """The gradient of a layer's output, with what its rule kept of the input."""
        self._recorded.add(site.name)
        modes = self.arrangement.modes
        module, rule = site.module, site.rule
        if self._pooled:
            kept, grad = tuple(self._of_units(x) for x in kept), self._of_units(grad)
        stored = {name: self._row(slot) for name, slot in site.slots.items() if modes[slot.name] in IN_ROWS}
        if stored:
            rule.add_rows(module, kept, grad, stored)
        if len(stored) == len(site.slots):
            return
        products: Mapping[str, Any] = rule.products(module, kept, grad)
        segments: Mapping[str, Any] = rule.segments(module, kept, grad)
        for name, slot in site.slots.items():
            if name in stored:
                continue
            own, mode = self._kept.setdefault(slot.name, Kept()), modes[slot.name]
            if name in products and mode in IN_PRODUCTS:
                own.add_product(*products[name])
            elif name in segments and mode in IN_SEGMENTS:
                own.add_segments(*segments[name])
            else:
                self._refuse(slot)

    def arrive_head(self, site: Site, gradient: HeadGradient) -> None:
        """What a trained head's gradient is made of."""
        self._recorded.add(site.name)
        modes = self.arrangement.modes
        stored = {name: self._row(slot) for name, slot in site.slots.items() if modes[slot.name] in IN_ROWS}
        if stored:
            slices = self._head()
            slices.add(gradient)
            slices.add_rows(stored.get("weight"), stored.get("bias"))
        for name, slot in site.slots.items():
            if name in stored:
                continue
            if modes[slot.name] not in IN_SLICES:
                self._refuse(slot)
            own = self._kept.setdefault(slot.name, Kept())
            own.head = own.head or self._head()
            own.head.add(gradient)

    def arrive_rows(self, slot: Slot, grads: Tensor) -> None:
        """The gradient of each sample by itself, [B, *shape of the parameter]."""
        self._recorded.add(slot.name)
        _ = self.arrangement
        if self._pooled:
            grads = self._of_units(grads)
        row = self._row(slot)
        row.add_(working(grads.sum(1) if self._records > 1 else grads).reshape(row.shape))

    def arrive_alone(self, slot: Slot, sample: int, grad: Tensor) -> None:
        """The gradient of one sample."""
        self._recorded.add(slot.name)
        _ = self.arrangement
        row = self._row(slot)[sample // self._records]
        if self._pooled:
            assert self._mask is not None
            grad = torch.where(self._mask[sample], grad, torch.zeros_like(grad))
        row.add_(working(grad).reshape(row.shape))

    def finish(self, before: Tensor | None) -> SampleGradients:
        """The gradients; `before` are the units of earlier microbatches that this one went on with."""
        arrangement, mask = self.arrangement, self._mask
        assert mask is not None
        for name, kept in self._kept.items():
            kept.join(name)
        if self._records > 1:
            mask = mask.view(-1, self._records).any(1)
        if before is not None:
            mask = mask | before
        found, self._kept = self._kept, {}  # the graph of the losses may live on, and knows this gathering
        return SampleGradients(self._layout, arrangement, self._store, found, mask)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _of_units(self, x: Tensor) -> Tensor:
        """Samples of one unit behind one another; a padding sample is all zeros.

        Padding repeats another unit's record. Its gradient is zero, but 0 times an infinite activation is NaN, which
        would let that record decide whether this unit counts.
        """
        assert self._mask is not None
        return _of_units(x, self._mask, self._records)

    def _head(self) -> HeadSlices:
        if not self._pooled:
            return HeadSlices(lambda x: x)
        # Of the mask and not of self: the two would hold one another, and activations, until a garbage collection.
        mask, records = self._mask, self._records
        assert mask is not None
        return HeadSlices(lambda x: _of_units(x, mask, records).flatten(1, -2))

    def _row(self, slot: Slot) -> Tensor:
        if slot.name not in self._store.views:
            self._refuse(slot)
        return self._store.views[slot.name]

    def _refuse(self, slot: Slot) -> None:
        raise RefusedTraining(
            f"PrivateTraining: parameter {slot.name!r} must be used in the backward pass as it was in the forward "
            "pass, got another use (code that runs layers in its own backward); freeze it, or use plain autograd there"
        )


def _need_samples_first(x: Tensor, samples: int) -> None:
    if x.dim() == 0 or x.shape[0] != samples:
        raise RefusedTraining(
            f"PrivateTraining: where a unit has several records, what a rule keeps must have the {samples} samples of "
            f"the microbatch first, got shape {tuple(x.shape)}; take what all samples share from the module instead"
        )


def _of_units(x: Tensor, mask: Tensor, records: int) -> Tensor:
    _need_samples_first(x, len(mask))
    return by_unit(x.masked_fill(~mask.view(-1, *(1 for _ in x.shape[1:])), 0), records)


def by_unit(x: Tensor, records: int) -> Tensor:
    """[units * records, ...] as [units, records, ...]."""
    return x if records == 1 else x.unflatten(0, (-1, records))
