"""How each sample's gradient is bounded before it enters the sum: flat, per layer, automatic, adaptive.

Every kind gives one factor a sample and group of parameters, from upper bounds of the squared norms, such that the
stored float32 products of one sample have together a norm of at most `sensitivity`. What is released of the sum has
noise in proportion to that number, so no kind changes the accounting but `AdaptiveQuantile`, which also counts.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from privkt import kernels
from privkt.dpsgd.errors import RefusedTraining

_DOWN = 1 - 2.0**-20  # room for the rounding of norms, factors and products (docs/proofs/dpsgd.md, "Clipping")
Group = tuple[str, ...]


@dataclass(frozen=True)
class Clipping(ABC):
    """A rule for factors, fixed before any data is read.

    Units: max_grad_norm is the L2 sensitivity of the clipped sum to one unit (its first value, where it adapts).
    """

    max_grad_norm: float
    kind: ClassVar[str]

    def __post_init__(self) -> None:
        need_positive(type(self).__name__, "max_grad_norm", self.max_grad_norm)

    def groups(self, names: Sequence[str]) -> tuple[Group, ...]:
        """The partition of the trainable parameters whose norms are clipped together."""
        return (tuple(names),)

    def noise_split(self, noise_multiplier: float) -> tuple[float, float]:
        """(multiplier of the noise on the sum, deviation of the noise on the count; 0 where nothing is counted).

        Guarantee: both noises together cost what one Gaussian with `noise_multiplier` costs.
        """
        return noise_multiplier, 0.0

    @abstractmethod
    def factors(self, sqnorms: Tensor, norm: float, *, widths: Sequence[int], mask: Tensor) -> Tensor:
        """One factor a sample and group, 0 for samples that do not count.

        Shapes: sqnorms: [B, L] float64, upper bounds of squared norms; mask: [B] bool; result: [B, L] float32.
        norm: the sensitivity now; widths: trainable values a group.
        """

    def to_json(self) -> dict[str, Any]:
        """A mapping that `json.dumps` accepts; `clipping_from_json` reads it."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Flat(Clipping):
    """The whole gradient of a sample is scaled to a norm of at most max_grad_norm (Abadi et al. 2016)."""

    kind: ClassVar[str] = "flat"

    def factors(self, sqnorms: Tensor, norm: float, *, widths: Sequence[int], mask: Tensor) -> Tensor:
        return kernels.clip_factors(sqnorms[:, 0].contiguous(), norm, width=widths[0], mask=mask).factors[:, None]


@dataclass(frozen=True)
class PerLayer(Clipping):
    """Each parameter is clipped by itself to max_grad_norm * share, with the squares of the shares adding up to 1.

    Guarantee: the norm over all parameters is at most sqrt(sum C_l^2) = max_grad_norm, on which the noise stands.
    Edge cases: a sample with a non-finite value in one parameter is left out of all of them.
    References: McMahan et al. 2018; He et al. 2023 (group-wise clipping).
    """

    by: str = "equal"
    kind: ClassVar[str] = "per-layer"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.by not in ("equal", "width"):
            raise RefusedTraining(f"PerLayer: by must be 'equal' or 'width' (of the parameters), got {self.by!r}")

    def groups(self, names: Sequence[str]) -> tuple[Group, ...]:
        return tuple((name,) for name in names)

    def factors(self, sqnorms: Tensor, norm: float, *, widths: Sequence[int], mask: Tensor) -> Tensor:
        counts = mask & sqnorms.isfinite().all(1)
        shares = [1.0] * len(widths) if self.by == "equal" else [float(width) for width in widths]
        whole = math.fsum(shares)
        columns = [
            kernels.clip_factors(
                column.contiguous(), norm * math.sqrt(share / whole) * _DOWN, width=width, mask=counts
            ).factors
            for column, share, width in zip(sqnorms.unbind(1), shares, widths, strict=True)
        ]
        return torch.stack(columns, 1)


@dataclass(frozen=True)
class Automatic(Clipping):
    """Every gradient is scaled to max_grad_norm * norm / (norm + stability): no threshold to tune (AUTO-S).

    References: Bu et al. 2023, "Automatic clipping: differentially private deep learning made easier and stronger".
    """

    stability: float = 0.01
    kind: ClassVar[str] = "automatic"

    def __post_init__(self) -> None:
        super().__post_init__()
        need_positive("Automatic", "stability", self.stability)
        if self.max_grad_norm < 2.0**-60:  # products near the smallest float32 would round by more than _DOWN leaves
            raise RefusedTraining(
                f"Automatic: max_grad_norm must be at least 2^-60, got {self.max_grad_norm}; 1.0 is usual"
            )

    def factors(self, sqnorms: Tensor, norm: float, *, widths: Sequence[int], mask: Tensor) -> Tensor:
        counts = mask[:, None] & sqnorms.isfinite()
        norms = (sqnorms * (1 + (widths[0] + 8) * 2.0**-52)).sqrt() * (1 + 2.0**-40)
        factors = (norm * _DOWN / (norms + self.stability)).float()
        factors = torch.where(factors.isfinite(), factors, 0.0)
        return torch.where(counts, factors, 0.0)


