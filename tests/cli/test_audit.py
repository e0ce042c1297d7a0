"""`privkt audit` by the real command: what it prints, how it ends, what it refuses, and that it spends nothing."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from privkt.evaluation.sample_vocabulary import NAME
from privkt.plugins import MechanismSpec, get_manager, hookimpl

CANARY = "canary7f3a"


class Liar:
    """Randomised response that promises half of what it costs."""

    def __new__(cls, labels, epsilon):
        from dataclasses import replace

        honest = get_manager().create("mechanism", "randomised_response", labels, epsilon)
        whole = type(honest).guarantee.fget(honest)

        class Found(type(honest)):
            guarantee = replace(whole, epsilon=whole.epsilon / 2)

        honest.__class__ = Found
        return honest


@pytest.fixture
def liar():
    """A mechanism whose promise is a lie, under a name of its own, for as long as the test."""

    class Plugin:
        @hookimpl
        def privkt_mechanisms(self):
            return (
                MechanismSpec(
                    "liar",
                    f"{__name__}:Liar",
                    "Lies.",
                    guarantee="pure",
                    unit="record",
                    neighbouring="local",
                    proof="x",
                ),
            )

    get_manager(reload=True).register(Plugin(), distribution="liars", entry="liars")
    yield
    get_manager(reload=True)


def nothing_was_written():
    return not list(Path(os.environ["PRIVKT_STATE"]).rglob("*"))


def test_a_mechanism_over_made_up_words(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = cli("audit", "mechanism", "exponential", "--samples", 2000)
    assert said.code == 0, said.err
    assert f"exponential over 258 words ({NAME}), nominal epsilon 3" in said.out
    for line in (
        "nominal ", "certificate, range", "certificate, exact", "truth ", "lower bound", "pairs above nominal",
        "blind guess", "nearest word", "Bayes", "ceiling at this epsilon",
    ):  # fmt: skip
        assert line in said.out
    assert re.search(r"epsilon >= [\d.]+, a lower bound at confidence 0.99 from 1000 draws", said.out)
    assert "which proves nothing" in said.out
    assert "nothing was spent" in said.out
    assert nothing_was_written()
    assert not list(tmp_path.iterdir())


def test_the_published_list_mechanism_loses_more_than_its_nominal_epsilon(cli):
    found = cli("audit", "mechanism", "rantext", "--epsilon", 3, "--samples", 2000, "--json")
    assert found.code == 0, found.err  # it promises nothing, so no promise is broken
    assert found.json["guarantee"]["kind"] == "none"
    assert found.json["certificate"] == {"epsilon_range": "inf", "epsilon_exact": None}
    assert found.json["word_pairs"]["share_above_nominal"] > 0.8
    assert found.json["audit"]["epsilon_lower"] > 3
    assert not found.json["violation"]


@pytest.mark.parametrize("name", ["randomised_response", "geometric", "laplace", "gaussian"])
def test_a_mechanism_of_single_values(cli, name):
    found = cli("audit", "mechanism", name, "--epsilon", 2, "--samples", 400, "--json")
    assert found.code == 0, found.err
    assert found.json["vocabulary"] is None
    assert 0 <= found.json["audit"]["epsilon_lower"] <= 2
    assert found.json["attacks"] == []


def test_a_broken_promise_ends_with_one(cli, liar):
    said = cli("audit", "mechanism", "liar", "--epsilon", 2, "--confidence", 0.999999)
    assert said.code == 1
    assert "VIOLATION, the mechanism promises 1" in said.out
    assert cli("audit", "mechanism", "liar", "--epsilon", 2, "--confidence", 0.999999, "--json").json["violation"]


def test_options_and_inputs_of_one_s_own(cli):
    arguments = ("--option", "sensitivity=4", "--values", "[10, 14]")
    found = cli("audit", "mechanism", "geometric", *arguments, "--samples", 400, "--json").json
    assert found["audit"]["pairs"][0]["pair"] == ["10", "14"]
    said = cli("audit", "mechanism", "randomised_response", "--option", "labels=[a, b, c]", "--samples", 400)
    assert "draws of a / b" in said.out


@pytest.fixture
def texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"text": f"the visit was {word} {CANARY}"} for word in ("cold", "warm", "cold", "rude")]
    Path("texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    vectors = np.random.default_rng(0).normal(size=(6, 4))
    words = ("the", "visit", "was", "cold", "warm", "rude")
    lines = [f"{word} {' '.join(map(str, row))}" for word, row in zip(words, vectors, strict=True)]
    Path("vectors.txt").write_text("\n".join(lines) + "\n")


def test_word_frequencies_of_texts_help_the_attacker(cli, texts):
    arguments = ("audit", "mechanism", "exponential", "--vectors", "vectors.txt", "--samples", 500)
    said = cli(*arguments, "--prior", "texts.jsonl")
    assert said.code == 0, said.err
    assert "the prior was counted in 4 texts, taken to be public or to stay here" in said.out
    assert CANARY not in said.out + said.err
    found = cli(*arguments, "--prior", "texts.jsonl", "--json").json
    assert found["prior_texts"] == 4
    assert found["vocabulary"] == {"name": "vectors.txt", "words": 8}
    best = {one["prior"]: one["expected"]["1"] for one in found["attacks"] if one["attack"] == "Bayes"}
    assert best["texts"] > best["uniform"]
    assert best["texts"] <= found["ceilings"]["texts"]


def test_a_language_model_reads_the_texts_again(cli, texts, model):
    found = cli(
        "audit", "mechanism", "exponential", "--vectors", "vectors.txt", "--samples", 200, "--prior", "texts.jsonl",
        "--reader", model, "--json",
    )  # fmt: skip
    assert found.code == 0, found.err
    again = found.json["read_again"]
    assert (again["texts"], again["tokens"]) == (2, 18)  # the canary is unknown pieces and digits
    assert 0 <= again["context"] <= 1
    assert CANARY not in found.out + found.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["exponental"], "did you mean|nearest: 'exponential'"),
        (["exponential", "--option", "utilty=cosine"], "did you mean 'utility'"),
        (["exponential", "--option", "utility"], "audit: --option takes KEY=VALUE"),
        (["exponential", "--option", "utility=[a"], "audit: --option takes YAML"),
        (["exponential", "--epsilon", "-1"], "epsilon must be a finite number > 0"),
        (["exponential", "--confidence", "1"], "confidence must lie in"),
        (["exponential", "--vectors", "none.txt"], "no file at none.txt"),
        (["exponential", "--vectors", "none.txt", "--model", "."], "audit: .* exactly one of model and vectors"),
        (["exponential", "--prior", "none.jsonl"], "audit: --prior: no file at none.jsonl"),
        (["exponential", "--prior", "texts.jsonl", "--text", "txt"], "has no string under 'txt'"),
        (["exponential", "--reader", "."], "--reader reads the texts of --prior"),
        (["geometric", "--prior", "texts.jsonl"], "draws no words"),
        (["geometric", "--values", "[1]"], "a list of two neighbouring inputs"),
        (["geometric", "--values", "[0, 9]"], "they are 9 apart, and sensitivity is 1"),
        (["laplace", "--values", "[[1.0], [-1.0]]"], "under zero-out one of them is all zeros"),
        (["geometric", "--values", "[1.5, 2]"], "a value must be an integer"),
        (["randomised_response", "--values", f"[{CANARY}, no]"], "a value must be one of the 2 declared labels"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(cli, texts, words, message):
    said = cli("audit", "mechanism", *words, "--samples", 200)
    assert said.code == 2, said.err
    assert "refused: " in said.err
    assert re.search(message, said.err), said.err
    assert CANARY not in said.out + said.err
    assert nothing_was_written()


def test_ctrl_c_says_that_nothing_was_spent(cli, monkeypatch):
    from privkt.evaluation import mechanism_report

    def stop(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(mechanism_report, "audit", stop)
    said = cli("audit", "mechanism", "geometric")
    assert said.code == 130
    assert "stopped: nothing was spent or written" in said.err
