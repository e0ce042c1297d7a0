"""Distillation: what is frozen and what learns, the kept teacher, resuming, one student for one content."""

import json
import shutil

import numpy as np
import pytest
import torch
from post_models import public_texts
from privkt_post import distilling, loops
from privkt_post.config import DistillationConfig
from privkt_post.corpus import IGNORED, make_corpus
from privkt_post.distilling import distil, distillation_losses
from privkt_post.losses import divergence
from privkt_post.networks import open_net
from privkt_post.store import CARD, StudentStore
from privkt_post.teacher import TeacherCache

from privkt.contracts import NoProgress
from privkt.privacy import RefusedInput

TEXTS = [row["text"] for row in public_texts(160, seed=5)]
QUIET = NoProgress()


@pytest.fixture(scope="module", params=["gpt2", "roberta"])
def net(request, models):
    return open_net(models[request.param], {"dtype": "float32", "device": "cpu"})


@pytest.fixture
def llama_net(models):
    return open_net(models["llama"], {"dtype": "float32", "device": "cpu"})


@pytest.fixture
def config(tmp_path):
    def make(**changes):
        settings = {"first": 1, "last": 1, "length": 16, "batch_size": 8, "top_k": 8, "store": str(tmp_path / "s")}
        return DistillationConfig(**{**settings, **changes})

    return make


def made(net, settings):
    name, card = distil(net, "tiny", TEXTS, settings, QUIET)
    return open_net(StudentStore(settings.store).path(name), {"dtype": "float32", "device": "cpu"}), card


def test_a_student_learns_with_a_frozen_head_and_free_embeddings(net, config):
    before = {name: p.clone() for name, p in net.network.named_parameters()}
    student, card = made(net, config(epochs=4, learning_rate=5e-3))
    assert card["last_loss"] < 0.8 * card["first_loss"]
    assert card["parameters"] < card["parameters_of_large"]
    assert torch.equal(student.network.get_output_embeddings().weight, net.network.get_output_embeddings().weight)
    assert not torch.equal(student.network.get_input_embeddings().weight, net.network.get_input_embeddings().weight)
    assert all(torch.equal(p, before[name]) for name, p in net.network.named_parameters())


def test_in_bfloat16_products_alone_are_rounded(net, config):
    kept = {"top_k": 8, "layers": (0,), "epochs": 1, "learning_rate": 2e-3}
    (_, first), (mixed, second) = (made(net, config(precision=p, **kept)) for p in ("float32", "bfloat16"))
    assert first["name"] != second["name"]
    assert first["first_loss"] != second["first_loss"] == pytest.approx(first["first_loss"], rel=0.02)
    assert second["last_loss"] == pytest.approx(first["last_loss"], rel=0.05)
    # Weights of float32 that moved by less than a bfloat16 could say: they were neither kept nor stored rounded.
    moved = [p for p in mixed.network.parameters() if not torch.equal(p, p.bfloat16().float())]
    assert len(moved) > len(list(mixed.network.parameters())) / 2
    assert torch.equal(mixed.network.get_output_embeddings().weight, net.network.get_output_embeddings().weight)
    assert made(net, config(precision="auto", **kept))[1]["name"] == first["name"]  # on a processor


def test_a_tied_head_that_stays_tied_is_frozen_with_its_embeddings(llama_net, config):
    student, _ = made(llama_net, config(epochs=1, untie=False))
    assert torch.equal(student.network.get_input_embeddings().weight, llama_net.network.get_input_embeddings().weight)


def test_without_epochs_the_student_is_the_layers_alone(llama_net, config):
    student, card = made(llama_net, config(epochs=0))
    assert card["steps"] == 0
    assert torch.equal(student.network.model.norm.weight, llama_net.network.model.norm.weight)


