"""What the command line's tests share: a config of a tiny FDKT, and the real commands with what they say."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))  # test_bad_input.py imports bad_input by name

CANARY = "canary7f3a"
FAULTY = Path(__file__).parents[1] / "openai_backend" / "faulty_server.py"
LABELS = ["negative", "positive"]
WORDS = {"negative": "cold stale rude slow dirty", "positive": "warm fresh kind quick clean"}


@dataclass(frozen=True)
class Said:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


class House:
    """A folder with data, a config of plain values (`raw`) to change, and where its run will lie."""

    size = 48

    def __init__(self, folder, model):
        self.folder, self.run, self.config = folder, folder / "run", folder / "house.yaml"
        (folder / CANARY).mkdir()
        data = {"source": "json", "text": "text", "label": "mood", "labels": list(LABELS)}
        model = {"backend": "transformers", "model": str(model), "device": "cpu", "dtype": "float32"}
        self.raw = {
            "method": "fdkt",
            "budget": {"epsilon": 8, "delta": 1e-3},
            "clients": [self.client("a")],
            "models": {"generator": {**model, "lora": {"rank": 4}}, "slm": dict(model), "llm": dict(model)},
            "evaluation": {"data": {**data, "path": str(self.write("test", 20, 1000))}},
            "fdkt": {
                "template": {"control": "Mood: {label}"},
                "samples_per_label": 4,
                "max_tokens": 12,
                "min_words": 1,
                "min_characters": 1,
                "attempts": 9,
                "prompts": 4,
                "demonstrations": 1,
                "cluster_size": 2,
                "llm": {"max_tokens": 12},
                "generator": {"batch_size": 24, "epochs": 2, "max_length": 48},
                "slm": {"epochs": 1, "weights": [1.0]},
                "canaries": [CANARY],
            },
            "seeds": [0],
        }

    def client(self, name, start=0):
        """A client with its own file, which other rows fill than another start's."""
        path = self.write(name, self.size, start)
        columns = {"source": "json", "text": "text", "label": "mood", "labels": list(LABELS)}
        return {"name": name, "data": {**columns, "name": f"visits-{name}", "size": self.size, "path": str(path)}}

    @property
    def data(self):
        """The first client's data block."""
        return self.raw["clients"][0]["data"]

    @property
    def file(self):
        """The first client's file."""
        return Path(self.data["path"])

    def write(self, name, count, start=0):
        """A file of rows; each holds the canary."""
        rows = [
            {"text": f"{CANARY} visit {i} was {WORDS[LABELS[i % 2]]} indeed", "mood": LABELS[i % 2]}
            for i in range(start, start + count)
        ]
        return self.write_rows(self.folder / CANARY / f"{name}.jsonl", rows)

    def write_rows(self, path, rows):
        """Writes rows as JSON lines."""
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    def rows(self):
        """The first client's rows."""
        return [json.loads(line) for line in self.file.read_text(encoding="utf-8").splitlines()]

    def save(self):
        """Writes the config and returns its path."""
        self.config.write_text(yaml.safe_dump(self.raw), encoding="utf-8")
        return self.config


@pytest.fixture(scope="session")
def model(tiny_llama, tmp_path_factory):
    """The tiny Llama with room for a longer prompt; rotary positions need no weights."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(tiny_llama, folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "max_position_embeddings": 1024}))
    return folder


@pytest.fixture(scope="session")
def house_type():
    """For modules that make their own."""
    return House


@pytest.fixture
def house(tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return House(tmp_path, model)


@pytest.fixture
def cli(monkeypatch, capsys):
    """Runs the `privkt` command in this process: cli("plan", path).code."""
    from privkt.cli.app import run

    def call(*arguments):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["privkt", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run()
        said = capsys.readouterr()
        return Said(int(ended.value.code or 0), said.out, said.err)

    return call


@pytest.fixture
def process(tmp_path):
    """Starts `privkt` as a process of its own: process("plan", path) is a Popen; `.said()` waits for its end."""
    running = []

    class Started(subprocess.Popen):
        def said(self, seconds=120):
            out, err = self.communicate(timeout=seconds)
            return Said(self.returncode, out, err)

    def start(*arguments):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("PRIVKT_DEBUG", None)
        command = [sys.executable, "-m", "privkt.cli", *map(str, arguments)]
        running.append(
            Started(
                command,
                env=environment,
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return running[-1]

    yield start
    for one in running:
        if one.poll() is None:
            one.kill()
            one.communicate()


@pytest.fixture
def server():
    """Starts the server that fails as its flags say, on a port that is printed first."""
    running = []

    def start(*flags):
        process = subprocess.Popen(
            [sys.executable, str(FAULTY), *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ)
        )
        running.append(process)
        return int(process.stdout.readline())

    yield start
    for process in running:
        process.kill()
        process.communicate()
