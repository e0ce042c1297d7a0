"""Faults of the published code; each test here holds one of them shut, by its number on the method's page."""

import pytest
from privkt_fdkt.config import FDKTConfig
from privkt_fdkt.method import FDKT
from privkt_fdkt.prompts import selection_prompt

from privkt.contracts import LabelledText, PublicFacts
from privkt.privacy import Budget
from privkt.synthesis.labels import match_label
from privkt.synthesis.parsing import labelled_texts
from privkt.synthesis.templates import TemplateConfig, make_template

AGNEWS = make_template(TemplateConfig(name="agnews"), ("world", "sports", "business", "science and technology"))
YELP = make_template(TemplateConfig(name="yelp"), ("1", "2", "3", "4", "5"))


@pytest.fixture
def tuned(make_client, template_block):
    """(client, generator) after the private fine-tune with further settings of the generator's recipe."""

    def run(**generator):
        config = FDKTConfig.model_validate({"template": template_block, "generator": generator})
        client = make_client(size=60)
        FDKT(config).tune(client)
        return client, client.models["generator"], config

    return run


def test_1_the_loader_that_was_accounted_is_the_one_that_runs(tuned):
    """No loader, sampler or order is handed over: batches are drawn by what computes the epsilon."""
    client, generator, config = tuned(batch_size=20, epochs=5)
    ((examples, recipe, privacy),) = generator.trained
    (planned,) = FDKT(config).plan(PublicFacts("a", 60, ("negative", "positive")), Budget(8.0, 1e-5)).trainings
    assert planned.sampling_rate == recipe.batch_size / privacy.size
    assert planned.steps == recipe.epochs * privacy.size / recipe.batch_size
    assert isinstance(examples, list)
    assert client.state.load_release("generator").charge is not None


def test_2_the_logical_batch_does_not_depend_on_memory(tuned):
    _, generator, _ = tuned(batch_size=60, microbatch_size=4)
    ((_, recipe, _),) = generator.trained
    assert (recipe.batch_size, recipe.microbatch_size) == (60, 4)


def test_3_any_generator_and_adapters(tuned):
    _, generator, _ = tuned(batch_size=20, lora={"rank": 4, "alpha": 32})
    ((_, recipe, _),) = generator.trained
    assert recipe.lora == {"rank": 4, "alpha": 32}


@pytest.mark.parametrize("chat", [False, True])
def test_4_the_agnews_selection_prompt_contains_the_samples(chat):
    rows = [LabelledText(f"Some news, number {i}.", AGNEWS.labels[i % 4]) for i in range(4)]
    prompt = selection_prompt(rows, AGNEWS, chat=chat)
    said = prompt if isinstance(prompt, str) else "\n".join(turn.content for turn in prompt)
    assert all(row.text in said for row in rows)


def test_4_agnews_labels_parse_to_the_label():
    assert match_label("world.\n-", AGNEWS.names) == "world"
    rows, _ = labelled_texts(f"{AGNEWS.code('world')}.\n-\nMinisters met in Geneva.", AGNEWS)
    assert rows == [LabelledText("Ministers met in Geneva.", "world")]


@pytest.mark.parametrize("delimiter", ["---", "###", "======", "```", "<|im_end|>"])
def test_4_an_echoed_delimiter_loses_no_yelp_review(delimiter):
    reviews = [LabelledText("The soup was cold.", "1"), LabelledText("We will come back.", "5")]
    answer = "\n".join(f"{delimiter}\n{YELP.render(*row)}\n{delimiter}" for row in reviews)
    assert labelled_texts(answer, YELP)[0] == reviews


def test_6_answers_come_in_portions_and_are_kept(make_client, make_server, template_block):
    config = FDKTConfig.model_validate(
        {"template": template_block, "samples_per_label": 8, "prompts": 11, "llm": {"portion": 4}}
    )
    client, server = make_client(), make_server("a")
    FDKT(config).tune(client)
    received = {"a": FDKT(config).synthesize(client).payload}
    FDKT(config).augment(server, received)
    portions = len(server.models["llm"].samplings)
    assert portions == 1 + 3
    again = FDKT(config).augment(server, received)
    assert len(server.models["llm"].samplings) == portions
    assert len(again["a"]) > 0


def test_7_the_epsilon_and_the_overlap_are_reported(make_client, make_server, template_block):
    config = FDKTConfig.model_validate(
        {"template": template_block, "samples_per_label": 8, "prompts": 8, "canaries": ["Ada Quill"]}
    )
    (training,) = FDKT(config).plan(PublicFacts("a", 2000, ("negative", "positive")), Budget(8.0, 1e-5)).trainings
    assert 7.9 < training.guarantee.epsilon <= 8.0
    client, server = make_client(), make_server("a")
    FDKT(config).tune(client)
    release = FDKT(config).synthesize(client)
    outcome = FDKT(config).learn(client, FDKT(config).augment(server, {"a": release.payload})["a"])
    for made in ("synthetic", "fdkt"):
        assert outcome.notes["overlap"][made]["canaries_repeated"] == 0.0
        assert outcome.notes["overlap"][made]["longest_common_words"] > 0
