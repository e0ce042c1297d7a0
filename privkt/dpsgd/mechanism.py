"""The only place where rows become a gradient: clip, sum, add noise once, divide by a public number."""

from __future__ import annotations

import torch
from torch import Tensor

from privkt import kernels
from privkt.dpsgd.errors import TrainingError
from privkt.dpsgd.plan import Plan
from privkt.dpsgd.ranks import Ranks


class NoisyMean:
    """Clipped rows of one logical batch, then their noisy mean.

    Guarantee: each row enters with a stored norm of at most max_grad_norm, rows that are not finite not at all; every
        `take` adds fresh noise of deviation plan.noise_deviation exactly once, also to an empty sum.
    Rows are added in float64; the noise is correctly rounded to float32 (privkt.kernels.noisy_sum).
    """

    def __init__(self, plan: Plan, key: bytes, device: torch.device, ranks: Ranks | None = None) -> None:
        self._plan, self._ranks = plan, ranks or Ranks()
        self._key: bytes | None = key
        self._draws = 0
        self._total = torch.zeros(plan.coordinates, dtype=torch.float64, device=device)

    def begin(self) -> None:
        """Starts a logical batch; what a cut one left behind is dropped without a trace."""
        self._total.zero_()

    def add(self, rows: Tensor, mask: Tensor) -> None:
        """Adds the clipped rows of one microbatch; masked rows do not count."""
        kernels.clip_and_sum(rows, self._plan.max_grad_norm, mask=mask, out=self._total)

    def take(self) -> Tensor:
        """(sum + noise) / (q N), [P] float32. No noise is ever drawn twice: each call has its own counter."""
        if self._key is None:
            raise TrainingError(
                "NoisyMean: the noise key must still exist, got one erased by finish(); start a new run"
            )
        self._ranks.add_up(self._total)
        mean = torch.empty_like(self._total, dtype=torch.float32)
        if self._ranks.first:  # the others' sums are not whole, and theirs would be a second noise
            noisy = kernels.noisy_sum(self._total, self._plan.noise_deviation, self._key, step=self._draws)
            mean = noisy / self._plan.divisor
        self._draws += 1
        self._total.zero_()
        return self._ranks.hand_out(mean)

    def erase(self) -> None:
        """Forgets the key."""
        self._key = None
