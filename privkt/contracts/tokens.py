"""Mechanisms that replace tokens of a public vocabulary one by one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

from privkt.contracts.mechanism import Mechanism
from privkt.privacy import Certificate, RefusedInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TokenMechanism(Mechanism[int, int]):
    """Draws a token of a public vocabulary of `size` for each token, every one independently of all others.

    Guarantee: `certificate` between any two inputs in [0, size); for a document see privkt.privacy.document_cost.
        Vocabulary, vectors and every setting are public: nothing of them is learnt from the texts (relation local).
    Edge cases: equal ids in one call draw independently. A token is never passed through and never deleted.
    """

    size: int = 0

    @property
    @abstractmethod
    def certificate(self) -> Certificate:
        """What one draw costs, of the weights that are really sampled."""

    @abstractmethod
    def sample_ids(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """One fresh draw for each id, with secure randomness and no accounting.

        Shapes: any; the result has the same. Raises: RefusedInput, for an id outside [0, size).
        """

    @abstractmethod
    def probabilities(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """The law really sampled, a row an id. Shapes: ids [n]; result [n, size], each row sums to 1."""

    @property
    def probability_slack(self) -> float:
        """How wrong the logarithm of one of `probabilities` can be.

        The default covers sums and quotients of doubles; a law that is integrated numerically states its own.
        """
        return 1e-11

    @property
    def has_law(self) -> bool:
        """Whether `probabilities` is known; where it is not, it raises RefusedInput and there is no certificate."""
        return True

    def sample(self, value: int) -> int:
        return int(self.sample_ids(self._one(value))[0])

    def distribution(self, value: int) -> Mapping[Hashable, float] | None:
        ids = self._one(value)
        if not self.has_law:
            return None
        return {token: float(mass) for token, mass in enumerate(self.probabilities(ids)[0])}

    def _one(self, value: int) -> NDArray[np.int64]:
        import numpy as np

        # neither text nor True nor 1.0 is an id: numpy would make one of them
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        ids = np.asarray([value if whole and abs(value) < 2**62 else -1], dtype=np.int64)
        self.need_ids(ids)
        return ids

    def need_ids(self, ids: NDArray[np.int64]) -> None:
        """Raises RefusedInput for anything that is not an id; the message does not repeat it."""
        if ids.dtype.kind not in "iu" or (ids.size and (int(ids.min()) < 0 or int(ids.max()) >= self.size)):
            raise RefusedInput(
                f"{self.name}: ids must be whole numbers in [0, {self.size}), got others; map the text into the "
                "vocabulary first"
            )
