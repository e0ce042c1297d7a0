"""docs/api.md: its code runs as it stands, in order, with a tiny model in place of a small one."""

import json
import re
import shutil
from pathlib import Path

import yaml

from privkt.privacy import Ledger

DOCS = Path(__file__).parents[2] / "docs"
PROJECT = DOCS.parent / "pyproject.toml"


def test_the_page_runs(tmp_path, model, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model, tmp_path / "small-model")
    columns = {"source": "json", "text": "text", "label": "label", "labels": ["negative", "positive"]}
    words = {"negative": "cold and late", "positive": "warm and quick"}
    for name in ("train", "test"):
        rows = [{"text": f"{name} visit {i} was {words[k]}", "label": k} for i in range(20) for k in words]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    local = {"backend": "transformers", "model": str(tmp_path / "small-model")}
    raw = {
        "method": "fdkt",
        "budget": {"epsilon": 8, "delta": 1e-3},
        "client": {"data": {**columns, "name": "visits", "size": 40, "path": "train.jsonl"}},
        "models": {"generator": {**local, "lora": {"rank": 4}}, "slm": local, "llm": local},
        "evaluation": {"data": {**columns, "path": "test.jsonl"}},
        "fdkt": {
            "template": {"control": "Mood: {label}"}, "samples_per_label": 3, "max_tokens": 12, "min_words": 1,
            "min_characters": 1, "prompts": 2, "demonstrations": 1, "cluster_size": 2, "llm": {"max_tokens": 12},
            "generator": {"batch_size": 20, "epochs": 1, "max_length": 48},
            "slm": {"epochs": 1, "weights": [1.0]}, "attempts": 9,
        },
    }  # fmt: skip
    (tmp_path / "reviews.yaml").write_text(yaml.safe_dump(raw))
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "api.md").read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 7
    for block in blocks:
        exec(compile(block, "docs/api.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "epsilon = 6, delta = 0.0005, record level, zero-out" in printed
    assert "data set visits: spent epsilon = 8" in printed
    assert "fdkt" in printed
    assert len(Ledger.open("reviews").charges()) == 1
    assert (tmp_path / "runs" / "reviews" / "private" / "report.html").exists()


def test_the_command_that_makes_the_pages_is_that_of_an_extra():
    assert re.search(r'^docs = \["pdoc', PROJECT.read_text(encoding="utf-8"), re.M)
    assert "\npdoc==" in (DOCS.parent / "constraints.txt").read_text(encoding="utf-8")
