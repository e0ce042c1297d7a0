"""FDKT whose large model is behind a real server process: what reaches it, and what a run survives."""

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
from privkt_fdkt.prompts import augmentation_prompt, selection_prompt
from privkt_openai import probing

from privkt.config import parse_config
from privkt.evaluation.report.build import build_report
from privkt.evaluation.report.render import write_report
from privkt.plugins import get_manager
from privkt.privacy import Ledger
from privkt.runtime import wire
from privkt.runtime.errors import RunFailed
from privkt.runtime.local import LocalRuntime
from privkt.synthesis.templates import TemplateConfig, make_template

SERVERS = Path(__file__).parents[1] / "openai_backend"
CANARY = "canary7f3a"
LABELS = ["negative", "positive"]
DOMAINS = {"a": "the cafe", "b": "the hotel"}
TEMPLATE = {"control": "Mood at {domain}: {label}", "domain": "the house"}
ARMS = ["private", "private+synthetic", "zero-shot"]
PROMPTS, PER_LABEL, CLUSTER = 6, 6, 4
# For a client: a question for each cluster, and the prompts of zero-shot and of FDKT itself.
QUESTIONS = 2 * PER_LABEL // CLUSTER + 2 * PROMPTS
CHAT = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}<|assistant|>"


@dataclass
class Server:
    """A server process, and what was posted to it."""

    process: subprocess.Popen
    port: int

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def bodies(self):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.base_url}/counts", timeout=10) as reply:
            return json.loads(reply.read())["bodies"]

    def stop(self):
        self.process.kill()
        self.process.communicate()


