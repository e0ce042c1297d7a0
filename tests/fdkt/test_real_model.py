"""FDKT on a few dozen records with real small models: the texts that cross are labelled language, and are scored."""

import json

from privkt.config import parse_config
from privkt.evaluation.sample_records import LABELS, sample_records
from privkt.plugins import get_manager
from privkt.runtime.local import LocalRuntime


def write_rows(path, records):
    rows = zip(records.text, records.label, strict=True)
    path.write_text("".join(json.dumps({"text": t, "topic": y}) + "\n" for t, y in rows), encoding="utf-8")
    return str(path)


def test_a_few_dozen_records(smollm2, minilm, tmp_path):
    columns = {"source": "json", "text": "text", "label": "topic"}
    small, large = ({"backend": "transformers", "model": str(folder)} for folder in (minilm, smollm2))
    records = sample_records(48, seed=1)
    train = write_rows(tmp_path / "train.jsonl", records)
    config = parse_config(
        {
            "method": "fdkt",
            "budget": {"epsilon": 8, "delta": 1e-3},
            "client": {"data": {"name": "clinic", "size": 48, "path": train, "labels": list(LABELS), **columns}},
            "models": {
                "generator": large | {"lora": {"rank": 2, "layers": 2}}, "slm": small, "llm": large, "embedder": small,
            },
            "evaluation": {
                "data": {"path": write_rows(tmp_path / "test.jsonl", sample_records(24, seed=2)), **columns}
            },
            "fdkt": {
                "template": {"control": "Message to a clinic about: {label}"}, "samples_per_label": 3, "max_tokens": 20,
                "min_words": 4, "prompts": 4, "demonstrations": 1, "llm": {"max_tokens": 20},
                "generator": {"batch_size": 24, "epochs": 1, "max_length": 40, "learning_rate": 1e-3},
                "slm": {"weights": [0.5], "learning_rate": 1e-2}, "canaries": sorted(set(records.canaries)),
            },
            "seed": 0,
        }
    )  # fmt: skip
    result = LocalRuntime(config, tmp_path / "run", get_manager()).run()
    (crossing,) = result.crossed
    assert crossing.rows >= 9
    outcome = result.outcomes[config.clients[0].name][0]
    assert outcome.scores["private data alone"]["accuracy"] > 0.4
    assert outcome.notes["overlap"]["synthetic"]["canaries_repeated"] == 0.0
    assert outcome.notes["drawing"]["filter"]["kept"] == crossing.rows
    assert outcome.model is not None
