"""User level: users are drawn, and all rows of a user that count come together, so that their sum is clipped once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from privkt.dpsgd.errors import RefusedTraining
from privkt.dpsgd.sampling import Sampler


@dataclass(frozen=True)
class UserDraw:
    """The users of one step, ascending, and their rows.

    Shapes: rows, mask: [users, K]; a row whose mask is False fills up and does not count.
    """

    users: np.ndarray
    rows: np.ndarray
    mask: np.ndarray


class UserSampler:
    """Draws users by `base`, each with at most `records_per_user` of its rows: the first ones, or fresh ones a step.

    Guarantee: the accounting is that of `base`, whose units are the users; which rows of a user count does not depend
        on other users' rows.
    Edge cases: a user without rows is drawn like any other, and nothing of it counts.
    Raises: RefusedTraining, for a row that two users have, a number of users that is not the declared one, or a cap
        below 1.
    """

    def __init__(
        self,
        base: Sampler,
        rows_of: Sequence[Sequence[int]],
        *,
        size: int,
        records_per_user: int,
        key: bytes,
        choice: Literal["first", "random"] = "first",
    ) -> None:
        if len(rows_of) != size:
            raise RefusedTraining(
                f"UserSampler: the users must be the {size} that were declared, got {len(rows_of)}; declare their "
                "number as size"
            )
        if records_per_user < 1:
            raise RefusedTraining(
                f"UserSampler: records_per_user must be at least 1, got {records_per_user}; a public cap of 1 to 32 "
                "is usual"
            )
        if choice not in ("first", "random"):
            raise RefusedTraining(f"UserSampler: choice must be 'first' or 'random', got {choice!r}")
        self._rows = [np.unique(np.asarray(rows, dtype=np.int64)) for rows in rows_of]
        everything = np.concatenate(self._rows) if self._rows else np.zeros(0, dtype=np.int64)
        if len(np.unique(everything)) != len(everything):
            raise RefusedTraining(
                "UserSampler: each row must belong to one user, got one that several have; group rows by user"
            )
        self._base, self._cap, self._key, self._choice = base, records_per_user, key, choice

    def draw(self, step: int) -> UserDraw:
        """The users drawn at `step` with their rows; the same step always gives the same draw."""
        users = self._base.draw(step)
        rows = np.zeros((len(users), self._cap), dtype=np.int64)
        mask = np.zeros((len(users), self._cap), dtype=bool)
        for place, user in enumerate(users):
            chosen = self._chosen(step, int(user))
            rows[place, : len(chosen)] = chosen
            rows[place, len(chosen) :] = chosen[0] if len(chosen) else 0
            mask[place, : len(chosen)] = True
        return UserDraw(users, rows, mask)

    def state(self, step: int) -> bytes:
        """What a resume at `step` needs beside fresh keys: what the base needs."""
        return self._base.state(step)

    def layer_seed(self, step: int, rank: int = 0) -> int:
        """The seed of dropout."""
        return self._base.layer_seed(step, rank)

    def _chosen(self, step: int, user: int) -> np.ndarray:
        rows = self._rows[user]
        if len(rows) <= self._cap or self._choice == "first":
            return rows[: self._cap]
        place = step.to_bytes(8, "little") + user.to_bytes(8, "little")
        stream = hashlib.shake_256(b"privkt rows of a user\0" + self._key + place)
        words = np.frombuffer(stream.digest(8 * len(rows)), dtype="<u8")
        return np.sort(rows[np.argsort(words, kind="stable")[: self._cap]])


def user_microbatches(draw: UserDraw, users: int) -> Iterator[tuple[list[int], list[bool]]]:
    """A draw in pieces of exactly `users` users, each K rows after one another, with a mask of the rows that count.

    Edge cases: no user gives one piece of fillers, so that an empty draw takes the same path.
    """
    cap = draw.rows.shape[1]
    for start in range(0, max(len(draw.users), 1), users):
        rows = draw.rows[start : start + users].ravel().tolist()
        mask = draw.mask[start : start + users].ravel().tolist()
        missing = users * cap - len(rows)
        yield rows + (rows[:1] or [0]) * missing, mask + [False] * missing
