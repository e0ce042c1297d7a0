"""TokenMechanismSuite: what every mechanism that replaces tokens must do, on top of MechanismSuite."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest

from privkt.contracts import TokenMechanism
from privkt.privacy import Kind, Neighbouring, RefusedInput, Unit, document_cost, epsilon
from privkt.testing import vocabularies
from privkt.testing.generated import GeneratedTableChecks
from privkt.testing.statistics import CUT_OFF, chi_square_p, renyi

_SLACK = 1e-9
_ORDERS = (1.01, 2.0, 8.0, 64.0)
_FEW = 64
_SINGLE = 200


class TokenMechanismSuite(GeneratedTableChecks):
    """Subclass it like MechanismSuite; `mechanisms` are TokenMechanisms over small public tables, at most 64 words.

    Every row of the law is enumerated, so certificates are held against the truth; give `over` as well, and they are
    over tables that hypothesis makes up (see GeneratedTableChecks). `faithful`: a token is at least
    as likely to stay itself as to become any one other; mechanisms of which that is not true turn it off.
    """

    faithful: bool = True

    def inputs(self, mechanism: Any) -> Sequence[int]:
        return [0, mechanism.size - 1]

    def neighbours(self, mechanism: Any) -> Iterable[tuple[int, int]]:
        return ((x, y) for x in range(mechanism.size) for y in range(mechanism.size) if x != y)

    def outsiders(self, mechanism: Any) -> Sequence[Any]:
        return [self.canary, -1, mechanism.size, 0.0, True, None, self.canary.encode(), 2**64]

    def drawn(self, mechanism: Any, value: Any) -> Iterable[Hashable]:
        """A few one by one, the rest in one call."""
        yield from (mechanism.sample(value) for _ in range(_SINGLE))
        yield from mechanism.sample_ids(np.full(self.draws - _SINGLE, value)).tolist()

    def laws(self) -> list[tuple[TokenMechanism, np.ndarray]]:
        """Every mechanism whose law is known, with the whole of it."""
        return [(m, m.probabilities(np.arange(m.size))) for m in self.token_mechanisms() if m.has_law]

    def token_mechanisms(self) -> list[TokenMechanism]:
        found = []
        for mechanism in self.mechanisms():
            assert isinstance(mechanism, TokenMechanism)
            assert mechanism.size <= _FEW, f"give tables of at most {_FEW} words: every pair is enumerated"
            found.append(mechanism)
        return found

    def test_rows_of_the_law_are_distributions_over_the_vocabulary(self) -> None:
        for mechanism, law in self.laws():
            assert law.shape == (mechanism.size, mechanism.size)
            assert (law >= 0).all()
            assert np.abs(law.sum(axis=1) - 1).max() <= 1e-12, "a row does not sum to 1"

    def test_no_certificate_is_below_the_enumerated_truth(self) -> None:
        for mechanism, law in self.laws():
            certificate = mechanism.certificate
            with np.errstate(divide="ignore"):
                logs = np.log(law)
            seen = np.isfinite(logs).any(axis=0)
            truth = float((logs.max(axis=0) - logs.min(axis=0))[seen].max())
            assert certificate.epsilon_range >= truth - _SLACK, "epsilon_range is below the enumerated truth"
            if certificate.epsilon_exact is not None:
                assert certificate.epsilon_exact >= truth - _SLACK, "epsilon_exact is below the enumerated truth"
                assert certificate.epsilon_exact <= truth + 1e-3 or math.isinf(truth), "epsilon_exact is not exact"
            if math.isfinite(certificate.rho):
                rows: list[dict[Hashable, float]] = [dict(enumerate(row)) for row in law[:8]]
                for order in _ORDERS:
                    worst = max(renyi(p, q, order) for p in rows for q in rows)
                    assert worst <= certificate.rho * order * (1 + _SLACK) + _SLACK, "rho is below the truth"

    def test_guarantee_event_and_certificate_are_one_promise(self) -> None:
        for mechanism in self.token_mechanisms():
            guarantee, certificate = mechanism.guarantee, mechanism.certificate
            assert guarantee.unit is Unit.TOKEN, "the unit of a token mechanism is one token"
            assert guarantee.is_private == math.isfinite(certificate.epsilon), (
                "a guarantee needs a finite certificate, and where one is infinite the kind is none"
            )
            if guarantee.kind is Kind.PURE:
                assert guarantee.epsilon == certificate.epsilon

    def test_every_word_can_become_every_word(self) -> None:
        for mechanism, law in self.laws():
            if mechanism.guarantee.is_private:
                assert law.min() > 0, "an output that some token cannot give has no finite epsilon"

    def test_a_token_is_likeliest_to_stay_itself(self) -> None:
        if not self.faithful:
            pytest.skip("this mechanism does not favour the token itself")
        for _, law in self.laws():
            assert (np.diag(law) >= law.max(axis=1) * (1 - 1e-9)).all(), "another word is likelier than the token"

    def test_draws_keep_their_places_and_follow_their_rows(self) -> None:
        laws = self.laws()
        for mechanism, law in laws:
            ids = np.arange(self.draws) % mechanism.size
            drawn = mechanism.sample_ids(ids.reshape(2, -1)).reshape(-1)
            assert drawn.dtype == np.int64
            assert 0 <= drawn.min() <= drawn.max() < mechanism.size
            expected: dict[Hashable, float] = {
                (x, y): law[x, y] * (ids == x).mean() for x in range(mechanism.size) for y in range(mechanism.size)
            }
            p = chi_square_p(zip(ids.tolist(), drawn.tolist(), strict=True), expected)
            assert p >= CUT_OFF / len(laws), f"draws do not follow the law of their own token (p = {p:.2g})"

    def test_equal_tokens_of_one_call_draw_independently(self) -> None:
        laws = self.laws()
        for mechanism, law in laws:
            drawn = mechanism.sample_ids(np.zeros(self.draws // 2 * 2, dtype=np.int64))
            row = law[0]
            expected: dict[Hashable, float] = {
                (y, z): float(row[y] * row[z]) for y in range(mechanism.size) for z in range(mechanism.size)
            }
            for where, pairs in (("neighbouring", drawn.reshape(-1, 2)), ("far", drawn.reshape(2, -1).T)):
                p = chi_square_p(map(tuple, pairs.tolist()), expected)
                assert p >= CUT_OFF / len(laws) / 2, f"{where} draws of one token are not independent (p = {p:.2g})"

    def test_no_call_no_draw(self) -> None:
        for mechanism in self.token_mechanisms():
            assert mechanism.sample_ids(np.zeros((0,), dtype=np.int64)).shape == (0,)

    def test_one_unknown_id_refuses_the_whole_call(self) -> None:
        for mechanism in self.token_mechanisms():
            for stranger in (-1, mechanism.size, 731519):
                with pytest.raises(RefusedInput, match="whole numbers in") as caught:
                    mechanism.sample_ids(np.array([0, stranger, 0]))
                assert str(stranger) not in str(caught.value) or stranger == mechanism.size
            with pytest.raises(RefusedInput, match="whole numbers in"):
                mechanism.sample_ids(np.array([0.0]))

    def test_ids_of_any_shape_and_type_are_served_and_nothing_else(self) -> None:
        mechanism = self.token_mechanisms()[0]

        def served(ids: Any) -> None:
            drawn = mechanism.sample_ids(ids)
            assert drawn.shape == ids.shape, "a call must keep its shape"
            assert drawn.dtype == np.int64
            assert ((drawn >= 0) & (drawn < mechanism.size)).all()

        def refused(ids: Any) -> None:
            with pytest.raises(RefusedInput, match="whole numbers in"):
                mechanism.sample_ids(ids)

        def read(them: list[list[int]]) -> None:
            for words in them:
                assert len(mechanism.sample_ids(np.array(words, dtype=np.int64))) == len(words)

        self.given(served, vocabularies.id_arrays(mechanism.size))
        self.given(refused, vocabularies.bad_id_arrays(mechanism.size))
        self.given(read, vocabularies.documents(mechanism.size))

    def test_a_row_of_the_law_does_not_depend_on_the_rest_of_the_call(self) -> None:
        for mechanism, law in self.laws():
            for ids in ([mechanism.size - 1], [mechanism.size - 1, 0, 0], list(range(mechanism.size))[::-1]):
                found = mechanism.probabilities(np.array(ids))
                assert np.allclose(found, law[ids], rtol=1e-9, atol=0), "a token's law depends on its company"

    def test_a_document_costs_what_its_tokens_cost(self) -> None:
        for mechanism in self.token_mechanisms():
            guarantee, certificate = mechanism.guarantee, mechanism.certificate
            for positions, delta in ((1, 0.0), (3, 0.0), (40, 1e-6)):
                cost = document_cost(certificate, positions, delta=delta, unit=Unit.RECORD)
                assert cost.guarantee.is_private == guarantee.is_private, "a document is private where its tokens are"
                if not guarantee.is_private:
                    continue
                assert cost.guarantee.unit is Unit.RECORD
                charged = epsilon(cost.event, cost.guarantee.delta, Neighbouring.LOCAL)
                assert charged <= cost.guarantee.epsilon * (1 + 1e-6), "a document's event costs more than it promises"
                if cost.guarantee.kind is Kind.PURE:
                    assert cost.guarantee.epsilon == pytest.approx(positions * certificate.epsilon, rel=1e-9)
            if guarantee.kind is Kind.PURE:
                one = epsilon(document_cost(certificate, 1).event, 0.0, Neighbouring.LOCAL)
                own = epsilon(mechanism.event(), 0.0, guarantee.neighbouring)
                assert own == pytest.approx(one, rel=1e-6), "a document of one token costs other than one token"
