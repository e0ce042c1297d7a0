"""Heads of causal language models: which of them the chunked loss may stand in for, and why not the others.

What lies before the head (adapters, soft prompts, scalings of the hidden states) does not matter: the hidden states are
taken at the head's own input, during the model's own forward. What the model does to the logits afterwards must be
known, and is tried out on made-up logits before it is believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from privkt.dpsgd.errors import RefusedTraining
from privkt.dpsgd.taps import set_aside, stands_in
from privkt.dpsgd.verify import undisturbed

_CAPS = (
    "final_logit_softcapping",
)  # fields of a model's config, for y = cap tanh(x / cap), y = x field, y = x / field
_FACTORS = ("logit_scale", "lm_head_multiplier")
_DIVISORS = ("logits_scaling",)
_RANGE = 80.0  # made-up logits reach this far on both sides, where a cap shows


@dataclass(frozen=True)
class HeadPath:
    """How the losses of a model are computed, and why.

    chunked: from the hidden states, without the batch's logits; otherwise from the logits that the model returns.
    trained: the head is trained, and chunked only in a microbatch of private training, which takes its gradient apart.
    reason: one line for people. The logits are softcap tanh(scale x / softcap), x what `linear` returns.
    """

    chunked: bool
    reason: str
    linear: nn.Linear | None = field(default=None, repr=False)
    softcap: float | None = None
    scale: float | None = None
    trained: bool = False


_tried: WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], str]] = WeakKeyDictionary()


def head_path(model: nn.Module, samples: int = 1) -> HeadPath:
    """Whether `model`'s losses come from its hidden states, and why not where they do not.

    samples: rows of the made-up batch, for models that want one size (inside a microbatch, its B).
    Guarantee: a chunked path was tried on this model, adapters and all: the model did to made-up logits what the path
        says, and its forward ran without its head. Tried once for each model and what is known of its head.
    """
    found = _by_structure(model)
    if found.linear is None:
        return found
    key = (id(found.linear), found.linear.weight.dtype, found.softcap, found.scale)
    known = _tried.get(model)
    if known is None or known[0] != key:
        known = key, _differs(model, found, samples)
        _tried[model] = known
    return replace(found, chunked=False, reason=known[1], linear=None, trained=False) if known[1] else found


def hidden_states(model: nn.Module, linear: nn.Linear, inputs: Mapping[str, Any]) -> Tensor:
    """What the model hands to its head, [B, T', d] with its graph; the head itself runs on no token.

    Raises: RefusedTraining, if the model does not run its head exactly once.
    """
    seen: list[Tensor] = []

    def take(module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor, ...]:
        seen.append(args[0])
        return (args[0][..., :0, :],)

    handle = linear.register_forward_pre_hook(take)
    try:
        model(**inputs, use_cache=False)
    finally:
        handle.remove()
    if len(seen) != 1:
        raise RefusedTraining(
            f"causal_lm_losses: the model must run its head once in a forward, got {len(seen)} times; compute the "
            "losses from its logits with privkt.dpsgd.causal_lm_losses"
        )
    return seen[0]


def _by_structure(model: nn.Module) -> HeadPath:
    """What can be told without running the model; `linear` is None where the path is not chunked."""
    get_base = getattr(model, "get_base_model", None)
    base = get_base() if callable(get_base) and hasattr(model, "peft_config") else model
    if any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in (model, base)):
        return _ordinary("the model is compiled, so its head's input cannot be taken")
    get_head = getattr(base, "get_output_embeddings", None)
    linear = _active(get_head()) if callable(get_head) else None
    if linear is None:
        return _ordinary("the model names no output embeddings")
    if type(linear) is not nn.Linear:
        return _ordinary(f"its head is a {type(linear).__name__}, not a plain Linear")
    trained = any(p.requires_grad for p in linear.parameters())
    if (
        ("forward" in linear.__dict__ and stands_in(linear) is None)
        or linear._forward_hooks
        or linear._forward_pre_hooks
        or linear._backward_hooks
    ):
        return _ordinary("something else is hooked to its head")
    if not linear.weight.is_floating_point() or linear.weight.is_meta:
        return _ordinary("its head's weight is not floating point in memory")
    config = getattr(base, "config", None)
    if config is not None and hasattr(config, "get_text_config"):
        config = config.get_text_config()
    caps, factors, divisors = ([_number(config, name) for name in names] for names in (_CAPS, _FACTORS, _DIVISORS))
    scale = 1.0
    for value in factors:
        scale *= 1.0 if value is None else value
    for value in divisors:
        scale /= 1.0 if value is None else value
    parts = f"its head is a plain, {'trained' if trained else 'frozen'} Linear" + (
        f", logits times {scale:g}" if scale != 1 else ""
    )
    parts += f", capped at {caps[0]:g}" if caps[0] else ""
    return HeadPath(True, parts, linear, caps[0] or None, None if scale == 1 else scale, trained)


def _active(head: Any) -> Any:
    """The head itself where PEFT (modules_to_save) keeps a trained copy beside the first one."""
    copies = getattr(head, "modules_to_save", None)
    if not isinstance(copies, nn.ModuleDict):
        return head
    active = list(getattr(head, "active_adapters", ()))
    if getattr(head, "disable_adapters", False) or not active:
        return head.original_module
    return copies[active[0]] if len(active) == 1 and active[0] in copies else head


def _ordinary(reason: str) -> HeadPath:
    return HeadPath(False, reason)


def _number(config: Any, name: str) -> float | None:
    value = getattr(config, name, None)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value != 0 else None


def _differs(model: nn.Module, path: HeadPath, samples: int) -> str:
    """Why the model's logits are not what `path` says; empty if they are. Runs the model twice on made-up tokens."""
    linear = path.linear
    assert linear is not None
    source = torch.Generator().manual_seed(0)
    ids = torch.randint(0, min(linear.out_features, _tokens(model)), (samples, 2), generator=source)
    ids = ids.to(linear.weight.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    made_up: list[Tensor] = []

    def pretend(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        values = torch.rand(output.shape, generator=source) * (2 * _RANGE) - _RANGE
        made_up.append(values.to(output))
        return made_up[-1]

    try:
        with undisturbed(model), set_aside(model), torch.no_grad():
            handle = linear.register_forward_hook(pretend)
            try:
                logits = model(**inputs, use_cache=False).logits
            finally:
                handle.remove()
            hidden = hidden_states(model, linear, inputs)
    except RefusedTraining:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError) as error:
        return f"its forward does not run on made-up tokens alone ({type(error).__name__})"
    if len(made_up) != 1 or logits.shape != made_up[0].shape or hidden.shape[:-1] != logits.shape[:-1]:
        return "its logits are not its head's output, one row a position"
    wanted = made_up[0].double() * (path.scale or 1.0)
    if path.softcap is not None:
        wanted = path.softcap * torch.tanh(wanted / path.softcap)
    tolerance = 1e-5 if logits.dtype in (torch.float32, torch.float64) else 2e-2
    if not bool(((logits.double() - wanted).abs() <= tolerance * wanted.abs().max()).all()):
        return "it changes its logits in a way that is not known here"
    return ""


def _tokens(model: nn.Module) -> int:
    get_embeddings = getattr(model, "get_input_embeddings", None)
    embeddings = get_embeddings() if callable(get_embeddings) else None
    return getattr(embeddings, "num_embeddings", 2**62)
