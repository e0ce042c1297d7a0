"""Models with layers left out, in every family."""

import pytest
import torch
from post_models import make_model
from privkt_post.config import DistillationConfig
from privkt_post.families import chosen_layers, head_parameters, layer_list, shrunk
from privkt_post.networks import masked_head, open_net

from privkt.privacy import RefusedInput

FAMILIES = ("llama", "gpt2", "bert", "roberta")
IDS = torch.tensor([[5, 9, 12, 7, 30, 11]])


@pytest.fixture(scope="module", params=FAMILIES)
def net(request, models):
    return open_net(models[request.param], {"dtype": "float32", "device": "cpu"})


def test_all_layers_make_the_same_model(net):
    small = shrunk(net, range(6), untie=True)
    with torch.no_grad():
        torch.testing.assert_close(small(input_ids=IDS).logits, net.network(input_ids=IDS).logits)


def test_the_kept_layers_embeddings_and_head_are_copies(net):
    small = shrunk(net, (0, 5), untie=True)
    place = layer_list(net.network, 6)
    assert len(small.get_submodule(place)) == small.config.num_hidden_layers == 2
    for new, old in enumerate((0, 5)):
        kept = dict(small.get_submodule(place)[new].named_parameters())
        for name, parameter in net.network.get_submodule(place)[old].named_parameters():
            assert torch.equal(kept[name], parameter)
            assert kept[name].data_ptr() != parameter.data_ptr()
    assert torch.equal(small.get_input_embeddings().weight, net.network.get_input_embeddings().weight)
    assert torch.equal(small.get_output_embeddings().weight, net.network.get_output_embeddings().weight)


@pytest.mark.parametrize("untie", [True, False])
def test_a_tied_head_gets_weights_of_its_own_only_if_asked(net, untie, tmp_path):
    small = shrunk(net, (0, 5), untie=untie)
    shared = small.get_input_embeddings().weight is small.get_output_embeddings().weight
    assert shared is not untie
    small.save_pretrained(tmp_path)
    net.tokenizer.save_pretrained(tmp_path)
    again = open_net(tmp_path, {"dtype": "float32", "device": "cpu"})
    with torch.no_grad():
        torch.testing.assert_close(again.network(input_ids=IDS).logits, small(input_ids=IDS).logits)
    assert (again.network.get_input_embeddings().weight is again.network.get_output_embeddings().weight) is not untie


def test_the_head_that_is_frozen_is_all_that_follows_the_hidden_states(net):
    frozen = {id(p) for p in head_parameters(net.network, net.masked)}
    assert id(net.network.get_output_embeddings().weight) in frozen
    if net.masked:
        assert frozen == {id(p) for p in masked_head(net.network).parameters()}


def test_settings_of_each_layer_are_taken_along(tmp_path):
    """Gemma 3 says of every layer which attention it has."""
    from post_models import make_tokenizer
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    tokenizer = make_tokenizer()
    kinds = ["sliding_attention", "sliding_attention", "full_attention"] * 2
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=6, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, layer_types=kinds, sliding_window=4, pad_token_id=0, bos_token_id=2,
        eos_token_id=3,
    )  # fmt: skip
    Gemma3ForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    net = open_net(tmp_path, {"dtype": "float32", "device": "cpu"})
    small = shrunk(net, (0, 2, 5), untie=True)
    assert small.config.layer_types == ["sliding_attention", "full_attention", "full_attention"]
    with torch.no_grad():
        torch.testing.assert_close(
            shrunk(net, range(6), untie=True)(input_ids=IDS).logits, net.network(input_ids=IDS).logits
        )
        hidden = net.hidden(net.embed(IDS), torch.ones_like(IDS))
        torch.testing.assert_close(net.scores(hidden), net.network(input_ids=IDS).logits)


@pytest.mark.parametrize("name", ["Gemma", "Gemma2", "Qwen2", "Qwen3", "Cohere"])
def test_further_families_scale_embeddings_and_scores_in_their_own_ways(name, tmp_path):
    import transformers
    from post_models import make_tokenizer

    tokenizer = make_tokenizer()
    config = getattr(transformers, f"{name}Config")(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    getattr(transformers, f"{name}ForCausalLM")(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    net = open_net(tmp_path, {"dtype": "float32", "device": "cpu"})
    with torch.no_grad():
        wanted = net.network(input_ids=IDS).logits
        torch.testing.assert_close(net.scores(net.hidden(net.embed(IDS), torch.ones_like(IDS))), wanted)
        torch.testing.assert_close(shrunk(net, range(3), untie=True)(input_ids=IDS).logits, wanted)


def test_scores_are_the_models_own(net):
    with torch.no_grad():
        hidden = net.hidden(net.embed(IDS), torch.ones_like(IDS))
        torch.testing.assert_close(net.scores(hidden), net.network(input_ids=IDS).logits)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [({}, (0, 1, 4, 5)), ({"first": 1, "last": 1}, (0, 5)), ({"layers": (1, 3)}, (1, 3)), ({"last": 0}, (0, 1))],
)
def test_which_layers_stay(settings, kept):
    assert chosen_layers(DistillationConfig(**settings), 6) == kept


@pytest.mark.parametrize("settings", [{"layers": (3, 1)}, {"layers": (0, 6)}, {"first": 4, "last": 3}, {"layers": ()}])
def test_layers_that_are_not_there_are_refused(settings):
    with pytest.raises(RefusedInput, match="different ones of 0 to 5 in order"):
        chosen_layers(DistillationConfig(**settings), 6)


def test_an_untied_model_stays_untied(tmp_path):
    net = open_net(make_model("llama", tmp_path / "m", tied=False), {"dtype": "float32", "device": "cpu"})
    small = shrunk(net, (0, 1), untie=False)
    assert torch.equal(small.lm_head.weight, net.network.lm_head.weight)
    assert not torch.equal(small.lm_head.weight, small.model.embed_tokens.weight)