def start(*command):
    process = subprocess.Popen([sys.executable, *map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    line = process.stdout.readline()
    assert line, "the server did not start"
    return Server(process, int(line))


@pytest.fixture(scope="module")
def real_server(wide_llama, tmp_path_factory):
    """The server over the small random model, which can chat too."""
    folder = tmp_path_factory.mktemp("models") / "talking-llama"
    shutil.copytree(wide_llama, folder)
    (folder / "chat_template.jinja").write_text(CHAT)
    server = start(SERVERS / "server.py", folder)
    yield server
    server.stop()


@pytest.fixture
def faulty():
    """Starts servers that fail as their flags say."""
    running = []

    def begin(*flags):
        running.append(start(SERVERS / "faulty_server.py", *flags))
        return running[-1]

    yield begin
    for server in running:
        server.stop()


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch, tmp_path):
    monkeypatch.setattr(probing, "_FOUND", {})
    monkeypatch.setenv("PRIVKT_STATE", str(tmp_path / "state"))


class House:
    """Configs of small runs over private files full of canaries: in the text, in the file's name."""

    def __init__(self, folder, model):
        self.folder = folder
        self.small = {"backend": "transformers", "model": str(model), "device": "cpu", "dtype": "float32"}

    def config(self, server, clients=("a",), **llm):
        columns = {"source": "json", "text": "text", "label": "mood"}
        data = {
            name: {"name": f"visits-{name}", "size": 48, "path": self.rows(name, 48), "labels": LABELS, **columns}
            for name in clients
        }
        asked = {"backend": "openai", "base_url": server.base_url, "model": "m", "backoff": 0.01, "max_retries": 1}
        return parse_config(
            {
                "method": "fdkt",
                "budget": {"epsilon": 8, "delta": 1e-3},
                "clients": [{"name": name, "data": block} for name, block in data.items()],
                "models": {
                    "generator": {**self.small, "lora": {"rank": 4}}, "slm": self.small, "embedder": self.small,
                    "llm": {**asked, **llm},
                },
                "evaluation": {"data": {"path": self.rows("test", 20), **columns}},
                "fdkt": {
                    "template": TEMPLATE, "domains": {name: DOMAINS[name] for name in clients}, "min_words": 1,
                    "min_characters": 1, "samples_per_label": PER_LABEL, "max_tokens": 24, "attempts": 9,
                    "cluster_size": CLUSTER, "prompts": PROMPTS, "demonstrations": 1, "baselines": ARMS,
                    "llm": {"max_tokens": 24}, "slm": {"epochs": 1, "weights": [1.0]},
                    "generator": {"batch_size": 24, "epochs": 2, "max_length": 48},
                },
                "seeds": [0],
            }
        )  # fmt: skip

    def rows(self, name, count):
        lines = [
            {"text": f"{CANARY} guest {name}{i} found it {LABELS[i % 2]}", "mood": LABELS[i % 2]} for i in range(count)
        ]
        path = self.folder / f"{CANARY}-{name}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return str(path)

    def run(self, config):
        return LocalRuntime(config, self.folder / "run", get_manager()).run()

    def released(self, client):
        """The texts that crossed, from their very bytes."""
        (file,) = (self.folder / "run" / "outbound" / client).glob("*.arrow")
        return [row.text for row in wire.decode(file.read_bytes(), ())]

    def stored(self):
        """How many answers lie in the cache."""
        return sum(len(p.read_bytes().splitlines()) for p in (self.folder / "run/private/cache").rglob("answers.jsonl"))


@pytest.fixture
def house(tmp_path, wide_llama):
    return House(tmp_path, wide_llama)


def parts(body):
    return [turn["content"] for turn in body["messages"]] if "messages" in body else [body["prompt"]]


def of_the_method(bodies):
    """What was asked for FDKT; the rest are the probe's fixed strings, which know of no mood."""
    probes = {probing.SENTENCE, probing.REQUEST}
    asked = [body for body in bodies if "input" not in body and not probes & set(parts(body))]
    assert all("input" not in body or body["input"] == list(probing.WORDS) for body in bodies)
    return asked


def strangers(body, client, released):
    """Lines of a prompt that are neither part of the public layout for `client` nor one of its released texts."""
    template = make_template(TemplateConfig(**TEMPLATE), LABELS, domain=DOMAINS[client])
    chat = "messages" in body
    layouts = [selection_prompt((), template, chat=chat)]
    layouts += [augmentation_prompt((), label, template, chat=chat) for label in LABELS]
    empty = [turn.content for layout in layouts for turn in layout] if chat else layouts
    public = {line for text in empty for line in text.split("\n")} | {"Examples of the layout:"}
    public |= {template.code(label) for label in LABELS}
    numbered = re.compile(rf"[1-{CLUSTER}]\. \[({'|'.join(LABELS)})\] ")
    lines = [line for text in parts(body) for line in text.split("\n")]
    return [line for line in lines if line not in public and numbered.sub("", line, count=1) not in released]


@pytest.mark.parametrize(("options", "kind"), [({}, "prompt"), ({"endpoint": "chat"}, "messages")])
def test_a_whole_run_asks_with_released_texts_only(house, real_server, options, kind):
    before = len(real_server.bodies())
    result = house.run(house.config(real_server, **options))
    assert len(result.outcomes["a"][0].scores) == len(ARMS) + 1
    bodies = real_server.bodies()[before:]
    asked = of_the_method(bodies)
    assert len(asked) == QUESTIONS == house.stored()
    assert all(kind in body for body in asked)
    released = house.released("a")
    assert [line for body in asked for line in strangers(body, "a", released)] == []
    shown = " ".join(text for body in asked for text in parts(body))
    assert all(text in shown for text in released)
    assert CANARY not in json.dumps(bodies)
    assert result.totals["a"].spent.epsilon <= 8.0


def test_a_server_with_chat_alone_is_asked_in_conversations(house, faulty):
    server = faulty("--no-completions", "--answer", "Mood at the cafe: positive\nall quite warm and fresh")
    result = house.run(house.config(server))
    asked = of_the_method(server.bodies())
    assert len(asked) == QUESTIONS
    assert all("messages" in body for body in asked)
    assert [line for body in asked for line in strangers(body, "a", house.released("a"))] == []
    # Every answer is the same text: one row of it is left.
    assert result.outcomes["a"][0].notes["arms"]["FDKT"]["rows"]["foreign"] == 1


def test_one_server_many_clients(house, real_server):
    before = len(real_server.bodies())
    result = house.run(house.config(real_server, clients=("a", "b")))
    assert sorted(result.outcomes) == ["a", "b"]
    bodies = real_server.bodies()[before:]
    assert CANARY not in json.dumps(bodies)
    asked = of_the_method(bodies)
    # In no prompt do the texts of two clients meet.
    for client in DOMAINS:
        released = house.released(client)
        assert sum(not strangers(body, client, released) for body in asked) >= QUESTIONS
    assert all(any(not strangers(body, c, house.released(c)) for c in DOMAINS) for body in asked)
    assert len(asked) == 2 * QUESTIONS


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--die-after", "18"], "the server must be up, got no connection"),
        (["--fault", "html", "--only", "Different texts"], "answers must be JSON of the OpenAI interface"),
    ],
)
def test_a_server_that_fails_in_the_middle_costs_no_answer_and_no_budget(house, faulty, flags, said):
    failing = faulty(*flags)
    config = house.config(failing, concurrency=1)
    with pytest.raises(RunFailed) as failed:
        house.run(config)
    message = str(failed.value)
    assert "server, step 'augment'" in message
    assert said in message
    assert f"resume with: privkt run --resume {house.folder / 'run'}" in message
    assert not any(text in message for text in (CANARY, *house.released("a")))
    (charge,) = [e.body for e in Ledger.open("visits-a").entries() if e.kind == "charge"]
    stored, crossed = house.stored(), house.released("a")
    assert 0 < stored < QUESTIONS
    failing.stop()
    back = faulty("--port", failing.port)
    result = house.run(config)
    assert len(of_the_method(back.bodies())) == QUESTIONS - stored
    assert house.stored() == QUESTIONS
    assert [e.body for e in Ledger.open("visits-a").entries() if e.kind == "charge"] == [charge]
    assert result.totals["a"].spent.epsilon == pytest.approx(charge["guarantee"]["epsilon"], rel=1e-12)
    assert house.released("a") == crossed


def test_a_server_that_is_down_is_found_before_anything_is_spent(house, faulty):
    server = faulty()
    server.stop()
    with pytest.raises(Exception, match="the server must be up") as failed:
        house.run(house.config(server))
    assert CANARY not in str(failed.value)
    assert not (house.folder / "run").exists()
    assert not list((house.folder / "state").rglob("*.sqlite*"))


@pytest.mark.parametrize("answer", ["", "---"])
def test_answers_that_cannot_be_read_are_counted_in_the_report(house, faulty, answer):
    result = house.run(house.config(faulty(f"--answer={answer}")))
    assert result.outcomes["a"][0].notes["arms"]["FDKT"]["rows"] == {"private": 48, "foreign": 0}
    report = build_report(result.path)
    page, _ = write_report(result.path, report)
    assert "unreadable answers" in page.read_text(encoding="utf-8")
    counts = report["server"]["0"]["a"]
    assert counts["selection"]["unreadable_answers"] == 2 * PER_LABEL // CLUSTER
    assert counts["fdkt"]["parse"]["unparsed"] == {"code without text": PROMPTS}
    assert counts["fdkt"]["rows"] == 0
