import pytest

from privkt.contracts import Backend, BackendContext, BackendError, Generation, Sampling
from privkt.synthesis.asking import ask


class Echo(Backend):
    """Answers with the prompt in capitals; dies after `alive` prompts."""

    def __init__(self, alive=1000):
        super().__init__({}, BackendContext())
        self.alive, self.asked = alive, []

    @property
    def name(self):
        return "echo"

    def probe(self):
        return frozenset()

    def generate(self, prompts, sampling, progress=None):
        if len(self.asked) + len(prompts) > self.alive:
            raise BackendError("echo: the server went away; start it and resume")
        self.asked += prompts
        return [Generation(f"{p.upper()} {sampling.seed}", "stop", 1) for p in prompts]


PROMPTS = [f"p{i}" for i in range(7)]


def test_answers_come_in_order():
    answers = ask(Echo(), PROMPTS, Sampling(seed=5), portion=3)
    assert [a.text for a in answers] == ["P0 5", "P1 5", "P2 5", "P3 8", "P4 8", "P5 8", "P6 11"]


def test_a_dead_server_loses_no_answer(tmp_path):
    journal = tmp_path / "answers.jsonl"
    with pytest.raises(BackendError):
        ask(Echo(alive=5), PROMPTS, Sampling(seed=5), journal=journal, portion=3)
    again = Echo()
    answers = ask(again, PROMPTS, Sampling(seed=5), journal=journal, portion=3)
    assert again.asked == PROMPTS[3:]
    assert answers == ask(Echo(), PROMPTS, Sampling(seed=5), portion=3)


def test_a_torn_line_is_asked_again(tmp_path):
    journal = tmp_path / "answers.jsonl"
    ask(Echo(), PROMPTS, Sampling(), journal=journal, portion=1)
    journal.write_bytes(journal.read_bytes()[:-4])
    again = Echo()
    assert len(ask(again, PROMPTS, Sampling(), journal=journal, portion=1)) == 7
    assert again.asked == PROMPTS[6:]
    assert ask(Echo(alive=0), PROMPTS, Sampling(), journal=journal)[6].text == "P6 None"


@pytest.mark.parametrize("change", ["prompts", "sampling"])
def test_a_journal_of_other_questions_is_not_used(tmp_path, change):
    journal = tmp_path / "answers.jsonl"
    ask(Echo(), PROMPTS, Sampling(), journal=journal)
    again = Echo()
    prompts = [*PROMPTS[:-1], "other"] if change == "prompts" else PROMPTS
    ask(again, prompts, Sampling(temperature=0.5) if change == "sampling" else Sampling(), journal=journal)
    assert again.asked == prompts


def test_nothing_is_kept_without_a_journal(tmp_path):
    ask(Echo(), PROMPTS, Sampling())
    assert not list(tmp_path.iterdir())
