"""What is refused before any budget is spent: each row has a twin that differs in one thing and passes."""

import json
import math
import warnings
from pathlib import Path

import pytest

from privkt.config import DataConfig, EvaluationConfig
from privkt.contracts import MethodConfig, NoProgress, Outcome, TransferMethod, client_step, server_step
from privkt.plugins import UnknownPlugin
from privkt.privacy import Budget, LedgerMismatch, RefusedInput
from privkt.runtime.accounts import left_of
from privkt.runtime.local import LocalRuntime
from privkt.runtime.preflight import PUBLIC_COPY, SCORED_ON_ITS_OWN, prepare, takes_received, with_caches


def refused(toys, config, match, kind=RefusedInput):
    with pytest.raises(kind, match=match):
        prepare(config, toys.toy_manager())


def with_data(toys, folder, **changes):
    config = toys.toy_config(folder)
    (client,) = config.clients
    return config.model_copy(
        update={"clients": (client.model_copy(update={"data": client.data.model_copy(update=changes)}),)}
    )


def with_rows(toys, folder, rows):
    config = toys.toy_config(folder)
    (folder / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return config


def test_the_twin_of_every_refusal_passes(toys, tmp_path):
    setup = prepare(toys.toy_config(tmp_path), toys.toy_manager())
    assert [c.facts.size for c in setup.clients] == [6]
    assert setup.clients[0].budget.delta == 1e-5
    assert left_of(setup.clients[0]).epsilon == 2.0
    assert not (tmp_path / "state" / "ledgers" / "data-a.sqlite3").exists()


def test_unknown_plugins_are_named_with_what_is_near(toys, tmp_path):
    misspelt = toys.toy_config(tmp_path).model_copy(update={"method": "toyy"})
    refused(toys, misspelt, "method: no plugin provides 'toyy'; nearest: .*'toy'", UnknownPlugin)
    models = {"llm": {"backend": "transformer", "model": "m"}}
    refused(toys, toys.toy_config(tmp_path, models=models), "backend: no plugin provides 'transformer'", UnknownPlugin)
    refused(toys, with_data(toys, tmp_path, source="jsonx"), "dataset: no plugin provides 'jsonx'", UnknownPlugin)


def test_the_methods_own_block_is_checked_with_the_nearest_name(toys, tmp_path):
    refused(toys, toys.toy_config(tmp_path, toy={"rowz": 3}), "toy: unknown key 'rowz'; did you mean 'rows'?")
    refused(toys, toys.toy_config(tmp_path, toy={"rows": "many"}), "toy: rows: ")


@pytest.mark.parametrize(
    ("models", "match"),
    [
        ({}, "needs a model for the role 'llm'; the config has none"),
        ({"lllm": {"backend": "toy", "model": "m"}}, "needs a model for the role 'llm'; did you mean 'lllm'?"),
        ({"llm": {"backend": "toy", "model": "m"}, "extra": {"backend": "toy", "model": "m"}}, "has no role 'extra'"),
        ({"llm": {"backend": "toy"}}, "`model` is missing"),
    ],
)
def test_roles_are_those_of_the_method(toys, tmp_path, models, match):
    refused(toys, toys.toy_config(tmp_path, models=models), match)


def test_the_method_may_refuse_rows_before_anything_is_spent(toys, tmp_path, monkeypatch):
    def look(self, rows, facts):
        seen.append((len(rows), facts.size))
        if said:
            raise said.pop()

    seen, said = [], []
    monkeypatch.setattr(toys.Toy, "check_rows", look)
    toys.write_rows(tmp_path / "test.jsonl", ["held out"] * 4)
    data = {"source": "toy", "path": str(tmp_path / "test.jsonl"), "label": "label"}
    config = toys.toy_config(tmp_path, evaluation={"data": data})
    prepare(config, toys.toy_manager())
    assert seen == [(6, 6), (4, 6)]  # the client's rows, then those it is scored on
    said.append(RefusedInput("toy.column: row 2 must be a list; mend it"))
    refused(toys, config, r"^client 'a', data: toy\.column: row 2 must be a list; mend it$")
    said.append(ValueError("private row 2 of a is no list"))
    with pytest.raises(
        RefusedInput, match="method 'toy' must be able to check the rows, and stopped with ValueError"
    ) as caught:
        prepare(config, toys.toy_manager())
    assert "private row" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_of_public_data_is_read_before_anything_is_spent(toys, tmp_path, monkeypatch):
    block = DataConfig(source="toy", path=str(tmp_path / "seeds.jsonl"), text="question", public=True)
    monkeypatch.setattr(toys.Toy, "public_data", lambda self: (block,))
    config = toys.toy_config(tmp_path)
    refused(toys, config, "toy, public data '.*seeds.jsonl': data must be readable .* stopped with FileNotFoundError")
    (tmp_path / "seeds.jsonl").write_text('{"text": "What now?"}\n')
    refused(toys, config, "toy, public data '.*seeds.jsonl': data must be readable .* stopped with KeyError")
    prepare(config, toys.toy_manager(), resumed=True)  # it was read before
    (tmp_path / "seeds.jsonl").write_text('{"question": "What now?"}\n')
    prepare(config, toys.toy_manager())


def test_scores_on_the_clients_own_rows_are_told(toys, tmp_path):
    config = toys.toy_config(tmp_path)
    (client,) = config.clients
    held = DataConfig(**client.data.model_dump(exclude={"name", "size"}))
    scored = config.model_copy(update={"evaluation": EvaluationConfig(data=held)})
    (made,) = prepare(scored, toys.toy_manager()).clients
    assert SCORED_ON_ITS_OWN in made.plan.warnings
    (made,) = prepare(config, toys.toy_manager()).clients
    assert made.plan.warnings == ()


def test_a_public_file_that_is_a_copy_of_private_rows_is_told_and_not_refused(toys, tmp_path, monkeypatch):
    config = toys.toy_config(tmp_path)
    (client,) = config.clients
    block = DataConfig(source="toy", path=str(tmp_path / "seeds.jsonl"), text=client.data.text, public=True)
    monkeypatch.setattr(toys.Toy, "public_data", lambda self: (block,))
    rows = Path(client.data.path).read_text()
    for text, told in ((rows, True), (rows.replace("a", "b", 1), False)):
        (tmp_path / "seeds.jsonl").write_text(text)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            (made,) = prepare(config, toys.toy_manager()).clients
        assert any("byte for byte" in str(one.message) for one in said) is told  # whoever runs without a plan sees it
        assert (PUBLIC_COPY.format(path=block.path) in made.plan.warnings) is told


def test_optional_roles_may_be_left_out(toys, tmp_path):
    model = {"backend": "toy", "model": "m"}
    setup = prepare(toys.toy_config(tmp_path, models={"llm": model, "slm": model}), toys.toy_manager())
    assert sorted(setup.backends["a"]) == ["slm"]
    assert sorted(setup.backends["server"]) == ["llm"]


def test_remote_models_do_not_see_private_text(toys, tmp_path):
    model = {"backend": "toy", "model": "m"}
    models = {"llm": {**model, "remote": True}, "slm": {**model, "remote": True}}
    config = toys.toy_config(tmp_path, models=models)
    refused(toys, config, r"models\.slm: is remote, and client 'a' would send it private text in clear")
    assert prepare(with_data(toys, tmp_path, public=True).model_copy(update={"models": config.models}),
                   toys.toy_manager())  # fmt: skip
    local = toys.toy_config(tmp_path, models={"llm": models["llm"], "slm": model})
    assert prepare(local, toys.toy_manager(), probe=True)
    assert toys.ToyBackend.probes == 1  # the remote one alone


def test_remote_models_do_not_see_evaluation_rows_that_nobody_called_public(toys, tmp_path):
    model = {"backend": "toy", "model": "m"}
    models = toys.toy_config(tmp_path, models={"llm": model, "slm": {**model, "remote": True}}).models
    rows = {"source": "toy", "path": str(tmp_path / "a.jsonl"), "label": "label"}

    def scored(**said):
        found = toys.toy_config(tmp_path, evaluation={"data": {**rows, **said}}).evaluation
        public = with_data(toys, tmp_path, public=True)
        return public.model_copy(update={"models": models, "evaluation": found})

    refused(toys, scored(), r"models\.slm: is remote, and client 'a' would send it its evaluation rows in clear")
    assert prepare(scored(public=True), toys.toy_manager())


def test_a_forced_remote_model_is_an_infinite_spend(toys, tmp_path):
    model = {"backend": "toy", "model": "m"}
    config = toys.toy_config(tmp_path, models={"llm": model, "slm": {**model, "remote": True}})
    result = LocalRuntime(config, tmp_path / "run", toys.toy_manager(), force=True).run()
    assert result.totals["a"].spent.infinite
    assert "epsilon = inf" in result.statement


@pytest.mark.parametrize("public", [False, True])
def test_answers_to_private_text_are_cached_nowhere(toys, tmp_path, public):
    model = {"backend": "toy", "model": "m"}
    models = {"llm": {**model, "remote": True}, "slm": {**model, "remote": True}}
    config = with_data(toys, tmp_path, public=public)
    config = config.model_copy(update={"models": toys.toy_config(tmp_path, models=models).models})
    setup = prepare(config, toys.toy_manager(), force=True)
    found = with_caches(setup, toys.toy_manager(), NoProgress(), lambda site: tmp_path / site, force=True).backends
    assert found["server"]["llm"].context.cache == tmp_path / "server"
    assert found["a"]["slm"].context.cache == (tmp_path / "a" if public else None)


def test_a_client_is_not_the_server(toys, tmp_path):
    refused(toys, toys.toy_config(tmp_path, clients=("server",)), "'server': is the name of the server's own site")
    refused(toys, toys.toy_config(tmp_path, clients=("a b",)), "client 'a b': must be 1 to")


ROW = {"text": "t", "label": "x"}
OTHER = {"text": "t", "label": "y"}


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([], "data must have at least one row"),
        ([ROW, OTHER] * 2, "declared 6, found 4"),
        ([ROW] * 6, "at least two classes, got one"),
        ([ROW, OTHER] * 2 + [ROW, {"text": "t", "label": "z"}], "every row's label must be one of data.labels"),
        ([ROW, OTHER] * 2 + [ROW, {"text": 5, "label": "y"}], "column 'text' of the data must hold text only"),
        ([ROW, OTHER] * 2 + [ROW, {"label": "y"}], "stopped with KeyError at runtime_toys.py"),
    ],
)
def test_data_is_read_and_checked(toys, tmp_path, rows, match):
    refused(toys, with_rows(toys, tmp_path, rows), match)
    assert prepare(with_rows(toys, tmp_path, [ROW, OTHER] * 3), toys.toy_manager())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"size": 7}, "declared 7, found 6"),
        ({"labels": None}, "must list the labels"),
        ({"label": None}, r"client 'a': data\.label must name the column of labels .*add `label:`"),
        ({"labels": ("x",)}, "at least two classes, got 1"),
        ({"labels": ("x", "y", "x")}, "must be distinct"),
    ],
)
def test_declarations_are_checked(toys, tmp_path, changes, match):
    refused(toys, with_data(toys, tmp_path, **changes), match)


