"""The torch.library ops of the namespace `privkt`: each declared here and nowhere else.

An op's implementation on CPU and CUDA is: the checks of `checks`, then the function of the same name in `native`, or
in `reference` where PRIVKT_KERNELS=reference asks for it (each in several files). Its shapes without data (fakes) stand
here. None can be differentiated: a gradient through clipping or noise would be a wrong gradient, so asking for one
raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from privkt.kernels import (
    checks,
    checks_exponential,
    checks_updates,
    native,
    native_exponential,
    native_products,
    native_updates,
    reference,
    reference_exponential,
    reference_rejection,
    schema_exponential,
)

_library = torch.library.Library("privkt", "DEF")

_LOOKUPS = "Tensor ids, Tensor grad"
_NOISE = "float sigma, Tensor key, int step, int offset"
_HEAD = "float scale, float softcap"
_MEAN = f"Tensor total, {_NOISE}, float? scale, float divisor, bool maximize"
SCHEMAS = {
    "row_sqnorms": "(Tensor rows, Tensor? mask) -> Tensor",
    "add_row_sqnorms_": "(Tensor(a!) sqnorms, Tensor rows, Tensor? mask) -> ()",
    "clip_factors": "(Tensor sqnorms, float max_norm, int width, float slack, Tensor? mask) -> (Tensor, Tensor)",
    "clipped_sum": "(Tensor rows, Tensor factors, Tensor? mask) -> Tensor",
    "add_clipped_sum_": "(Tensor(a!) out, Tensor rows, Tensor factors, Tensor? mask, float? scale=None) -> ()",
    "clip_and_sum_": (
        "(Tensor(a!) out, Tensor rows, float max_norm, Tensor? mask, float? scale=None) -> (Tensor, Tensor)"
    ),
    "embedding_sqnorms": f"({_LOOKUPS}, Tensor? mask, int? padding_idx) -> Tensor",
    "add_embedding_sqnorms_": f"(Tensor(a!) sqnorms, {_LOOKUPS}, Tensor? mask, int? padding_idx) -> ()",
    "add_clipped_embedding_sum_": (
        f"(Tensor(a!) out, {_LOOKUPS}, Tensor factors, Tensor? mask, int? padding_idx, float? scale) -> ()"
    ),
    "product_sqnorms": "(Tensor left, Tensor right, Tensor? mask, bool gram) -> Tensor",
    "add_product_sqnorms_": "(Tensor(a!) sqnorms, Tensor left, Tensor right, Tensor? mask, bool gram) -> ()",
    "add_clipped_product_sum_": (
        "(Tensor(a!) out, Tensor left, Tensor right, Tensor factors, Tensor? mask, float? scale=None) -> ()"
    ),
    "tied_cross": f"({_LOOKUPS}, Tensor left, Tensor right, Tensor? mask, int? padding_idx) -> Tensor",
    "gaussian_noise_": f"(Tensor(a!) out, {_NOISE}) -> ()",
    "add_gaussian_noise_": f"(Tensor(a!) x, {_NOISE}) -> ()",
    "noisy_sum": f"(Tensor total, {_NOISE}, float? scale=None) -> Tensor",
    "head_losses_": f"(Tensor(a!) logits, Tensor labels, {_HEAD}, bool want_gradient) -> (Tensor, Tensor)",
    "head_gradient_": f"(Tensor(a!) logits, Tensor labels, Tensor stats, int start, {_HEAD}) -> ()",
    "discrete_gaussian_": f"(Tensor(a!) out, {_NOISE}) -> ()",
    "add_discrete_gaussian_": f"(Tensor(a!) total, {_NOISE}) -> ()",
    "sgd_update_": (
        f"(Tensor(a!) param, Tensor(b!)? momentum_buffer, {_MEAN}, float rate, float momentum, float dampened, "
        "float weight_decay, bool nesterov, bool first) -> ()"
    ),
    "adam_update_": (
        f"(Tensor(a!) param, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, {_MEAN}, float rate, float first_weight, "
        "float second_decay, float second_weight, float correction, float root_correction, float eps, "
        "float weight_decay, float shrink, float noise_variance, float floor) -> ()"
    ),
    **schema_exponential.SCHEMAS,
}


def _factors_like(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], dtype=torch.float32), x.new_empty(x.shape[0], dtype=torch.bool)


def _losses_like(x: Tensor) -> tuple[Tensor, Tensor]:
    n = x.shape[0]
    return x.new_empty(n, dtype=torch.float64), x.new_empty(n, 2, dtype=torch.float64)


FAKES: dict[str, Callable[..., Any]] = {
    "row_sqnorms": lambda rows, mask: rows.new_empty(rows.shape[0], dtype=torch.float64),
    "add_row_sqnorms_": lambda sqnorms, rows, mask: None,
    "clip_factors": lambda sqnorms, max_norm, width, slack, mask: _factors_like(sqnorms),
    "clipped_sum": lambda rows, factors, mask: rows.new_empty(rows.shape[1], dtype=torch.float32),
    "add_clipped_sum_": lambda out, rows, factors, mask, scale=None: None,
    "clip_and_sum_": lambda out, rows, max_norm, mask, scale=None: _factors_like(rows),
    "embedding_sqnorms": lambda ids, grad, mask, padding: grad.new_empty(grad.shape[0], dtype=torch.float64),
    "add_embedding_sqnorms_": lambda sqnorms, ids, grad, mask, padding: None,
    "add_clipped_embedding_sum_": lambda out, ids, grad, factors, mask, padding, scale: None,
    "product_sqnorms": lambda left, right, mask, gram: left.new_empty(left.shape[0], dtype=torch.float64),
    "add_product_sqnorms_": lambda sqnorms, left, right, mask, gram: None,
    "add_clipped_product_sum_": lambda out, left, right, factors, mask, scale=None: None,
    "tied_cross": lambda ids, grad, left, right, mask, padding: grad.new_empty(grad.shape[0], dtype=torch.float64),
    "gaussian_noise_": lambda out, sigma, key, step, offset: None,
    "add_gaussian_noise_": lambda x, sigma, key, step, offset: None,
    "noisy_sum": lambda total, sigma, key, step, offset, scale=None: torch.empty_like(total, dtype=torch.float32),
    "head_losses_": lambda logits, labels, scale, softcap, want_gradient: _losses_like(logits),
    "head_gradient_": lambda logits, labels, stats, start, scale, softcap: None,
    "discrete_gaussian_": lambda out, sigma, key, step, offset: None,
    "add_discrete_gaussian_": lambda total, sigma, key, step, offset: None,
    "sgd_update_": lambda *args: None,
    "adam_update_": lambda *args: None,
    **schema_exponential.FAKES,
}


def _implementation(name: str) -> Callable[..., Any]:
    places = (
        (checks, checks_updates, checks_exponential),
        (native, native_products, native_updates, native_exponential),
        (reference, reference_exponential, reference_rejection),
    )
    check, on_native, on_reference = (
        next(getattr(module, name) for module in modules if hasattr(module, name)) for modules in places
    )

    def run(*args: Any) -> Any:
        check(*args)
        return on_native(*args) if native.is_private() else on_reference(*args)

    return run


def _refusing_autograd(name: str, direct: bool = False) -> Callable[..., Any]:
    op = getattr(torch.ops.privkt, name).default
    mutated = [i for i, x in enumerate(op._schema.arguments) if x.alias_info is not None and x.alias_info.is_write]

    run = _implementation(name) if direct else None

    def refuse(*args: Any) -> Any:
        tensors = [x for x in args if isinstance(x, Tensor)]
        if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
            raise RuntimeError(
                f"privkt.{name}: cannot be differentiated, got an argument that requires grad; "
                "detach it or call under torch.no_grad()"
            )
        if run is not None:
            result = run(*args)
        else:
            with torch._C._AutoDispatchBelowAutograd():
                result = op(*args)
        for i in mutated:  # or a graph that saved the buffer would read the new values unnoticed
            if args[i] is not None:
                torch.autograd.graph.increment_version(args[i])
        return result

    return refuse


for _name, _schema in SCHEMAS.items():
    _library.define(_name + _schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.register_fake(f"privkt::{_name}", FAKES[_name], lib=_library)
    for _key in ("CPU", "CUDA"):
        _library.impl(_name, _implementation(_name), _key)
    _library.impl(_name, _refusing_autograd(_name), "Autograd")

ops = torch.ops.privkt

# Past torch's dispatcher, which takes longer than the step of a small parameter; eager mode only.
direct = {name: _refusing_autograd(name, direct=True) for name in ("sgd_update_", "adam_update_")}
