"""Permute-and-flip over the words of a public table."""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from privkt_mechanisms import native_law, uniform
from privkt_mechanisms.byte_table import Floats, Ids
from privkt_mechanisms.exponential import Exponential
from privkt_mechanisms.laws import Law, WeightedLaw, selected
from privkt_mechanisms.weights import decaying_weights

_NODES = 32


class PermuteAndFlip(Exponential):
    """Words in random order, each kept with probability exp(s (u(x, y) - 1) / 2); the first that is kept is drawn.

    Never worse than `exponential` at the same s. `epsilon`, `calibrate`, `utility`, errors: those of `Exponential`.
    Guarantee: pure epsilon `certificate.epsilon` <= `epsilon` between any two tokens (docs/proofs/tokens.md); zCDP by
        epsilon tanh(epsilon / 2) alone: its loss is not of bounded range.
    References: McKenna, Sheldon 2020, "Permute-and-Flip: A new mechanism for differentially private selection".
    """

    name = "permute_and_flip"
    bounded_range = False

    def __init__(
        self,
        table: ArrayLike,
        epsilon: Fraction | float | str,
        *,
        calibrate: str = "exact",
        utility: str = "distance",
    ) -> None:
        super().__init__(table, epsilon, calibrate=calibrate, utility=utility)

    def _law(self, sharpness: float) -> Law:
        return FlipLaw(self.levelled, decaying_weights(sharpness, self.levelled.levels.last, self.size))


class FlipLaw(WeightedLaw):
    """p(y|x) = p_y * integral over s in [0, 1] of the product over j != y of (1 - p_j s), p_j = w_j / w_0.

    A word that has its turn at a uniform time s is drawn if its coin says so and none before it was kept. The token
    itself is always kept, so that one is. Drawn by tossing all coins and taking one of the kept words uniformly.
    Guarantee: the draw is exact, with a uniform integer below w_0 a coin. `rows` integrates numerically; `slack` bounds
        its error.
    """

    slack = 1e-9

    def draw(self, ids: Ids) -> Ids:
        drawn = native_law.flipped(self.levelled, self.weights, ids)
        return super().draw(ids) if drawn is None else drawn

    def draw_block(self, ids: Ids) -> Ids:
        weights = self.weight_rows(ids)
        tosses = uniform.below(np.full(weights.size, self.weights[0])).reshape(weights.shape)
        kept = (tosses < weights).astype(np.int64)
        return selected(kept, uniform.below(kept.sum(axis=1)))

    @cached_property
    def _quadrature(self) -> tuple[Floats, Floats]:
        """Nodes and weights on [0, 1]: panels that double in width, from one as narrow as 1/V."""
        nodes, shares = np.polynomial.legendre.leggauss(_NODES)
        edges = np.concatenate([[0.0], 2.0 ** np.arange(-self.size.bit_length(), 1)])
        widths = np.diff(edges)[:, None]
        return (edges[:-1, None] + widths * (nodes + 1) / 2).ravel(), (widths * shares / 2).ravel()

    def rows(self, ids: Ids) -> Floats:
        levels = self.levelled.rows(ids)
        number = len(self.weights)
        places = np.arange(len(ids))[:, None] * number + levels
        counts = np.bincount(places.ravel(), minlength=len(ids) * number).reshape(-1, number).astype(np.float64)
        used = np.flatnonzero(counts.any(axis=0))
        chances = self.weights[used] / self.weights[0]
        nodes, shares = self._quadrature
        none_kept = np.exp(counts[:, used] @ np.log1p(-chances[:, None] * nodes))
        own = (chances[:, None] / (1 - chances[:, None] * nodes)).T
        by_level = np.zeros_like(counts)
        by_level[:, used] = (none_kept * shares) @ own
        return np.take_along_axis(by_level, levels, axis=1)
