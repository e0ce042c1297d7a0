"""A draw cut into microbatches of one fixed size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from privkt.dpsgd.engine import Engine
from privkt.dpsgd.sampling import microbatches
from privkt.dpsgd.users import UserDraw
from privkt.dpsgd.verify import Rehearsal


@dataclass(frozen=True)
class Piece:
    """One microbatch: positions of records, and which of them count; a unit may be spread over several.

    goes_on: it adds to the rows of the piece before; ends: after it the units' gradients are whole.
    """

    indices: list[int]
    mask: list[bool]
    goes_on: bool = False
    ends: bool = True

    def open(self, engine: Engine) -> None:
        """Begins this microbatch."""
        engine.open(len(self.mask), in_pieces=not self.ends or self.goes_on, keep=self.goes_on)


@dataclass(frozen=True)
class Current:
    """The microbatch the loop body works on: whether its units are whole after it, and the logical batch."""

    mask: Tensor
    ends: bool = False
    last: bool = False
    rehearsal: Rehearsal | None = None


def record_pieces(drawn: np.ndarray, size: int) -> list[list[Piece]]:
    """Microbatches of `size` records, one unit each."""
    return [[Piece(indices, mask)] for indices, mask in microbatches(drawn, size)]


def user_pieces(draw: UserDraw, size: int, at_once: int) -> list[list[Piece]]:
    """Users with K rows each: as many whole users as `size` rows hold, or one user in pieces of `at_once` rows.

    Units: at_once is the engine's records_per_unit: K, or less where K rows do not fit into one microbatch.
    Edge cases: no user gives one microbatch of fillers.
    """
    cap = draw.rows.shape[1]
    users = 1 if at_once < cap else max(1, size // cap)
    return [list(_of_users(draw, start, users, at_once)) for start in range(0, max(len(draw.users), 1), users)]


def _of_users(draw: UserDraw, start: int, users: int, at_once: int) -> Iterator[Piece]:
    cap = draw.rows.shape[1]
    count = -(-cap // at_once)
    rows, mask = np.zeros((users, count * at_once), dtype=np.int64), np.zeros((users, count * at_once), dtype=bool)
    here = draw.rows[start : start + users]
    if len(here):
        rows[:] = here[0, 0]  # a filler is a row that is read anyway
        rows[: len(here), :cap], mask[: len(here), :cap] = here, draw.mask[start : start + users]
    for piece in range(count):
        part = slice(piece * at_once, (piece + 1) * at_once)
        yield Piece(rows[:, part].ravel().tolist(), mask[:, part].ravel().tolist(), piece > 0, piece == count - 1)
