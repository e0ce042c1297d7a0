"""The transfer: nothing but public texts and the released prompt moves it, and it moves nothing but its own prompt."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from post_models import public_texts, sentences
from privkt_post import loops
from privkt_post.answering import ShiftedReader, make_reader
from privkt_post.config import TransferConfig, TuningConfig
from privkt_post.families import shrunk
from privkt_post.inputs import collate, scores_at
from privkt_post.losses import transfer_losses
from privkt_post.matching import match
from privkt_post.networks import Net, open_net
from privkt_post.prompts import initial_rows, rows_of
from privkt_post.tasks import Task
from privkt_post.transferring import Pair, TeacherTerms, text_losses, transfer
from privkt_post.tuning import Lesson, tune_plainly
from privkt_post.verbalizers import class_probabilities

from privkt.contracts import NoProgress

QUIET = NoProgress()
TASK = Task(("negative", "positive"), " it was", (("bad",), ("good",)))
TEXTS = [row["text"] for row in public_texts(24, seed=8)]


def state(net):
    return {name: p.clone() for name, p in net.network.state_dict().items()}


def same(net, before):
    return all(torch.equal(p, before[name]) for name, p in net.network.state_dict().items())


@pytest.fixture(scope="module", params=["llama", "bert"])
def large(request, models):
    return open_net(models[request.param], {"dtype": "float32", "device": "cpu"})


@pytest.fixture(scope="module")
def small(large):
    return Net(
        shrunk(large, (0, 5), untie=True).requires_grad_(False),
        large.tokenizer,
        large.folder,
        large.device,
        large.masked,
    )


def pair_of(small, large, kind="full"):
    readers = [make_reader(net, TASK, 16, prompt_tokens=4) for net in (small, large)]
    return Pair(small, large, *(tuple(r.layout.rows(TEXTS)) for r in readers), match(small, large, kind, TASK))


def tuned(net, seed=0):
    rows = initial_rows(net, "say what it was", 4)
    return rows + 0.3 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed))


def settings(**changes):
    return TransferConfig(
        **{"public": [{"source": "json"}], "steps": 12, "batch_size": 6, "learning_rate": 0.02, **changes}
    )


def moved(pair, prompt, folder, alpha=0.5, seed=0, **changes):
    start = initial_rows(pair.large, "say what it was", 4)
    return transfer(pair, prompt, start, settings(**changes), alpha, seed=seed, folder=folder, progress=QUIET)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_one_model_and_one_prompt_have_no_loss_and_no_gradient(large, tmp_path, alpha):
    pair, prompt = pair_of(large, large), tuned(large)
    terms = TeacherTerms(tmp_path, pair, prompt, QUIET)
    moving = torch.nn.Parameter(prompt.clone())
    loss = text_losses(pair, terms, range(6), moving, alpha, 2.0)
    loss.sum().backward()
    assert loss.abs().max() < 1e-6
    assert moving.grad.abs().max() < 1e-5


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_transfer_lowers_its_own_loss_and_moves_nothing_else(small, large, tmp_path, alpha):
    pair, prompt = pair_of(small, large), tuned(small)
    before, kept = (state(small), state(large)), prompt.clone()
    rows, losses = moved(pair, prompt, tmp_path, alpha, steps=40)
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])
    assert same(small, before[0])
    assert same(large, before[1])
    assert torch.equal(prompt, kept)
    assert rows.shape == (4, large.width)


@pytest.mark.parametrize("score", ["probability", "logit"])
def test_a_calibrated_reader_favours_no_class_of_the_public_texts_behind_any_prompt(small, large, score):
    task = Task(TASK.labels, TASK.cue, TASK.words, score)
    plain, less = (
        [make_reader(net, task, 16, prompt_tokens=4, public=public) for net in (small, large)] for public in ((), TEXTS)
    )
    prompt = tuned(small)
    judges = [
        [a, b, a.behind(prompt), *(ShiftedReader(b, a, prompt, full) for full in (True, False))]
        for a, b in (plain, less)
    ]
    gaps = []
    for bare, judge in zip(*judges, strict=True):
        assert bare.offset is None
        before, found = bare.class_scores(TEXTS), judge.class_scores(TEXTS)
        assert found.mean(0).abs().max() < 1e-4
        assert found.std(0).max() > 1e-3
        gaps.append(before - found)  # one constant for each class
        torch.testing.assert_close(gaps[-1], judge.offset.float().expand_as(before), rtol=0, atol=1e-4)
    assert (gaps[0][0] - gaps[2][0]).abs().max() > 1e-3  # that behind a prompt is its own
    assert less[0].behind(prompt).behind(None).offset.tolist() == pytest.approx(less[0].offset.tolist())
    new = ["the film it was bad", "good"]
    other = make_reader(small, task, 16, prompt_tokens=4, public=TEXTS).behind(prompt).class_scores(new)
    torch.testing.assert_close(other, plain[0].behind(prompt).class_scores(new) - less[0].behind(prompt).offset.float())


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_calibrated_transfer_does_not_see_what_a_model_says_of_every_text(small, large, tmp_path, alpha):
    pair = replace(pair_of(small, large, "words"), calibrated=True)
    prompt, moving = tuned(small), tuned(large, seed=1)
    terms = TeacherTerms(tmp_path, pair, prompt, QUIET)
    before = text_losses(pair, terms, range(6), moving, alpha, 2.0)
    bare = replace(pair, calibrated=False)
    bare_before = text_losses(bare, terms, range(6), moving, alpha, 2.0)
    known = np.array(terms._terms)
    for shifted_terms in ([0], [1], [0, 1]):  # behind the prompt, without it, both
        terms._terms, terms._means = known.copy(), None
        terms._terms[shifted_terms] += np.array([2.0, -1.0], dtype=np.float32)
        torch.testing.assert_close(text_losses(pair, terms, range(6), moving, alpha, 2.0), before, rtol=1e-3, atol=1e-4)
        seen = text_losses(bare, terms, range(6), moving, alpha, 2.0)
        unseen = torch.allclose(seen, bare_before, rtol=1e-2, atol=1e-3)
        assert unseen is ((alpha == 1.0 and shifted_terms == [0, 1]) or (alpha == 0.0 and shifted_terms == [1]))
    terms._terms, terms._means = known, None
    with_mean, without_mean, large_mean = (torch.from_numpy(term.mean(0)) for term in known)
    with_prompt, without, large_without = terms.of(range(6), large.device)
    own = pair.match.of_large(scores_at(large, collate(large, pair.large_rows[:6]), moving))
    wanted = transfer_losses(
        with_prompt - with_mean, without - without_mean, own - large_mean, large_without - large_mean,
        alpha=alpha, temperature=2.0,
    )  # fmt: skip
    torch.testing.assert_close(before, wanted, rtol=1e-3, atol=1e-5)


def test_a_transfer_goes_on_only_with_the_texts_and_tokens_it_began_with(small, large, tmp_path):
    pair, prompt = pair_of(small, large, "words"), tuned(small)
    others = replace(pair, small_rows=pair.small_rows[::-1][:16], large_rows=pair.large_rows[::-1][:16])
    for i, other in enumerate((others, replace(pair, calibrated=True), pair_of(small, large, "full"))):
        first, _ = moved(pair, prompt, tmp_path / str(i))
        again, _ = moved(other, prompt, tmp_path / str(i))
        fresh, _ = moved(other, prompt, tmp_path / f"fresh {i}")
        assert torch.equal(again, fresh)
        assert not torch.equal(again, first)


def test_terms_are_what_the_models_say_and_carry_no_gradient(small, large, tmp_path):
    pair, prompt = pair_of(small, large), torch.nn.Parameter(tuned(small))
    terms = TeacherTerms(tmp_path, pair, prompt, QUIET)
    for found, net, rows, behind in zip(
        terms.of([3, 7], large.device),
        (small, small, large),
        (pair.small_rows, pair.small_rows, pair.large_rows),
        (prompt, None, None),
        strict=True,
    ):
        assert not found.requires_grad
        wanted = scores_at(net, collate(net, [rows[3], rows[7]]), behind).detach()
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    moving = torch.nn.Parameter(initial_rows(large, "it was", 4))
    text_losses(pair, terms, [0, 1], moving, 0.5, 2.0).sum().backward()
    assert prompt.grad is None
    assert moving.grad is not None


def test_terms_are_computed_once(small, large, tmp_path, monkeypatch):
    pair, prompt = pair_of(small, large), tuned(small)
    first = TeacherTerms(tmp_path, pair, prompt, QUIET).of([0, 5], large.device)
    monkeypatch.setattr(Net, "hidden", lambda *a: pytest.fail("a model was run again"))
    again = TeacherTerms(tmp_path, pair, prompt, QUIET).of([0, 5], large.device)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    with pytest.raises(pytest.fail.Exception):
        TeacherTerms(tmp_path, pair, prompt + 1, QUIET)
    other = replace(pair.match, small=pair.match.small.flip(0), large=pair.match.large.flip(0))
    with pytest.raises(pytest.fail.Exception):  # as many tokens of the same kind, but others
        TeacherTerms(tmp_path, replace(pair, match=other), prompt, QUIET)


def test_every_step_runs_the_large_model_alone(small, large, tmp_path, monkeypatch):
    pair, prompt = pair_of(small, large), tuned(small)
    TeacherTerms(tmp_path, pair, prompt, QUIET)
    ran = []
    real = Net.hidden
    monkeypatch.setattr(Net, "hidden", lambda self, e, m: (ran.append(self is large), real(self, e, m))[1])
    moved(pair, prompt, tmp_path, steps=5)
    assert ran == [True] * 5


def test_the_last_step_is_kept_even_if_an_earlier_one_was_better(small, large, tmp_path):
    """Steps this wild go up and down; what comes out is what a loop of as many steps ends at, not its best."""
    pair, prompt = pair_of(small, large), tuned(small)
    ends = {}
    for steps in (4, 6, 9):
        ends[steps] = moved(pair, prompt, tmp_path / str(steps), steps=steps, learning_rate=3.0)
    losses = ends[9][1]
    assert any(later > earlier for earlier, later in pairwise(losses))
    for steps, (rows, found) in ends.items():
        assert found == losses[:steps]
        assert all(not torch.equal(rows, other) for n, (other, _) in ends.items() if n != steps)


def test_a_resumed_transfer_takes_the_same_steps(small, large, tmp_path, monkeypatch):
    pair, prompt = pair_of(small, large), tuned(small)
    whole = moved(pair, prompt, tmp_path / "whole")
    run, save = loops.run, loops._save

    def cut(*arguments):
        save(*arguments)
        if len(arguments[-1]) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(loops, "run", lambda *a, **k: run(*a, **{**k, "every": 0.0}))
    monkeypatch.setattr(loops, "_save", cut)
    with pytest.raises(KeyboardInterrupt):
        moved(pair, prompt, tmp_path / "cut")
    monkeypatch.setattr(loops, "_save", save)
    rows, losses = moved(pair, prompt, tmp_path / "cut")
    assert torch.equal(rows, whole[0])
    assert losses == whole[1]
    other, _ = moved(pair, prompt, tmp_path / "cut", alpha=0.6)
    assert not torch.equal(other, rows)


def test_seeds_differ_in_the_order_of_texts_alone(small, large, tmp_path):
    pair, prompt = pair_of(small, large), tuned(small)
    a, b = (moved(pair, prompt, tmp_path / str(seed), seed=seed)[0] for seed in (0, 1))
    assert not torch.equal(a, b)
    whole = [moved(pair, prompt, tmp_path / f"w{seed}", seed=seed, batch_size=24)[0] for seed in (0, 1)]
    torch.testing.assert_close(whole[0], whole[1], rtol=1e-3, atol=1e-4)


def test_losses_of_a_batch_are_the_formula_on_the_models_scores(small, large, tmp_path):
    pair, prompt = pair_of(small, large), tuned(small)
    terms = TeacherTerms(tmp_path, pair, prompt, QUIET)
    start = initial_rows(large, "say what it was", 4)
    found = text_losses(pair, terms, [2, 9], start, 0.3, 2.0)
    rows = [pair.large_rows[i] for i in (2, 9)]
    a, b, d = terms.of([2, 9], large.device)
    c = scores_at(large, collate(large, rows), start)
    torch.testing.assert_close(found, transfer_losses(a, b, c, d, alpha=0.3, temperature=2.0))


def test_written_answers_count_at_every_place(models, tmp_path):
    large = open_net(models["llama"], {"dtype": "float32", "device": "cpu"})
    small = Net(shrunk(large, (0, 5), untie=True), large.tokenizer, large.folder, large.device, False)
    task = Task((), " it was", ())
    answers = ["warm kind" if i % 2 else "cold rude slow" for i in range(len(TEXTS))]
    rows = [
        tuple(make_reader(net, task, 16, prompt_tokens=4, answer_tokens=4).layout.rows(TEXTS, answers))
        for net in (small, large)
    ]
    pair = Pair(small, large, *rows, match(small, large, "full", task))
    prompt = tuned(small)
    terms = TeacherTerms(tmp_path, pair, prompt, QUIET)
    found = text_losses(pair, terms, [0, 1], initial_rows(large, "it was", 4), 0.0, 2.0)
    alone = []
    for i in (0, 1):
        places = rows[1][i].places
        assert len(places) == 4 - i
        a, b, d = terms.of([i], large.device)
        c = scores_at(large, collate(large, [rows[1][i]]), initial_rows(large, "it was", 4))
        alone.append(transfer_losses(a, b, c, d, alpha=0.0, temperature=2.0).sum())
    torch.testing.assert_close(found, torch.stack(alone))


def test_the_large_model_answers_like_the_small_one_behind_its_prompt(models, tmp_path):
    """The small model's prompt tells moods apart, and so does the moved one, on texts that neither has seen."""
    large = open_net(models["llama"], {"dtype": "float32", "device": "cpu"})
    body = shrunk(large, (0, 5), untie=True).requires_grad_(False)
    small = Net(body, large.tokenizer, large.folder, large.device, large.masked)
    readers = [make_reader(net, TASK, 16, prompt_tokens=4) for net in (small, large)]
    train, test, public = sentences(48, seed=1), sentences(40, seed=2), sentences(64, seed=9)
    classes = tuple(TASK.labels.index(row["mood"]) for row in train)
    lesson = Lesson(tuple(readers[0].layout.rows([row["text"] for row in train])), classes)
    tuned_rows = tune_plainly(
        small, lesson, readers[0].verbalizer, initial_rows(small, "say what it was", 4),
        TuningConfig(batch_size=24, epochs=25, learning_rate=0.05), name="s", seed=0, folder=None, progress=QUIET,
    )  # fmt: skip
    prompt = rows_of(tuned_rows)
    texts = [row["text"] for row in public]
    pair = Pair(small, large, *(tuple(r.layout.rows(texts)) for r in readers), match(small, large, "full", TASK))
    rows, _ = moved(pair, prompt, tmp_path, 0.0, steps=200, batch_size=12, learning_rate=0.03)
    wanted = torch.tensor([TASK.labels.index(row["mood"]) for row in test])

    def accuracy(reader, behind):
        held = reader.layout.rows([row["text"] for row in test])
        found = class_probabilities(reader.net, held, reader.verbalizer, behind).argmax(1)
        return float((found == wanted).float().mean())

    assert accuracy(readers[0], prompt) > 0.9
    assert accuracy(readers[1], rows) > 0.8 > accuracy(readers[1], prompt)
