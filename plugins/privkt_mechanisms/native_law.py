"""Integer laws over the native kernels: drawn and enumerated without a row of the vocabulary in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from privkt.privacy.weights import exact_epsilon, floor_logs
from privkt_mechanisms.byte_table import Ids, Integers, LevelledTable
from privkt_mechanisms.laws import IntegerLaw, Law

if TYPE_CHECKING:
    from torch import Tensor

    from privkt.kernels import ByteTable, FixedTime, Levels, Neighbours

# After the last round a uniform word comes, with probability 2^-128 at most: far less than one unit of the logarithms.
_LEFT_OVER = 2.0**-24
_MOST_FLIPPED = 172032  # words that permute-and-flip's key stream has coins for


@dataclass
class Table:
    """A levelled table as kernels take it, and the list of neighbours once it is worth its price."""

    rows: ByteTable
    levels: Levels
    near: Neighbours | None = None
    streamed: int = 0  # draws so far that looked at the whole vocabulary


def table_of(levelled: LevelledTable) -> Table:
    """Shared by all laws of one levelled table: neighbours do not depend on weights."""
    if levelled.native is None:
        from privkt import kernels

        levels = levelled.levels
        known = kernels.Levels(levels.last, levels.shift, levels.root)
        levelled.native = Table(levelled.table.native, known)
    return levelled.native


def weights_of(weights: Integers) -> Tensor:
    """As kernels take them: int32 where they fit."""
    import torch

    return torch.from_numpy(weights.astype(np.int32 if weights[0] < 2**31 else np.int64))


def flipped(levelled: LevelledTable, weights: Integers, ids: Ids) -> Ids | None:
    """Permute-and-flip's draws by the kernels, or None where they do not take these weights or so many words."""
    import torch

    from privkt import kernels

    most = int(weights[0])
    if not kernels.is_private() or not 2 <= most < 2**31 or most & (most - 1) or levelled.size > _MOST_FLIPPED:
        return None
    table, wanted = table_of(levelled), torch.from_numpy(np.array(ids, np.int64))
    key = kernels.new_key()
    return kernels.draw_flipped(table.rows, table.levels, weights_of(weights), wanted, key, 0).numpy()


class NativeLaw(IntegerLaw):
    """The exponential mechanism of an integer weight table, by `privkt.kernels`; the numpy law is the slow same.

    Guarantee: that of `IntegerLaw`, drawn from a ChaCha20 key of the operating system's that one call uses up.
    Edge cases: where no certificate has listed each word's neighbours, draws look at the whole vocabulary until as many
        were made as it has words; then the list is made once, from which a draw takes microseconds. Which of the two
        ran never shows in the law.
        With `fixed` it is made at once, and each draw takes a number of rounds that no word changes.
        Under PRIVKT_KERNELS=reference, whose key stream is no secret, numpy draws from the system's bytes instead.
    """

    def __init__(self, levelled: LevelledTable, weights: Integers, *, fixed: bool = False) -> None:
        super().__init__(levelled, weights)
        # a law of one weight takes as long for every word as it is
        self.fixed = fixed and weights[0] != weights[-1]

    @property
    def epsilon_range(self) -> float:
        found = super().epsilon_range
        return math.nextafter(found, math.inf) if self.fixed else found

    @cached_property
    def _rounds(self) -> FixedTime:
        from privkt import kernels

        table = table_of(self.levelled)
        return kernels.fixed_time(table.rows, self.levelled.table.neighbours, table.levels, self._weights)

    @cached_property
    def _weights(self) -> Tensor:
        return weights_of(self.weights)

    def draw(self, ids: Ids) -> Ids:
        import torch

        from privkt import kernels

        if not kernels.is_private():
            return super().draw(ids)
        table, key = table_of(self.levelled), kernels.new_key()
        wanted = torch.from_numpy(np.array(ids, np.int64))
        known = self.levelled.table.indexed
        if table.near is None and (known or self.fixed or table.streamed + len(ids) > self.size):
            table.near = self.levelled.table.neighbours
        if table.near is None:
            table.streamed += len(ids)
            drawn = kernels.draw_words(table.rows, table.levels, self._weights, key, 0, ids=wanted)
        else:
            rounds = self._rounds if self.fixed else None
            drawn = kernels.draw_words_near(
                table.rows, table.near, table.levels, self._weights, wanted, key, 0, fixed=rounds
            )
        return drawn.numpy()

    def draw_block(self, ids: Ids) -> Ids:
        from privkt import kernels

        return self.draw(ids) if kernels.is_private() else super().draw_block(ids)

    def epsilon_exact(self) -> float:
        """`Law.epsilon_exact` from integers: above the truth by at most 2^-21."""
        from privkt import kernels

        if not kernels.is_private():
            return Law.epsilon_exact(self)
        if self.weights[0] == self.weights[-1]:
            return 0.0
        table = table_of(self.levelled)
        totals = kernels.table_totals(table.rows, table.levels, self._weights)
        logs = floor_logs(self.weights).tolist(), floor_logs(totals.numpy()).tolist()
        spread = kernels.largest_spread(table.rows, self.levelled.table.index, table.levels, *logs)
        return exact_epsilon([spread], [0]) + (_LEFT_OVER if self.fixed else 0.0)
