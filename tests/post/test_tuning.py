"""Prompt tuning, plain and private: PEFT's form, losses, what moves, and that a record's bound is the engine's."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from post_models import LABELS, sentences
from privkt_post.answering import make_reader
from privkt_post.config import TuningConfig
from privkt_post.inputs import collate, scores_at
from privkt_post.networks import open_net
from privkt_post.prompts import initial_rows, rows_of, to_message, wrapped
from privkt_post.tasks import Task
from privkt_post.tuning import Lesson, lesson_losses, tune_plainly, tune_privately
from privkt_post.verbalizers import class_probabilities

from privkt.contracts import NoProgress, Privacy, SoftPrompt
from privkt.dpsgd.training import PrivateTraining
from privkt.privacy import Budget, RefusedInput

QUIET = NoProgress()
TASK = Task(tuple(LABELS), " it was", (("bad", "poor"), ("good", "great")))
ROWS = sentences(48, seed=1)


@pytest.fixture(scope="module", params=["llama", "bert"])
def reader(request, models):
    net = open_net(models[request.param], {"dtype": "float32", "device": "cpu"})
    return make_reader(net, TASK, 16, prompt_tokens=4)


@pytest.fixture
def llama_reader(models):
    return make_reader(open_net(models["llama"], {"dtype": "float32", "device": "cpu"}), TASK, 16, prompt_tokens=4)


def lesson_of(reader, count=48):
    rows = ROWS[:count]
    return Lesson(tuple(reader.layout.rows([r["text"] for r in rows])), tuple(LABELS.index(r["mood"]) for r in rows))


def start_of(reader):
    return initial_rows(reader.net, "say what it was", 4)


def privately(reader, lesson, folder=None, epsilon=8.0, **changes):
    settings = TuningConfig(**{"batch_size": 24, "epochs": 4, "learning_rate": 0.02, **changes})
    privacy = Privacy(Budget(epsilon, 1e-3), len(lesson), "run", "purpose", "mark", "id")
    return tune_privately(
        reader.net, lesson, reader.verbalizer, start_of(reader), settings, privacy, width=reader.layout.width,
        name="student", folder=folder, progress=QUIET,
    )  # fmt: skip


def plainly(reader, lesson, folder=None, seed=0, **changes):
    settings = TuningConfig(**{"batch_size": 16, "epochs": 8, "learning_rate": 0.02, **changes})
    return tune_plainly(
        reader.net, lesson, reader.verbalizer, start_of(reader), settings, name="student", seed=seed, folder=folder,
        progress=QUIET,
    )  # fmt: skip


def accuracy(reader, lesson, prompt):
    found = class_probabilities(reader.net, lesson.rows, reader.verbalizer, prompt)
    torch.testing.assert_close(found.sum(1), torch.ones(len(lesson)))
    return float((found.argmax(1).numpy() == np.array(lesson.classes)).mean())


def test_a_plain_prompt_learns_and_the_backbone_stays_bit_for_bit(reader):
    before = {name: p.clone() for name, p in reader.net.network.state_dict().items()}
    lesson = lesson_of(reader)
    prompt = rows_of(plainly(reader, lesson, epochs=30, learning_rate=0.05))
    assert accuracy(reader, lesson, prompt) > 0.85
    assert all(torch.equal(p, before[name]) for name, p in reader.net.network.state_dict().items())


def test_a_private_prompt_moves_and_the_backbone_stays_bit_for_bit(reader):
    before = {name: p.clone() for name, p in reader.net.network.state_dict().items()}
    release = privately(reader, lesson_of(reader))
    assert isinstance(release.payload, SoftPrompt)
    assert 7.9 < release.guarantee.epsilon <= 8.0
    assert "epsilon = 8" in release.payload.files["README.md"].decode()
    assert not torch.equal(rows_of(release.payload), start_of(reader))
    assert all(torch.equal(p, before[name]) for name, p in reader.net.network.state_dict().items())


def test_peft_loads_a_prompt_and_computes_the_same(reader):
    rows = start_of(reader) + 0.1
    message = to_message(reader.net, rows, name="tiny", card="card")
    batch = collate(reader.net, lesson_of(reader, 5).rows)
    wanted = scores_at(reader.net, batch, rows)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in message.files.items():
            Path(folder, name).write_bytes(content)
        base = open_net(reader.net.folder, {"dtype": "float32", "device": "cpu"}).network
        model = PeftModel.from_pretrained(base, folder).eval()
    with torch.no_grad():
        logits = model(input_ids=batch.ids, attention_mask=batch.mask).logits
    torch.testing.assert_close(logits[batch.owners, batch.places + 4], wanted, rtol=1e-4, atol=1e-4)


def test_private_and_plain_prompts_have_one_form(llama_reader):
    private, plain = (
        privately(llama_reader, lesson_of(llama_reader)).payload,
        plainly(llama_reader, lesson_of(llama_reader)),
    )
    assert sorted(private.files) == sorted(plain.files)
    assert rows_of(private).shape == rows_of(plain).shape
    assert "without any privacy" in plain.files["README.md"].decode()


@pytest.mark.parametrize(("optimizer", "kind"), [("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_the_optimizer_is_the_one_asked_for_with_privacy_too(llama_reader, monkeypatch, optimizer, kind):
    seen = []
    real = PrivateTraining.__init__

    def watched(self, model, optimizer, *a, **k):
        seen.append((type(optimizer), k["batch_size"], k["max_grad_norm"]))
        real(self, model, optimizer, *a, **k)

    monkeypatch.setattr(PrivateTraining, "__init__", watched)
    privately(llama_reader, lesson_of(llama_reader), optimizer=optimizer, max_grad_norm=0.5)
    assert seen == [(kind, 24, 0.5)]


def test_only_the_rows_of_the_prompt_are_trained(reader):
    model = wrapped(reader.net, start_of(reader))
    trained = [p for p in model.parameters() if p.requires_grad]
    assert [tuple(p.shape) for p in trained] == [(4, reader.net.width)]
    assert torch.equal(trained[0], start_of(reader))


def test_two_prompts_of_one_start_share_nothing(llama_reader):
    start = start_of(llama_reader)
    kept = start.clone()
    plainly(llama_reader, lesson_of(llama_reader), epochs=1)
    first = wrapped(llama_reader.net, start)
    with torch.no_grad():
        first.prompt_encoder["default"].embedding.weight.add_(1)
    assert torch.equal(start, kept)
    assert torch.equal(initial_rows(llama_reader.net, "say what it was", 4), kept)


def test_losses_are_cross_entropy_over_class_scores(reader):
    lesson = lesson_of(reader, 6)
    prompt = start_of(reader)
    found = lesson_losses(reader.net, lesson, reader.verbalizer, prompt)
    p = scores_at(reader.net, collate(reader.net, lesson.rows), prompt).softmax(-1)
    means = torch.stack([p[:, ids].mean(1) for ids in reader.verbalizer.ids], 1)
    wanted = -(means / means.sum(1, keepdim=True)).log()[range(6), list(lesson.classes)]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_written_answers_add_up_over_their_places(models):
    net = open_net(models["llama"], {"dtype": "float32", "device": "cpu"})
    reader = make_reader(net, Task((), " it was", ()), 16, prompt_tokens=4, answer_tokens=4)
    rows = tuple(reader.layout.rows(["the meal", "the room"], ["warm kind", "cold"]))
    prompt = start_of(reader)
    found = lesson_losses(net, Lesson(rows), None, prompt)
    for row, loss in zip(rows, found, strict=True):
        scores = scores_at(net, collate(net, [row]), prompt)
        torch.testing.assert_close(loss, F.cross_entropy(scores, torch.tensor(row.targets), reduction="sum"))
    assert len(rows[0].targets) == 3


def test_a_prompt_learns_to_write(models):
    net = open_net(models["llama"], {"dtype": "float32", "device": "cpu"})
    reader = make_reader(net, Task((), " it was", ()), 16, prompt_tokens=4, answer_tokens=3)
    lesson = Lesson(tuple(reader.layout.rows([r["text"] for r in ROWS], ["warm kind"] * 48)))
    before = lesson_losses(net, lesson, None, start_of(reader)).mean()
    after = lesson_losses(net, lesson, None, rows_of(plainly(reader, lesson, epochs=15, learning_rate=0.05))).mean()
    assert after < 0.5 * before


def test_a_cut_plain_tuning_goes_on(llama_reader, tmp_path, monkeypatch):
    from privkt_post import loops

    lesson = lesson_of(llama_reader)
    whole = plainly(llama_reader, lesson, tmp_path / "whole")
    run, save = loops.run, loops._save

    def cut(*arguments):
        save(*arguments)
        if len(arguments[-1]) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(loops, "run", lambda *a, **k: run(*a, **{**k, "every": 0.0}))
    monkeypatch.setattr(loops, "_save", cut)
    with pytest.raises(KeyboardInterrupt):
        plainly(llama_reader, lesson, tmp_path / "cut")
    monkeypatch.setattr(loops, "_save", save)
    assert plainly(llama_reader, lesson, tmp_path / "cut").files == whole.files
    assert plainly(llama_reader, lesson, tmp_path / "other", seed=1).files != whole.files


@pytest.mark.parametrize("rows", [torch.zeros(4, 31), torch.full((4, 32), torch.nan)])
def test_a_prompt_that_does_not_fit_is_refused(llama_reader, rows):
    message = to_message(llama_reader.net, rows, name="tiny", card="")
    with pytest.raises(RefusedInput, match="rows of 32 finite numbers"):
        rows_of(message, 32)


def test_the_first_rows_are_a_sentences_embeddings_repeated(reader):
    rows = initial_rows(reader.net, "say what", 5)
    ids = torch.tensor(reader.net.tokenizer("say what say what say", add_special_tokens=False)["input_ids"])
    assert torch.equal(rows, reader.net.embed(ids))
    with pytest.raises(RefusedInput, match="at least one token"):
        initial_rows(reader.net, " ", 5)
