"""Cues and label words: the table of the page, words of one's own, and words that cannot be told apart."""

import pytest
import torch
from post_models import LABELS, make_tokenizer
from privkt_post.config import TaskConfig
from privkt_post.tasks import KNOWN, Task, make_task
from privkt_post.verbalizers import Verbalizer, first_token

from privkt.privacy import RefusedInput

GOOD = ("positive", "good", "great", "awesome", "brilliant", "amazing")


def test_the_tasks_of_the_page():
    assert set(KNOWN) == {"sst2", "imdb", "mpqa", "tweet", "arisetv", "agnews", "trec", "boolq", "disaster"}
    sst2 = make_task(TaskConfig(name="sst2"), ["negative", "positive"])
    assert sst2.cue == ", it was"
    assert sst2.words == (("terrible", "negative", "bad", "poor", "awful"), GOOD)
    assert make_task(TaskConfig(name="sst2"), ["positive", "negative"]).words[0] == GOOD
    news = make_task(TaskConfig(name="agnews"), ["World", "Sports", "Business", "Sci/Tech"])
    assert news.words == (("world",), ("sports",), ("business",), ("science", "technology"))
    assert make_task(TaskConfig(name="trec"), ["LOC", "NUM"]).words == (("location",), ("number",))
    tweet = make_task(TaskConfig(name="tweet"), ["negative", "neutral", "positive"])
    assert tweet.words[1] == ("moderate", "neutral", "balanced")


def test_words_and_cue_of_ones_own_win():
    found = make_task(TaskConfig(name="sst2", cue=" So:", words={"positive": ["yes"]}), ["negative", "positive"])
    assert found.cue == " So:"
    assert found.words[1] == ("yes",)
    assert found.words[0][0] == "terrible"


@pytest.mark.parametrize(
    ("settings", "labels", "said"),
    [
        ({"name": "sst2"}, ["bad", "good"], "every label must have words, and 'bad' has none"),
        ({"name": "sst5"}, ["a", "b"], "must be custom or one of"),
        ({"words": {"a": ["x"], "b": ["y"]}}, ["a", "b"], "the words after which the answer is read"),
        ({"name": "sst2", "words": {"bad": ["x"]}}, ["negative", "positive"], "may name the declared labels"),
        ({"name": "sst2"}, ["negative"], "at least two labels"),
    ],
)
def test_what_has_no_words_is_refused(settings, labels, said):
    with pytest.raises(RefusedInput, match=said):
        make_task(TaskConfig(**settings), labels)


def test_a_generation_task_names_its_answers_and_only_it():
    with pytest.raises(ValueError, match="must name the column"):
        TaskConfig(kind="generation")
    with pytest.raises(ValueError, match="only a generation task"):
        TaskConfig(answer="film")
    with pytest.raises(ValueError, match="no classes to calibrate"):
        TaskConfig(kind="generation", answer="film", calibrate=True)
    assert make_task(TaskConfig(kind="generation", answer="film", cue=" :"), None).labels == ()


def verbalizer(score, words=(("bad", "poor"), ("good",))):
    return Verbalizer(make_tokenizer(), Task(tuple(LABELS), " it was", words, score))


def test_scores_are_means_of_probabilities_or_of_logits():
    tokenizer = make_tokenizer()
    logits = torch.randn(3, len(tokenizer), generator=torch.Generator().manual_seed(0))
    bad, poor, good = (tokenizer.convert_tokens_to_ids(word) for word in ("bad", "poor", "good"))
    p = logits.softmax(-1)
    means = torch.stack([(p[:, bad] + p[:, poor]) / 2, p[:, good]], 1)
    torch.testing.assert_close(verbalizer("probability").probabilities(logits), means / means.sum(1, keepdim=True))
    mean_logits = torch.stack([(logits[:, bad] + logits[:, poor]) / 2, logits[:, good]], 1)
    torch.testing.assert_close(verbalizer("logit").scores(logits), mean_logits)
    assert not torch.allclose(
        verbalizer("logit").probabilities(logits), verbalizer("probability").probabilities(logits)
    )


@pytest.mark.parametrize("words", [(("bad",), ("bad",)), (("bad", "bad"), ("good",))])
def test_words_that_begin_alike_are_refused(words):
    with pytest.raises(RefusedInput, match="begin with the same token"):
        verbalizer("probability", words)


def test_a_word_outside_the_vocabulary_is_refused():
    with pytest.raises(RefusedInput, match="must begin with a token of the model's vocabulary"):
        verbalizer("probability", (("bad",), ("splendid",)))


def test_a_words_first_token_is_the_one_in_the_middle_of_a_text(wide_llama):
    """Over bytes the space is a token of its own, and says nothing about the word."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(wide_llama)
    assert tokenizer.decode([first_token(tokenizer, "great")]) == "g"
