"""Laws that leave some words as they are: what plus forms and published kits do, and why they promise nothing."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privkt.privacy import RefusedInput
from privkt_mechanisms import uniform
from privkt_mechanisms.byte_table import Floats, Ids
from privkt_mechanisms.laws import Law


class KeepingLaw(Law):
    """`law`, but words of the mask `open_words` stay as they are with probability `keep`. No guarantee for them."""

    def __init__(self, law: Law, open_words: NDArray[np.bool_], keep: Fraction) -> None:
        super().__init__(law.levelled)
        self.law, self.open_words, self.keep = law, open_words, keep

    @property
    def epsilon_range(self) -> float:
        return math.inf if self.open_words.any() and self.keep else self.law.epsilon_range

    def rows(self, ids: Ids) -> Floats:
        rows = self.law.rows(ids)
        mine = self.open_words[ids]
        share = float(self.keep)
        rows[mine] *= 1 - share
        rows[np.flatnonzero(mine), ids[mine]] += share
        return rows

    def draw_block(self, ids: Ids) -> Ids:
        found = self.law.draw_block(ids)
        coins = uniform.below(np.full(len(ids), self.keep.denominator)) < self.keep.numerator
        stays = self.open_words[ids] & coins
        found[stays] = ids[stays]
        return found


def word_mask(subject: str, name: str, words: ArrayLike, size: int) -> NDArray[np.bool_]:
    """A public list of ids as a mask [size]. Raises: RefusedInput, for anything but ids below `size`."""
    ids = np.asarray(words)
    if ids.size and (ids.ndim != 1 or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= size):
        raise RefusedInput(f"{subject}: {name} must be ids in [0, {size}), got others; list the words' public ids")
    mask = np.zeros(size, dtype=bool)
    mask[ids.astype(np.int64)] = True
    return mask


def keep_share(subject: str, keep: Fraction | float | str) -> Fraction:
    """A probability as an exact fraction with a denominator below 2^60."""
    try:
        exact = Fraction(keep).limit_denominator(1 << 30)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        exact = Fraction(-1)
    if not 0 <= exact <= 1:
        raise RefusedInput(f"{subject}: keep must be a probability in [0, 1], got {keep!r}; 0.7 is what was published")
    return exact
