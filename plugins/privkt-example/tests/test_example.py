"""The suites of privkt.testing on each thing that this plugin provides. Copy this file with the plugin."""

import json

import numpy as np
import pytest
from hypothesis import strategies as st

from privkt.contracts import Capability, DataSource, Rows
from privkt.plugins import get_manager
from privkt.privacy import Budget, Neighbouring, RefusedInput
from privkt.testing import BackendSuite, DatasetSuite, MechanismSuite, MethodSuite, TokenMechanismSuite
from privkt.testing.strategies import labelled_rows


class TestCoin(MechanismSuite):
    name = "privkt-example:coin"

    def mechanisms(self):
        return [get_manager().create("mechanism", self.name, *odds) for odds in ((), (9, 2), (1, 1))]

    def inputs(self, mechanism):
        return [True, False]


class TestDice(TokenMechanismSuite):
    name = "privkt-example:dice"
    draws = 6000

    def mechanisms(self):
        return [get_manager().create("mechanism", self.name, *args) for args in ((5,), (2, 3), (9, 1))]


def test_every_point_below_the_total_gives_its_word(monkeypatch):
    dice = get_manager().create("mechanism", "dice", 4, 3)
    for word, expected in ((0, [0, 0, 0, 1, 2, 3]), (2, [2, 2, 2, 0, 1, 3]), (3, [3, 3, 3, 0, 1, 2])):
        points = iter(range(6))
        monkeypatch.setattr("secrets.randbelow", lambda total, points=points: next(points) if total == 6 else None)
        assert dice.sample_ids(np.full(6, word)).tolist() == expected


@pytest.mark.parametrize("arguments", [(1, 2), (3, 0), (3.0, 2), ("3", 2)])
def test_dice_of_bad_parameters_are_refused(arguments):
    with pytest.raises(RefusedInput, match="dice: words and odds must be integers"):
        get_manager().create("mechanism", "dice", *arguments)


class TestLabelTally(MethodSuite):
    name = "privkt-example:label-tally"
    labels = ("no", "yes")

    def config(self):
        return {"decimals": 1}

    def rows(self, variant):
        texts = tuple(f"{self.canary} {variant} {i}" for i in range(40))
        return Rows(texts, tuple(self.labels[(i * i + variant) % 2] for i in range(40)))

    def budget(self):
        return Budget(epsilon=1.0, delta=1e-5, neighbouring=Neighbouring.LOCAL)


class TestBigram(BackendSuite):
    name = "privkt-example:bigram"
    expected = frozenset({Capability.GENERATE, Capability.SCORE})
    batch_option = ""

    def options(self):
        return {"texts": ["The food was cold and the soup was warm .", "We waited and waited for the soup ."]}

    def bad_options(self):
        return {
            "unknown": ({"text": []}, "unknown option 'text'; it takes texts"),
            "no texts": ({"texts": []}, "must be a list of texts with at least one word"),
        }


class TestLines(DatasetSuite):
    name = "lines"
    features = frozenset()

    def write(self, folder, columns):
        path = folder / "rows.txt"
        lines = zip(*([columns["label"]] if "label" in columns else []), columns["text"], strict=True)
        path.write_text("".join("\t".join(cells) + "\n" for cells in lines), encoding="utf-8", newline="")
        return DataSource("lines", "text", "label", path=str(path))

    def rows(self):
        def fits(rows: Rows) -> bool:
            return not any("\n" in text for text in rows.text)

        return labelled_rows().filter(fits) | st.just(Rows(("a\tb", ""), ("x", "y"), ("1", "2")))

    def broken(self, folder):
        path = folder / "bad.txt"
        path.write_bytes(b"no\ta\nyes\t\xff canary-4821\n")
        tabless = folder / "tabless.txt"
        tabless.write_bytes(b"no\ta\ncanary-4821\n")
        return {
            "not UTF-8": (DataSource("lines", "text", "label", path=str(path)), "line 2 is not"),
            "no tab": (
                DataSource("lines", "text", "label", path=str(tabless)),
                "row 2 must be a label, a tab and a text",
            ),
        }


def test_the_estimates_are_near_the_truth_at_a_large_epsilon(tmp_path):
    """At epsilon 20 a label is told wrongly with probability below 3e-9: 50 of them by chance, below 2e-7."""
    from privkt.contracts import PublicFacts
    from privkt.testing import client_site, server_site
    from privkt.testing.protocol import play

    method = get_manager().load("method", "label-tally")
    rows = Rows(tuple("abcde" * 10), ("no",) * 30 + ("yes",) * 20)
    budget = Budget(epsilon=20.0, delta=1e-5, neighbouring=Neighbouring.LOCAL)
    client = client_site(rows, tmp_path / "c", labels=("no", "yes"), budget=budget, name="c")
    server = server_site({"c": PublicFacts("c", 50, ("no", "yes"))}, tmp_path / "s")
    run = play(method, method.Config(), {"c": client}, server)
    assert run.outcomes["c"].scores == {"label tally": {"no": 30.0, "yes": 20.0}}
    assert json.dumps(run.outcomes["c"].notes) == '{"told": {"no": 30, "yes": 20}}'