@pytest.mark.parametrize("epsilon", [0, -1, math.nan, math.inf])
def test_impossible_epsilons_are_refused(toys, tmp_path, epsilon):
    with pytest.raises(RefusedInput, match=r"budget\.epsilon"):
        prepare(toys.toy_config(tmp_path, budget={"epsilon": epsilon}), toys.toy_manager())


@pytest.mark.filterwarnings("ignore:budget.delta")
def test_delta_stays_below_one_record(toys, tmp_path):
    refused(toys, toys.toy_config(tmp_path, budget={"epsilon": 2, "delta": 1 / 6}), r"must stay below 1/N")
    assert prepare(toys.toy_config(tmp_path, budget={"epsilon": 2, "delta": 0.16}), toys.toy_manager())
    paper = {"epsilon": 2, "delta": 1 / 6, "reproduce": True}
    assert prepare(toys.toy_config(tmp_path, budget=paper), toys.toy_manager())


def test_the_ledgers_unit_and_relation_stay(toys, tmp_path):
    LocalRuntime(toys.toy_config(tmp_path), tmp_path / "run", toys.toy_manager()).run()
    for change in ({"unit": "user"}, {"neighbouring": "replace-one"}):
        config = toys.toy_config(tmp_path, budget={"epsilon": 2.0, **change})
        with pytest.raises(LedgerMismatch, match="stays what it was made with"):
            LocalRuntime(config, tmp_path / "other", toys.toy_manager()).run()
        with pytest.raises(LedgerMismatch, match="stays what it was made with"):
            left_of(prepare(config, toys.toy_manager()).clients[0])
        assert not (tmp_path / "other").exists()


