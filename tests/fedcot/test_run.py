"""FedCoT through the local runtime with a small random model: the plan is what is charged, and only questions cross."""

import json
import re

import pytest
from privkt_fedcot.config import FedCoTConfig

from privkt.config import load_config, parse_config
from privkt.plugins import get_manager
from privkt.privacy import Ledger, RefusedInput
from privkt.runtime.local import LocalRuntime

LABELS = ["A", "B", "C"]
SECRET = "cold stale rude slow dirty warm fresh kind quick clean"


def write_rows(path, count, start=0):
    words = SECRET.split()
    lines = [
        {
            "question": f"which of these was the {words[i % 10]} {words[i % 7]} visit of guest {i}",
            "choices": [words[(i + k) % 10] for k in range(2 + i % 2)],
            "place": i % 2,
        }
        for i in range(start, start + count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def raw(wide_llama, tmp_path, monkeypatch):
    """The config of a small run as plain values."""
    monkeypatch.setenv("PRIVKT_STATE", str(tmp_path / "state"))
    columns = {"source": "json", "text": "question", "label": "place", "columns": ["choices"]}
    model = {"backend": "transformers", "model": str(wide_llama), "device": "cpu", "dtype": "float32"}

    def client(name, start):
        path = write_rows(tmp_path / f"{name}.jsonl", 12, start)
        return {
            "name": name,
            "data": {"name": f"visits-{name}", "size": 12, "path": str(path), "labels": LABELS, **columns},
        }

    return {
        "method": "fedcot",
        "budget": {"epsilon": 60, "neighbouring": "local"},
        "clients": [client("a", 0), client("b", 100)],
        "models": {"slm": dict(model), "llm": dict(model)},
        "evaluation": {"data": {"path": str(write_rows(tmp_path / "test.jsonl", 8, 1000)), **columns}},
        "fedcot": {
            "perturbation": {"vocabulary": {"model": str(wide_llama)}, "tokens": {"question": 8, "choice": 2}},
            "rationale": {"max_tokens": 12},
            "decoder": {"max_tokens": 12},
            "slm": {"epochs": 1, "batch_size": 6, "max_length": 96},
            "filter": "none",
        },
        "seeds": [0, 1],
    }


def test_a_whole_run_of_two_clients_and_two_seeds(raw, tmp_path):
    result = LocalRuntime(parse_config(raw), tmp_path / "run", get_manager()).run()
    for client in "ab":
        for seed in (0, 1):
            scores = result.outcomes[client][seed].scores
            assert list(scores) == ["labels alone", "labels + own rationales, no server", "FedCoT"]
            arms = result.outcomes[client][seed].notes["arms"]
            assert re.fullmatch(r"12 answers, \d+ of \d+ rationales", arms["FedCoT"]["learnt_from"])
            assert all(set(score) == {"accuracy"} and 0 <= score["accuracy"] <= 1 for score in scores.values())
        (planned,) = result.plans[client].perturbations
        (charge,) = Ledger.open(f"visits-{client}").charges()
        assert charge.planned == planned.guarantee
        assert planned.positions == 8 + 3 * 2
        assert 0.98 * 60 <= result.totals[client].spent.epsilon <= 60
    assert [(c.client, c.step, c.message, c.rows) for c in result.crossed] == [
        ("a", "perturb", "texts", 12),
        ("b", "perturb", "texts", 12),
    ]
    cards = [p.read_text() for p in (tmp_path / "run" / "outbound").rglob("*.md")]
    assert len(cards) == 2
    assert all("exponential" in card for card in cards)


def test_a_run_that_was_cut_goes_on_without_another_draw_or_spend(raw, tmp_path, monkeypatch):
    from privkt_fedcot.results import Arms

    def interrupted(*_):
        raise KeyboardInterrupt

    real = Arms.learn
    monkeypatch.setattr(Arms, "learn", interrupted)
    config = parse_config(raw | {"seeds": [0]})
    with pytest.raises(KeyboardInterrupt):
        LocalRuntime(config, tmp_path / "run", get_manager()).run()
    sent = {p.name: p.read_bytes() for p in (tmp_path / "run" / "outbound").rglob("*") if p.is_file()}
    monkeypatch.setattr(Arms, "learn", real)
    result = LocalRuntime(config, tmp_path / "run", get_manager()).run()
    assert {p.name: p.read_bytes() for p in (tmp_path / "run" / "outbound").rglob("*") if p.is_file()} == sent
    assert len(Ledger.open("visits-a").charges()) == 1
    assert result.outcomes["a"][0].scores


def test_the_example_is_a_config_of_the_method():
    from pathlib import Path

    config = load_config(Path(__file__).parents[2] / "examples" / "fedcot-commonsenseqa.yaml")
    settings = FedCoTConfig.model_validate(config.method_config)
    assert settings.perturbation.name == "exponential"
    tokens = settings.perturbation.tokens
    assert (tokens.question + 5 * tokens.choice) * settings.perturbation.epsilon <= config.budget.epsilon


@pytest.mark.parametrize(("role", "tokens"), [("llm", 900), ("slm", 1200)])
def test_a_model_with_too_short_a_context_is_refused_before_anything_is_spent(raw, tmp_path, role, tokens):
    """wide_llama takes 1,024 tokens: an answer of 900 after the prompt does not fit."""
    where = "rationale" if role == "llm" else "decoder"
    raw["fedcot"][where] = {"max_tokens": tokens}
    with pytest.raises(RefusedInput, match=rf"models\.{role}: must take about \d+ tokens, .* takes 1024; choose"):
        LocalRuntime(parse_config(raw), tmp_path / "run", get_manager()).preflight()
    assert not (tmp_path / "state" / "ledgers").exists()


def test_a_row_too_long_for_the_small_model_is_cut_and_stops_nothing(raw, tmp_path, capfd):
    """Whether anything crosses must not hang on the length of one private row."""
    raw["clients"] = raw["clients"][:1]
    path = tmp_path / "a.jsonl"
    lines = path.read_text().splitlines()
    longest = {**json.loads(lines[-1]), "question": "canary " * 400, "choices": ["canary " * 200, "warm"]}
    path.write_text("\n".join([*lines[:-1], json.dumps(longest)]))
    result = LocalRuntime(parse_config(raw | {"seeds": [0]}), tmp_path / "run", get_manager()).run()
    assert result.outcomes["a"][0].scores
    assert len(result.crossed) == 1
    assert "canary" not in "".join(capfd.readouterr())


def trained(raw, path, **more):
    columns = {"text": "question", "columns": ["choices"], "label": "place", "labels": LABELS}
    raw["fedcot"]["perturbation"]["epsilon"] = 4
    raw["fedcot"]["decoder"] |= {"kind": "trained", "public": {"path": str(path), **columns, **more}}
    return parse_config(raw)


def test_a_decoders_questions_must_be_declared_public(raw, tmp_path):
    public = write_rows(tmp_path / "public.jsonl", 6, 500)
    with pytest.raises(RefusedInput, match=r"fedcot: the data of .* add `public: true`"):
        LocalRuntime(trained(raw, public), tmp_path / "run", get_manager()).preflight()
    LocalRuntime(trained(raw, public, public=True), tmp_path / "run", get_manager()).preflight()


@pytest.mark.parametrize(("file", "whose"), [("a", "client 'a'"), ("b", "client 'b'"), ("test", "evaluation")])
def test_a_decoder_is_never_trained_on_a_file_of_private_rows(raw, tmp_path, file, whose):
    """Not by another name of the file either."""
    (tmp_path / "innocent.jsonl").symlink_to(tmp_path / f"{file}.jsonl")
    for name in (file, "innocent"):
        config = trained(raw, tmp_path / f"{name}.jsonl", public=True)
        with pytest.raises(RefusedInput, match=f"public data .* names the data of {whose}"):
            LocalRuntime(config, tmp_path / "run", get_manager()).preflight()
