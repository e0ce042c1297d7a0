"""Noisy texts read again: scores of both kinds of models, and a search that finds the best text by law and model."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # laws.py is named like nothing else
from laws import Matrix, random_law, response

from privkt.evaluation.inversion import bayes_guesses, counted_prior
from privkt.evaluation.readers import CausalReader, MaskedReader, Reader, reader_of
from privkt.evaluation.reconstruction import read_again, reconstruct
from privkt.privacy import RefusedInput
from privkt.synthesis.tokenizer_vocabulary import TokenizerVocabulary
from privkt.synthesis.word_vocabulary import WordVocabulary

WORDS = ("a", "the", "visit", "was", "cold", "warm")


def words():
    return WordVocabulary(WORDS, np.random.default_rng(0).normal(size=(len(WORDS), 3)).astype(np.float32))


class Chain(Reader):
    """A language of its own: which word follows which."""

    def __init__(self, vocabulary, first, follows):
        self.vocabulary, self.first, self.follows = vocabulary, np.log(first), np.log(follows)
        self._opening, self.primed = [], []

    def prime(self, rows):
        self.primed = rows

    def scores(self, before, after, candidates):
        found = (self.follows[before[-1]] if len(before) else self.first)[candidates].astype(float)
        return np.where(candidates >= self.vocabulary.unknown, np.nan, found)


class BothSides(Chain):
    """The same language, a word by both of its neighbours."""

    both_sides = True

    def scores(self, before, after, candidates):
        found = super().scores(before, after, candidates)
        return found if not len(after) else found + self.follows[candidates, after[0]]


def language(vocabulary, seed=1):
    generator = np.random.default_rng(seed)
    follows = generator.dirichlet(np.full(vocabulary.size, 0.2), size=vocabulary.size) + 1e-9
    return np.full(vocabulary.size, 1 / vocabulary.size), follows


def best_text(mechanism, first, follows, noisy):
    """By brute force over all texts of words that the reader can say."""
    found, best = None, -np.inf
    for text in itertools.product(range(mechanism.size - 2), repeat=len(noisy)):
        score = sum(np.log(mechanism.law[x, y]) for x, y in zip(text, noisy, strict=True)) + np.log(first[text[0]])
        score += sum(np.log(follows[x, y]) for x, y in itertools.pairwise(text))
        if score > best:
            found, best = text, score
    return list(found)


def ordinary(size):
    """A prior of the words that are neither unknown nor padding."""
    prior = np.full(size, 1 / (size - 2))
    prior[-2:] = 0
    return prior


@pytest.mark.parametrize("seed", range(6))
def test_a_causal_search_finds_the_best_text(seed):
    vocabulary = words()
    mechanism = Matrix(random_law(vocabulary.size, seed))
    first, follows = language(vocabulary, seed)
    noisy = np.random.default_rng(seed).integers(0, vocabulary.size, 4)
    prior = ordinary(vocabulary.size)
    guesses = bayes_guesses(mechanism, prior, most=vocabulary.size)
    found = reconstruct(guesses, prior, noisy, Chain(vocabulary, first, follows), beams=1000)
    assert found.tolist() == best_text(mechanism, first, follows, noisy)


@pytest.mark.parametrize("seed", range(6))
def test_a_masked_search_ends_where_no_single_word_can_be_bettered(seed):
    vocabulary = words()
    mechanism = Matrix(random_law(vocabulary.size, seed))
    reader = BothSides(vocabulary, *language(vocabulary, seed))
    noisy = np.random.default_rng(seed).integers(0, vocabulary.size, 5)
    prior = ordinary(vocabulary.size)
    guesses = bayes_guesses(mechanism, prior, most=vocabulary.size)
    found = reconstruct(guesses, prior, noisy, reader, sweeps=50).tolist()
    every = np.arange(vocabulary.size - 2)
    for i, y in enumerate(noisy):
        score = np.log(mechanism.law[every, y]) + reader.scores(found[:i], found[i + 1 :], every)
        assert score[found[i]] == pytest.approx(score.max())


@pytest.mark.parametrize("kind", [Chain, BothSides])
def test_whoever_knows_the_language_names_more_words(kind):
    vocabulary = words()
    size = vocabulary.size
    follows = np.full((size, size), 1e-6)
    follows[np.arange(size - 2), (np.arange(size - 2) + 1) % (size - 2)] = 1  # every word has one successor
    reader = kind(vocabulary, np.full(size, 1 / size), follows)
    texts = [(np.arange(8) + start) % (size - 2) for start in range(40)]
    mechanism = Matrix(response(size, 1.5), seed=3)
    found = read_again(mechanism, texts, reader, prior=ordinary(size))
    assert found.tokens == 320
    assert found.unigram >= found.unchanged
    assert found.context > found.unigram + 0.1
    assert found.blind < found.unigram


def test_the_weight_is_tuned_on_public_texts_and_can_be_none():
    vocabulary = words()
    size = vocabulary.size
    follows = np.full((size, size), 1e-6)
    follows[np.arange(size - 2), (np.arange(size - 2) + 1) % (size - 2)] = 1
    texts = [(np.arange(8) + start) % (size - 2) for start in range(30)]
    backwards = [text[::-1] for text in texts]  # for which this language is a bad guide
    mechanism, prior = Matrix(response(size, 1.5), seed=3), ordinary(size)
    helped = Chain(vocabulary, np.full(size, 1 / size), follows)
    found = read_again(mechanism, texts, helped, prior=prior, known=texts)
    assert found.weight > 0
    assert found.context > found.unigram + 0.1
    assert helped.primed == np.concatenate(texts[20:])[:48].tolist()
    found = read_again(mechanism, backwards, helped, prior=prior, known=backwards)
    assert found.weight == 0
    assert found.context == found.unigram  # the very Bayes attack


def test_padding_and_unknown_words_keep_their_share_of_the_prior():
    vocabulary = words()
    size = vocabulary.size
    mechanism = Matrix(response(size, 6.0), seed=1)
    prior = np.full(size, 0.05)
    prior[vocabulary.padding] = 1 - 0.05 * (size - 1)
    reader = Chain(vocabulary, *language(vocabulary))
    text = np.array([0, 1, *[vocabulary.padding] * 6])
    found = reconstruct(bayes_guesses(mechanism, prior, most=size), prior, text, reader)
    assert found[2:].tolist() == [vocabulary.padding] * 6
    assert len(reconstruct(bayes_guesses(mechanism, prior, most=size), prior, text[:0], reader)) == 0


def test_an_output_that_no_likely_word_gives_stands_for_itself():
    law = np.eye(8) * 0.5
    law[:, 7] += 0.5
    mechanism = Matrix(law, claimed=np.inf)
    prior = np.eye(8)[2]
    reader = Chain(words(), *language(words()))
    found = reconstruct(bayes_guesses(mechanism, prior, most=3), prior, np.array([2, 5, 7]), reader)
    assert found.tolist() == [2, 5, 2]


@pytest.mark.parametrize("opening", [[], [3], [5, 0, 4]])
def test_a_causal_model_scores_words_by_all_of_their_tokens(tiny_llama, opening):
    """Against one forward pass over the whole text, whose log probabilities add up."""
    import torch

    vocabulary = words()
    reader = reader_of(tiny_llama, vocabulary)
    assert isinstance(reader, CausalReader)
    assert not reader.both_sides
    reader.prime(opening)
    every = np.arange(vocabulary.size)
    found = reader.scores([1, 2], [5], every)
    assert np.isnan(found[[vocabulary.unknown, vocabulary.padding]]).all()
    for row, word in enumerate(WORDS):
        read = "".join(f" {WORDS[row]}" for row in [*opening, 1, 2])
        prefix = [reader.tokenizer.bos_token_id, *reader.tokenizer(f"\n{read}")["input_ids"]]
        pieces = reader.tokenizer(f" {word}")["input_ids"]
        with torch.no_grad():
            logs = reader.model(input_ids=torch.tensor([[*prefix, *pieces]])).logits[0].double().log_softmax(-1)
        expected = sum(float(logs[len(prefix) - 1 + k, piece]) for k, piece in enumerate(pieces))
        space = float(logs[len(prefix) - 1, pieces[0]])  # which every word begins with, so that it says nothing
        assert found[row] == pytest.approx(expected - space, abs=1e-4)
    assert reader.scores([], [], every[:1])[0] < 0


def test_the_model_s_own_vocabulary_is_scored_token_for_token(tiny_llama):
    vocabulary = TokenizerVocabulary.from_pretrained(tiny_llama)
    reader = reader_of(tiny_llama, vocabulary)
    rows = vocabulary.encode("cold")
    assert [reader.pieces(row) for row in rows] == [(i,) for i in reader.tokenizer("cold")["input_ids"]]
    scores = reader.scores(rows, [], np.arange(vocabulary.size))
    assert np.exp(scores[:-2]).sum() == pytest.approx(1, abs=0.05)  # special tokens take the rest
    mechanism = Matrix(response(vocabulary.size, 9.0), seed=2)
    prior = counted_prior([vocabulary.encode("a cold visit, a warm visit")], vocabulary.size)
    found = read_again(mechanism, [vocabulary.encode("a warm visit")], reader, prior=prior, candidates=8)
    assert (found.texts, found.tokens) == (1, 12)
    assert found.context > 0.5  # the law alone says that much


@pytest.fixture(scope="module")
def tiny_masked(tiny_bert, tmp_path_factory):
    """The folder of a random masked model over bytes, with a mask token."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("models") / "tiny-masked"
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        BertForMaskedLM(config).save_pretrained(folder)
    return folder


