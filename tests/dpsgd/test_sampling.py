"""Poisson sampling: exact rates, independent draws, fixed microbatches."""

import hashlib
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from privkt.dpsgd import Keys, RefusedTraining, TrainingError
from privkt.dpsgd.sampling import PoissonSampler, TruncatedPoissonSampler, _twisted, layer_randomness, microbatches

FALSE_ALARM = 1e-6


def test_a_draw_is_words_of_the_key_stream_below_the_threshold():
    key = bytes(range(32))
    stream = hashlib.shake_256(b"privkt poisson\0" + key + (5).to_bytes(8, "little")).digest(8 * 100)
    words = [int.from_bytes(stream[8 * i : 8 * i + 8], "little") for i in range(100)]
    expected = [i for i, word in enumerate(words) if word * 100 < 30 * 2**64]
    assert PoissonSampler(100, 30, key).draw(5).tolist() == expected


@given(size=st.integers(1, 10**9), data=st.data())
def test_the_rate_is_rounded_down_by_less_than_two_to_the_minus_64(size, data):
    batch = data.draw(st.integers(1, size))
    threshold = PoissonSampler(size, batch, bytes(32)).threshold
    assert threshold * size <= batch * 2**64 < (threshold + 1) * size


def test_everyone_is_drawn_at_rate_one():
    assert PoissonSampler(7, 7, bytes(32)).draw(0).tolist() == list(range(7))


def test_record_frequencies_and_batch_sizes_are_those_of_poisson_sampling():
    """Chi-square over records and Kolmogorov over batch sizes, false alarm 1e-6 in all."""
    size, batch, steps = 50, 10, 4000
    sampler = PoissonSampler(size, batch, Keys.for_tests(1).sampler)
    drawn = np.zeros((steps, size))
    for step in range(steps):
        drawn[step, sampler.draw(step)] = 1
    rate = batch / size
    z = (drawn.sum(0) - steps * rate) / math.sqrt(steps * rate * (1 - rate))
    assert stats.chi2.sf(float((z**2).sum()), size) > FALSE_ALARM / 3
    sizes = np.bincount(drawn.sum(1).astype(int), minlength=size + 1)
    expected = steps * stats.binom.pmf(np.arange(size + 1), size, rate)
    kept = expected >= 5
    table = [np.append(v[kept], v[~kept].sum()) for v in (sizes, expected)]
    assert stats.chisquare(*table).pvalue > FALSE_ALARM / 3
    together = drawn[:, 0] * drawn[:, 1]
    assert stats.binomtest(int(together.sum()), steps, rate**2).pvalue > FALSE_ALARM / 3


def test_a_shuffled_sampler_would_fail_the_batch_size_test():
    """The planted fault: fixed batches of 10, whose sizes never vary."""
    sizes = np.zeros(51)
    sizes[10] = 4000
    expected = 4000 * stats.binom.pmf(np.arange(51), 50, 0.2)
    assert stats.chisquare(sizes, expected).pvalue < FALSE_ALARM


def test_a_cap_cuts_large_draws_alone_and_keeps_parts_of_them():
    plain, capped = PoissonSampler(50, 10, bytes(32)), TruncatedPoissonSampler(50, 10, 12, bytes(32))
    cut = 0
    for step in range(300):
        drawn, kept = plain.draw(step), capped.draw(step)
        assert kept.tolist() == sorted(kept.tolist())
        assert len(kept) == min(12, len(drawn))
        assert set(kept) <= set(drawn)
        cut += len(kept) < len(drawn)
    assert 20 < cut < 150


def test_each_unit_of_a_cut_draw_is_as_likely_to_stay():
    """Chi-square over records with every draw cut to 3; false alarm 1e-6."""
    size, steps = 20, 4000
    sampler = TruncatedPoissonSampler(size, 20, 3, Keys.for_tests(3).sampler)
    kept = sum(np.bincount(sampler.draw(step), minlength=size) for step in range(steps))
    rate = 3 / size
    z = (kept - steps * rate) / math.sqrt(steps * rate * (1 - rate))
    assert stats.chi2.sf(float((z**2).sum() * (size - 1) / size), size - 1) > FALSE_ALARM
    assert kept.sum() == 3 * steps


