"""Attacks on planted names and canaries, on models whose memory is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from privkt.contracts import Backend, BackendContext, BackendError, Score
from privkt.evaluation.confidence import Share
from privkt.evaluation.distance import divergence_frontier
from privkt.evaluation.memorisation import exposure, name_reconstruction, plant_names
from privkt.privacy import RefusedInput

NAMES = [f"Name{i:02}" for i in range(20)]


class Remembers(Backend):
    """Likes the texts it has seen, and long names a little."""

    def __init__(self, seen=(), bias=0.0):
        super().__init__({}, BackendContext())
        self.seen, self.bias = set(seen), bias

    name = "memory"

    def probe(self):
        return frozenset()

    def score(self, prompts, continuations):
        rows = zip(prompts, continuations, strict=True)
        return [Score(-10.0 + 5 * (p + c in self.seen) + self.bias * c.count("7"), 3) for p, c in rows]


def test_a_model_that_remembers_gives_every_name_away_and_an_untrained_one_none():
    records = plant_names([f"I cough for {i} days" for i in range(200)], NAMES, seed=1)
    found = name_reconstruction(Remembers(r.text for r in records), records, NAMES, control=Remembers())
    assert (found.hits, found.rate, found.high) == (200, 1.0, 1.0)
    assert 0.98 < found.low < 1
    assert found.chance == 0.05
    # By lot: above 40 of 200 at a rate of 1/20 less than once in 10^9.
    assert found.control_hits <= 40
    assert found.relative == 200


def test_a_name_that_any_model_likes_is_taken_off_by_the_control():
    records = plant_names([f"I cough for {i} days" for i in range(50)], NAMES, seed=1)
    biased = Remembers((r.text for r in records), bias=9.0)
    found = name_reconstruction(biased, records, NAMES, control=Remembers(bias=9.0))
    assert found.hits < 25
    assert found.relative == 50


@pytest.mark.parametrize("names", [["One"], ["One", "One"], ["One", "Two"]])
def test_candidates_must_hold_every_name(names):
    with pytest.raises(RefusedInput, match="candidates"):
        name_reconstruction(Remembers(), plant_names(["a"], ["Else"], 0), names)


@given(st.integers(1, 40), st.data())
def test_the_interval_has_exactly_its_tails(trials, data):
    hits = data.draw(st.integers(0, trials))
    share = Share.counted(hits, trials, 0.95)
    low, high = share.low, share.high
    assert 0 <= low <= hits / trials <= high <= 1
    if hits:
        assert stats.binom.sf(hits - 1, trials, low) == pytest.approx(0.025, abs=1e-6)
    if hits < trials:
        assert stats.binom.cdf(hits, trials, high) == pytest.approx(0.025, abs=1e-6)


def test_exposure_by_hand():
    others = [f"secret {i}" for i in range(7)]
    assert exposure(Remembers({"it is secret x"}), "it is ", "secret x", others) == 3
    assert exposure(Remembers(), "it is ", "secret x", others) == 0
    half = Remembers({"it is secret x", "it is secret 1", "it is secret 2", "it is secret 3"})
    assert exposure(half, "it is ", "secret x", others) == pytest.approx(math.log2(8) - math.log2(4))


class Recorder(Remembers):
    """Notes where texts were cut."""

    def __init__(self):
        super().__init__()
        self.cuts = []

    def score(self, prompts, continuations):
        self.cuts += list(zip(prompts, continuations, strict=True))
        return super().score(prompts, continuations)


def _merging_tokenizer(texts):
    """Byte-level BPE that has a word's space in its first token, as models' tokenizers do."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.train_from_iterator(texts * 50, trainers.BpeTrainer(vocab_size=400, show_progress=False))
    return found


def test_texts_are_attacked_in_the_tokens_that_they_were_trained_on():
    records = plant_names(["I cough a lot", "It hurts here"], NAMES, seed=1)
    tokenizer, model = _merging_tokenizer([f"My name is {name}. I cough a lot" for name in NAMES]), Recorder()
    name_reconstruction(model, records, NAMES)
    exposure(model, "My name is ", "Name03", ["Name04"])
    assert len(model.cuts) == 2 * len(NAMES) + 2
    for prompt, end in model.cuts:
        apart = tokenizer.encode(prompt).ids + tokenizer.encode(end).ids
        assert apart == tokenizer.encode(prompt + end).ids
    # It would be seen: the same texts, cut behind the space.
    assert tokenizer.encode("is ").ids + tokenizer.encode("Name03").ids != tokenizer.encode("is Name03").ids


def test_every_attack_has_its_interval():
    records = plant_names([f"I cough for {i} days" for i in range(40)], NAMES, seed=1)
    found = name_reconstruction(Remembers(r.text for r in records[:10]), records, NAMES, control=Remembers())
    relative, control = Share.counted(found.relative, 40), Share.counted(found.control_hits, 40)
    assert (found.relative_low, found.relative_high) == (relative.low, relative.high)
    assert (found.control_low, found.control_high) == (control.low, control.high)
    assert found.to_json()["relative_low"] == found.relative_low


@pytest.mark.parametrize("others", [[], ["secret x"], ["a", "a"]])
def test_exposure_wants_other_texts_than_the_canary(others):
    with pytest.raises(RefusedInput, match="others"):
        exposure(Remembers(), "it is ", "secret x", others)


def test_the_frontier_tells_alike_from_apart():
    draw = np.random.default_rng(3)
    one, same, shifted = draw.normal(size=(300, 4)), draw.normal(size=(300, 4)), draw.normal(size=(300, 4)) + 2
    alike, apart = divergence_frontier(one, same), divergence_frontier(one, shifted)
    assert divergence_frontier(one, one) == pytest.approx(1, abs=1e-3)
    assert alike > 0.9
    assert apart < 0.3
    assert divergence_frontier(shifted, one) == pytest.approx(apart, abs=0.05)
    assert divergence_frontier(one, one + 1000) < 0.01


def test_too_few_rows_are_refused():
    with pytest.raises(RefusedInput, match="at least 16 rows"):
        divergence_frontier(np.ones((3, 2)), np.ones((3, 2)))
    with pytest.raises(RefusedInput, match="one width"):
        divergence_frontier(np.ones((30, 2)), np.ones((30, 3)))


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_a_model_that_tells_nothing_apart_finds_names_by_lot_whatever_the_seeds(seed):
    records = plant_names([f"I cough for {i} days" for i in range(200)], NAMES, seed=seed)
    found = name_reconstruction(Remembers(), records, NAMES, control=Remembers(), seed=seed)
    assert max(found.hits, found.relative, found.control_hits) <= 40  # at 1/20, above less than once in 10^9


def test_scores_that_are_no_numbers_and_a_confidence_that_is_none_are_refused():
    class Diverged(Remembers):
        def score(self, prompts, continuations):
            return [Score(math.nan, 3) for _ in prompts]

    records = plant_names(["a", "b"], NAMES, 0)
    with pytest.raises(BackendError, match="must be a number, got nan for 40 of 40"):
        name_reconstruction(Diverged(), records, NAMES)
    with pytest.raises(BackendError, match="must be a number, got nan for 2 of 2"):
        exposure(Diverged(), "it is ", "x", ["y"])
    with pytest.raises(RefusedInput, match=r"confidence must lie in \(0, 1\), got 95"):
        name_reconstruction(Remembers(), records, NAMES, confidence=95)
