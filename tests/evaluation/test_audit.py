"""The lower bound on epsilon: never above the truth more often than stated, near it, and above a promise that lies."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).parent))  # laws.py is named like nothing else
from laws import Matrix, random_law, response

from privkt.contracts import Mechanism
from privkt.evaluation import audit as audit_module
from privkt.evaluation.audit import audit, promised
from privkt.evaluation.confidence import least_share, most_share
from privkt.evaluation.events import Coding, best_event, lower_bound
from privkt.evaluation.mechanism_report import report_on
from privkt.evaluation.neighbours import example_neighbours, word_pairs
from privkt.evaluation.sample_vocabulary import sample_vocabulary
from privkt.plugins import get_manager
from privkt.privacy import Guarantee, Kind, Neighbouring, RefusedInput, Unit, none_event

SURE = 1 - 1e-6  # of a bound, for draws of fresh randomness
VECTORS = sample_vocabulary().vectors


def made(name, *args, **kwargs):
    return get_manager().create("mechanism", name, *args, **kwargs)


class Seeded(Mechanism):
    """Numbers drawn by `draw(generator, value)`, with whatever guarantee is stated."""

    name, version = "seeded", "1"

    def __init__(self, draw, epsilon, delta=0.0):
        self.generator, self.draw = np.random.default_rng(17), draw
        kind = Kind.APPROXIMATE if delta else Kind.PURE
        self._guarantee = Guarantee(kind, epsilon, delta, neighbouring=Neighbouring.LOCAL, proof="a test")

    @property
    def guarantee(self):
        return self._guarantee

    def event(self):
        return none_event()

    def sample(self, value):
        return self.draw(self.generator, value)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("labels", [["a", "b"], ["a", "b", "c", "d", "e"]])
def test_randomised_response_is_bounded_from_below_and_closely(epsilon, labels):
    mechanism = made("randomised_response", labels, epsilon)
    found = audit(mechanism, example_neighbours(mechanism), confidence=SURE)
    assert 0.75 * epsilon - 0.1 < found.lower <= epsilon
    assert not found.violation
    assert found.pairs[0].truth == pytest.approx(epsilon)
    assert "a lower bound at confidence 0.999999" in str(found)
    assert str(found).endswith("no violation was found, which proves nothing")


@pytest.mark.parametrize(
    ("name", "arguments", "samples", "least"),
    [
        ("geometric", (2.0, 3), 8000, 1.5),
        ("laplace", (2.0, 2), 4000, 1.2),
        ("gaussian", (2.0, 1e-5, 1), 4000, 0.1),  # what it loses most lies in tails that few draws hit
    ],
)
def test_numbers_and_vectors_are_bounded_from_below(name, arguments, samples, least):
    mechanism = made(name, *arguments)
    found = audit(mechanism, example_neighbours(mechanism), samples=samples, confidence=SURE)
    assert least < found.lower <= 2.0
    assert not found.violation
    assert found.delta == mechanism.guarantee.delta


@pytest.mark.parametrize("name", ["exponential", "permute_and_flip", "soft_radius", "santext", "tem"])
def test_the_words_that_lose_most_are_found_and_stay_within_the_certificate(name):
    mechanism = made(name, VECTORS, 6.0)
    report = report_on(mechanism, nominal=6.0, vectors=VECTORS, samples=20_000, confidence=SURE)
    truth = max(one.truth for one in report.audit.pairs)
    assert report.truth <= mechanism.certificate.epsilon + 1e-6
    assert 0.45 * report.truth < report.audit.lower <= truth <= report.truth + 1e-9
    assert not report.violation
    assert report.losses.share_above(6.0) == 0


def test_the_stated_rate_of_false_alarms_is_kept():
    """600 audits at confidence 0.8: more than 20 % above the truth, beyond what 1e-6 allows, would be a lie."""
    mechanism = Matrix(response(3, 1.0), seed=4)
    runs, confidence = 600, 0.8
    found = [audit(mechanism, [(0, 1)], samples=400, confidence=confidence).lower for _ in range(runs)]
    above = sum(bound > 1.0 for bound in found)
    assert above <= binom.ppf(1 - 1e-6, runs, 1 - confidence)
    assert np.median(found) > 0.3


@pytest.mark.parametrize("known", [True, False])
def test_events_that_only_look_good_are_no_violation(known):
    """2000 outputs that say nothing: chosen and counted on the same draws, they would seem to tell all."""
    size = 2000
    mechanism = Matrix(np.full((size, size), 1 / size), claimed=0.01, known=known)
    for _ in range(20):
        found = audit(mechanism, [(0, 1)], samples=800, confidence=0.999)
        assert found.lower <= 0.01


@pytest.mark.parametrize("claimed", [0.5, 1.0, 2.0])
def test_twice_the_epsilon_is_a_violation(claimed):
    lying = Matrix(response(5, claimed), drawn=response(5, 2 * claimed))
    found = audit(lying, [(0, 1), (2, 3)], confidence=SURE)
    assert found.violation
    assert found.lower > claimed
    assert "VIOLATION, the mechanism promises" in str(found)
    assert not audit(Matrix(response(5, claimed)), [(0, 1), (2, 3)], confidence=SURE).violation


def test_a_sensitivity_off_by_two_is_a_violation():
    mechanism = made("geometric", 1.5, 2)
    assert not audit(mechanism, [(0, 2)], samples=3000, confidence=SURE).violation
    mechanism.rate *= 2
    assert audit(mechanism, [(0, 2)], samples=3000, confidence=SURE).violation


def test_half_the_noise_is_a_violation_of_an_approximate_promise():
    honest = made("gaussian", 1.0, 1e-5, 1)
    sigma = honest.multiplier

    def draw(share):
        return lambda generator, value: (value[0] + share * sigma * generator.normal(),)

    pair = [([0.0], [1.0])]
    assert not audit(Seeded(draw(1.0), 1.0, 1e-5), pair, confidence=SURE).violation
    assert audit(Seeded(draw(0.25), 1.0, 1e-5), pair, confidence=SURE).violation


def test_delta_is_taken_off_before_epsilon_is_bounded():
    """Tells the truth with probability delta: epsilon 0 at that delta, anything at a smaller one."""

    def draw(generator, value):
        return value if generator.random() < 0.1 else 7

    mechanism = Seeded(draw, 0.1, 0.1)
    assert audit(mechanism, [(0, 1)], confidence=SURE).lower == 0
    assert not audit(mechanism, [(0, 1)], confidence=SURE).violation
    assert audit(mechanism, [(0, 1)], confidence=SURE, delta=0.0).lower > 3
    assert audit(mechanism, [(0, 1)], confidence=SURE, delta=0.05).violation


def test_the_bound_is_clopper_and_pearson_s_with_a_share_for_every_bound():
    mechanism = Matrix(response(4, 2.0))
    pairs = [(0, 1), (0, 2), (1, 3)]
    found = audit(mechanism, pairs, samples=4000, confidence=0.9)
    risk = 0.1 / (2 * 2 * len(pairs))
    for one in found.pairs:
        low, high = least_share(one.hits, one.draws, risk), most_share(one.misses, one.draws, risk)
        assert one.draws == 2000
        assert one.lower == pytest.approx(math.log(low / high), rel=1e-12)


def test_draws_that_choose_are_not_counted(monkeypatch):
    """Three parts of the draws, in order, none of which is used twice."""
    seen = []

    class Watched(audit_module.Words):
        def counts(self, outputs):
            seen.append(outputs.copy())
            return super().counts(outputs)

    monkeypatch.setattr(audit_module, "Words", Watched)
    mechanism = Matrix(random_law(30))
    drawn = []
    sample = mechanism.sample_ids
    monkeypatch.setattr(mechanism, "sample_ids", lambda ids: drawn.append(sample(ids)) or drawn[-1])
    audit(mechanism, [(0, 1)], samples=1001)
    assert [len(part) for part in seen] == [250, 250, 250, 250, 501, 501]
    for side in (0, 1):
        assert (np.concatenate(seen[side::2]) == drawn[side]).all()


def test_what_promises_nothing_breaks_no_promise():
    mechanism = made("rantext", VECTORS, 3.0)
    report = report_on(mechanism, nominal=3.0, vectors=VECTORS, samples=4000, pairs=2)
    assert report.audit.lower > 4
    assert math.isinf(report.audit.promised)
    assert not report.violation


def test_a_certificate_below_the_enumerated_law_is_a_violation():
    mechanism = Matrix(response(40, 2.0), claimed=1.9)
    report = report_on(mechanism, nominal=2.0, vectors=VECTORS[:40], samples=200)
    assert report.untrue
    assert report.violation
    assert not report.audit.violation  # so few draws do not show it


def test_a_metric_promise_is_one_for_each_distance():
    mechanism = made("santext", VECTORS, 1.0, calibrate="metric")
    near, far = word_pairs(mechanism, 1, samples=10_000)[0], (0, 257)
    assert promised(mechanism, 0, 1) < promised(mechanism, *far) <= mechanism.certificate.epsilon
    assert promised(mechanism, 3, 3) == 0
    found = audit(mechanism, [near, far, (0, 1)], samples=4000, confidence=SURE)
    assert not found.violation


def test_pairs_without_a_law_are_far_ones_and_a_near_one():
    vectors = np.array([[0.0], [1.0], [1.1], [5.0], [9.0]])
    mechanism = Matrix(response(5, 1.0), known=False)
    found = word_pairs(mechanism, 2, samples=100, vectors=vectors)
    assert found[0] == (0, 4)
    assert len(found) == 2
    with pytest.raises(RefusedInput, match="pairs are chosen by vectors"):
        word_pairs(mechanism, 2, samples=100)


def test_the_worst_pair_comes_first():
    law = response(6, 1.0)
    law[2] = [0.02, 0.02, 0.9, 0.02, 0.02, 0.02]
    law[4] = [0.3, 0.3, 0.01, 0.3, 0.08, 0.01]
    assert set(word_pairs(Matrix(law), 3, samples=20_000)[0]) == {2, 4}
    assert word_pairs(Matrix(np.full((3, 3), 1 / 3)), 2, samples=100) == [(0, 1)]


def test_outputs_of_any_kind_become_cells():
    labels = Coding(["a", "b", "a"], ("a", "b"))
    assert labels.cells(["b", "a", "strange"]).tolist() == [1, 0, 2]
    assert not labels.ordered
    lists = Coding([[1, "x"], [2, "y"]], (0, 1))
    assert lists.cells([[2, "y"], [3, "z"]]).tolist() == [1, 2]
    whole = Coding([5, 3, 5], (0, 1))
    assert whole.ordered
    assert whole.cells([2, 3, 4, 5, 6]).tolist() == [0, 1, 1, 2, 2]
    vectors = Coding([(0.0, 1.0), (2.0, 9.0)], ([0.0, 0.0], [1.0, 0.0]))  # the second number says nothing
    assert vectors.cells([(0.0, 5.0), (2.0, -5.0)]).tolist() == vectors.cells([(0.0, 0.0), (2.0, 0.0)]).tolist()
    many = Coding(np.random.default_rng(0).normal(size=5000).tolist(), (0.0, 1.0))
    assert many.size <= 513
    assert many.counts(np.random.default_rng(1).normal(size=5000).tolist()).max() < 60


def test_an_event_of_numbers_may_be_a_tail():
    first = np.zeros(8, dtype=np.int64), np.zeros(8, dtype=np.int64)
    second = np.array([0, 0, 0, 0, 30, 30, 30, 30]), np.array([30, 30, 30, 30, 0, 0, 0, 0])
    event, bound = best_event(first, second, draws=200, risk=0.01, ordered=True)
    assert event.tolist() == [False] * 4 + [True] * 4
    assert bound > 2
    assert lower_bound(np.array([0]), np.array([5]), 100, 0.01, 0.0)[0] == -math.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 99}, "samples must be at least 100"),
        ({"confidence": 1.0}, r"confidence must lie in \(0, 1\)"),
        ({"delta": 1.0}, r"delta must lie in \[0, 1\)"),
        ({"pairs": []}, "there must be a pair"),
    ],
)
def test_questions_that_are_none_are_refused(change, message):
    with pytest.raises(RefusedInput, match=message):
        audit(Matrix(response(3, 1.0)), **{"pairs": [(0, 1)], **change})


def test_inputs_of_unknown_mechanisms_must_be_named():
    with pytest.raises(RefusedInput, match="name two with"):
        example_neighbours(Seeded(lambda generator, value: value, 1.0))
    far = made("laplace", 1.0, 2, neighbouring="replace-one")
    assert example_neighbours(far) == [([-1.0, 0.0], [1.0, 0.0])]
    assert example_neighbours(made("geometric", 1.0, 3, lower=5, upper=20)) == [(5, 8)]
    assert far.guarantee.unit is Unit.RECORD
