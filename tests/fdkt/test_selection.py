import pytest
from privkt_fdkt.config import FDKTConfig
from privkt_fdkt.prompts import selection_prompt
from privkt_fdkt.selection import select

from privkt.contracts import LabelledText
from privkt.synthesis.templates import TemplateConfig, make_template

AGNEWS = make_template(TemplateConfig(name="agnews"), ("0", "1", "2", "3"))
ROWS = [LabelledText(f"A piece of news about thing number {i}.", str(i % 2)) for i in range(16)]


@pytest.mark.parametrize("chat", [False, True])
def test_the_prompt_contains_every_sample_with_its_label(chat):
    prompt = selection_prompt(ROWS, AGNEWS, chat=chat)
    text = prompt if isinstance(prompt, str) else "\n".join(turn.content for turn in prompt)
    for i, row in enumerate(ROWS, start=1):
        assert f"{i}. [{AGNEWS.names[row.label]}] {row.text}" in text
    assert "AGnews" in text


@pytest.fixture
def chosen(fakes, tmp_path):
    def run(answer, chat=False):
        llm = fakes["llm"]()
        llm.keep = answer
        config = FDKTConfig(template={"name": "agnews"}, cluster_size=4)
        found = select(
            ROWS,
            llm.embed([r.text for r in ROWS]),
            AGNEWS,
            llm,
            config,
            chat=chat,
            seed=0,
            journal=tmp_path / "s.jsonl",
        )
        return found, llm

    return run


def test_kept_positions_are_of_the_own_cluster(chosen):
    found, llm = chosen(" 1, 2, 3")
    assert len(found.rows) == 12
    assert found.clusters == len(llm.prompts) == 4
    assert list(found.rows) == [row for row in ROWS if row in found.rows]


def test_an_unreadable_answer_keeps_its_cluster_and_is_counted(chosen):
    found, _ = chosen("these are nice")
    assert found.to_json() == {"came": 16, "kept": 16, "clusters": 4, "unreadable_answers": 4}


def test_a_label_is_never_left_without_a_text(chosen):
    found, _ = chosen("none")
    assert {row.label for row in found.rows} == {"0", "1"}
    assert found.unreadable == 0


def test_the_choice_is_not_sampled(chosen):
    _, llm = chosen("1")
    assert {s.temperature for s in llm.samplings} == {0.0}
