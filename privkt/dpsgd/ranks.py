"""Several processes that train as one (torchrun): all compute gradients, the first alone draws keys and adds noise.

Every process draws the same batch from one sampler key and computes its share of the microbatches; the sums meet at the
first process, which adds noise once and hands the noisy mean out. The ledger, the checkpoint and the release are its
alone. What travels between the processes is private: they belong to one owner and one trusted network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor

from privkt.dpsgd.errors import TrainingError

T = TypeVar("T")


class Ranks:
    """The processes of this training; a group of one where torch.distributed is not in use."""

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if together else 0
        self.world = dist.get_world_size() if together else 1
        # Objects go through main memory, whatever carries the tensors.
        self._control = dist.new_group(backend="gloo") if self.world > 1 and dist.get_backend() != "gloo" else None

    @property
    def first(self) -> bool:
        """Whether this process keeps the books."""
        return self.rank == 0

    def share(self, value: T) -> T:
        """The first process's `value`, everywhere."""
        if self.world == 1:
            return value
        box: list[Any] = [value if self.first else None]
        dist.broadcast_object_list(box, src=0, group=self._control)
        return box[0]

    def mine(self, pieces: Sequence[T]) -> list[T]:
        """Every world-th piece, which may be none."""
        return list(pieces[self.rank :: self.world])

    def add_up(self, total: Tensor) -> None:
        """Adds all processes' totals into the first one's."""
        if self.world > 1:
            dist.reduce(total, dst=0)

    def hand_out(self, values: Tensor) -> Tensor:
        """The first process's tensor, everywhere; all give one of its shape and type."""
        if self.world > 1:
            dist.broadcast(values, src=0)
        return values

    def first_alone(self, work: Callable[[], T], what: str) -> T:
        """What `work` returns in the first process, everywhere; its failure ends all of them.

        Raises: what `work` raised, in the first process; TrainingError naming `what` in the others.
        """
        if self.world == 1:
            return work()
        failure: BaseException | None = None
        result: Any = None
        if self.first:
            try:
                result = work()
            except Exception as error:  # told to the others before it goes on
                failure = error
        failed, result = self.share((failure is not None, result))
        if failure is not None:
            raise failure
        if failed:
            raise TrainingError(
                f"PrivateTraining: {what} must succeed in the first process, got a failure; see its message"
            )
        return result

    def need_same(self, digest: str, what: str) -> None:
        """Raises TrainingError where the processes hold different digests."""
        if self.world == 1:
            return
        digests: list[Any] = [None] * self.world
        dist.all_gather_object(digests, digest, group=self._control)
        if len(set(digests)) > 1:
            raise TrainingError(
                f"PrivateTraining: {what} must be the same in all {self.world} processes, got differences; start each "
                "with the same model, data, settings and seed"
            )
