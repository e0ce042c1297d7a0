"""Guesses at noisy words: the best ones by brute force, never above what epsilon allows, as often as draws say."""

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).parent))  # laws.py is named like nothing else
from laws import Matrix, random_law, response

from privkt.evaluation import law as law_module
from privkt.evaluation.attacks import attack_words
from privkt.evaluation.confidence import Share, least_share, most_share
from privkt.evaluation.inversion import Posterior, bayes_guesses, blind_share, counted_prior, nearest_guesses
from privkt.evaluation.law import Extremes, pair_losses, read_law, true_epsilon, unchanged
from privkt.evaluation.sample_vocabulary import sample_vocabulary
from privkt.plugins import get_manager
from privkt.privacy import RefusedInput
from privkt.privacy.ceiling import guessing_ceiling, utility_ceiling

SURE = 1 - 1e-6  # of an interval, for draws of fresh randomness


def priors(size):
    generator = np.random.default_rng(5)
    uneven = generator.dirichlet(np.full(size, 0.5))
    return [np.full(size, 1 / size), uneven, np.where(np.arange(size) % 3 == 0, uneven, 0)]


@pytest.mark.parametrize("size", [1, 2, 13, 31])
@pytest.mark.parametrize("cells", [1, 40, 1 << 22])
def test_the_best_guesses_are_those_of_brute_force_in_blocks_of_any_size(size, cells, monkeypatch):
    monkeypatch.setattr(law_module, "_CELLS", cells)
    mechanism = Matrix(random_law(size))
    for prior in priors(size):
        prior = prior / prior.sum()
        joint = prior[:, None] * mechanism.law
        for most in (1, 3):
            found = bayes_guesses(mechanism, prior, most=most)
            best = np.sort(joint, axis=0)[::-1][:most].sum()
            assert found.expected(most) == pytest.approx(best, rel=1e-12)
            assert (found.inputs[0] == joint.argmax(axis=0)).all()
    assert mechanism.widest <= max(1, cells // size)


def test_no_rule_of_guessing_does_better():
    """Every map from outputs to inputs, listed."""
    mechanism = Matrix(random_law(4, seed=3))
    prior = priors(4)[1]
    best = max(
        sum(prior[x] * mechanism.law[x, y] for y, x in enumerate(rule))
        for rule in itertools.product(range(4), repeat=4)
    )
    assert bayes_guesses(mechanism, prior).expected() == pytest.approx(best, rel=1e-12)


def test_only_the_outputs_that_are_asked_for_are_kept():
    mechanism = Matrix(random_law(17))
    whole, some = bayes_guesses(mechanism, most=4), bayes_guesses(mechanism, most=4, outputs=np.array([9, 2, 9]))
    assert some.outputs.tolist() == [2, 9]
    assert (some.inputs == whole.inputs[:, [2, 9]]).all()
    with pytest.raises(RefusedInput, match="an output has no guess"):
        some.hits(np.array([1]), np.array([3]))


def test_a_large_vocabulary_is_read_in_blocks():
    class Wide(Matrix):
        def __init__(self, size):
            self.size, self.widest = size, 0

        def probabilities(self, ids):
            self.widest = max(self.widest, len(ids) * self.size)
            rows = np.full((len(ids), self.size), 1 / (self.size + 9))
            rows[np.arange(len(ids)), ids] *= 10
            return rows

    mechanism = Wide(30_011)
    prior = np.zeros(mechanism.size)
    prior[::100] = 1
    found = bayes_guesses(mechanism, prior, most=2)
    assert mechanism.widest <= law_module._CELLS
    assert found.inputs[0, ::100].tolist() == list(range(0, mechanism.size, 100))
    assert found.inputs[0, 1] == 0
    assert found.joint.shape == (2, mechanism.size)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("size", [2, 7])
def test_randomised_response_reaches_the_ceiling(epsilon, size):
    prior = np.full(size, 1 / size)
    reached = bayes_guesses(Matrix(response(size, epsilon))).expected()
    assert reached == pytest.approx(utility_ceiling(epsilon, size), rel=1e-12)
    assert guessing_ceiling(epsilon, prior.tolist()) == pytest.approx(reached, rel=1e-12)


def test_the_ceiling_of_a_prior_is_reached_by_response_over_the_likeliest_words():
    prior = [0.4, 0.3, 0.2, 0.06, 0.04]
    epsilon = 1.2
    found = []
    for m in range(1, 6):
        law = np.zeros((5, 5))
        law[:m, :m] = response(m, epsilon)
        law[m:, :m] = 1 / m
        found.append(bayes_guesses(Matrix(law, claimed=epsilon), prior).expected())
        logs = np.log(law[:, :m])
        assert (logs.max(0) - logs.min(0)).max() <= epsilon + 1e-12
    assert max(found) == pytest.approx(guessing_ceiling(epsilon, prior), rel=1e-12)
    assert max(found) > max(found[0], found[-1])


@pytest.mark.parametrize("seed", range(20))
def test_no_attack_is_above_the_ceiling(seed):
    mechanism = Matrix(random_law(9, seed, sharpness=seed / 10))
    for prior in priors(9):
        prior = prior / prior.sum()
        ceiling = guessing_ceiling(mechanism.claimed, prior.tolist())
        best = bayes_guesses(mechanism, prior).expected()
        assert blind_share(prior) - 1e-12 <= best <= ceiling + 1e-12


def test_a_ceiling_without_an_epsilon_is_one():
    assert guessing_ceiling(math.inf, [0.5, 0.25, 0.25]) == 1
    assert guessing_ceiling(0.0, [0.5, 0.25, 0.25]) == 0.5
    for bad in ([], [0.5, 0.4], [1.5, -0.5]):
        with pytest.raises(RefusedInput, match="shares >= 0 that sum to 1"):
            guessing_ceiling(1.0, bad)


def test_draws_agree_with_the_law():
    """Fresh draws of a real mechanism: intervals that hold with probability 1 - 1e-6 each."""
    vocabulary = sample_vocabulary()
    mechanism = get_manager().create("mechanism", "exponential", vocabulary.vectors, 8.0)
    texts = counted_prior([np.arange(40), np.arange(10)], mechanism.size)
    found = attack_words(
        mechanism, vocabulary.vectors, priors={"uniform": np.ones(mechanism.size), "texts": texts}, confidence=SURE
    )
    assert [(one.name, one.prior) for one in found.attacks] == [
        (name, prior) for prior in ("uniform", "texts") for name in ("blind guess", "nearest word", "Bayes")
    ]
    for one in found.attacks:
        for guesses, expected in one.expected.items():
            assert one.seen[guesses].low <= expected <= one.seen[guesses].high
    success = {(one.name, one.prior): one.expected[1] for one in found.attacks}
    for prior in ("uniform", "texts"):
        assert success["blind guess", prior] < success["nearest word", prior] <= success["Bayes", prior] + 1e-12
        assert success["Bayes", prior] <= found.ceilings[prior]
    assert success["Bayes", "texts"] > success["nearest word", "texts"] + 0.02
    assert found.extremes.loss == pytest.approx(mechanism.certificate.epsilon_exact, abs=1e-5)


def test_without_a_law_words_are_guessed_by_their_vectors():
    vocabulary = sample_vocabulary()
    mechanism = get_manager().create("mechanism", "noisy_neighbour", vocabulary.vectors, 20.0)
    found = attack_words(mechanism, vocabulary.vectors, samples=2000)
    assert [one.name for one in found.attacks] == ["blind guess", "nearest word"]
    assert found.extremes is None
    assert found.attacks[1].expected == {}
    assert found.attacks[1].seen[10].low > 0.9
    assert found.ceilings == {"uniform": 1.0}


def test_the_nearest_words_are_those_of_brute_force():
    vectors = np.random.default_rng(2).normal(size=(53, 5)).astype(np.float32)
    vectors[7] = vectors[8]  # equal vectors: the output itself still comes first
    found = nearest_guesses(vectors, np.arange(53), most=6)
    apart = np.sqrt(((vectors[:, None] - vectors[None]) ** 2).sum(axis=2))
    assert (found.inputs[0] == np.arange(53)).all()
    reached = np.take_along_axis(apart, found.inputs.T, axis=1)
    assert np.allclose(reached, np.sort(apart, axis=1)[:, :6], atol=1e-3)
    with pytest.raises(RefusedInput, match="needs the law"):
        found.expected()


@pytest.mark.parametrize("prior", [[1.0], [0.0] * 5, [1, -1, 1, 1, 1], [math.nan] * 5])
def test_a_prior_that_is_none_is_refused(prior):
    with pytest.raises(RefusedInput, match="one finite weight >= 0 for each of 5 words"):
        bayes_guesses(Matrix(random_law(5)), prior)


def test_intervals_hold_as_often_as_they_say():
    """Exact coverage by enumeration of every count, for a grid of truths."""
    trials, risk = 23, 0.025
    counts = np.arange(trials + 1)
    low, high = least_share(counts, trials, risk), most_share(counts, trials, risk)
    for truth in np.linspace(0.01, 0.99, 99):
        mass = binom.pmf(counts, trials, truth)
        assert mass[low > truth].sum() <= risk
        assert mass[high < truth].sum() <= risk
    assert Share.counted(0, 10, 0.95).high == pytest.approx(1 - 0.025**0.1)
    assert Share.counted(10, 10, 0.95).low == pytest.approx(0.025**0.1)
    assert (Share.counted(0, 10).low, Share.counted(10, 10).high) == (0, 1)
    for bad in ((3, 2), (-1, 5), (0, 0)):
        with pytest.raises(RefusedInput, match="successes"):
            Share.counted(*bad)


@pytest.mark.parametrize("delta", [0.0, 0.05, 0.4])
def test_the_true_epsilon_is_that_of_the_worst_event(delta):
    """Every event of six outputs, listed."""
    p, q = random_law(6)[:2]
    best = 0.0
    for event in itertools.product([False, True], repeat=6):
        mask = np.array(event)
        if p[mask].sum() > delta and mask.any():
            best = max(best, math.log((p[mask].sum() - delta) / q[mask].sum()))
    assert true_epsilon(p, q, delta) == pytest.approx(best, abs=1e-12)


def test_extremes_and_pairs_are_those_of_the_whole_law():
    mechanism = Matrix(random_law(11, sharpness=1.0))
    extremes = Extremes(11)
    read_law(mechanism, [extremes])
    logs = np.log(mechanism.law)
    assert (extremes.likeliest == logs.argmax(0)).all()
    assert (extremes.unlikeliest == logs.argmin(0)).all()
    assert extremes.loss == pytest.approx(mechanism.claimed)
    losses = pair_losses(mechanism)
    listed = [np.abs(logs[x] - logs[y]).max() for x in range(11) for y in range(x)]
    assert sorted(losses.losses) == pytest.approx(sorted(listed))
    assert losses.worst == pytest.approx(mechanism.claimed)
    assert losses.share_above(2.0) == np.mean(np.array(listed) > 2.0)
    own = [logs[x, x] - logs[y, x] for x in range(11) for y in range(11) if x != y]
    assert sorted(losses.own) == pytest.approx(sorted(own))
    assert losses.own_share_above(1.0) == np.mean(np.array(own) > 1.0)


def test_how_often_a_word_comes_out_as_itself_is_the_mean_over_words_and_positions(monkeypatch):
    one, other = Matrix(random_law(31)), Matrix(random_law(31, seed=8))
    (a, b) = (np.diag(m.law) for m in (one, other))
    found = unchanged([one, other, one])
    assert (found.read, found.size) == (31, 31)
    assert found.share == pytest.approx((2 * a.mean() + b.mean()) / 3, rel=1e-12)
    monkeypatch.setattr(law_module, "_CELLS", 40)
    monkeypatch.setattr(law_module, "_READ", 40)
    some = unchanged([one, other, one])
    assert some.read == 20
    words = np.sort(np.random.default_rng(0).choice(31, 20, replace=False))
    assert some.share == pytest.approx((2 * a[words].mean() + b[words].mean()) / 3, rel=1e-12)
    monkeypatch.setattr(Matrix, "has_law", False)
    assert unchanged([one]) is None


def test_what_only_some_words_become_is_an_infinite_loss():
    law = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.25, 0.25, 0.5]])
    mechanism = Matrix(law, claimed=math.inf)
    extremes = Extremes(3)
    read_law(mechanism, [extremes])
    assert math.isinf(extremes.loss)
    losses = pair_losses(mechanism)
    assert sorted(losses.losses) == [0, math.inf, math.inf]
    assert losses.share_above(10.0) == pytest.approx(2 / 3)


