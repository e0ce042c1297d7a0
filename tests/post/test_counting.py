"""Noisy counts: what a record can move, what it costs, and that the draw is paid first and once."""

import pytest
from post_models import LABELS, sentences
from privkt_post import clients, counting
from privkt_post.config import POSTConfig
from pydantic import ValidationError

from privkt.contracts import ClientSite, PrivateData, Rows, SoftPrompt, Texts
from privkt.privacy import Budget, Guarantee, Ledger, Neighbouring, Provenance, RefusedInput, Release, none_event
from privkt.testing.sites import MemoryState

PUBLIC = {"source": "json", "path": "x"}


def config(epsilon=1.0, sets=1, choose="first", alpha="heuristic"):
    return POSTConfig.model_validate(
        {"transfer": {"public": [PUBLIC] * sets, "choose": choose, "alpha": alpha}, "statistic": {"epsilon": epsilon}}
    )


def test_answers_behind_a_prompt_that_promises_nothing_are_not_counted(site):
    """One record moves such a prompt, and with it any number of answers: no noise of this size covers that."""
    values = config().model_dump(mode="json") | {"tuning": {"private": False}}
    with pytest.raises(ValidationError, match="must not be `heuristic` where"):
        POSTConfig.model_validate(values)
    prompt = Release(SoftPrompt({}), Guarantee.none("plain"), none_event(), Provenance("post", "1", "id"))
    with pytest.raises(RefusedInput, match="this one promises nothing"):
        clients.need_release(prompt)
    assert not site.budget.ledger.charges()


@pytest.mark.parametrize("unit", ["user", "token", "document"])
def test_counts_are_of_records(unit):
    with pytest.raises(RefusedInput, match="counts every row by itself"):
        counting.guarantee_of(config(), Budget(8.0, 1e-5, unit=unit))


@pytest.fixture
def site(tmp_path):
    rows = sentences(20, seed=0)
    held = Rows(tuple(r["text"] for r in rows), tuple(r["mood"] for r in rows), tuple(map(str, range(20))))
    ledger = Ledger.open_or_create("d", cap_epsilon=8, cap_delta=1e-5, size=20, state=tmp_path)
    return ClientSite(
        models={}, state=MemoryState(), folder=tmp_path, id="a",
        data=PrivateData("d", 20, tuple(LABELS), lambda: held, fingerprint="f"),
        budget=Budget(8.0, 1e-5, ledger), run_id="run", data_set_id=ledger.data_set_id,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "relation", "each", "vote"),
    [
        ({}, "zero-out", 0.5, 0.0),
        ({}, "replace-one", 0.5, 0.0),
        ({"sets": 3, "choose": "statistic", "alpha": 0.5}, "zero-out", 0.0, 1.0),
        ({"sets": 3, "choose": "statistic", "alpha": 0.5}, "replace-one", 0.0, 0.5),
        ({"sets": 3, "choose": "statistic"}, "zero-out", 0.25, 0.5),
        ({"alpha": 0.5}, "zero-out", 0.0, 0.0),
        ({"choose": "statistic", "alpha": 0.5}, "zero-out", 0.0, 0.0),
    ],
)
def test_shares_add_up_to_what_is_promised(changes, relation, each, vote):
    found = counting.shares_of(config(**changes), Neighbouring(relation))
    assert (found.each, found.vote) == (each, vote)
    moved = 2 if relation == "replace-one" else 1
    assert 2 * each + moved * vote == pytest.approx(found.total)


def test_the_counts_are_charged_once_and_drawn_around_the_truth(site):
    settings = config(epsilon=6.0, sets=2, choose="statistic")
    release = counting.release(site, settings, (900, 700), (30, 5))
    assert [c.planned.epsilon for c in site.budget.ledger.charges()] == [6.0]
    assert release.charge == site.budget.ledger.charges()[0].id
    found = counting.counts_in(release.payload)
    assert list(found) == ["zero-shot correct", "tuned correct", "votes for set 0", "votes for set 1"]
    # |noise| above 40 / epsilon of a count has a chance below e^-39
    for name, true, epsilon in (
        ("zero-shot correct", 900, 1.5),
        ("tuned correct", 700, 1.5),
        ("votes for set 0", 30, 3),
    ):
        assert abs(found[name] - true) <= 40 / epsilon
    counting.release(site, settings, (900, 700), (30, 5))
    assert len(site.budget.ledger.charges()) == 1


def test_the_noise_is_the_one_that_was_paid_for(site):
    """Over 800 draws the mean absolute noise is that of the two-sided geometric law, to within 6 deviations."""
    import math

    site.budget = Budget(8.0, 1e-5)
    draws = 800
    total = sum(
        abs(counting.counts_in(counting.release(site, config(epsilon=1.0), (0, 0), ()).payload)[counting.ZERO_SHOT])
        for _ in range(draws)
    )
    rate = 0.5  # half of the statistic's epsilon for each of the pair
    mean = 1 / math.sinh(rate)
    second = 2 * math.exp(rate) / (math.exp(rate) - 1) ** 2
    assert abs(total / draws - mean) < 6 * math.sqrt((second - mean**2) / draws)


def test_no_counts_in_an_empty_table():
    assert counting.counts_in(Texts(())) == {}
    assert counting.counts_in(None) == {}


def test_what_is_made_from_prompt_and_counts_costs_both():
    prompt = Guarantee(
        "approximate", 6.0, 1e-5, replace_one_epsilon=9.0, conditional_on=("N = 20 is public",), proof="a"
    )
    counts = counting.guarantee_of(config(sets=3, choose="statistic"), Budget(8.0, 1e-5))
    assert (counts.epsilon, counts.replace_one_epsilon) == (1.0, 1.5)
    both = counting.together(prompt, counts)
    assert (both.epsilon, both.delta, both.replace_one_epsilon) == (7.0, 1e-5, 10.5)
    assert both.conditional_on == prompt.conditional_on
    assert counting.together(prompt, None) == prompt
    assert not counting.together(Guarantee.none("plain"), counts).is_private
