"""What private training demands before it spends anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, Sampler

from privkt import kernels
from privkt.dpsgd.errors import RefusedTraining
from privkt.dpsgd.layout import Layout
from privkt.dpsgd.modes import values_in_rows

_MOST_AT_ONCE = 16
HALF = (torch.bfloat16, torch.float16)


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


def need_order(collate: Callable[[Sequence[int]], Any], size: int) -> None:
    """Refuses a collate_fn that sorts: rows in an order of their own would meet the masks of other places.

    A piece's fillers are copies of its first record: sorted to the front, they would count in place of others.
    Edge cases: the first 32 records are looked at; what differs for the same records (a random mask) is not compared.
    """
    count = min(32, size)
    places = list(range(count))
    once, again, back = (list(_tensors(collate(order))) for order in (places, places, places[::-1]))
    for one, same, other in zip(once, again, back, strict=False):
        if one.dim() == 0 or len(one) != count or not torch.equal(one, same):
            continue
        between_places = one.dim() > 1 and one.shape[1] == count and torch.equal(one, other)
        if not between_places and not torch.equal(one, other.flip(0)):
            raise RefusedTraining(
                "PrivateTraining: collate_fn must keep the order of its records, got another order for the same "
                "records in reverse; do not sort batches (masks belong to places, and a record could count twice)"
            )


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, list | tuple):
        for part in batch:
            yield from _tensors(part)
    elif hasattr(batch, "values"):
        for part in batch.values():
            yield from _tensors(part)


def need_users(users: object, records_per_user: int | None) -> None:
    """Users and the public cap on the records of each come together."""
    if (users is None) != (records_per_user is None):
        raise RefusedTraining(
            "PrivateTraining: users (the record numbers of each) and records_per_user (a public cap) must be given "
            f"together, got one of them, records_per_user={records_per_user}; leave out both for record level"
        )


def computes_in_half(model: nn.Module, device: torch.device) -> bool:
    """Whether weights are in half precision, or torch may shorten the factors of float32 products (TF32, bfloat16)."""
    if any(p.dtype in HALF for p in model.parameters()):
        return True
    backend: Any = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    chosen = getattr(getattr(backend, "matmul", None), "fp32_precision", None)
    if chosen is None:  # torch before 2.9 has one setting for all devices
        return torch.get_float32_matmul_precision() != "highest"
    return chosen not in ("none", "ieee")


def need_optimizer(optimizer: torch.optim.Optimizer, layout: Layout, scheduler: object = None) -> None:
    """Refuses an optimizer that holds other parameters than the model trains, and a schedule that follows a metric."""
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise RefusedTraining(
            "PrivateTraining: the learning rates must be fixed beforehand, got ReduceLROnPlateau, which follows a "
            "metric of private data without any accounting; use a schedule of the step alone"
        )
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


class Untouched:
    """What may not change while a model trains: everything it would save that the noisy gradient does not move.

    Edge cases: a write through `.data` is seen in buffers, which are compared by value, and nowhere else.
    Raises: RefusedTraining from `check` and `need_settled`, naming what was written to (a running statistic, a frozen
        weight, a trained weight outside the noisy update).
    """

    def __init__(self, model: nn.Module, layout: Layout) -> None:
        trained = {parameter.data_ptr() for _, parameter in layout.named()}
        self._model, self._layout = model, layout
        state = model.state_dict()
        self._names = set(state)
        self._versions = {
            name: (value.data_ptr(), value._version)
            for name, value in state.items()
            if isinstance(value, Tensor) and not value.is_inference() and value.data_ptr() not in trained
        }
        self._buffers = {name: value.clone() for name, value in model.named_buffers() if name in self._names}
        self.settle()

    def settle(self) -> None:
        """The trained weights are as the noisy update left them."""
        self._settled = self._trained()

    def need_settled(self) -> None:
        """Nothing but the noisy update has moved a trained weight since `settle`."""
        for (name, _), before, now in zip(self._layout.named(), self._settled, self._trained(), strict=True):
            if before != now:
                raise RefusedTraining(
                    f"PrivateTraining: a trained weight may move by the noisy update alone, got another write to "
                    f"{name!r} between two steps (an ordinary optimizer.step() or an assignment in the loop), which "
                    "would be released without noise; leave it out and begin again from the last checkpoint"
                )

    def check(self) -> None:
        self.need_settled()
        state = self._model.state_dict()
        changed = sorted(set(state) - self._names)
        for name, (address, version) in self._versions.items():
            value = state.get(name)
            if value is None or value.data_ptr() != address or value._version != version:
                changed.append(name)
        changed += [
            name for name, held in self._buffers.items() if name not in changed and not _same(held, state[name])
        ]
        if changed:
            raise RefusedTraining(
                f"PrivateTraining: only trained parameters may change, got a write to {changed[0]!r}, which would be "
                "saved without noise; switch off the layer that keeps statistics of its inputs"
            )

    def _trained(self) -> list[tuple[int, int]]:
        return [(parameter.data_ptr(), parameter._version) for _, parameter in self._layout.named()]


def _same(held: Tensor, now: Tensor) -> bool:
    return bool(((held == now) | ((held != held) & (now != now))).all())


def samples_at_once(
    asked: int | Literal["auto"], layout: Layout, batch_size: int, memory: int, *, records_per_user: int = 1
) -> int:
    """The physical microbatch: as asked, or at most 16 records whose stored rows fit into `memory` bytes.

    Rows are stored for parameters that have no other form (privkt.dpsgd.modes.values_in_rows); of all parameters where
    the device has no kernels for products, and for one user at a time where its records do not fit into a microbatch.
    Raises: RefusedTraining, if the rows do not fit.
    """
    if asked != "auto" and asked < 1:
        raise RefusedTraining(f"PrivateTraining: microbatch_size must be at least 1, got {asked}; leave it at 'auto'")
    wanted = min(_MOST_AT_ONCE, batch_size * records_per_user) if asked == "auto" else asked
    whole = not kernels.runs_on("clipped_product_sum", layout.device)
    pieces = wanted < records_per_user
    width = layout.width if whole or pieces else values_in_rows(layout)
    users = 1 if pieces else wanted // records_per_user
    fitting = users if width == 0 else memory // (4 * width)
    if fitting < 1 or (asked != "auto" and users > fitting):
        raise RefusedTraining(
            f"PrivateTraining: {1 if asked == 'auto' else users} rows of {width} trainable values must fit into "
            f"row_memory = {memory} bytes, got room for {fitting}; train an adapter (LoRA), fewer layers, "
            "or a smaller microbatch"
        )
    return wanted if users <= fitting else fitting * records_per_user


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
