"""LiRA: halves, ratios, and that it finds what leaks and nothing where nothing does."""

import numpy as np
import pytest
from privkt_post.membership import attack, auc, confidences, halves, judged, mean_auc, ratios, tpr_at


def test_every_record_is_in_one_of_each_pair():
    found = halves(8, 101, seed=0)
    assert (found.sum(0) == 4).all()
    assert (found[::2] == ~found[1::2]).all()
    assert set(found.sum(1)) == {50, 51}
    assert not (halves(8, 101, seed=1) == found).all()
    assert not (found[0] == found[2]).all()
    with pytest.raises(ValueError, match="even number, got 7"):
        halves(7, 101, seed=0)


def one_by_one(models, records, seed):
    """The draw that is not to be used: every record in half of the models, whichever."""
    ranks = np.random.default_rng(seed).random((models, records)).argsort(0).argsort(0)
    return ranks < models // 2


def null_auc(draw_halves, models, repeats=16, records=1000):
    """The mean AUC where nothing leaks, and its standard error."""
    found = []
    for seed in range(repeats):
        draw = np.random.default_rng(seed)
        inside, values = draw_halves(models, records, seed), draw.normal(size=(models, records))
        scores = np.stack([ratios(values, inside, k) for k in range(models)])
        found.append(mean_auc(scores, inside, np.arange(records)))
    return np.mean(found), np.std(found) / np.sqrt(repeats)


@pytest.mark.parametrize("models", [8, 16])
def test_where_nothing_leaks_half_is_found(models):
    """Not less: an attack that is wrong about members because they are members hides a leak of the same size."""
    middle, error = null_auc(halves, models)
    assert error < 0.002
    assert abs(middle - 0.5) < 0.006
    biased, _ = null_auc(one_by_one, models)
    assert biased < 0.5 - 0.006  # the planted fault is seen


def test_confidence_is_the_logit_of_the_true_class():
    p = np.array([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]])
    found = confidences(p, np.array([1, 0, 0]))
    assert found[:2] == pytest.approx([np.log(4), 0.0])
    assert np.isfinite(found).all()
    assert found[2] > 50


def test_ratios_use_the_other_models_alone():
    draw = np.random.default_rng(0)
    inside = halves(8, 40, seed=0)
    values = draw.normal(size=(8, 40)) + 2 * inside
    base = ratios(values, inside, 3)
    others = values.copy()
    others[3] = 0
    mine = ratios(others, inside, 3)
    assert not np.allclose(base, mine)
    partner = values.copy()
    partner[2] = 99
    assert (ratios(partner, inside, 3) == base).all()
    without = np.arange(8) // 2 != 1
    means_in = np.where(inside, values, 0)[without].sum(0) / 3
    means_out = np.where(~inside, values, 0)[without].sum(0) / 3
    at = np.arange(40)
    nearer_in = np.abs(values[3] - means_in) < np.abs(values[3] - means_out)
    assert np.corrcoef(nearer_in[at], base > np.median(base))[0, 1] > 0.5


def test_a_leak_is_found_and_none_is_not():
    """What tells is a shift of 2 deviations: the best AUC is then 0.92; without a shift 0.5 is expected."""
    draw = np.random.default_rng(1)
    inside, hard = halves(16, 400, seed=2), draw.normal(size=400) * 3
    noise = draw.normal(size=(16, 400))
    leaks = judged(hard + noise + 2 * inside, inside)
    assert 0.85 < leaks.auc < 0.95
    assert leaks.tpr_at_1_percent > 0.15
    assert leaks.auc_low < leaks.auc < leaks.auc_high < leaks.auc_low + 0.04
    clean = judged(hard + noise, inside)
    assert clean.auc_low < 0.5 < clean.auc_high
    assert clean.tpr_at_1_percent < 0.05


def test_areas_and_rates():
    scores, member = np.array([4.0, 3.0, 2.0, 1.0]), np.array([True, True, False, False])
    assert auc(scores, member) == 1.0
    assert auc(-scores, member) == 0.0
    assert auc(np.zeros(4), member) == 0.5
    assert tpr_at(scores, member, 0.01) == 1.0
    assert tpr_at(-scores, member, 0.01) == 0.0
    many = np.concatenate([np.arange(100.0), [98.5, 97.5, 50.0, 0.5]])
    inside = np.arange(104) >= 100
    assert tpr_at(many, inside, 0.01) == 0.25  # one of a hundred may pass: the threshold is 98


def test_models_are_tuned_on_their_own_half():
    seen = []

    def tuned(k, indices):
        seen.append(indices)
        p = np.full((20, 2), 0.5)
        p[indices, 0] = 0.9
        return p

    found = attack(tuned, np.zeros(20, dtype=int), models=6, seed=0)
    assert len(seen) == 6
    assert found.auc == 1.0
    assert found.to_json()["models"] == 6
