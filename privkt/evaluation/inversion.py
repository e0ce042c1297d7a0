"""Guessing the word behind a noisy word: the best guess that there is, by the law, and the guess that needs no law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privkt.contracts.tokens import TokenMechanism
from privkt.evaluation.law import Floats, Ids, read_law
from privkt.privacy import RefusedInput

_CELLS = 1 << 22


def normalised(prior: ArrayLike, size: int) -> Floats:
    """Weights of all words as probabilities. Raises: RefusedInput, unless they are `size` numbers >= 0, not all 0."""
    weights = np.asarray(prior, dtype=np.float64)
    if weights.shape != (size,) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
        raise RefusedInput(
            f"attack: a prior must be one finite weight >= 0 for each of {size} words, not all of them 0; count the "
            "words of some texts, or leave it out"
        )
    return np.asarray(weights / weights.sum(), dtype=np.float64)


@dataclass(frozen=True)
class Guesses:
    """For each output the inputs that an attacker names, the best first.

    Shapes: outputs [m], sorted; inputs [k, m]; joint [k, m], prior times law of each, or None where no law is known.
    """

    outputs: Ids
    inputs: Ids
    joint: Floats | None = None

    def expected(self, guesses: int = 1) -> float:
        """The exact probability that one of the first guesses is right, over prior and mechanism.

        Raises: RefusedInput, where no law is known.
        """
        if self.joint is None:
            raise RefusedInput("attack: an expected success needs the law of the mechanism; count draws instead")
        return float(self.joint[:guesses].sum())

    def hits(self, inputs: Ids, outputs: Ids, guesses: int = 1) -> int:
        """How many of these inputs are among the first guesses for their outputs."""
        at = np.searchsorted(self.outputs, outputs)
        if len(outputs) and (at >= len(self.outputs)).any() | (self.outputs[at % len(self.outputs)] != outputs).any():
            raise RefusedInput("attack: an output has no guess; make the guesses for all outputs that were seen")
        return int((self.inputs[:guesses, at] == inputs).any(axis=0).sum())


class Posterior:
    """A reading of a law: the `most` likeliest inputs of each output under a prior. Memory: most x outputs.

    Guarantee: no attacker who knows law and prior, and sees one output, names the input more often.
    Edge cases: inputs of prior 0 are never named unless fewer than `most` are left; equal ones: the smaller id first.
    """

    def __init__(self, prior: Floats, most: int = 1, outputs: Ids | None = None) -> None:
        self.prior = prior
        self.outputs = np.arange(len(prior)) if outputs is None else np.unique(outputs)
        self._whole = outputs is None
        self.joint = np.full((most, len(self.outputs)), -1.0)
        self.inputs = np.full((most, len(self.outputs)), -1, dtype=np.int64)

    def add(self, ids: Ids, rows: Floats) -> None:
        likely = self.prior[ids] > 0
        if not likely.any():
            return
        if not likely.all():
            ids, rows = ids[likely], rows[likely]
        joint = (rows if self._whole else rows[:, self.outputs]) * self.prior[ids, None]
        if len(self.joint) == 1:
            at = joint.argmax(axis=0)
            found = np.take_along_axis(joint, at[None], axis=0)[0]
            better = found > self.joint[0]
            self.joint[0, better], self.inputs[0, better] = found[better], ids[at[better]]
            return
        most = len(self.joint)
        values = np.concatenate([self.joint, joint]).T.copy()
        kept = np.argpartition(-values, most - 1, axis=1)[:, :most]
        kept.sort(axis=1)
        ordered = np.take_along_axis(kept, np.argsort(-np.take_along_axis(values, kept, 1), axis=1, kind="stable"), 1).T
        self.joint = np.take_along_axis(values.T, ordered, axis=0)
        old = np.take_along_axis(self.inputs, np.minimum(ordered, most - 1), axis=0)
        self.inputs = np.where(ordered < most, old, ids[np.maximum(ordered - most, 0)])

    def guesses(self) -> Guesses:
        """What was found; call it when all inputs were read."""
        return Guesses(self.outputs, self.inputs, np.maximum(self.joint, 0.0))


def bayes_guesses(
    mechanism: TokenMechanism, prior: ArrayLike | None = None, *, most: int = 1, outputs: Ids | None = None
) -> Guesses:
    """The Bayes-optimal guesses: `prior` is how often each word is an input, all alike where left out.

    Raises: RefusedInput, for a mechanism whose law is not known, and for priors that are none.
    """
    size = mechanism.size
    weights = normalised(np.ones(size) if prior is None else prior, size)
    reading = Posterior(weights, most, outputs)
    read_law(mechanism, [reading], np.flatnonzero(weights))
    return reading.guesses()


def blind_share(prior: Floats, guesses: int = 1) -> float:
    """How often a guess is right that does not look at the output: the likeliest words' share."""
    return float(np.sort(prior)[::-1][:guesses].sum())


def nearest_guesses(vectors: NDArray[np.floating], outputs: Ids, *, most: int = 1) -> Guesses:
    """The output itself, then the words nearest to it: what an attacker tries who knows no law.

    Shapes: vectors [V, D]. Works for any mechanism over a table; says nothing about the best attack.
    """
    seen = np.unique(outputs)
    found = np.empty((min(most, len(vectors)), len(seen)), dtype=np.int64)
    found[0] = seen
    if len(found) > 1:
        table = np.asarray(vectors, dtype=np.float32)
        squares = np.einsum("ij,ij->i", table, table)
        step = max(1, _CELLS // len(table))
        for start in range(0, len(seen), step):
            ids = seen[start : start + step]
            apart = squares[None] - 2 * table[ids] @ table.T
            apart[np.arange(len(ids)), ids] = -np.inf
            near = np.argpartition(apart, len(found) - 1, axis=1)[:, : len(found)]
            order = np.argsort(np.take_along_axis(apart, near, axis=1), axis=1, kind="stable")
            found[:, start : start + step] = np.take_along_axis(near, order, axis=1).T
    return Guesses(seen, found)


def counted_prior(rows: Sequence[Ids], size: int) -> Floats:
    """How often each word stands in encoded texts, as a prior.

    Raises: RefusedInput, for texts without a word.
    """
    return normalised(np.bincount(np.concatenate([*rows, np.zeros(0, dtype=np.int64)]), minlength=size), size)
