"""What a token mechanism must do over any table and epsilon that hypothesis makes up: part of TokenMechanismSuite."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from numpy.typing import NDArray

from privkt.contracts import TokenMechanism
from privkt.privacy import Kind, RefusedInput
from privkt.testing import vocabularies
from privkt.testing.mechanism import MechanismSuite

Law = Sequence[Sequence[Fraction | float]]
_SLACK = 1e-9
_LEAST, _MOST = 0.05, 12.0
_CASES = [(np.array(rows, dtype=np.float32), epsilon) for rows in vocabularies.SMALL_TABLES for epsilon in (0.5, 8.0)]


class GeneratedTableChecks(MechanismSuite):
    """`over` makes the mechanism over a given table; without it these checks are skipped.

    `by_vectors`: words of equal vectors are alike to the mechanism. `scale_free`: a table in other units is the same.
    `examples`: how many cases each check makes up; `shrinks`: whether one that fails is made smaller.
    """

    examples: int = 8
    shrinks: bool = True
    by_vectors: bool = True
    scale_free: bool = False

    def over(self, table: NDArray[np.float32], epsilon: Fraction | float | int | str) -> TokenMechanism | None:
        """The mechanism over this public table at this epsilon, as its users make it."""
        return None

    def exact_law(self, mechanism: Any) -> Law | None:
        """p(y|x) as fractions, where the mechanism samples from integers; else its `probabilities` are taken."""
        return None

    def test_over_any_table_the_certificate_is_not_below_the_truth(self) -> None:
        def check(table: NDArray[np.float32], epsilon: float) -> None:
            mechanism = self._made(table, epsilon)
            if not mechanism.has_law:
                return
            law, certificate = self._law(mechanism), mechanism.certificate
            truth = max(_log_ratio(max(column), min(column)) for column in zip(*law, strict=True) if max(column) > 0)
            for name in ("epsilon_range", "epsilon_exact"):
                bound = getattr(certificate, name)
                assert bound is None or bound >= truth - 1e-12, f"{name} is below the truth of a generated table"
            guarantee = mechanism.guarantee
            if guarantee.kind is Kind.PURE:
                assert certificate.epsilon <= epsilon, "the certificate is above the epsilon that was asked for"
            if guarantee.kind is Kind.METRIC:
                self._need_metric(mechanism, law)

        self._for_any(check, vocabularies.tables(), vocabularies.token_epsilons(), first=_CASES)

    def _need_metric(self, mechanism: TokenMechanism, law: Law) -> None:
        guarantee = mechanism.guarantee
        assert guarantee.metric_scale is not None
        for x, row in enumerate(law):
            for y, other in enumerate(law):
                lost = max(_log_ratio(p, q) for p, q in zip(row, other, strict=True))
                allowed = guarantee.epsilon * self.distance_of(mechanism, x, y) / guarantee.metric_scale
                assert lost <= allowed * (1 + _SLACK) + _SLACK, "two words lose more than their distance allows"

    def test_words_of_equal_vectors_are_alike(self) -> None:
        if not self.by_vectors:
            pytest.skip("this mechanism does not go by the vectors alone")

        def check(table: NDArray[np.float32], epsilon: float) -> None:
            twins = np.vstack([table, table[:1]])
            mechanism = self._made(twins, epsilon)
            if mechanism.has_law:
                law = mechanism.probabilities(np.arange(len(twins)))
                assert np.allclose(law[0], law[-1], rtol=1e-9, atol=1e-15), "equal words draw by different laws"
                assert np.allclose(law[:, 0], law[:, -1], rtol=1e-9, atol=1e-15), "equal words are not equally likely"

        self._for_any(check, vocabularies.tables(), vocabularies.token_epsilons(), first=_CASES)

    def test_the_units_of_the_table_do_not_matter(self) -> None:
        if not self.scale_free:
            pytest.skip("this mechanism reads distances in the table's own units")

        def check(table: NDArray[np.float32], epsilon: float) -> None:
            one, other = self._made(table, epsilon), self._made(table * np.float32(4), epsilon)
            ids = np.arange(len(table))
            assert np.allclose(one.probabilities(ids), other.probabilities(ids), rtol=1e-9, atol=0)
            assert one.certificate == other.certificate

        wide = np.array([[0.0, 0.0], [0.25, -2.0], [1.0, 3.0], [-5.0, 0.5]], dtype=np.float32)
        self._for_any(check, vocabularies.clustered_tables(), vocabularies.token_epsilons(), first=[(wide, 3.0)])

    def test_a_broken_table_is_refused(self) -> None:
        def check(table: NDArray[np.float32]) -> None:
            with pytest.raises(RefusedInput):
                self.over(table, 1.0)

        spoilt = np.array([[0.0, 1.0], [np.nan, 0.0], [1.0, 1.0]], dtype=np.float32)
        self._for_any(check, vocabularies.broken_tables(), first=[(spoilt,)])

    def test_more_epsilon_never_certifies_less(self) -> None:
        def check(table: NDArray[np.float32], epsilon: float) -> None:
            less, more = (self._made(table, wanted).certificate.epsilon for wanted in (epsilon / 2, epsilon))
            assert less <= more * (1 + _SLACK) or math.isinf(less), "a smaller epsilon has a larger certificate"

        wanted = vocabularies.epsilons(_LEAST, _MOST).map(lambda epsilon: float(Fraction(epsilon)))
        self._for_any(check, vocabularies.tables(), wanted, first=[(table, _MOST) for table, _ in _CASES[::2]])

    def test_an_epsilon_counts_by_its_value_and_no_other_is_taken(self) -> None:
        table = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 3.0]], dtype=np.float32)

        def same(epsilon: Fraction | float | str) -> None:
            one, other = self._made(table, epsilon), self._made(table, Fraction(epsilon))
            assert one.certificate == other.certificate, "one epsilon in two spellings gives two certificates"
            assert one.parameters() == other.parameters()

        def refused(epsilon: Any) -> None:
            with pytest.raises(RefusedInput):
                self.over(table, epsilon)

        self._for_any(same, vocabularies.epsilons(_LEAST, _MOST), first=[(Fraction(5, 2),), ("5/2",), ("2.5",), (2,)])
        self._for_any(refused, vocabularies.bad_epsilons(), first=[(wrong,) for wrong in vocabularies.NO_EPSILONS])

    def _made(self, table: NDArray[np.float32], epsilon: Fraction | float | str) -> TokenMechanism:
        found = self.over(table, epsilon)
        assert found is not None
        assert found.size == len(table), "a mechanism over a table has a word for each row"
        return found

    def _law(self, mechanism: TokenMechanism) -> Law:
        exact = self.exact_law(mechanism)
        found: list[list[float]] = mechanism.probabilities(np.arange(mechanism.size)).tolist()
        if exact is None:
            return found
        error = np.abs(np.array(found) - np.array([[float(p) for p in row] for row in exact])).max()
        assert error <= 1e-12, "the stated probabilities are not those of the integers that are sampled"
        return exact

    def _for_any(self, check: Callable[..., None], *strategies: Any, first: Sequence[tuple[Any, ...]] = ()) -> None:
        """Calls `check` with cases that are always tried, and with those that are made up."""
        if self.over(np.array([[0.0], [1.0]], dtype=np.float32), 1.0) is None:
            pytest.skip("no `over` in the suite: it is not said how to make the mechanism over a table")
        for case in first:
            check(*case)
        self.given(check, *strategies)

    def given(self, check: Callable[..., None], *strategies: Any) -> None:
        """Calls `check` with `examples` cases of these strategies."""
        limits = settings(
            max_examples=self.examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink) if self.shrinks else (Phase.generate,),
        )
        limits(given(*strategies)(check))()


def _log_ratio(p: Fraction | float, q: Fraction | float) -> float:
    """ln p/q, of fractions whose parts no float holds too."""
    if p <= 0:
        return -math.inf
    if q <= 0:
        return math.inf
    ratio = Fraction(p) / Fraction(q)
    return math.log(ratio.numerator) - math.log(ratio.denominator)
