"""The only place where per-sample gradients become one: clip, sum, add noise once, divide by a public number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from privkt import kernels
from privkt.dpsgd.clipping import AdaptiveQuantile, Flat
from privkt.dpsgd.errors import TrainingError
from privkt.dpsgd.gradients import SampleGradients
from privkt.dpsgd.layout import Layout
from privkt.dpsgd.plan import Plan
from privkt.dpsgd.ranks import Ranks


class NoisyMean:
    """Clipped gradients of one logical batch, then their noisy mean.

    Guarantee: what one unit adds has a stored norm of at most `norm`, units that are not finite add nothing; every
        `take` adds fresh noise of deviation plan.noise_deviation_at(norm) exactly once, also to an empty sum. Sums are
        float64, or (plan.noise "grid") whole cells of an integer grid, exact in any order. Noise is correctly rounded
        to float32 (privkt.kernels.noisy_sum); correlated noise, a sum of several values, is not, and says so.
    Edge cases: `norm` is plan.max_grad_norm, or moves with the noisy count of AdaptiveQuantile.
    """

    def __init__(self, plan: Plan, key: bytes, layout: Layout, ranks: Ranks | None = None) -> None:
        self._plan, self._ranks = plan, ranks or Ranks()
        self._key: bytes | None = key
        self._draws = 0
        self._clipping = plan.clipping or Flat(plan.max_grad_norm)
        widths = {slot.name: slot.stop - slot.start for slot in layout.slots}
        self._groups = self._clipping.groups(tuple(widths))
        self._widths: Sequence[int] = [sum(widths[name] for name in group) for group in self._groups]
        self.norm = plan.max_grad_norm
        kind = torch.int64 if plan.noise == "grid" else torch.float64
        self._total = torch.zeros(plan.coordinates, dtype=kind, device=layout.device)
        self._count = torch.zeros(1, dtype=torch.float64, device=layout.device)

    def begin(self) -> None:
        """Starts a logical batch; what a cut one left behind is dropped without a trace."""
        self._total.zero_()
        self._count.zero_()

    def add(self, gradients: SampleGradients) -> None:
        """Adds the clipped gradients of one microbatch; masked units do not count."""
        sqnorms = gradients.sqnorms(self._groups)
        factors = self._clipping.factors(sqnorms, self.norm, widths=self._widths, mask=gradients.mask)
        if isinstance(self._clipping, AdaptiveQuantile):
            self._count += self._clipping.count(sqnorms, self.norm, gradients.mask)
        scale = self._scale
        gradients.add_clipped(self._total, factors, **({} if scale is None else {"scale": scale}))

    def take(self) -> Tensor:
        """(sum + noise) / divisor, [P] float32. No noise is ever drawn twice: each call has its own counter."""
        if self._key is None:
            raise TrainingError(
                "NoisyMean: the noise key must still exist, got one erased by finish(); start a new run"
            )
        self._ranks.add_up(self._total)
        self._ranks.add_up(self._count)
        mean = torch.empty(self._total.shape, dtype=torch.float32, device=self._total.device)
        if self._ranks.first:  # the others' sums are not whole, and theirs would be a second noise
            mean = self._noisy(self._key) / self._plan.divisor
        if isinstance(self._clipping, AdaptiveQuantile):
            self.norm = self._ranks.share(self._moved(self._clipping, self._key) if self._ranks.first else math.nan)
        self._draws += 1
        self.begin()
        return self._ranks.hand_out(mean)

    def erase(self) -> None:
        """Forgets the key."""
        self._key = None

    @property
    def _scale(self) -> float | None:
        """Cells in a unit of the grid, where sums are on one."""
        return kernels.grid_scale(self.norm, self._plan.n) if self._total.dtype == torch.int64 else None

    def _noisy(self, key: bytes) -> Tensor:
        deviation = self._plan.noise_deviation_at(self.norm)
        if len(self._plan.coefficients) == 1:
            return kernels.noisy_sum(self._total, deviation, key, step=self._draws, scale=self._scale)
        # sum_i a_i z_(t-i): earlier values are made again from their counters, none is stored. Steps before this
        # process began have none (docs/proofs/accounting.md, "Forgetting").
        total, z = self._total.clone(), torch.empty(self._total.shape, dtype=torch.float32, device=self._total.device)
        for back, coefficient in enumerate(self._plan.coefficients[: self._draws + 1]):
            kernels.gaussian_noise(z, deviation, key, step=self._draws - back)
            total.add_(z.double(), alpha=coefficient)
        return total.float()

    def _moved(self, clipping: AdaptiveQuantile, key: bytes) -> float:
        # The count is one more coordinate of the step's noise: P comes after the last value of the sum.
        deviation, place = self._plan.count_deviation, self._plan.coordinates
        count = kernels.noisy_sum(self._count, deviation, key, step=self._draws, offset=place)
        return clipping.moved(self.norm, float(count), self._plan.batch_size)
