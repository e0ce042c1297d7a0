"""Which layers can be trained privately: a rule gives a layer's output and its per-sample gradients.

A rule runs the layer on *detached* parameters, so autograd never builds an ordinary weight gradient, and keeps what
it needs of the input. When the gradient of the output arrives, it adds one row a sample to the flat buffer.

    class Scale(torch.nn.Module): ...            # y = x * weight, weight: [d]

    class ScaleRule(Rule):
        def handles(self, module): return isinstance(module, Scale)
        def parameters(self, module): return ("weight",)
        def forward(self, module, weights, samples, x): return x * weights["weight"], (x,)
        def add_rows(self, module, kept, grad, rows): rows["weight"] += (grad * kept[0]).flatten(1, -2).sum(1)

    register_rule(ScaleRule())
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class LayerMisuse(ValueError):
    """A layer was called in a way its rule cannot split by sample; the engine adds the layer's name."""


class Rule(ABC):
    """How one kind of layer gives per-sample gradients.

    Guarantee: `add_rows` adds to row b the gradient of sample b's loss and nothing of another sample, if the layer
    treats the first dimension of its input as samples. A layer called twice adds twice, which is exact.
    """

    @abstractmethod
    def handles(self, module: nn.Module) -> bool:
        """Whether this rule knows `module`. Compare `type(module).forward`: a subclass may compute something else."""

    @abstractmethod
    def parameters(self, module: nn.Module) -> tuple[str, ...]:
        """Names of the parameters that the rule covers; `child.name` for one that a child holds and `module` reads."""

    @abstractmethod
    def forward(
        self, module: nn.Module, weights: Mapping[str, Tensor | None], samples: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The layer's output, and the tensors that `add_rows` needs; `weights` are detached, `samples` is B."""

    @abstractmethod
    def add_rows(self, module: nn.Module, kept: tuple[Tensor, ...], grad: Tensor, rows: Mapping[str, Tensor]) -> None:
        """Adds to `rows[name]`, [B, *shape of the parameter] float32, for the names in `rows` alone.

        Shapes: grad: that of the output. With several records a unit, B counts units, and grad and what was kept are
            [units, records, ...], so that everything kept must have the samples first.
        """

    def products(
        self, module: nn.Module, kept: tuple[Tensor, ...], grad: Tensor
    ) -> Mapping[str, tuple[Tensor, Tensor]]:
        """(left, right) for parameters [p, d] whose row b is left[b]^T right[b]; others have rows alone.

        Shapes: left: [B, T, p], right: [B, T, d], in any floating dtype. Norms and sums of such rows need no rows.
        """
        return {}

    def segments(
        self, module: nn.Module, kept: tuple[Tensor, ...], grad: Tensor
    ) -> Mapping[str, tuple[Tensor, Tensor, int | None]]:
        """(ids, grad, padding_idx) for parameters [V, d] whose row b is at v the sum of grad[b, t] with ids[b, t] = v.

        Shapes: ids: [B, T] int64, grad: [B, T, d]; positions with padding_idx do not count.
        """
        return {}

    def untrained(self, module: nn.Module) -> Mapping[str, Any]:
        """Rows of a parameter that ordinary training never moves, by the parameter's name; noise must not either."""
        return {}


class RepeatedRule(Rule):
    """For small parameters: `weights[name]` is [B, *shape], the parameter once for each sample.

    Autograd then gives its gradient sample by sample, which is the row, so there is no `add_rows` to write. `forward`
    returns what the module returns, and nothing kept.
    """

    def add_rows(self, module: nn.Module, kept: tuple[Tensor, ...], grad: Tensor, rows: Mapping[str, Tensor]) -> None:
        for row in rows.values():  # the engine asks once for each parameter, with the gradient of its repetitions
            row.add_(working(grad).reshape(row.shape[0], -1, *row.shape[1:]).sum(1))


def parameter_of(module: nn.Module, name: str) -> nn.Parameter | None:
    """The parameter `name` or `child.name` of `module`, if it has one."""
    *children, last = name.split(".")
    found: nn.Module | None = module
    for child in children:
        found = None if found is None else found._modules.get(child)
    return None if found is None else found._parameters.get(last)


_RULES: list[Rule] = []


def register_rule(rule: Rule) -> None:
    """Makes `rule` known; rules registered later are asked first."""
    _RULES.insert(0, rule)


def rule_for(module: nn.Module) -> Rule | None:
    """The rule that handles `module`, if any."""
    return next((rule for rule in _RULES if rule.handles(module)), None)


def need_samples(x: Tensor, samples: int) -> None:
    """Refuses an input whose first dimension is not the samples of the microbatch."""
    if x.dim() == 0 or x.shape[0] != samples:
        came = x.shape[0] if x.dim() else "a scalar"
        raise LayerMisuse(f"its input must have the {samples} samples of the microbatch first, got {came}")


def weight_of(weights: Mapping[str, Tensor | None], name: str = "weight") -> Tensor:
    """The detached `name`, which such a layer always has."""
    weight = weights[name]
    assert weight is not None
    return weight


def working(x: Tensor) -> Tensor:
    """`x` in the precision rows are computed in: float64 stays, everything else becomes float32."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def add_products(rows: Tensor, left: Tensor, right: Tensor) -> None:
    """rows[b] += left[b] @ right[b], accumulated in place in float32.

    Shapes: rows: [B, m, n] float32 with any stride between samples; left: [B, m, T]; right: [B, T, n].
    """
    if left.dtype == right.dtype == torch.float32:
        rows.baddbmm_(left, right)
    else:
        rows.add_(torch.bmm(left.double(), right.double()))


def positions(x: Tensor) -> Tensor:
    """[B, d] or [B, ..., d] as [B, T, d]."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def by_sample(x: Tensor) -> Tensor:
    """[B, d] or [B, ..., d] as [B, T, d] in working precision."""
    return positions(working(x))
