"""Rules for PEFT's adapters whose parameters are read by another module's forward.

Most adapters need none: a LoRA pair is two `Linear` layers, `modules_to_save` are copies of ordinary layers, LN_TUNING
copies norms, PREFIX_TUNING runs an ordinary encoder on every sample. The rules here compute what PEFT 0.21 computes,
on small vectors that are repeated for each sample; the rehearsal compares them with PEFT's own forward.

References: DoRA, Liu et al. 2024 (section 4.3: the norm is a constant); (IA)^3, Liu et al. 2022; VeRA, Kopiczko et al.
2024; P-tuning, Liu et al. 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privkt.dpsgd.rules import LayerMisuse, RepeatedRule, Rule, need_samples, register_rule, weight_of, working


def _is(module: nn.Module, *places: str) -> bool:
    """Whether the class of `module` is one of PEFT's, `tuner.layer.Class` each; a subclass may compute otherwise."""
    kind = type(module)
    return f"{kind.__module__}.{kind.__qualname__}" in {f"peft.tuners.{place}" for place in places}


def _adapters(module: Any, holder: Mapping[str, Any], kwargs: Mapping[str, Any]) -> list[str]:
    """The adapters that this call adds to the base layer."""
    if kwargs.get("adapter_names") is not None:
        raise LayerMisuse("adapter_names must not be given: one batch trains one adapter")
    if module.merged:
        raise LayerMisuse("its adapter must not be merged into the base layer; call unmerge_adapter first")
    return [] if module.disable_adapters else [name for name in module.active_adapters if name in holder]


def _paths(module: nn.Module, *holders: str) -> tuple[str, ...]:
    """`holder.adapter` for each adapter of each parameter dictionary."""
    return tuple(f"{holder}.{name}" for holder in holders for name in getattr(module, holder))


def _each(weight: Tensor, x: Tensor) -> Tensor:
    """[B, ..., d] vectors, one a sample, as [B, 1, ..., d] beside `x`, [B, ..., d]."""
    return weight.reshape(x.shape[0], *(1 for _ in x.shape[2:]), -1)


def _ids(base: nn.Module, ids: Tensor, samples: int) -> Tensor:
    """Ids with one row a sample; `base` must be an embedding whose rows are plain."""
    if base.max_norm is not None or base.scale_grad_by_freq or base.sparse:
        raise LayerMisuse("max_norm, scale_grad_by_freq and sparse must be off")
    ids = ids.expand(samples, -1) if ids.dim() == 2 and ids.shape[0] == 1 else ids
    need_samples(ids, samples)
    return ids


def _unless_padding(base: Any, ids: Tensor, vectors: Tensor) -> Tensor:
    """`vectors` [*ids.shape, d], without a gradient where an embedding has none."""
    if base.padding_idx is None:
        return vectors
    return torch.where((ids == base.padding_idx).unsqueeze(-1), vectors.detach(), vectors)