def test_rantext_loses_more_than_it_claims_and_the_exponential_mechanism_does_not():
    vectors = sample_vocabulary().vectors
    for name, most in (("exponential", 0.0), ("rantext", 1.0)):
        losses = pair_losses(get_manager().create("mechanism", name, vectors, 3.0))
        assert losses.share_above(3.0) == most if most == 0 else losses.share_above(3.0) > 0.8


def test_the_made_up_table_never_changes():
    vocabulary = sample_vocabulary()
    assert vocabulary.size == 258
    assert vocabulary.encode("babo zazo").tolist() == [0, 255]
    assert vocabulary.vectors[0, :3].tolist() == pytest.approx([-0.66463202, -0.18509170, 0.15418649], rel=1e-6)
    assert vocabulary.vectors[257, :2].tolist() == pytest.approx([0.7484655, -0.8498775], rel=1e-5)
    inside = np.linalg.norm(vocabulary.vectors[0] - vocabulary.vectors[1])
    across = np.linalg.norm(vocabulary.vectors[0] - vocabulary.vectors[16])
    assert inside < across / 2


def test_a_posterior_with_fewer_inputs_than_guesses_says_so_by_zero():
    reading = Posterior(np.array([1.0, 0.0, 0.0]), most=2)
    read_law(Matrix(random_law(3)), [reading])
    found = reading.guesses()
    assert (found.inputs[0] == 0).all()
    assert (found.joint[1] == 0).all()