def test_a_cap_below_one_is_refused():
    with pytest.raises(RefusedTraining, match="the cap must be at least 1, got 0"):
        TruncatedPoissonSampler(50, 10, 0, bytes(32))


@given(n=st.integers(0, 40), size=st.integers(1, 9))
def test_microbatches_have_one_shape_and_cover_each_record_once(n, size):
    indices = np.arange(100, 100 + n)
    pieces = list(microbatches(indices, size))
    assert all(len(rows) == len(mask) == size for rows, mask in pieces)
    real = [i for rows, mask in pieces for i, counts in zip(rows, mask, strict=True) if counts]
    assert real == indices.tolist()
    assert len(pieces) == max(1, math.ceil(n / size))


def test_an_empty_draw_is_one_masked_microbatch():
    assert list(microbatches(np.arange(0), 3)) == [([0, 0, 0], [False] * 3)]


def test_fresh_keys_are_distinct_and_never_printed():
    a, b = Keys.fresh(), Keys.fresh()
    assert len({a.sampler, a.noise, b.sampler, b.noise}) == 4
    assert not a.public
    assert a.noise.hex() not in repr(a)
    assert repr(a.sampler) not in repr(a)


def test_keys_of_another_length_are_refused():
    with pytest.raises(RefusedTraining, match="32 bytes each"):
        Keys(bytes(16), bytes(32))


@pytest.mark.parametrize("batch", [0, 8])
def test_a_batch_outside_the_data_is_refused(batch):
    with pytest.raises(RefusedTraining, match="between 1 and N = 7"):
        PoissonSampler(7, batch, bytes(32))


def _drawn(seed):
    with layer_randomness(seed):
        return torch.rand(1000), random.random(), float(np.random.rand())


@pytest.mark.parametrize("bit", [0, 31, 32, 63, 64, 200, 255])
def test_every_bit_of_the_layers_seed_counts_in_every_generator(bit):
    """torch's CPU generator takes 32 bits of a seed: whoever tries them all would know every mask."""
    one, again, other = _drawn(5), _drawn(5), _drawn(5 ^ (1 << bit))
    assert torch.equal(one[0], again[0])
    assert one[1:] == again[1:]
    assert not torch.equal(one[0], other[0])
    assert one[1] != other[1]
    assert one[2] != other[2]


def test_layers_draw_uniform_values():
    values = torch.cat([_drawn(seed)[0] for seed in range(100)])
    assert stats.kstest(values.numpy(), "uniform").pvalue > FALSE_ALARM


def test_the_callers_generators_are_as_before():
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    expected = torch.rand(3), random.random(), np.random.rand()
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    _drawn(7)
    assert torch.equal(torch.rand(3), expected[0])
    assert (random.random(), np.random.rand()) == expected[1:]


def test_a_generator_of_another_form_is_refused():
    with pytest.raises(TrainingError, match="got a generator of torch whose form is not known here"):
        _twisted(torch.zeros(100, dtype=torch.uint8), bytes(4 * 624))
    state = torch.Generator().manual_seed(3).get_state()
    _twisted(state, bytes(4 * 624))
    state[24] ^= 1  # its first word is no longer the seed's
    with pytest.raises(TrainingError, match="got a generator of torch whose form is not known here"):
        _twisted(state, bytes(4 * 624))


def test_layer_seeds_have_all_bits_of_the_key():
    seeds = [PoissonSampler(10, 5, bytes([i]) * 32).layer_seed(0) for i in range(64)]
    assert max(seeds) >= 2**250
    assert len(set(seeds)) == 64
