"""The only place where per-sample gradients become one: clip, sum, add noise once, divide by a public number."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from privkt import kernels
from privkt.dpsgd.clipping import AdaptiveQuantile, Flat
from privkt.dpsgd.errors import TrainingError
from privkt.dpsgd.gradients import SampleGradients
from privkt.dpsgd.layout import Layout, Slot
from privkt.dpsgd.plan import COUNT_NORM, Plan
from privkt.dpsgd.ranks import Ranks

_STRETCH = 2**20  # coordinates summed, noised and given up together: far less than a large model, more than an adapter


class NoisyMean:
    """Clipped gradients of one logical batch, then their noisy mean.

    Guarantee: what one unit adds has a stored norm of at most `norm`, units that are not finite add nothing; every
        batch gets fresh noise of deviation plan.noise_deviation_at(norm) exactly once, also an empty one. Sums are
        float64, or (plan.noise "grid", "discrete") whole cells of an integer grid, exact in any order. Noise is
        correctly rounded to float32 (privkt.kernels.noisy_sum), or exact integers (add_discrete_gaussian_); correlated
        noise, a sum of several values, is neither, and says so.
    Memory: sums exist from the first `add` on, in stretches of whole parameters, each given up once it has its noise:
        a batch that fits into one microbatch (`last`) never has all of them at once.
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
        self._shared = layout.shared
        self.norm = plan.max_grad_norm
        self._kind = torch.int64 if plan.noise in ("grid", "discrete") else torch.float64
        self._device = layout.device
        self._stretches = _stretches(layout.slots)
        self._sums: list[Tensor | None] = []
        self._count = torch.zeros(1, dtype=torch.float64, device=layout.device)
        self.begin()

    def begin(self) -> None:
        """Starts a logical batch; what a cut one left behind is dropped without a trace."""
        self._sums = [None] * len(self._stretches)
        self._count.zero_()
        self._scale, self._sigma = self._grid()

    def add(self, gradients: SampleGradients) -> None:
        """Adds the clipped gradients of one microbatch; masked units do not count."""
        factors = self._factors(gradients)
        for number in range(len(self._stretches)):
            self._sums[number] = self._with(number, gradients, factors)

    def take(self, last: SampleGradients | None = None) -> Tensor:
        """(sum + noise) / divisor, [P] float32, with the gradients of the `last` microbatch in it."""
        key = self._begin_draw()
        mean = torch.empty(self._plan.coordinates, dtype=torch.float32, device=self._device)
        for start, total in self._parts(last):
            if self._ranks.first:  # the others' sums are not whole, and theirs would be a second noise
                torch.div(self._noisy(total, start, key), self._plan.divisor, out=mean[start : start + len(total)])
            del total  # before the next one is made
        self._end(key)
        return self._ranks.hand_out(mean)

    def step_(
        self,
        optimizer: torch.optim.Optimizer,
        slots: Sequence[Slot],
        still: dict[torch.nn.Parameter, list[int]],
        last: SampleGradients | None = None,
        *,
        bias_floor: float | None = None,
    ) -> None:
        """optimizer.step() on what `take` would give, without making it: from the sum to the weights in one pass.

        bias_floor: Adam's second moment without the noise's variance, at least this share of it (DP-AdamBC).
        Edge cases: one process, independent noise, and an optimizer that kernels.noisy_step_ takes.
        """
        key = self._begin_draw()
        variance = (self.deviation / self._plan.divisor) ** 2 if bias_floor is not None else 0.0
        if last is not None and last.reads_weights:
            self.add(last)
            last.forget()
            last = None
        for start, total in self._parts(last):
            sigma, stop = self._still_to_add(total, start, key), start + len(total)
            kernels.noisy_step_(
                optimizer,
                [(slot.parameter, slot.start) for slot in slots if start <= slot.start < stop],
                total,
                sigma,
                key,
                self._draw,
                offset=start,
                divisor=self._plan.divisor,
                scale=self._scale,
                still=still,
                noise_bias=variance,
                floor=variance * (bias_floor or 0.0),
            )
            del total  # before the next one is made
        self._end(key)

    def erase(self) -> None:
        """Forgets the key."""
        self._key = None

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise on a coordinate of the sum."""
        return self._plan.noise_deviation_at(self.norm)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _factors(self, gradients: SampleGradients) -> Tensor:
        """What each unit's rows are multiplied by; AdaptiveQuantile counts, too."""
        sqnorms = gradients.sqnorms(self._groups)
        # A weight of several layers has each part cut to whole cells by itself.
        shared = 0 if self._scale is None else self._shared
        norm = kernels.tied_grid_norm(self.norm, self._scale or 1.0, coordinates=shared)
        factors = self._clipping.factors(sqnorms, norm, widths=self._widths, mask=gradients.mask)
        if isinstance(self._clipping, AdaptiveQuantile):
            self._count += self._clipping.count(sqnorms, self.norm, gradients.mask)
        return factors

    def _with(self, number: int, gradients: SampleGradients | None, factors: Tensor | None) -> Tensor:
        """One stretch of the sum, with one more microbatch."""
        (start, stop), total, scale = self._stretches[number], self._sums[number], self._scale
        if total is None:
            total = torch.zeros(stop - start, dtype=self._kind, device=self._device)
        if gradients is not None and factors is not None:
            gradients.add_clipped(total, factors, start=start, **({} if scale is None else {"scale": scale}))
        return total

    def _parts(self, last: SampleGradients | None) -> Iterator[tuple[int, Tensor]]:
        """The whole sum, in the first process: each stretch and its first coordinate, forgotten when the next comes."""
        factors = None if last is None else self._factors(last)
        # From the last one on: a head, whose gradients take most to keep, comes behind an embedding, which takes least.
        for number, (start, stop) in reversed(list(enumerate(self._stretches))):
            total = self._with(number, last, factors)
            self._sums[number] = None
            if last is not None:
                last.forget(start, stop)
            self._ranks.add_up(total)
            yield start, total
            del total

    def _begin_draw(self) -> bytes:
        if self._key is None:
            raise TrainingError(
                "NoisyMean: the noise key must still exist, got one erased by finish(); start a new run"
            )
        self._draws += 1  # before any noise is made: a step that fails half-way has used its counter up
        return self._key

    @property
    def _draw(self) -> int:
        """The counter of this step's noise."""
        return self._draws - 1

    def _end(self, key: bytes) -> None:
        """The count's noise, the norm of the next batch, and that batch's beginning."""
        self._ranks.add_up(self._count)
        if isinstance(self._clipping, AdaptiveQuantile):
            self.norm = self._ranks.share(self._moved(self._clipping, key) if self._ranks.first else math.nan)
        self.begin()

    def _grid(self) -> tuple[float | None, float]:
        """Cells in a unit of the grid, where sums are on one, and the noise that is added after them."""
        if self._plan.noise == "discrete":
            return kernels.discrete_grid(self.norm, self._plan.n, self.deviation)
        return kernels.grid_scale(self.norm, self._plan.n) if self._plan.noise == "grid" else None, self.deviation

    def _still_to_add(self, total: Tensor, start: int, key: bytes) -> float:
        """The deviation of the noise that is added with the mean; discrete noise is in the total before that."""
        if self._plan.noise != "discrete":
            return self.deviation
        kernels.add_discrete_gaussian_(total, self._sigma, key, self._draw, start)
        return 0.0

    def _noisy(self, total: Tensor, start: int, key: bytes) -> Tensor:
        """A stretch of the sum with its noise, float32."""
        if len(self._plan.coefficients) == 1:
            sigma = self._still_to_add(total, start, key)
            return kernels.noisy_sum(total, sigma, key, self._draw, start, scale=self._scale)
        # sum_i a_i z_(t-i): earlier values are made again from their counters, none is stored. Steps before this
        # process began have none (docs/proofs/accounting.md, "Forgetting").
        z = torch.empty(total.shape, dtype=torch.float32, device=total.device)
        for back, coefficient in enumerate(self._plan.coefficients[: self._draws]):
            kernels.gaussian_noise(z, self.deviation, key, self._draw - back, start)
            total.add_(z.double(), alpha=coefficient)
        return total.float()

    def _moved(self, clipping: AdaptiveQuantile, key: bytes) -> float:
        # The count is one more coordinate of the step's noise: P comes after the last value of the sum.
        deviation, place = self._plan.count_deviation, self._plan.coordinates
        if self._plan.noise == "discrete":
            scale, sigma = kernels.discrete_grid(COUNT_NORM, self._plan.n, deviation)
            cells = (self._count * scale).long()  # halves, and the scale is a power of two above them
            count = float(kernels.add_discrete_gaussian_(cells, sigma, key, self._draw, place)) / scale
        else:
            count = float(kernels.noisy_sum(self._count, deviation, key, self._draw, place))
        return clipping.moved(self.norm, count, self._plan.batch_size)


def _stretches(slots: Sequence[Slot]) -> list[tuple[int, int]]:
    """[start, stop) of neighbouring whole parameters with `_STRETCH` values or more together."""
    found: list[tuple[int, int]] = []
    start = 0
    for number, slot in enumerate(slots, 1):
        if slot.stop - start >= _STRETCH or number == len(slots):
            found.append((start, slot.stop))
            start = slot.stop
    return found
