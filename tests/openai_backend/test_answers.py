"""What counts as an answer: small exact cases, and no JSON whatever breaks the reader."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from privkt_openai.answers import Useless, read_embeddings, read_generation, read_token_logprobs
from privkt_openai.scoring import read_score, read_score_by_count

from privkt.contracts import Generation, Score


def text(value, finish="stop", **more):
    return {"choices": [{"text": value, "finish_reason": finish, **more}], "usage": {"completion_tokens": 5}}


def chat(value, finish="stop"):
    return {"choices": [{"message": {"role": "assistant", "content": value}, "finish_reason": finish}]}


def logprobs(tokens, values, whole=None):
    found = {"tokens": tokens, "token_logprobs": values}
    return text("".join(tokens) if whole is None else whole, logprobs=found)


@pytest.mark.parametrize(
    ("reply", "endpoint", "stop", "expected"),
    [
        (text("a b"), "completions", (), Generation("a b", "stop", 5)),
        (text("a b", "length"), "completions", (), Generation("a b", "length", 5)),
        (text("a b", "eos"), "completions", (), Generation("a b", "stop", 5)),
        (text(""), "completions", (), Generation("", "stop", 5)),
        (text("a\nb\n\nc", "length"), "completions", ("\n\n", "b"), Generation("a\n", "stop", 5)),
        (text("ab", "length"), "completions", ("", "x"), Generation("ab", "length", 5)),
        (chat("hi"), "chat", (), Generation("hi", "stop", 0)),
        (chat(None, "length"), "chat", (), Generation("", "length", 0)),
        (chat(None, "content_filter"), "chat", (), Generation("", "stop", 0)),
    ],
)
def test_answers_are_read(reply, endpoint, stop, expected):
    assert read_generation(reply, endpoint, stop) == expected


@pytest.mark.parametrize(
    ("reply", "endpoint", "said"),
    [
        (None, "chat", "no choices"),
        ({}, "chat", "no choices"),
        ({"choices": []}, "chat", "no choices"),
        ({"choices": {"text": "a"}}, "completions", "no choices"),
        ({"choices": ["a"]}, "completions", "no object"),
        ({"choices": [{}]}, "chat", "without a message"),
        ({"choices": [{}]}, "completions", "without text"),
        (chat(None), "chat", "without text"),
        (chat(["a"]), "chat", "without text"),
        (text(7), "completions", "without text"),
    ],
)
def test_what_is_no_answer_is_said_in_our_words(reply, endpoint, said):
    with pytest.raises(Useless, match=said):
        read_generation(reply, endpoint)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "text", "message", "content", "logprobs", "tokens", "token_logprobs", "data"])
            | st.sampled_from(["embedding", "index", "usage", "completion_tokens", "finish_reason"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_no_json_does_more_than_be_useless(reply):
    for read in (
        lambda: read_generation(reply, "chat", ("a",)),
        lambda: read_generation(reply, "completions", ("a",)),
        lambda: read_token_logprobs(reply),
        lambda: read_embeddings(reply, 1),
    ):
        try:
            read()
        except Useless:
            continue


@pytest.mark.parametrize(
    ("tokens", "values", "said"),
    [
        (["a", "b"], [-1.0], "another length"),
        (["a", "b"], [-1.0, None], "not negative"),
        (["a", "b"], [-1.0, 0.5], "not negative"),
        (["a", "b"], [-1.0, math.nan], "not negative"),
        (["a", "b"], [-1.0, -math.inf], "not negative"),
        (["a", "b"], [-1.0, "x"], "not negative"),
        (["a", 3], [-1.0, -1.0], "not text"),
        ([], [], "without tokens"),
        ([], None, "without tokens"),
    ],
)
def test_logprobs_that_are_none_are_found_out(tokens, values, said):
    with pytest.raises(Useless, match=said):
        read_token_logprobs(text("ab", logprobs={"tokens": tokens, "token_logprobs": values}))


@pytest.mark.parametrize("found", [None, [], {}, {"tokens": None}])
def test_silently_missing_logprobs_are_found_out(found):
    with pytest.raises(Useless, match="logprobs"):
        read_token_logprobs(text("ab", logprobs=found))


@pytest.mark.parametrize(
    ("tokens", "values", "expected"),
    [
        (["a", "b", "cd"], [None, -1.0, -2.0], Score(-2.0, 1)),
        (["a", "bc", "d"], [None, -1.0, -2.0], Score(-3.0, 2)),
        (["ab", "cd"], [None, -0.5], Score(-0.5, 1)),
        (["abcd"], [None], Score(0.0, 0)),
        (["<s>", "ab", "cd"], [None, -4.0, -0.5], Score(-0.5, 1)),
        (["a", "b", "cd", "e"], [None, -1.0, -2.0, -8.0], Score(-2.0, 1)),
    ],
)
def test_scores_add_up_over_the_tokens_that_reach_into_the_continuation(tokens, values, expected):
    spelled = "".join(tokens).removeprefix("<s>")
    assert read_score(logprobs(tokens, values, spelled), "ab", "cd") == expected


def test_an_empty_prompt_scores_everything():
    assert read_score(logprobs(["<s>", "ab"], [None, -4.0], "ab"), "", "ab") == Score(-4.0, 1)
    assert read_score(logprobs(["a", "b"], [None, -4.0]), "", "ab") == Score(-4.0, 1)


def test_tokens_that_do_not_spell_the_text_are_counted_instead():
    reply = logprobs(["a", "�", "�", "b"], [None, -1.0, -2.0, -4.0], "aüb")
    assert read_score(reply, "aü", "b") is None
    assert read_score_by_count(reply, 3, 0) == Score(-4.0, 1)
    assert read_score_by_count(reply, 2, 1) == Score(-2.0, 1)


def test_another_text_echoed_is_useless():
    with pytest.raises(Useless, match="did not come back"):
        read_score(logprobs(["x", "y"], [None, -1.0]), "a", "b")


def test_embeddings_are_put_in_order_and_to_norm_one():
    reply = {"data": [{"index": 1, "embedding": [0, 2]}, {"index": 0, "embedding": [3.0, 4.0]}]}
    rows = read_embeddings(reply, 2)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, 1.0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([{"embedding": [1.0]}], "another number"),
        ([{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}], "one length"),
        ([{"embedding": [1.0]}, {"embedding": [math.nan]}], "one length"),
        ([{"embedding": []}, {"embedding": []}], "one length"),
        ([{"embedding": [1.0]}, {"embedding": [0.0]}], "zeros"),
        ([{"embedding": [1.0], "index": 0}, {"embedding": [2.0], "index": 0}], "index"),
        ([{"embedding": "abc"}, {"embedding": "abc"}], "one length"),
    ],
)
def test_embeddings_that_are_none_are_found_out(data, said):
    with pytest.raises(Useless, match=said):
        read_embeddings({"data": data}, 2)
