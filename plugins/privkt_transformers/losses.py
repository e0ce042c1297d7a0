"""Token losses that training differentiates, without ever holding the scores of a whole batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from privkt_transformers.scoring import token_losses

_CHUNK = 512
_SCALINGS = ("logits_scaling", "logit_scale", "final_logit_softcapping")


def completion_losses(network: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each target, [m] float32, from hidden states [m, d].

    A frozen plain head takes the fused way: the gradient of the hidden states is made chunk by chunk in the forward
    pass. Trained heads and those with scalings take the ordinary one.
    """
    head = network.get_output_embeddings()
    scaled = any(getattr(network.config, name, None) is not None for name in _SCALINGS)
    plain = isinstance(head, nn.Linear) and head.bias is None and not head.weight.requires_grad
    if plain and not scaled and type(head) is nn.Linear:
        return _FrozenHeadLoss.apply(hidden, targets, head.weight)
    return token_losses(network, hidden, targets)


class _FrozenHeadLoss(torch.autograd.Function):
    """Linear head and cross-entropy in one, for a head that is not trained."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        wanted = ctx.needs_input_grad[0]
        losses, slopes = [], []
        for h, t in zip(hidden.split(_CHUNK), targets.split(_CHUNK), strict=True):
            logits = torch.nn.functional.linear(h.to(weight.dtype), weight).float()
            normaliser = torch.logsumexp(logits, -1, keepdim=True)
            losses.append((normaliser - logits.gather(-1, t[:, None])).squeeze(-1))
            if wanted:
                slope = logits.sub_(normaliser).exp_()
                slope.scatter_add_(-1, t[:, None], torch.full_like(slope[:, :1], -1.0))
                slopes.append((slope.to(weight.dtype) @ weight).to(hidden.dtype))
        if wanted:
            ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[torch.Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * grads[0].unsqueeze(-1).to(slope.dtype), None, None
