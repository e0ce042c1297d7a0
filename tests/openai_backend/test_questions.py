"""Requests and their keys: everything that may change an answer is in the key."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from privkt_openai.options import Options
from privkt_openai.questions import question, repetitions

from privkt.contracts import ChatTurn, Sampling

OPTIONS = Options(base_url="http://127.0.0.1:1/v1", model="m")
BASE = question("p", Sampling(seed=1), OPTIONS, "completions")


@pytest.mark.parametrize(
    "other",
    [
        question("q", Sampling(seed=1), OPTIONS, "completions"),
        question("p", Sampling(seed=1), OPTIONS, "chat"),
        question("p", Sampling(seed=1), OPTIONS, "completions", 1),
        question("p", Sampling(seed=1), OPTIONS.model_copy(update={"model": "n"}), "completions"),
        question("p", Sampling(seed=1), OPTIONS.model_copy(update={"extra_body": {"a": 1}}), "completions"),
        *(
            question("p", dataclasses.replace(Sampling(seed=1), **{name: value}), OPTIONS, "completions")
            for name, value in [
                ("max_new_tokens", 3),
                ("temperature", 0.5),
                ("top_k", 2),
                ("top_p", 0.5),
                ("stop", ("a",)),
                ("seed", 2),
                ("seed", None),
                ("repetition_penalty", 1.5),
            ]
        ),
    ],
)
def test_whatever_changes_the_answer_changes_the_key(other):
    assert other.key != BASE.key


def test_where_the_server_is_and_how_it_is_asked_change_nothing():
    elsewhere = Options(base_url="https://host/v1", model="m", concurrency=1, timeout=3, max_retries=0)
    assert question("p", Sampling(seed=1), elsewhere, "completions").key == BASE.key


def test_stops_beyond_four_are_in_the_key_but_not_sent():
    stops = tuple("abcdef")
    asked = question("p", Sampling(stop=stops), OPTIONS, "chat")
    assert asked.body["stop"] == list("abcd")
    assert asked.key != question("p", Sampling(stop=stops[:4]), OPTIONS, "chat").key


def test_no_seed_sends_none():
    assert "seed" not in question("p", Sampling(), OPTIONS, "chat").request()


prompts = st.lists(st.sampled_from(["a", "b", (ChatTurn("user", "a"),), (ChatTurn("system", "a"),)]), max_size=12)


@given(prompts)
def test_repetitions_make_every_question_of_a_call_distinct(asked):
    counts = repetitions(asked)
    assert len(set(zip(asked, counts, strict=True))) == len(asked)
    for prompt in set(asked):
        assert sorted(c for p, c in zip(asked, counts, strict=True) if p == prompt) == list(range(asked.count(prompt)))
