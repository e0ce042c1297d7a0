"""A small method with its backend and dataset, for the runtime's tests and for processes that they kill."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from privkt.config import parse_config
from privkt.contracts import (
    Backend,
    BackendError,
    Capability,
    Dataset,
    Generation,
    MethodConfig,
    Model,
    Outcome,
    Plan,
    Rows,
    Texts,
    TransferMethod,
    client_step,
    server_step,
)
from privkt.plugins import BackendSpec, DatasetSpec, MethodSpec, PluginManager, hookimpl
from privkt.privacy import Guarantee, Kind, Provenance, RefusedInput, Release, none_event, pure_event
from privkt.runtime.local import LocalRuntime


class ToyConfig(MethodConfig):
    rows: int = 3
    epsilon: float = 1.0
    promise: float | None = None
    unprotected: bool = False
    column: str = ""
    pause: float = 0.0
    wanted: str = ""


class Toy(TransferMethod):
    """publish (client, once) -> augment (server) -> learn (client). `log` notes what happens, for tests."""

    name = "toy"
    Config = ToyConfig
    client_roles = ("slm",)
    server_roles = ("llm",)
    optional_roles = ("slm",)
    read_by: ClassVar[Mapping[str, str]] = {"wanted": "augment"}
    log: ClassVar[list[str]] = []
    on_call = None

    def plan(self, facts, budget):
        return Plan(crosses=("texts",))

    def _begin(self, what):
        assert not hasattr(self, "touched"), "a step was given a used object"
        self.touched = True
        Toy.log.append(what)
        if Toy.on_call is not None:
            Toy.on_call(what)

    @client_step(once=True)
    def publish(self, site):
        """Draws random texts."""
        self._begin(f"publish {site.id}")
        guarantee = Guarantee(Kind.PURE, self.config.epsilon)
        event, charge = pure_event(self.config.epsilon), None
        if self.config.unprotected:
            guarantee, event = Guarantee.none("toy"), none_event()
        else:
            charge = site.budget.ledger.charge(
                event,
                guarantee,
                run_id=site.run_id,
                purpose="publish",
                fingerprint=site.data.fingerprint,
                declared={},
                data_changed=site.data.data_changed,
                resume=True,
            ).id
        Toy.log.append(f"charged {site.id}")
        time.sleep(self.config.pause)
        size = len(site.data.load())
        Toy.log.append(f"read {site.id}")
        site.state.save_json("size", size)
        drawn = [secrets.token_hex(8) for _ in range(self.config.rows)]
        if self.config.promise is not None:
            guarantee = Guarantee(Kind.PURE, self.config.promise)
        columns = {self.config.column: tuple(drawn)} if self.config.column else {}
        release = Release(
            Texts(tuple(drawn), ("x",) * len(drawn), columns),
            guarantee,
            event,
            Provenance("toy", "1", site.data_set_id, {"rows": self.config.rows}),
            charge,
        )
        return release.map(_with_suffix, public={"suffix": "!"})

    @server_step
    def augment(self, site, published: Mapping[str, Texts]):
        """Doubles every text."""
        self._begin(f"augment {site.seed}")
        if self.config.wanted:
            mark = site.folder / "wanted"  # what other settings left behind must be gone
            assert not mark.exists() or mark.read_text() == self.config.wanted
            mark.write_text(self.config.wanted)
        if self.config.wanted == "the impossible":
            raise BackendError("toy: the impossible was wanted")
        time.sleep(self.config.pause)
        site.state.save_json("seen", {client: len(texts) for client, texts in published.items()})
        answers = {}
        for client, texts in published.items():
            new = site.model("llm").generate(list(texts.text), None)
            answers[client] = Texts(tuple(f"{g.text} {site.seed}" for g in new), texts.label)
        return answers

    @client_step
    def learn(self, site, augmented: Texts):
        """Counts."""
        self._begin(f"learn {site.id} {site.seed}")
        time.sleep(self.config.pause)
        rows = site.data.load()
        notes = {"size": site.state.load_json("size"), "texts": list(augmented.text)}
        (site.folder / "model").mkdir(exist_ok=True)
        (site.folder / "model" / "config.json").write_text(f'{{"seed": {site.seed}}}')
        return Outcome({"all": {"rows": float(len(rows) + len(augmented))}}, notes, Model(site.folder / "model"))


def _with_suffix(texts, suffix):
    return Texts(tuple(t + suffix for t in texts.text), texts.label, texts.columns)


class ToyBackend(Backend):
    declared = frozenset({Capability.GENERATE})
    probes = 0

    def __init__(self, options, context):
        super().__init__(options, context)
        self.remote = bool(options.get("remote"))

    @property
    def name(self):
        return "toy"

    def check(self):
        if "model" not in self.options:
            raise RefusedInput("models.llm: `model` is missing; add it")

    def probe(self):
        ToyBackend.probes += 1
        return self.declared

    def generate(self, prompts, sampling, progress=None):
        return [Generation(prompt * 2) for prompt in prompts]


class ToyDataset(Dataset):
    reads = 0

    def load(self):
        ToyDataset.reads += 1
        lines = Path(self.source.path).read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        label = tuple(r[self.source.label] for r in rows) if self.source.label else None
        return Rows(tuple(r[self.source.text] for r in rows), label, tuple(map(str, range(len(rows)))))


class ToyPlugin:
    @hookimpl
    def privkt_methods(self):
        return [MethodSpec("toy", "runtime_toys:Toy")]

    @hookimpl
    def privkt_backends(self):
        return [BackendSpec("toy", "runtime_toys:ToyBackend")]

    @hookimpl
    def privkt_datasets(self):
        return [DatasetSpec("toy", "runtime_toys:ToyDataset")]


def toy_manager(*plugins):
    manager = PluginManager(candidates=())
    for i, plugin in enumerate((ToyPlugin(), *plugins)):
        manager.register(plugin, entry=f"toy{i}")
    return manager


def write_rows(path, texts):
    lines = [json.dumps({"text": text, "label": "xy"[i % 2]}) for i, text in enumerate(texts)]
    path.write_text("\n".join(lines))


def toy_config(folder, *, clients=("a",), rows=6, **changes):
    folder = Path(folder)
    for client in clients:
        path = folder / f"{client}.jsonl"
        if not path.exists():
            write_rows(path, [f"private row {i} of {client}" for i in range(rows)])
    raw = {
        "method": "toy",
        "budget": {"epsilon": 2.0},
        "clients": [
            {
                "name": client,
                "data": {
                    "name": f"data-{client}",
                    "size": rows,
                    "source": "toy",
                    "path": str(folder / f"{client}.jsonl"),
                    "label": "label",
                    "labels": ["x", "y"],
                },
            }
            for client in clients
        ],
        "models": {"llm": {"backend": "toy", "model": "m"}},
        "toy": {},
        "seeds": [0, 1],
    }
    return parse_config({**raw, **changes})


if __name__ == "__main__":  # a process that the tests kill: FOLDER of the data, folder of the run
    data_folder, run_folder = sys.argv[1:3]
    toy = sys.modules["runtime_toys"] = sys.modules["__main__"]
    LocalRuntime(
        toy_config(data_folder, toy={"pause": float(os.environ.get("TOY_PAUSE", "0"))}), run_folder, toy_manager()
    ).run()
