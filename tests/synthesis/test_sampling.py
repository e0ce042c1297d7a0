import itertools

import pytest

from privkt.contracts import Backend, BackendContext, Example, Generation, Rows, Sampling
from privkt.privacy import RefusedInput
from privkt.synthesis.finetune import FinetuneConfig, generator_examples
from privkt.synthesis.sampling import SamplingRule, sample_labelled
from privkt.synthesis.templates import TemplateConfig, make_template

TEMPLATE = make_template(TemplateConfig(control="Mood: {label}"), ("good", "bad"))


class Scripted(Backend):
    """Writes what a function of (prompt, draw number) says."""

    def __init__(self, write):
        super().__init__({}, BackendContext())
        self.write, self.prompts, self.seeds, self.count = write, [], [], itertools.count()

    @property
    def name(self):
        return "scripted"

    def probe(self):
        return frozenset()

    def generate(self, prompts, sampling, progress=None):
        self.prompts += prompts
        self.seeds.append(sampling.seed)
        return [Generation(self.write(p, next(self.count))) for p in prompts]


def long(number):
    return f"this is a text of many words and it is number {number}"


def rule(**changes):
    return SamplingRule(**{"per_label": 5, "sampling": Sampling(seed=3)} | changes)


def test_every_label_gets_the_declared_number_and_the_codes_label():
    backend = Scripted(lambda prompt, i: long(i))
    sampled = sample_labelled(backend, TEMPLATE, rule())
    assert sampled.texts.label == ("good",) * 5 + ("bad",) * 5
    assert backend.prompts == ["Mood: good\n"] * 5 + ["Mood: bad\n"] * 5
    assert not sampled.short


def test_the_label_is_never_predicted_again():
    sampled = sample_labelled(Scripted(lambda p, i: f"a bad, bad, bad one {long(i)}"), TEMPLATE, rule())
    assert sampled.texts.label.count("good") == 5


def test_invalid_texts_are_drawn_again_under_another_seed():
    backend = Scripted(lambda prompt, i: "short" if i % 3 == 0 else long(i))
    sampled = sample_labelled(backend, TEMPLATE, rule())
    assert len(sampled.texts) == 10
    assert sampled.report.kept == 10
    assert sampled.report.dropped == {"too few words": sampled.report.came - 10}
    assert len(set(backend.seeds)) == len(backend.seeds) > 1


def test_drawing_ends_at_the_declared_maximum():
    backend = Scripted(lambda prompt, i: long(i) if "good" in prompt else "short")
    sampled = sample_labelled(backend, TEMPLATE, rule(attempts=3.0))
    assert sampled.draws == {"good": 5, "bad": 15}
    assert sampled.short == {"bad": 5}
    assert sampled.texts.label == ("good",) * 5


def test_duplicates_do_not_count():
    sampled = sample_labelled(Scripted(lambda prompt, i: long(i // 2)), TEMPLATE, rule(attempts=2.0))
    assert len(set(sampled.texts)) == len(sampled.texts)
    assert sampled.report.dropped["exact duplicate"] > 0


def test_a_text_ends_where_the_next_record_begins():
    sampled = sample_labelled(Scripted(lambda p, i: f"{long(i)}\nMood: bad\nanother one"), TEMPLATE, rule())
    assert all("another" not in text for text in sampled.texts.text)


@pytest.mark.parametrize("change", [{"per_label": 0}, {"attempts": 0.5}])
def test_bad_rules_are_refused(change):
    with pytest.raises(RefusedInput, match="must be at least 1"):
        rule(**change)


def test_one_example_a_record():
    rows = Rows(("Fine\nfood.", "Cold soup."), ("good", "bad"), ("0", "1"))
    assert generator_examples(rows, TEMPLATE) == [
        Example("Mood: good\n", "Fine food."),
        Example("Mood: bad\n", "Cold soup."),
    ]


@pytest.mark.parametrize(("labels", "said"), [(None, "must name the column"), (("good", "canary"), "row 2")])
def test_rows_without_declared_labels_are_refused(labels, said):
    with pytest.raises(RefusedInput, match=said) as refused:
        generator_examples(Rows(("a", "b"), labels, ("0", "1")), TEMPLATE)
    assert "canary" not in str(refused.value)


def test_the_recipe_takes_the_models_lora_unless_it_has_its_own():
    assert FinetuneConfig().recipe({"lora": {"rank": 8}}, 0).lora == {"rank": 8}
    assert FinetuneConfig(lora={"rank": 2}).recipe({"lora": {"rank": 8}}, 0).lora == {"rank": 2}
    assert FinetuneConfig(train_on_code=True).recipe({}, 0).train_on_prompt
