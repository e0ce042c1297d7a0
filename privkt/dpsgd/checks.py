"""What private training demands before it spends anything."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, Sampler

from privkt.dpsgd.errors import RefusedTraining
from privkt.dpsgd.layout import Layout

_MOST_AT_ONCE = 16


def need_data_set(dataset: Any, size: int | None) -> None:
    """Refuses everything that has its own order or length, and a size other than the declared one (None: any)."""
    if isinstance(dataset, DataLoader | Sampler | IterableDataset) or hasattr(dataset, "batch_sampler"):
        raise RefusedTraining(
            f"PrivateTraining: it must draw the records itself (the epsilon is that of Poisson sampling), got a "
            f"{type(dataset).__name__}; pass the data set that len() and [i] work on"
        )
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise RefusedTraining(
            f"PrivateTraining: the data set must have len() and [i], got a {type(dataset).__name__}; make it a list"
        )
    if len(dataset) == 0:
        raise RefusedTraining(
            "PrivateTraining: the data set must hold records, got none; check the file and its columns"
        )
    if size is not None and len(dataset) != size:
        raise RefusedTraining(
            f"PrivateTraining: the declared size must be the number of records, got {size} declared and another number "
            "of records; declare the size that the data really has"
        )


def need_users(users: object, records_per_user: int | None) -> None:
    """Users and the public cap on the records of each come together."""
    if (users is None) != (records_per_user is None):
        raise RefusedTraining(
            "PrivateTraining: users (the record numbers of each) and records_per_user (a public cap) must be given "
            f"together, got one of them, records_per_user={records_per_user}; leave out both for record level"
        )


def need_optimizer(optimizer: torch.optim.Optimizer, layout: Layout) -> None:
    """Refuses an optimizer that holds other parameters than the model trains: some would never move."""
    if any(float(state.get("step", 1)) != 0 for state in optimizer.state.values()):  # Adagrad begins with a state
        raise RefusedTraining(
            "PrivateTraining: the optimizer must be new, got one with a state (momentum may hold private gradients); "
            "make another"
        )
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    stale = [name for name, parameter in layout.named() if id(parameter) not in held]
    if stale:
        raise RefusedTraining(
            f"PrivateTraining: the optimizer must hold every trainable parameter, got none for {stale[0]!r} and "
            f"{len(stale) - 1} more; make it from model.parameters() after adding adapters and moving the model"
        )
    own = {id(parameter) for _, parameter in layout.named()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) not in own and parameter.requires_grad:
                raise RefusedTraining(
                    f"PrivateTraining: the optimizer must hold parameters of the model alone, got another of shape "
                    f"{tuple(parameter.shape)}; make it from model.parameters()"
                )


def need_untied(layout: Layout) -> None:
    """Refuses weights of several layers: their parts are cut to whole cells one by one, and may add up to more."""
    uses = Counter(slot.name for site in layout.sites for slot in site.slots.values())
    shared = [name for name, count in uses.items() if count > 1]
    if shared:
        raise RefusedTraining(
            f"PrivateTraining: noise='grid' needs weights that belong to one layer each, got {shared[0]!r} in several; "
            "use noise='gaussian', or freeze it"
        )


class Untouched:
    """What may not change while a model trains: everything it would save that the noisy gradient does not move.

    Raises: RefusedTraining from `check`, naming what was written to (a running statistic, a frozen weight).
    """

    def __init__(self, model: nn.Module, layout: Layout) -> None:
        trained = {parameter.data_ptr() for _, parameter in layout.named()}
        self._model = model
        self._versions = {
            name: (value.data_ptr(), value._version)
            for name, value in model.state_dict().items()
            if isinstance(value, Tensor) and not value.is_inference() and value.data_ptr() not in trained
        }

    def check(self) -> None:
        state = self._model.state_dict()
        for name, (address, version) in self._versions.items():
            value = state.get(name)
            if value is None or value.data_ptr() != address or value._version != version:
                raise RefusedTraining(
                    f"PrivateTraining: only trained parameters may change, got a write to {name!r}, which would be "
                    "saved without noise; switch off the layer that keeps statistics of its inputs"
                )


def samples_at_once(asked: int | Literal["auto"], width: int, batch_size: int, memory: int) -> int:
    """The physical microbatch: as asked, or at most 16 rows that fit into `memory` bytes.

    Raises: RefusedTraining, if the rows do not fit.
    """
    fitting = memory // (4 * width)
    if fitting < 1 or (asked != "auto" and asked > fitting):
        raise RefusedTraining(
            f"PrivateTraining: {1 if asked == 'auto' else asked} rows of {width} trainable values must fit into "
            f"row_memory = {memory} bytes, got room for {fitting}; train an adapter (LoRA), fewer layers, "
            "or a smaller microbatch"
        )
    if asked == "auto":
        return max(1, min(_MOST_AT_ONCE, batch_size, fitting))
    if asked < 1:
        raise RefusedTraining(f"PrivateTraining: microbatch_size must be at least 1, got {asked}; leave it at 'auto'")
    return asked


def need_losses(losses: object, samples: int) -> Tensor:
    """`losses` if it is one loss a sample with a graph.

    Raises: RefusedTraining, with the fix.
    """
    if not isinstance(losses, Tensor) or losses.dim() != 1:
        came = type(losses).__name__
        if isinstance(losses, Tensor):
            came = f"a tensor of shape {tuple(losses.shape)}" if losses.dim() else "a scalar"
        raise RefusedTraining(
            f"PrivateTraining.step: losses must be one per sample, a [{samples}] tensor, got {came}; use "
            "training.causal_lm_losses(batch), or reduction='none' and a mean over each sample's own tokens"
        )
    if losses.shape[0] != samples:
        raise RefusedTraining(
            f"PrivateTraining.step: losses must have the {samples} samples of this microbatch, padding included, got "
            f"{losses.shape[0]}; keep every row of the batch (padding rows are masked later)"
        )
    if not losses.requires_grad:
        raise RefusedTraining(
            "PrivateTraining.step: losses must depend on the model's trainable parameters, got a tensor without a "
            "graph; compute them from the model's output, without no_grad, and use non-reentrant checkpointing "
            "(gradient_checkpointing_kwargs={'use_reentrant': False})"
        )
    return losses
