"""Drawing tokens: exact cuts, and frequencies that match the probabilities."""

import numpy as np
import torch
from privkt_transformers.sampling import choose, uniforms
from scipy import stats

from privkt.contracts import Sampling

PROBABILITIES = torch.tensor([0.05, 0.4, 0.2, 0.01, 0.3, 0.04])
LOGITS = PROBABILITIES.log()


def support(sampling, n=4001):
    u = torch.linspace(0, 1 - 1e-9, n, dtype=torch.float64)
    return set(choose(LOGITS.expand(n, -1), sampling, u).tolist())


def test_temperature_zero_is_the_best():
    assert support(Sampling(temperature=0)) == {1}


def test_top_k_keeps_the_best_k():
    assert support(Sampling(top_k=3)) == {1, 4, 2}


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    assert support(Sampling(top_p=0.65)) == {1, 4}
    assert support(Sampling(top_p=0.75)) == {1, 4, 2}
    assert support(Sampling(top_p=1e-6)) == {1}


def test_top_p_is_taken_after_top_k():
    # Among the best two, 0.4 and 0.3, the first has 0.57 of the mass.
    assert support(Sampling(top_k=2, top_p=0.5)) == {1}
    assert support(Sampling(top_k=2, top_p=0.6)) == {1, 4}


def test_nothing_is_cut_by_default():
    assert support(Sampling()) == set(range(6))


def test_a_wide_nucleus_is_sorted_in_full():
    """A flat distribution over 1,000 tokens: the nucleus of 0.9 has 900, more than the quick way looks at."""
    logits = torch.zeros(1000).index_fill(0, torch.arange(900), 1e-3).expand(5000, -1)
    u = torch.linspace(0, 1 - 1e-9, 5000, dtype=torch.float64)
    found = set(choose(logits, Sampling(top_p=0.9), u).tolist())
    assert found == set(range(900))


def test_frequencies_match_the_probabilities():
    """Chi-square over 200,000 draws; false alarm once in a million."""
    u = torch.from_numpy(np.random.default_rng(11).random(200_000))
    for sampling, expected in (
        (Sampling(), PROBABILITIES),
        (Sampling(temperature=2.0), PROBABILITIES.sqrt() / PROBABILITIES.sqrt().sum()),
        (Sampling(top_k=3), torch.where(PROBABILITIES >= 0.2, PROBABILITIES, 0) / 0.9),
    ):
        found = torch.bincount(choose(LOGITS.expand(len(u), -1), sampling, u), minlength=6).numpy()
        wanted = expected.double().numpy()
        kept = wanted > 0
        goal = wanted[kept] / wanted[kept].sum() * len(u)
        assert found[~kept].sum() == 0
        assert stats.chisquare(found[kept], goal).pvalue > 1e-6


def test_a_row_draws_from_its_own_stream():
    sampling = Sampling(max_new_tokens=5, seed=9)
    assert np.array_equal(uniforms(sampling, 3), uniforms(sampling, 8)[:3])
    assert len(np.unique(uniforms(sampling, 50))) == 250
    assert not np.array_equal(uniforms(Sampling(max_new_tokens=5), 3), uniforms(Sampling(max_new_tokens=5), 3))


def test_the_very_end_of_the_interval_draws_a_possible_token():
    logits = torch.tensor([[0.0, 1.0, float("-inf")]])
    assert choose(logits, Sampling(), torch.tensor([np.nextafter(1, 0)])).item() == 1
