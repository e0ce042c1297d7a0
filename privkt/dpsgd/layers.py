"""Rules for the layers that language models are made of.

A LoRA pair is two `Linear` layers of its own (rank r inside): its rows cost what its ordinary gradient costs, and
dropout, scaling, rsLoRA and several adapters are exact because PEFT's own forward runs around them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from privkt.dpsgd.rules import (
    LayerMisuse,
    Rule,
    add_products,
    by_sample,
    need_samples,
    positions,
    register_rule,
    weight_of,
    working,
)


class LinearRule(Rule):
    """`nn.Linear`: row b of the weight is G_b^T X_b, of the bias the sum of G_b."""

    def handles(self, module: nn.Module) -> bool:
        return type(module).forward is nn.Linear.forward

    def parameters(self, module: nn.Module) -> tuple[str, ...]:
        return ("weight", "bias")

    def forward(
        self, module: nn.Module, weights: Mapping[str, Tensor | None], samples: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = args[0] if args else kwargs["input"]
        need_samples(x, samples)
        return F.linear(x, weight_of(weights), weights["bias"]), (x,)

    def add_rows(self, module: nn.Module, kept: tuple[Tensor, ...], grad: Tensor, rows: Mapping[str, Tensor]) -> None:
        g = by_sample(grad)
        if "weight" in rows:
            add_products(rows["weight"], g.transpose(1, 2), by_sample(kept[0]))
        if "bias" in rows:
            rows["bias"].add_(g.sum(1))

    def products(
        self, module: nn.Module, kept: tuple[Tensor, ...], grad: Tensor
    ) -> Mapping[str, tuple[Tensor, Tensor]]:
        return {"weight": (positions(grad), positions(kept[0]))}


class Conv1DRule(Rule):
    """Hugging Face's `Conv1D` (GPT-2): a Linear whose weight is stored as [inputs, outputs]."""

    def handles(self, module: nn.Module) -> bool:
        return type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils"

    def parameters(self, module: nn.Module) -> tuple[str, ...]:
        return ("weight", "bias")

    def forward(
        self, module: nn.Module, weights: Mapping[str, Tensor | None], samples: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = args[0] if args else kwargs["x"]
        need_samples(x, samples)
        return F.linear(x, weight_of(weights).t(), weights["bias"]), (x,)

    def add_rows(self, module: nn.Module, kept: tuple[Tensor, ...], grad: Tensor, rows: Mapping[str, Tensor]) -> None:
        g = by_sample(grad)
        if "weight" in rows:
            add_products(rows["weight"], by_sample(kept[0]).transpose(1, 2), g)
        if "bias" in rows:
            rows["bias"].add_(g.sum(1))

    def products(
        self, module: nn.Module, kept: tuple[Tensor, ...], grad: Tensor
    ) -> Mapping[str, tuple[Tensor, Tensor]]:
        return {"weight": (positions(kept[0]), positions(grad))}


class EmbeddingRule(Rule):
    """`nn.Embedding`: the gradient of each looked-up vector is added to its row; `padding_idx` gets none.

    Gemma's scaled embeddings (`embed_scale` times the vector) are embeddings too.

    Edge cases: ids of batch 1 (position ids that are broadcast over the samples) are expanded first, since the sum
    over samples that broadcasting would give cannot be taken apart again.
    """

    def handles(self, module: nn.Module) -> bool:
        scaled = isinstance(module, nn.Embedding) and type(module).__name__.endswith("ScaledWordEmbedding")
        return scaled or type(module).forward is nn.Embedding.forward

    def parameters(self, module: nn.Module) -> tuple[str, ...]:
        return ("weight",)

    def forward(
        self, module: nn.Module, weights: Mapping[str, Tensor | None], samples: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        ids = args[0] if args else kwargs.get("input", kwargs.get("input_ids"))
        if module.max_norm is not None or module.scale_grad_by_freq or module.sparse:
            raise LayerMisuse("max_norm, scale_grad_by_freq and sparse must be off")
        if ids.dim() == 2 and ids.shape[0] == 1:
            ids = ids.expand(samples, -1)
        need_samples(ids, samples)
        weight, padding = weight_of(weights), module.padding_idx
        vectors = F.embedding(ids, weight, padding if isinstance(padding, int) else None)
        scale = getattr(module, "embed_scale", None)
        return (vectors if scale is None else vectors * torch.as_tensor(scale).to(weight)), (ids,)

    def add_rows(self, module: nn.Module, kept: tuple[Tensor, ...], grad: Tensor, rows: Mapping[str, Tensor]) -> None:
        (ids, g, padding) = self.segments(module, kept, grad)["weight"]
        g = g.to(rows["weight"].dtype)
        if padding is not None:
            g = g.masked_fill((ids == padding).unsqueeze(-1), 0)
        sample = torch.arange(ids.shape[0], device=ids.device).unsqueeze(1).expand_as(ids)
        rows["weight"].index_put_((sample, ids), g, accumulate=True)

    def segments(
        self, module: nn.Module, kept: tuple[Tensor, ...], grad: Tensor
    ) -> Mapping[str, tuple[Tensor, Tensor, int | None]]:
        g = positions(grad)
        if (scale := getattr(module, "embed_scale", None)) is not None:
            g = working(g)
            g = g * torch.as_tensor(scale).to(cast(nn.Embedding, module).weight.dtype).to(g)
        padding = module.padding_idx if isinstance(module.padding_idx, int) else None
        return {"weight": (kept[0].reshape(kept[0].shape[0], -1), g, padding)}

    def untrained(self, module: nn.Module) -> Mapping[str, int]:
        return {"weight": module.padding_idx} if isinstance(module.padding_idx, int) else {}


class LayerNormRule(Rule):
    """`nn.LayerNorm`: row b of the weight is the sum of G_b times the normalised input, of the bias the sum of G_b."""

    def handles(self, module: nn.Module) -> bool:
        return type(module).forward is nn.LayerNorm.forward

    def parameters(self, module: nn.Module) -> tuple[str, ...]:
        return ("weight", "bias")

    def forward(
        self, module: nn.Module, weights: Mapping[str, Tensor | None], samples: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = args[0] if args else kwargs["input"]
        need_samples(x, samples)
        norm = cast(nn.LayerNorm, module)
        return F.layer_norm(x, norm.normalized_shape, weights["weight"], weights["bias"], norm.eps), (x,)

    def add_rows(self, module: nn.Module, kept: tuple[Tensor, ...], grad: Tensor, rows: Mapping[str, Tensor]) -> None:
        norm, g = cast(nn.LayerNorm, module), working(grad)
        between = tuple(range(1, g.dim() - len(norm.normalized_shape)))

        def total(x: Tensor) -> Tensor:
            return x.sum(between) if between else x

        if "weight" in rows:
            unit = F.layer_norm(working(kept[0]), norm.normalized_shape, eps=norm.eps)
            rows["weight"].add_(total(g * unit))
        if "bias" in rows:
            rows["bias"].add_(total(g))


class RMSNormRule(Rule):
    """RMSNorm of any family, found by what it computes: f(x; w) = w * n(x) or (1 + w) * n(x), n(x) = x / rms(x).

    A module with one vector `weight` as its only state is run on a fixed input with three weights; it is an RMSNorm if
    the results are affine in the weight and their slope is x / sqrt(mean(x^2) + eps). Row b is the sum of G_b * n(X_b).
    """

    def __init__(self) -> None:
        self._known: dict[type, bool] = {}

    def handles(self, module: nn.Module) -> bool:
        kind = type(module)
        if kind not in self._known:
            self._known[kind] = _computes_rms_norm(module)
        return self._known[kind]

    def parameters(self, module: nn.Module) -> tuple[str, ...]:
        return ("weight",)

    def forward(
        self, module: nn.Module, weights: Mapping[str, Tensor | None], samples: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        if len(args) != 1 or kwargs:
            raise LayerMisuse("an RMSNorm must be called with its input alone")
        need_samples(args[0], samples)
        return _norm_with(module, weight_of(weights), args[0]), (args[0],)

    def add_rows(self, module: nn.Module, kept: tuple[Tensor, ...], grad: Tensor, rows: Mapping[str, Tensor]) -> None:
        # nn.RMSNorm without eps takes that of the input's dtype, so such an input keeps its dtype here too.
        x = kept[0] if getattr(module, "eps", 0.0) is None else working(kept[0])
        ones = torch.ones(x.shape[-1], dtype=x.dtype, device=x.device)
        slope = _norm_with(module, ones, x) - _norm_with(module, torch.zeros_like(ones), x)
        product = working(grad) * working(slope)
        rows["weight"].add_(product.flatten(1, -2).sum(1) if product.dim() > 2 else product)


def _norm_with(module: nn.Module, weight: Tensor, x: Tensor) -> Tensor:
    """The module's own forward with another weight; the engine may have put its own in `module.forward`."""
    replaced = module.__dict__.pop("forward", None)
    try:
        output = functional_call(module, {"weight": weight}, (x,))
    finally:
        if replaced is not None:
            module.__dict__["forward"] = replaced
    if not isinstance(output, Tensor):
        raise LayerMisuse("an RMSNorm must return one tensor")
    return output


def _computes_rms_norm(module: nn.Module) -> bool:
    state = dict(module.named_parameters())
    if list(state) != ["weight"] or state["weight"].dim() != 1 or next(module.children(), None) is not None:
        return False
    if dict(module.named_buffers()) or "Norm" not in type(module).__name__:
        return False
    weight = state["weight"]
    width, device = weight.shape[0], weight.device
    x = torch.linspace(-2.0, 3.0, 2 * 3 * width, device=device).sin().mul(3).reshape(2, 3, width)
    eps = next(
        (getattr(module, name) for name in ("variance_epsilon", "eps", "epsilon") if hasattr(module, name)), None
    )
    eps = torch.finfo(x.dtype).eps if eps is None else float(eps)
    expected = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    try:
        with torch.no_grad():
            at = [_norm_with(module, torch.full((width,), w, device=device), x) for w in (0.0, 0.5, 1.0)]
    except (TypeError, ValueError, RuntimeError, LayerMisuse):
        return False  # it cannot even be called like a norm: it is refused by name as an unknown layer
    affine = torch.allclose(at[1], (at[0] + at[2]) / 2, atol=1e-5)
    return affine and torch.allclose(at[2] - at[0], expected, rtol=1e-4, atol=1e-5)


for _rule in (LinearRule(), Conv1DRule(), EmbeddingRule(), LayerNormRule(), RMSNormRule()):
    register_rule(_rule)