@dataclass(frozen=True)
class AdaptiveQuantile(Clipping):
    """The norm follows a quantile of the samples' norms, found from a noisy count at each step.

    A step counts sum_i (1[norm_i <= C] - 1/2) over the batch, sensitivity 1/2 to emptying one sample, adds noise of
    deviation `count_noise`, and multiplies C by exp(-learning_rate (fraction - quantile)).

    Guarantee: (sum / C, 2 count) is one Gaussian release: with z_sum = (z^-2 - (2 count_noise)^-2)^(-1/2) on the sum,
        it costs what z costs (Andrew et al. 2021, Theorem 1); C_t depends on earlier releases alone.
    Units: count_noise is in samples; a twentieth of the expected batch is usual.
    Raises: RefusedTraining, if the count alone would cost more than z allows.
    """

    quantile: float = 0.5
    learning_rate: float = 0.2
    count_noise: float = 10.0
    kind: ClassVar[str] = "adaptive"

    def __post_init__(self) -> None:
        super().__post_init__()
        need_positive("AdaptiveQuantile", "count_noise", self.count_noise)
        need_positive("AdaptiveQuantile", "learning_rate", self.learning_rate)
        if not 0 < self.quantile < 1:
            raise RefusedTraining(
                f"AdaptiveQuantile: quantile must lie between 0 and 1, got {self.quantile}; 0.5 is usual"
            )

    def noise_split(self, noise_multiplier: float) -> tuple[float, float]:
        left = noise_multiplier**-2 - (2 * self.count_noise) ** -2
        if not left > 0:
            raise RefusedTraining(
                f"AdaptiveQuantile: count_noise must be above half the noise multiplier {noise_multiplier:.4g}, got "
                f"{self.count_noise}; raise it (a twentieth of the batch is usual)"
            )
        return left**-0.5 * (1 + 2.0**-40), self.count_noise

    def factors(self, sqnorms: Tensor, norm: float, *, widths: Sequence[int], mask: Tensor) -> Tensor:
        return Flat(norm).factors(sqnorms, norm, widths=widths, mask=mask)

    def count(self, sqnorms: Tensor, norm: float, mask: Tensor) -> Tensor:
        """sum over counted samples of (1[norm_i <= C] - 1/2), a float64 scalar; non-finite samples do not count."""
        counts = mask & sqnorms[:, 0].isfinite()
        below = torch.where(sqnorms[:, 0] <= norm**2, 0.5, -0.5).double()
        return torch.where(counts, below, 0.0).sum()

    def moved(self, norm: float, noisy_count: float, batch_size: int) -> float:
        """The next norm, from the noisy count and the public expected batch."""
        fraction = min(1.0, max(0.0, noisy_count / batch_size + 0.5))
        following = norm * math.exp(-self.learning_rate * (fraction - self.quantile))
        return min(max(following, self.max_grad_norm * 2.0**-30), self.max_grad_norm * 2.0**30)


KINDS: dict[str, type[Clipping]] = {kind.kind: kind for kind in (Flat, PerLayer, Automatic, AdaptiveQuantile)}


def clipping_from_json(values: Mapping[str, Any]) -> Clipping:
    """The clipping that `to_json` wrote, or that a config block describes.

    Raises: RefusedTraining, for an unknown kind or setting.
    """
    settings = dict(values)
    kind = settings.pop("kind", "flat")
    if kind not in KINDS:
        raise RefusedTraining(f"clipping: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    known = {field.name for field in dataclasses.fields(KINDS[kind])}
    if unknown := sorted(settings.keys() - known):
        raise RefusedTraining(f"clipping: {kind} takes {', '.join(sorted(known))}, got {unknown[0]!r}; leave it out")
    return KINDS[kind](**settings)


def need_positive(subject: str, name: str, value: float) -> None:
    """Refuses a number that is not finite and above 0."""
    if not (math.isfinite(value) and value > 0):
        raise RefusedTraining(f"{subject}: {name} must be finite and > 0, got {value}; 1.0 is a usual norm")
