"""Which public set: by what the released prompt makes of it, or by private votes."""

import torch
from post_models import LABELS, MOODS
from privkt_post.answering import make_reader
from privkt_post.candidates import features, informativeness, sampled, votes
from privkt_post.networks import open_net
from privkt_post.prompts import initial_rows
from privkt_post.tasks import Task

from privkt.contracts import Rows

TASK = Task(tuple(LABELS), " it was", (("bad",), ("good",)))


def reader_of(llama):
    return make_reader(open_net(llama, {"dtype": "float32", "device": "cpu"}), TASK, 16, prompt_tokens=4)


def test_samples_are_of_the_seed_and_in_order():
    rows = Rows(tuple(map(str, range(50))))
    found = sampled(rows, 10, 3)
    assert found == sorted(set(found)) == sampled(rows, 10, 3)
    assert found != sampled(rows, 10, 4)
    assert sampled(rows, 90, 3) == list(range(50))


def test_every_text_votes_once_for_the_set_that_is_most_like_it(llama):
    reader = reader_of(llama)
    cold = reader.layout.rows([f"the meal was {word} {word}" for word in MOODS["negative"]])
    warm = reader.layout.rows([f"they said {word} staff" for word in MOODS["positive"]])
    assert votes(reader.net, cold[:3], [cold[3:], warm], 17) == [3, 0]
    assert votes(reader.net, warm, [cold, warm[:2]], 17) == [0, 6]
    norms = features(reader.net, cold, 17).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(6))


def test_a_set_on_which_the_prompt_is_sure_of_several_classes_says_most(llama, monkeypatch):
    from privkt_post import candidates

    reader, prompt = reader_of(llama), initial_rows(reader_of(llama).net, "it was", 4)
    answers = {
        1: torch.tensor([[0.99, 0.01], [0.01, 0.99]]),
        2: torch.tensor([[0.99, 0.01], [0.99, 0.01]]),
        3: torch.tensor([[0.5, 0.5], [0.5, 0.5]]),
    }
    monkeypatch.setattr(candidates, "class_probabilities", lambda net, rows, v, p: answers[len(rows)])
    found = [informativeness(reader.net, [None] * n, reader.verbalizer, prompt) for n in (1, 2, 3)]
    assert found[0] > 0.6
    assert abs(found[1]) < 1e-6
    assert abs(found[2]) < 1e-6