class DoraRule(Rule):
    """DoRA's magnitude m of a Linear, Conv1D or convolution: row b sums G_b * D_b over positions.

    D = (x W + s B(A(x))) / norm with norm = |W + s B A| by output, from detached weights; what is added to the base
    layer's output is m D - x W. The pair's own rows come from its two layers.
    """

    _CONVOLUTIONS = ("lora.dora.DoraConv1dLayer", "lora.dora.DoraConv2dLayer", "lora.dora.DoraConv3dLayer")

    def handles(self, module: nn.Module) -> bool:
        return _is(module, "lora.dora.DoraLinearLayer", *self._CONVOLUTIONS)

    def parameters(self, module: nn.Module) -> tuple[str, ...]:
        return ("weight",)

    def forward(
        self, module: Any, weights: Mapping[str, Tensor | None], samples: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        (x,), base_layer, scaling = args, kwargs["base_layer"], kwargs["scaling"]
        lora_a, lora_b, base = kwargs["lora_A"], kwargs["lora_B"], kwargs.get("base_result")
        need_samples(x, samples)
        bias = base_layer.bias
        with torch.no_grad():
            weight = _plain_weight(base_layer).to(x.dtype)
            delta = _delta(lora_a.weight, lora_b.weight, weight).to(x.dtype)
            norm = module.get_weight_norm(weight, delta, scaling)
        if base is not None and not (bias is not None and bias.requires_grad):
            base = base if bias is None else base - bias.view(-1, *(1 for _ in weight.shape[2:]))
        elif base_layer.weight.requires_grad:
            raise LayerMisuse("the base layer's own weight must be frozen, since DoRA reads it")
        else:  # dropout goes first, or a trained bias must not be subtracted from its own layer's output
            base = self._base(module, x, weight, base_layer)
        pair = lora_b(lora_a(x)) * scaling
        direction = (base + pair) / norm
        return weight_of(weights) * direction - base, (direction,)

    def add_rows(self, module: nn.Module, kept: tuple[Tensor, ...], grad: Tensor, rows: Mapping[str, Tensor]) -> None:
        product, row = working(grad) * working(kept[0]), rows["weight"]
        if row.dim() > 2:  # [1, outputs, 1, ...] of a convolution, whose positions come last
            product = product.flatten(-(row.dim() - 3)).sum(-1)
        row.add_(product.reshape(row.shape[0], -1, *row.shape[1:]).sum(1))

    @staticmethod
    def _base(module: Any, x: Tensor, weight: Tensor, base_layer: Any) -> Tensor:
        if weight.dim() == 2:
            return F.linear(x, weight.t() if module.fan_in_fan_out else weight)
        place = {name: getattr(base_layer, name) for name in ("stride", "padding", "dilation", "groups")}
        return module.conv_fn(x, weight, bias=None, **place)


def _plain_weight(base_layer: nn.Module) -> Tensor:
    from peft.utils.integrations import dequantize_module_weight

    return dequantize_module_weight(base_layer)


def _delta(lora_a: Tensor, lora_b: Tensor, weight: Tensor) -> Tensor:
    """B A in the shape of `weight`, a Linear's (as outputs x inputs) or a convolution's."""
    if weight.dim() > 2:
        rank = lora_a.shape[0]
        return (lora_b.view(-1, rank) @ lora_a.view(rank, -1)).reshape(weight.shape)
    return lora_b @ lora_a


class LoraEmbeddingRule(RepeatedRule):
    """LoRA on an embedding, and DoRA there: A [r, V] by the ids, then B [d, r], and the magnitude [d].

    Edge cases: ids of batch one are expanded; padding_idx gives A no gradient, and its column of A stays.
    """

    def handles(self, module: nn.Module) -> bool:
        return _is(module, "lora.layer.Embedding")

    def parameters(self, module: Any) -> tuple[str, ...]:
        magnitudes = tuple(f"lora_magnitude_vector.{name}.weight" for name in module.lora_magnitude_vector)
        return _paths(module, "lora_embedding_A", "lora_embedding_B") + magnitudes

    def forward(
        self, module: Any, weights: Mapping[str, Tensor | None], samples: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        base = module.get_base_layer()
        ids = _ids(base, args[0], samples)
        result = module.base_layer(ids)
        dtype, scale = result.dtype, module._get_embed_scale()
        for name in _adapters(module, module.lora_embedding_A, kwargs):
            a, b = (weight_of(weights, f"lora_embedding_{part}.{name}") for part in "AB")
            flat = ids.reshape(samples, 1, -1).expand(-1, a.shape[1], -1)
            inner = a.gather(2, flat).transpose(1, 2).reshape(*ids.shape, -1)
            inner = _unless_padding(base, ids, inner).reshape(samples, -1, a.shape[1])
            pair = (inner @ b.transpose(1, 2)).reshape(*ids.shape, -1) * module.scaling[name]
            pair = pair if scale is None else pair * scale.to(pair.dtype)
            if name in module.lora_magnitude_vector:
                ratio = self._ratio(module, name, weights, result)
                result, pair = ratio * result, ratio * pair
            result = result + pair
        return result.to(dtype), ()

    @staticmethod
    def _ratio(module: Any, name: str, weights: Mapping[str, Tensor | None], result: Tensor) -> Tensor:
        """m / norm of each sample, the norm from detached weights."""
        dora, base = module.lora_magnitude_vector[name], module.get_base_layer()
        a, b = module.lora_embedding_A[name].detach(), module.lora_embedding_B[name].detach()
        norm = dora.get_weight_norm(base.weight.detach(), (a.T @ b.T).T, module.scaling[name])
        return _each(weight_of(weights, f"lora_magnitude_vector.{name}.weight"), result) / norm

    def untrained(self, module: Any) -> Mapping[str, Any]:
        padding = module.get_base_layer().padding_idx
        names = () if padding is None else _paths(module, "lora_embedding_A")
        return {name: (slice(None), padding) for name in names}


class IA3Rule(RepeatedRule):
    """(IA)^3: a vector times the layer's output, or times its input in feed-forward layers."""

    def handles(self, module: nn.Module) -> bool:
        return _is(module, "ia3.layer.Linear", "ia3.layer.Conv2d", "ia3.layer.Conv3d")

    def parameters(self, module: nn.Module) -> tuple[str, ...]:
        return _paths(module, "ia3_l")

    def forward(
        self, module: Any, weights: Mapping[str, Tensor | None], samples: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        x, *rest = args
        need_samples(x, samples)
        names = _adapters(module, module.ia3_l, kwargs)
        vectors = [weight_of(weights, f"ia3_l.{name}") for name in names]

        def scaled(y: Tensor, dtype: torch.dtype) -> Tensor:
            product = y
            for vector in vectors:
                convolution = vector.dim() > 3  # [B, 1, C, 1, ...] beside [B, C, ...]
                product = product * (vector.squeeze(1) if convolution else _each(vector, y))
            return product.to(dtype)

        if module.is_feedforward:
            wide = x.to(vectors[-1].dtype) if vectors else x
            return module.base_layer(scaled(wide, x.dtype), *rest, **kwargs), ()
        result = module.base_layer(x, *rest, **kwargs)
        return scaled(result, result.dtype), ()


class VeraRule(RepeatedRule):
    """VeRA: the vectors d and b around two fixed random matrices."""

    def handles(self, module: nn.Module) -> bool:
        return _is(module, "vera.layer.Linear")

    def parameters(self, module: nn.Module) -> tuple[str, ...]:
        return _paths(module, "vera_lambda_d", "vera_lambda_b")

    def forward(
        self, module: Any, weights: Mapping[str, Tensor | None], samples: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        x, *rest = args
        need_samples(x, samples)
        result = module.base_layer(x, *rest, **kwargs)
        dtype = result.dtype
        for name in _adapters(module, module.vera_lambda_d, kwargs):
            d, b = (weight_of(weights, f"vera_lambda_{part}.{name}") for part in "db")
            first = module.vera_A[name][:, : module.in_features].to(x.device)
            second = module.vera_B[name][: module.out_features].to(x.device)
            x = x.to(d.dtype)
            inner = F.linear(module.vera_dropout[name](x), first)
            outer = F.linear(_each(d, inner) * inner, second)
            result = result + _each(b, outer) * outer
        return result.to(dtype), ()


class TrainableTokensRule(RepeatedRule):
    """Some rows of an embedding, [k, d]: also where a tied head reads them."""

    def handles(self, module: nn.Module) -> bool:
        return _is(module, "trainable_tokens.layer.TrainableTokensLayer")

    def parameters(self, module: nn.Module) -> tuple[str, ...]:
        return _paths(module, "trainable_tokens_delta")

    def forward(
        self, module: Any, weights: Mapping[str, Tensor | None], samples: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        x, base = args[0], module.base_layer
        if base.weight.requires_grad:
            raise LayerMisuse("the embedding's own weight must be frozen while some of its rows are trained")
        tokens = isinstance(base, nn.Embedding)
        x = _ids(base, x, samples) if tokens else x
        need_samples(x, samples)
        result = F.embedding(x, base.weight) if tokens else F.linear(x, base.weight)
        for name in _adapters(module, module.trainable_tokens_delta, kwargs):
            delta = weight_of(weights, f"trainable_tokens_delta.{name}")
            places = torch.tensor(module.token_indices[name], device=x.device)
            if places.unique().numel() < places.numel():
                raise LayerMisuse("each token index must be given once")
            delta = delta.to(base.weight.dtype)
            result = _looked_up(x, delta, places, result, base) if tokens else _scored(x, delta, places, result)
        scale = module._get_embed_scale() if tokens else None
        return (result if scale is None else result * scale.to(result.dtype)), ()

    def untrained(self, module: Any) -> Mapping[str, Any]:
        padding = getattr(module.base_layer, "padding_idx", None)
        return {
            f"trainable_tokens_delta.{name}": list(indices).index(padding)
            for name, indices in module.token_indices.items()
            if padding in indices
        }


def _looked_up(ids: Tensor, delta: Tensor, places: Tensor, result: Tensor, base: nn.Module) -> Tensor:
    """`result` with each sample's own rows `delta` [B, k, d] where its ids are among `places`."""
    found = ids.unsqueeze(-1) == places
    which = found.int().argmax(-1).reshape(len(ids), -1, 1).expand(-1, -1, delta.shape[2])
    own = _unless_padding(base, ids, delta.gather(1, which).reshape(result.shape))
    return torch.where(found.any(-1, keepdim=True), own, result)


def _scored(x: Tensor, delta: Tensor, places: Tensor, result: Tensor) -> Tensor:
    """Logits `result` with those at `places` from each sample's own rows."""
    own = x.reshape(len(x), -1, x.shape[-1]) @ delta.transpose(1, 2)
    return result.index_copy(result.dim() - 1, places, own.reshape(*x.shape[:-1], -1))


class PromptEncoderRule(Rule):
    """P-tuning's encoder with an LSTM, whole: row b is the vector-Jacobian product with the prompt's gradient in b.

    The encoder sees only the prompt's own positions, so one forward serves all samples.
    """

    def handles(self, module: nn.Module) -> bool:
        return _is(module, "p_tuning.model.PromptEncoder") and hasattr(module, "lstm_head")

    def parameters(self, module: nn.Module) -> tuple[str, ...]:
        return tuple(name for name, _ in module.named_parameters())

    def forward(
        self, module: Any, weights: Mapping[str, Tensor | None], samples: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        positions = args[0]
        need_samples(positions, samples)
        if module.training and module.lstm_head.dropout and module.lstm_head.num_layers > 1:
            raise LayerMisuse("encoder_dropout must be 0: its mask could not be drawn again")
        with torch.no_grad():
            prompt = type(module).forward(module, positions[:1])
        return prompt.expand(samples, -1, -1), ()

    def add_rows(self, module: Any, kept: tuple[Tensor, ...], grad: Tensor, rows: Mapping[str, Tensor]) -> None:
        parameters = [module.get_parameter(name) for name in rows]
        positions = torch.arange(module.total_virtual_tokens, device=grad.device).unsqueeze(0)
        with torch.enable_grad():
            prompt = type(module).forward(module, positions)
            units = grad.reshape(next(iter(rows.values())).shape[0], -1, *prompt.shape[1:]).sum(1, keepdim=True)
            for unit, own in enumerate(units.to(prompt)):
                found = torch.autograd.grad(prompt, parameters, own, retain_graph=True)
                for row, part in zip(rows.values(), found, strict=True):
                    row[unit].add_(working(part))


def prompt_of_each(owner: Any, samples: int) -> Tensor:
    """A PEFT model's prompt with its encoder run on every sample, [B, n, d], instead of once."""
    encoder = owner.prompt_encoder[owner.active_adapter]
    positions = owner.prompt_tokens[owner.active_adapter].unsqueeze(0).expand(samples, -1)
    return encoder(positions.to(encoder.embedding.weight.device))


_RULES: tuple[Rule, ...] = (
    DoraRule(), LoraEmbeddingRule(), IA3Rule(), VeraRule(), TrainableTokensRule(), PromptEncoderRule()
)  # fmt: skip
for _rule in _RULES:
    register_rule(_rule)