def test_a_teacher_kept_whole_gives_the_full_divergence(net, tmp_path):
    corpus = make_corpus(net, TEXTS, length=16, pack=False, masked_share=0.3, seed=0)
    size = len(net.tokenizer)
    cache = TeacherCache(tmp_path / "t", corpus, net.width, size)
    cache.fill(net, corpus, 2.0, QUIET)
    settings = DistillationConfig(top_k=size)
    zero = distillation_losses(net, corpus, cache, [0, 3], settings)
    assert abs(zero[0]) < 1e-4
    assert abs(zero[2]) < 1e-3
    other = open_net(net.folder, {"dtype": "float32", "device": "cpu"})
    with torch.no_grad():
        for p in other.network.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    ce, lm, _ = distillation_losses(other, corpus, cache, [0, 3], settings)
    ids, labels, mask = corpus.batch([0, 3], net.device)
    here = mask.bool()
    teacher = net.network(input_ids=ids, attention_mask=mask).logits[here]
    student = other.network(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(ce, divergence(teacher, student[here], 2.0).mean(), rtol=1e-3, atol=1e-4)
    own = other.network(input_ids=ids, attention_mask=mask, labels=labels).loss
    torch.testing.assert_close(lm, own, rtol=1e-4, atol=1e-4)


def test_a_masked_models_places_are_drawn_once_and_only_among_words(models):
    net = open_net(models["bert"], {"device": "cpu"})
    corpus = make_corpus(net, TEXTS * 4, length=16, pack=True, masked_share=0.15, seed=0)
    chosen = corpus.labels != IGNORED
    words = chosen.sum() / (~np.isin(np.where(chosen, corpus.labels, corpus.ids), [0, 2, 3])).sum()
    assert 0.1 < words < 0.2
    assert not np.isin(corpus.labels[chosen], [0, 2, 3]).any()
    shown = corpus.ids[chosen]
    assert 0.7 < (shown == net.tokenizer.mask_token_id).mean() < 0.9
    again = make_corpus(net, TEXTS * 4, length=16, pack=True, masked_share=0.15, seed=0)
    assert again.digest == corpus.digest


@pytest.mark.parametrize("pack", [True, False])
def test_sequences_hold_the_texts(llama_net, pack):
    corpus = make_corpus(llama_net, TEXTS, length=16, pack=pack, masked_share=0.15, seed=0)
    text = llama_net.tokenizer.decode(corpus.ids.reshape(-1), skip_special_tokens=True)
    assert text.startswith(TEXTS[0])
    assert corpus.mask.all() == pack
    assert len(corpus) == (160 if not pack else 160 * 7 // 16) or pack


def test_a_corpus_that_fills_nothing_is_refused(llama_net):
    with pytest.raises(RefusedInput, match="must fill at least one sequence"):
        make_corpus(llama_net, ["warm"], length=16, pack=True, masked_share=0.1, seed=0)


def test_a_cut_distillation_goes_on_to_the_same_student(llama_net, config, monkeypatch):
    whole, settings = config(epochs=3, store=str(config().store) + "-whole"), config(epochs=3)
    first, first_card = made(llama_net, whole)
    real_save, real_losses = loops._save, distilling.distillation_losses
    saves, taken = [], []

    def cut(*arguments):
        real_save(*arguments)
        saves.append(len(arguments[-1]))
        if saves[-1] == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(loops, "_save", cut)
    run = loops.run
    monkeypatch.setattr(distilling.loops, "run", lambda *a, **k: run(*a, **{**k, "every": 0.0}))
    with pytest.raises(KeyboardInterrupt):
        distil(llama_net, "tiny", TEXTS, settings, QUIET)
    monkeypatch.setattr(loops, "_save", real_save)
    monkeypatch.setattr(distilling, "distillation_losses", lambda *a: (taken.append(1), real_losses(*a))[1])
    second, card = made(llama_net, settings)
    assert card["steps"] == first_card["steps"] == len(taken) + 7
    for name, parameter in first.network.named_parameters():
        assert torch.equal(parameter, second.network.get_parameter(name)), name


def test_equal_contents_are_one_student_and_other_ones_another(llama_net, config, monkeypatch):
    first = distil(llama_net, "tiny", TEXTS, config(), QUIET)[0]
    monkeypatch.setattr(distilling, "_learn", lambda *a: pytest.fail("it was distilled again"))
    assert distil(llama_net, "another name", TEXTS, config(), QUIET)[0] == first
    assert distil(llama_net, "tiny", TEXTS, config(layers=(0, 5)), QUIET)[0] == first
    monkeypatch.undo()
    half = open_net(llama_net.folder, {"dtype": "bfloat16", "device": "cpu"})
    assert distil(half, "tiny", TEXTS, config(), QUIET)[0] != first  # it says other things of the corpus
    others = [
        distil(llama_net, "tiny", TEXTS[1:], config(), QUIET)[0],
        distil(llama_net, "tiny", TEXTS, config(first=2), QUIET)[0],
        distil(llama_net, "tiny", TEXTS, config(temperature=3.0), QUIET)[0],
    ]
    assert len({first, *others}) == 4


def test_students_of_one_teacher_share_what_it_said(llama_net, config, monkeypatch):
    distil(llama_net, "tiny", TEXTS, config(), QUIET)
    asked = []
    real = type(llama_net).scores
    monkeypatch.setattr(type(llama_net), "scores", lambda self, h: (asked.append(self is llama_net), real(self, h))[1])
    distil(llama_net, "tiny", TEXTS, config(first=2), QUIET)
    assert asked
    assert not any(asked)


def test_it_stops_when_the_loss_is_flat(llama_net, config):
    _, card = made(llama_net, config(epochs=20, flat_window=4, flat_tolerance=0.9))
    assert card["steps"] == 8


def test_a_student_that_was_changed_or_is_missing_is_refused(llama_net, config):
    settings = config()
    name, card = distil(llama_net, "tiny", TEXTS, settings, QUIET)
    store = StudentStore(settings.store)
    assert store.take(name, card["sha256"]) == store.path(name)
    with pytest.raises(RefusedInput, match="must have the digest"):
        store.take(name, "0" * 64)
    file = store.path(name) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "hidden_act": "relu"}))
    with pytest.raises(RefusedInput, match="must have the digest"):
        store.take(name, card["sha256"])
    shutil.rmtree(store.path(name))
    with pytest.raises(RefusedInput, match="must lie in the store"):
        store.take(name, card["sha256"])
    with pytest.raises(RefusedInput, match="hex digits"):
        store.take("../" + "a" * 29, card["sha256"])
    assert not list(store.folder.glob(f"*/{CARD}"))