def test_a_masked_model_scores_words_by_both_sides(tiny_masked):
    import torch

    vocabulary = words()
    reader = reader_of(tiny_masked, vocabulary)
    assert isinstance(reader, MaskedReader)
    found = reader.scores([1], [5, 4], np.arange(vocabulary.size))
    assert np.isnan(found[-2:]).all()
    encode = reader.tokenizer
    for row, word in enumerate(WORDS):
        pieces = encode(f" {word}", add_special_tokens=False)["input_ids"]
        left = [encode.cls_token_id, *encode(" the", add_special_tokens=False)["input_ids"]]
        right = [*encode(" warm cold", add_special_tokens=False)["input_ids"], encode.sep_token_id]
        masked = [*left, *[encode.mask_token_id] * len(pieces), *right]
        with torch.no_grad():
            logs = reader.model(input_ids=torch.tensor([masked])).logits[0].double().log_softmax(-1)
        expected = sum(float(logs[len(left) + k, piece]) for k, piece in enumerate(pieces))
        assert found[row] == pytest.approx(expected, abs=1e-4)
    assert found[0] != pytest.approx(reader.scores([1], [3, 3], np.arange(1))[0], abs=1e-6)


def test_models_that_read_nothing_are_refused(tiny_bert, tmp_path, tiny_masked):
    with pytest.raises(RefusedInput, match="masked or a causal language model, got BertModel"):
        reader_of(tiny_bert, words())
    with pytest.raises(RefusedInput, match="must be a model folder"):
        reader_of(tmp_path, words())
    with pytest.raises(RefusedInput, match="must hold a word"):
        read_again(Matrix(response(8, 1.0)), [], reader_of(tiny_masked, words()), prior=np.ones(8))


@pytest.mark.slow
def test_a_real_model_names_more_words_than_the_law_alone(smollm2):
    """SmolLM2 on plain sentences; the attacker knows which words there are, but not how often they come."""
    texts = [
        "the doctor said that the results of the blood test are fine",
        "please call me back in the morning to make an appointment",
        "she went to the hospital because her heart was beating too fast",
    ]
    listed = sorted({word for text in texts for word in text.split()})
    vocabulary = WordVocabulary(listed, np.random.default_rng(0).normal(size=(len(listed), 8)).astype(np.float32))
    mechanism = Matrix(response(vocabulary.size, 4.5), seed=5)
    encoded = [vocabulary.encode(text) for text in texts]
    prior = ordinary(vocabulary.size)
    found = read_again(mechanism, encoded, reader_of(smollm2, vocabulary), prior=prior, candidates=vocabulary.size)
    print(found)
    assert found.context > found.unigram + 0.05
    assert found.unigram > found.blind
