"""Texts are read strictly and without being repeated; models answer for the right client, and only in this process."""

import json

import pytest

from privkt.contracts import Outcome, Prediction
from privkt.privacy import RefusedInput
from privkt.runtime import prediction
from privkt.runtime.local import LocalRuntime
from privkt.runtime.prediction import predict_texts, read_texts

CANARY = "canary7f3a"


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("a.jsonl", '{"text": "é\\n1"}\n\n{"text": "2", "more": 3}\n', ["é\n1", "2"]),
        ("a.json", '{"text": "1"}', ["1"]),
        ("a.csv", 'id,text\r\n1,"one, with\r\na second line"\r\n2,two\r\n', ["one, with\r\na second line", "two"]),
        ("a.CSV", "text\n1\n", ["1"]),
        ("a.txt", "one\r\n\r\n two\n", ["one", " two"]),
        ("notes", b"\xef\xbb\xbfone", ["one"]),
        ("a.txt", "one\u2028still one", ["one\u2028still one"]),
    ],
)
def test_texts_of_every_form(tmp_path, name, content, texts):
    assert read_texts(written(tmp_path, name, content)) == texts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", f'{{"text": "1"}}\n{{"text": "{CANARY}', "line 2 is not JSON"),
        ("a.jsonl", f'"{CANARY}"', "line 1 has no string under 'text'; name the text column with --text"),
        ("a.jsonl", f'{{"text": ["{CANARY}"]}}', "line 1 has no string under 'text'"),
        ("a.csv", f"{CANARY}\n1\n", "a.csv has no column 'text'; name its text column with --text"),
        ("a.csv", f'text\n"{CANARY}\n', "a.csv is not CSV near line"),
        ("a.csv", f"id,text\n{CANARY}\n", "row 1 of a.csv ends before column 'text'"),
        ("a.txt", CANARY.encode() + b"\xff", "must be UTF-8, and byte 10 is not; convert it"),
        ("a.txt", "\n \n", "a.txt must hold at least one text, got none"),
        ("a.csv", "text\n", "a.csv must hold at least one text, got none"),
    ],
)
def test_what_cannot_be_read_is_refused_without_repeating_it(tmp_path, name, content, message):
    path = written(tmp_path, name, content)
    with pytest.raises(RefusedInput) as refused:
        read_texts(path)
    assert message in str(refused.value)
    assert CANARY not in str(refused.value)


def test_no_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(RefusedInput, match="no file at"):
        read_texts(tmp_path / "none.txt")
    with pytest.raises(RefusedInput, match="must be a file that can be read, got Is a directory"):
        read_texts(tmp_path)


def test_another_column_by_name(tmp_path):
    path = written(tmp_path, "a.jsonl", json.dumps({"review": "one"}))
    assert read_texts(path, "review") == ["one"]


@pytest.fixture
def run(toys, tmp_path, monkeypatch):
    """Makes a run of clients a and b with a method that labels by length, whose model is each client's folder."""
    from privkt.contracts import Model

    class Labelling(toys.Toy):
        def predict(self, models, outcome, texts, labels):
            self.seen = (sorted(models), outcome.notes["client"])
            Labelling.last = self.seen
            return [Prediction(labels[len(text) % len(labels)], 0.75) for text in texts]

    monkeypatch.setattr(toys, "Toy", Labelling)
    original = Labelling.learn

    def make(clients=("a", "b"), model=True, **changes):
        def learn(self, site, augmented):
            outcome = original(self, site, augmented)
            site.folder.mkdir(parents=True, exist_ok=True)
            (site.folder / "weights").write_text("w")
            return Outcome(outcome.scores, {"client": site.id}, Model(site.folder) if model else None)

        learn.__dict__.update(original.__dict__)
        Labelling.learn = learn
        manager = toys.toy_manager()
        monkeypatch.setattr(prediction, "get_manager", lambda: manager)
        config = toys.toy_config(tmp_path, clients=clients, seeds=[0], **changes)
        LocalRuntime(config, tmp_path / "run", manager).run()
        make.seen = lambda: Labelling.last
        return tmp_path / "run"

    return make


def test_the_named_clients_model_labels(run):
    path = run()
    assert predict_texts(path, ["1", "22"], client="b") == [Prediction("y", 0.75), Prediction("x", 0.75)]
    assert run.seen() == ([], "b")
    with pytest.raises(RefusedInput, match="the run has clients a, b; say whose model with --client"):
        predict_texts(path, ["1"])
    with pytest.raises(RefusedInput, match="no client 'c' in this run; it has a, b"):
        predict_texts(path, ["1"], client="c")


def test_one_client_needs_no_name(run):
    assert len(predict_texts(run(clients=("a",)), ["1"])) == 1


def test_a_run_without_a_model_is_refused(run):
    with pytest.raises(RefusedInput, match="has no final model yet; finish it: privkt run --resume"):
        predict_texts(run(clients=("a",), model=False), ["1"])


def test_a_method_without_labels_is_refused(toys, tmp_path, monkeypatch):
    manager = toys.toy_manager()
    monkeypatch.setattr(prediction, "get_manager", lambda: manager)
    LocalRuntime(toys.toy_config(tmp_path), tmp_path / "run", manager).run()
    with pytest.raises(RefusedInput, match="method 'toy' makes no model that labels texts"):
        predict_texts(tmp_path / "run", ["1"])


def test_a_remote_model_is_not_sent_the_texts(run, toys, tmp_path, monkeypatch):
    model = {"backend": "toy", "model": "m"}
    path = run(clients=("a",), models={"llm": model, "slm": model})
    monkeypatch.setattr(toys.ToyBackend, "remote", True)
    monkeypatch.setattr(toys.ToyBackend, "__init__", lambda self, options, context: None)
    with pytest.raises(RefusedInput, match=r"models\.slm is remote, and would be sent these texts in clear"):
        predict_texts(path, ["1"])