def test_evaluation_rows_are_read_too(toys, tmp_path):
    held_out = {"data": {"source": "toy", "path": str(tmp_path / "test.jsonl"), "label": "label"}}
    config = toys.toy_config(tmp_path, evaluation=held_out)
    refused(toys, config, "client 'a', evaluation: data must be readable")
    toys.write_rows(tmp_path / "test.jsonl", ["one"])
    (client,) = prepare(config, toys.toy_manager()).clients
    assert client.evaluation().text == ("one",)


class Steps(TransferMethod):
    Config = MethodConfig


def test_steps_say_what_they_take():
    class Odd(Steps):
        @client_step
        def begin(self, site): ...

        @client_step
        def end(self, site, received=None) -> Outcome: ...

    assert [takes_received(Odd, step) for step in Odd.steps()] == [False, True]


def test_protocols_that_cannot_run_are_refused(toys, tmp_path, monkeypatch):
    class Backwards(Steps):
        @server_step
        def begin(self, site): ...

        @client_step(once=True)
        def end(self, site): ...

    config = toys.toy_config(tmp_path, models={})
    for method, match in (
        (Backwards, "'end' runs once for all seeds and cannot follow 'begin'"),
        (Steps, "has no steps"),
        (dict, "must name a TransferMethod"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(toys, "Toy", method)
            refused(toys, config, match)


def test_a_method_may_refuse_in_its_plan(toys, tmp_path, monkeypatch):
    def plan(self, facts, budget):
        assert isinstance(budget, Budget)
        raise RefusedInput("toy.batch_size: must be at most N = 6, got 7")

    monkeypatch.setattr(toys.Toy, "plan", plan)
    refused(toys, toys.toy_config(tmp_path), "must be at most N = 6")
