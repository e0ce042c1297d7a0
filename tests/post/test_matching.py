"""Two vocabularies and two widths: shared tokens, label words, and a linear map of embeddings."""

import pytest
import torch
from post_models import WORDS, make_model, make_tokenizer
from privkt_post.matching import embedding_map, match, surfaces
from privkt_post.networks import open_net
from privkt_post.tasks import Task

from privkt.privacy import RefusedInput

TASK = Task(("negative", "positive"), " it was", (("bad", "poor"), ("good",)))
REVERSED = [*reversed(WORDS), "splendid"]


@pytest.fixture(scope="module")
def nets(llama, tmp_path_factory):
    """Models of one vocabulary, of the same words in another order and width, and of other words."""
    folder = tmp_path_factory.mktemp("matching")
    other = make_model("llama", folder / "other", width=48, words=REVERSED)
    foreign = make_model("llama", folder / "foreign", words=[f"w{i}" for i in range(20)])
    return [open_net(f, {"dtype": "float32", "device": "cpu"}) for f in (llama, other, foreign)]


def test_one_vocabulary_is_compared_whole(nets):
    found = match(nets[0], nets[0], "auto", TASK)
    assert found.kind == "full"
    scores = torch.randn(2, len(nets[0].tokenizer))
    assert found.of_small(scores) is scores


def test_two_vocabularies_are_compared_over_what_they_share(nets):
    found = match(nets[0], nets[1], "auto", TASK)
    assert found.kind == "shared"
    assert len(found.small) == len(WORDS)
    assert [nets[0].tokenizer.convert_ids_to_tokens(int(i)) for i in found.small] == [
        nets[1].tokenizer.convert_ids_to_tokens(int(i)) for i in found.large
    ]
    with pytest.raises(RefusedInput, match="full needs one vocabulary"):
        match(nets[0], nets[1], "full", TASK)
    with pytest.raises(RefusedInput, match="must share at least 16 tokens, got 0"):
        match(nets[0], nets[2], "shared", TASK)


def test_label_words_alone(nets):
    found = match(nets[0], nets[1], "words", TASK)
    assert nets[1].tokenizer.convert_ids_to_tokens(found.large.tolist()) == ["bad", "poor", "good"]
    assert nets[0].tokenizer.convert_ids_to_tokens(found.small.tolist()) == ["bad", "poor", "good"]
    with pytest.raises(RefusedInput, match="needs a classification"):
        match(nets[0], nets[1], "words", Task((), " it was", ()))


@pytest.mark.parametrize(
    ("tokens", "spaced"),
    [
        (["Ġgood", "ing", "Ġbad"], {" good", "ing", " bad"}),
        (["▁good", "ing", "▁bad"], {" good", "ing", " bad"}),
        (["good", "##ing", "bad"], {" good", "ing", " bad"}),
        (["good", "bad"], {" good", " bad"}),
    ],
)
def test_a_token_is_what_it_adds_to_a_text(tokens, spaced):
    assert set(surfaces(make_tokenizer(tokens))) == spaced


def test_a_linear_map_between_embeddings_is_found(nets):
    small, large = nets[0], nets[1]
    tokens = match(small, large, "shared", TASK)
    true = torch.randn(32, 48, generator=torch.Generator().manual_seed(1))
    bias = torch.randn(48, generator=torch.Generator().manual_seed(2))
    table = large.network.get_input_embeddings().weight
    kept = table.detach().clone()
    try:
        with torch.no_grad():
            table[tokens.large] = small.embed(tokens.small) @ true + bias
        weight, found = embedding_map(small, large, tokens)
        prompt = small.embed(tokens.small[:4])
        torch.testing.assert_close(prompt @ weight + found, prompt @ true + bias, rtol=0.05, atol=0.05)
    finally:
        with torch.no_grad():
            table.copy_(kept)
