"""Where the answer is read: under truncation, padding and a prompt's shift, for both families."""

import pytest
import torch
from privkt_post.inputs import Layout, Row, collate, read, read_at_one_shape, scores_at
from privkt_post.networks import is_masked, open_net
from privkt_post.prompts import initial_rows

from privkt.privacy import RefusedInput

FAMILIES = ("llama", "gpt2", "bert", "roberta")
CUE = " it was"
LONG = "the visit was cold and rude they said about the meal " * 4


@pytest.fixture(scope="module", params=FAMILIES)
def net(request, models):
    return open_net(models[request.param], {"dtype": "float32", "device": "cpu"})


@pytest.fixture
def layout(net):
    return Layout(net, CUE, 16, prompt_tokens=3)


def words(net, ids):
    return net.tokenizer.convert_ids_to_tokens(list(ids))


@pytest.mark.parametrize("text", ["the meal", "", LONG])
def test_the_place_read_is_the_last_of_the_cue_or_the_mask(net, layout, text):
    (row,) = layout.rows([text])
    (place,) = row.places
    shown = words(net, row.ids)
    assert len(row.ids) <= 16
    if net.masked:
        assert shown[place - 2 : place + 1] == ["it", "was", "[MASK]"]
        assert shown[0] == "[BOS]"
        assert shown[-1] == "[EOS]"
        assert place == len(row.ids) - 2
    else:
        assert shown[-2:] == ["it", "was"]
        assert place == len(row.ids) - 1
    assert (len(row.ids) == 16) == (text == LONG)


@pytest.mark.parametrize("width", [None, 17])
def test_padding_changes_nothing_that_is_read(net, layout, width):
    rows = layout.rows(["the meal", LONG, "they said the staff was kind"])
    together = scores_at(net, collate(net, rows, width))
    for i, row in enumerate(rows):
        torch.testing.assert_close(together[i], scores_at(net, collate(net, [row]))[0], rtol=1e-4, atol=1e-4)


def test_a_prompt_shifts_the_place_by_its_length(net, layout):
    """Rows of a prompt that are embeddings of words give what the words in front would give."""
    row = layout.rows(["the meal"])[0]
    prompt = initial_rows(net, "we said", 2)
    put_before = list(net.tokenizer("we said", add_special_tokens=False)["input_ids"])
    spelled = Row((*put_before, *row.ids), (row.places[0] + 2,))
    behind = scores_at(net, collate(net, [row], 16), prompt)
    torch.testing.assert_close(behind, scores_at(net, collate(net, [spelled], 18)), rtol=1e-4, atol=1e-4)


def test_inference_in_portions_keeps_the_order(net, layout):
    texts = ["the meal", LONG, "a visit"] * 60
    found = list(read(net, layout.rows(texts)))
    assert len(found) > 1
    assert [i for part, _ in found for i in part] == list(range(180))
    whole = torch.cat([scores for _, scores in found])
    torch.testing.assert_close(whole[:3], whole[177:], rtol=1e-4, atol=1e-4)


def test_answers_are_read_at_the_place_before_each_token(models):
    net = open_net(models["llama"], {"device": "cpu"})
    layout = Layout(net, CUE, 16, answer_tokens=3)
    row = layout.rows(["the meal"], ["warm kind quick clean"])[0]
    assert words(net, row.targets) == ["warm", "kind", "quick"]
    assert words(net, row.ids)[-2:] == ["warm", "kind"]
    assert row.places == (len(row.ids) - 3, len(row.ids) - 2, len(row.ids) - 1)
    short = layout.rows(["the meal"], ["warm"])[0]
    assert words(net, short.targets) == ["warm", "[EOS]"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_length": 3}, "must leave room for a text"),
        ({"max_length": 60, "prompt_tokens": 30}, "must fit the model's context"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(net, settings, said):
    with pytest.raises(RefusedInput, match=said):
        Layout(net, " it was it was it was", **settings)


def test_a_prompt_can_be_tuned_at_the_longest_length(net):
    """Training pads to one place more than the longest row, which absolute positions must have too."""
    most = net.context - 4 - 1
    with pytest.raises(RefusedInput, match="with one place to spare"):
        Layout(net, CUE, most + 1, prompt_tokens=4)
    layout = Layout(net, CUE, most, prompt_tokens=4)
    (row,) = layout.rows(["warm " * 200])
    assert len(row.ids) == most
    prompt = initial_rows(net, "the meal", 4)
    assert scores_at(net, collate(net, [row], width=layout.width + 1), prompt).isfinite().all()


def test_a_masked_model_writes_no_answers(models):
    net = open_net(models["bert"], {"device": "cpu"})
    with pytest.raises(RefusedInput, match="fills one place"):
        Layout(net, CUE, 16, answer_tokens=2)


def test_a_model_without_a_head_is_refused(tiny_bert):
    with pytest.raises(RefusedInput, match="causal or masked language model, got BertModel"):
        is_masked(tiny_bert)


def test_a_row_is_read_at_one_shape_whatever_the_others_are(models, monkeypatch):
    """Bit for bit: with an emptied neighbour, a longer one, and in the last portion, which is filled up."""
    from privkt_post import inputs

    net = open_net(models["llama"], {"dtype": "float32", "device": "cpu"})
    layout = Layout(net, CUE, 16)
    monkeypatch.setitem(inputs._TOKENS_AT_ONCE, "cpu", 17 * 4)
    shapes = []
    real = type(net).hidden
    monkeypatch.setattr(type(net), "hidden", lambda self, e, m: (shapes.append(tuple(e.shape)), real(self, e, m))[1])
    texts = ["the meal", "", "they said", "the room was warm", "a visit"]
    first = torch.cat(list(read_at_one_shape(net, layout.rows(texts), 17)))
    other = torch.cat(list(read_at_one_shape(net, layout.rows([texts[0], LONG, *texts[2:]]), 17)))
    assert shapes == [(4, 17, net.width)] * 4
    assert first.shape == (5, len(net.tokenizer))
    for i in (0, 2, 3, 4):
        assert torch.equal(first[i], other[i])
    assert not torch.equal(first[1], other[1])
    torch.testing.assert_close(first, torch.cat([s for _, s in read(net, layout.rows(texts))]), rtol=1e-4, atol=1e-4)
